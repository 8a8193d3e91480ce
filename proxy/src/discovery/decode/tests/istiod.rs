//! What a running istiod sent to its proxies, from the folder `../shared/suites` or `SUITES_DIR`: every resource is
//! accepted. Skipped where it is absent.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use prost::{Message, Name};
use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::http::router::v3::Router;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds::strict;

use super::super::errors::Errors;
use super::super::{
    cluster, extension, http_filter, listener, load_assignment, route_config, secret,
};
use super::examples::suite;
use crate::config::Invalid;

#[test]
fn what_istiod_sends_is_accepted() {
    let Some(folder) = suite("istiod-1.30-ads") else { return };
    let mut files = Vec::new();
    responses(&folder, &mut files);
    let mut seen = HashSet::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        for resource in resources(file) {
            if !seen.insert(resource.encode_to_vec()) {
                continue;
            }
            for error in errors(&resource) {
                *refused.entry(error).or_default() += 1;
            }
        }
    }
    assert!(seen.len() > 700, "only {} resources in {} responses", seen.len(), files.len());
    let lines: Vec<_> =
        refused.iter().map(|(error, count)| format!("{count:>5} {error}")).collect();
    assert!(refused.is_empty(), "refused:\n{}", lines.join("\n"));
}

/// The recorded responses below `folder`, but for those of istiod's agent.
fn responses(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "ca" {
            responses(&path, into);
        } else if name.ends_with(".pb") && !name.ends_with("-nds.pb") {
            into.push(path);
        }
    }
}

fn resources(file: &Path) -> Vec<Any> {
    let bytes = std::fs::read(file).unwrap();
    if file.parent().is_some_and(|folder| folder.ends_with("delta")) {
        let response = DeltaDiscoveryResponse::decode(&*bytes).unwrap();
        response.resources.into_iter().filter_map(|it| it.resource).collect()
    } else {
        DiscoveryResponse::decode(&*bytes).unwrap().resources
    }
}

/// Why `resource` is refused, without the numbers of list items.
fn errors(resource: &Any) -> Vec<String> {
    let undeclared = strict::check(resource).err().unwrap_or_default();
    let errors: Vec<_> = undeclared.iter().map(ToString::to_string).collect();
    let errors = match errors.is_empty() {
        true => refusals(resource).iter().map(ToString::to_string).collect(),
        false => errors,
    };
    let (_, kind) = resource.type_url.rsplit_once('.').unwrap();
    errors.iter().map(|error| format!("{kind}: {}", without_numbers(error))).collect()
}

fn refusals(resource: &Any) -> Vec<Invalid> {
    fn of<M: Message + Name + Default, T>(
        any: &Any,
        decode: impl FnOnce(&M) -> Result<T, Vec<Invalid>>,
    ) -> Option<Vec<Invalid>> {
        let proto = extension::unpack::<M>(any).unwrap()?;
        Some(decode(&proto).err().unwrap_or_default())
    }
    None.or_else(|| of::<Listener, _>(resource, listener))
        .or_else(|| of::<Cluster, _>(resource, cluster))
        .or_else(|| of::<RouteConfiguration, _>(resource, route_config))
        .or_else(|| of::<ClusterLoadAssignment, _>(resource, load_assignment))
        .or_else(|| of::<Secret, _>(resource, secret))
        .or_else(|| of::<TypedExtensionConfig, _>(resource, filter_config))
        .unwrap_or_else(|| vec![Invalid::new("", format!("no decoder for {}", resource.type_url))])
}

/// A discovered configuration of an HTTP filter.
fn filter_config(proto: &TypedExtensionConfig) -> Result<(), Vec<Invalid>> {
    let TypedExtensionConfig { name, typed_config } = proto;
    let filter = |name: &str, any: Any| HttpFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(any)),
        ..HttpFilter::default()
    };
    let router = Any::from_msg(&Router::default()).unwrap();
    let filters = [filter(name, typed_config.clone().unwrap()), filter("router", router)];
    http_filter::filters(&filters, &"".into()).map(drop).map_err(Errors::into_vec)
}

fn without_numbers(error: &str) -> String {
    let mut text = String::new();
    for (index, part) in error.split('[').enumerate() {
        match part.split_once(']') {
            Some((number, rest)) if index > 0 && number.bytes().all(|it| it.is_ascii_digit()) => {
                text.push_str("[]");
                text.push_str(rest);
            }
            _ if index > 0 => {
                text.push('[');
                text.push_str(part);
            }
            _ => text.push_str(part),
        }
    }
    text
}
