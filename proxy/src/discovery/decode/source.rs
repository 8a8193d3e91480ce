//! Where data comes from: inline or from a file, and which file or server has discovered resources.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::core::v3::api_config_source::ApiType;
use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource,
    PathConfigSource, WatchedDirectory,
};

use super::errors::{At, Result, each, refuse};
use super::service::grpc_service;
use super::value::{duration, enumeration, non_empty};
use crate::config;
use crate::config::source::{self, FileSource, GrpcSource, Server, ServerSource};

/// Envoy's default of `initial_fetch_timeout`.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// What holds discovered resources.
pub(super) fn config_source(proto: &ConfigSource) -> Result<source::ConfigSource> {
    let ConfigSource { config_source_specifier, initial_fetch_timeout, resource_api_version } =
        proto;
    if enumeration::<ApiVersion>("resource_api_version", *resource_api_version)? == ApiVersion::V2 {
        return refuse("resource_api_version", "V2 is not supported, as in Envoy; use V3");
    }
    let timeout = initial_fetch_timeout.as_ref().map(duration).transpose();
    let fetch_timeout = timeout.at("initial_fetch_timeout")?.unwrap_or(FETCH_TIMEOUT);
    let from = |server| source::ConfigSource::Server(ServerSource { server, fetch_timeout });
    match config_source_specifier {
        Some(ConfigSourceSpecifier::PathConfigSource(source)) => {
            path_config_source(source).at("path_config_source").map(source::ConfigSource::File)
        }
        Some(ConfigSourceSpecifier::Path(path)) => {
            let path = PathBuf::from(non_empty("path", path)?);
            Ok(source::ConfigSource::File(FileSource { path, watched_directory: None }))
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(source)) => {
            let source = api_config_source(source).at("api_config_source")?;
            Ok(from(Server::Grpc(Arc::new(source))))
        }
        Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})) => Ok(from(Server::Ads)),
        None => refuse("", "required: say where the resources come from"),
    }
}

/// How the management server of one kind of resources is asked.
fn api_config_source(proto: &ApiConfigSource) -> Result<GrpcSource> {
    grpc_source(proto, false)
}

/// How the management server of all kinds of resources is asked. Its version may be left out, as in Envoy.
pub(super) fn ads_config(proto: &ApiConfigSource) -> Result<GrpcSource> {
    grpc_source(proto, true)
}

fn grpc_source(proto: &ApiConfigSource, any_version: bool) -> Result<GrpcSource> {
    let ApiConfigSource {
        api_type,
        transport_api_version,
        grpc_services,
        set_node_on_first_message_only,
    } = proto;
    let delta = match enumeration("api_type", *api_type)? {
        ApiType::Grpc => false,
        ApiType::DeltaGrpc => true,
        _ => return refuse("api_type", "only GRPC and DELTA_GRPC are supported here"),
    };
    match enumeration("transport_api_version", *transport_api_version)? {
        ApiVersion::V3 => {}
        ApiVersion::Auto if any_version => {}
        _ => return refuse("transport_api_version", "must be V3, as in Envoy"),
    }
    let services = each("grpc_services", grpc_services, grpc_service)?;
    if services.is_empty() {
        return refuse("grpc_services", "required");
    }
    Ok(GrpcSource { services, delta, node_on_first_message_only: *set_node_on_first_message_only })
}

fn path_config_source(proto: &PathConfigSource) -> Result<FileSource> {
    let PathConfigSource { path, watched_directory } = proto;
    let path = PathBuf::from(non_empty("path", path)?);
    let watched_directory = match watched_directory {
        Some(WatchedDirectory { path }) => {
            Some(PathBuf::from(non_empty("watched_directory.path", path)?))
        }
        None => None,
    };
    Ok(FileSource { path, watched_directory })
}

/// Data that TLS reads when it builds a context.
pub(super) fn data_source(proto: &DataSource) -> Result<config::tls::DataSource> {
    let DataSource { watched_directory: _, specifier } = proto;
    Ok(match specifier {
        Some(Specifier::Filename(path)) => {
            config::tls::DataSource::File(PathBuf::from(non_empty("filename", path)?))
        }
        Some(Specifier::InlineBytes(bytes)) => config::tls::DataSource::Inline(bytes.clone()),
        Some(Specifier::InlineString(text)) => {
            config::tls::DataSource::Inline(text.clone().into_bytes())
        }
        Some(Specifier::EnvironmentVariable(name)) => config::tls::DataSource::Environment(
            non_empty("environment_variable", name)?.to_owned(),
        ),
        None => return refuse("", "required: filename, inline_string, or another source"),
    })
}

/// The bytes of a source, read now: they are part of the configuration.
pub(super) fn contents(proto: &DataSource) -> Result<Vec<u8>> {
    match data_source(proto)? {
        config::tls::DataSource::Inline(bytes) => Ok(bytes),
        config::tls::DataSource::File(path) => std::fs::read(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))
            .at("filename"),
        config::tls::DataSource::Environment(name) => std::env::var(&name)
            .map(String::into_bytes)
            .map_err(|error| format!("{name}: {error}"))
            .at("environment_variable"),
    }
}
