//! Where data comes from: inline or from a file, and which file holds discovered resources.

use std::path::PathBuf;

use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::config::core::v3::{
    ApiVersion, ConfigSource, DataSource, PathConfigSource, WatchedDirectory,
};

use super::errors::{At, Result, refuse};
use super::value::{enumeration, non_empty};
use crate::config;
use crate::config::source::FileSource;

const NO_MANAGEMENT_SERVER: &str =
    "management servers are not supported by this version; use path_config_source";

/// The file that holds discovered resources.
pub(super) fn file_source(proto: &ConfigSource) -> Result<FileSource> {
    let ConfigSource { config_source_specifier, initial_fetch_timeout: _, resource_api_version } =
        proto;
    if enumeration::<ApiVersion>("resource_api_version", *resource_api_version)? == ApiVersion::V2 {
        return refuse("resource_api_version", "V2 is not supported, as in Envoy; use V3");
    }
    match config_source_specifier {
        Some(ConfigSourceSpecifier::PathConfigSource(source)) => {
            path_config_source(source).at("path_config_source")
        }
        Some(ConfigSourceSpecifier::Path(path)) => {
            let path = PathBuf::from(non_empty("path", path)?);
            Ok(FileSource { path, watched_directory: None })
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => {
            refuse("api_config_source", NO_MANAGEMENT_SERVER)
        }
        Some(ConfigSourceSpecifier::Ads(_)) => refuse("ads", NO_MANAGEMENT_SERVER),
        None => refuse("", "required: say where the resources come from, in path_config_source"),
    }
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

/// Refuses the `ads_config` of a bootstrap.
pub(super) fn no_management_server<T>(field: &str) -> Result<T> {
    refuse(field, NO_MANAGEMENT_SERVER)
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
