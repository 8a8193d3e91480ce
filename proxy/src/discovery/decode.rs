//! Envoy's messages become validated configuration: every field is honoured, knowingly ignored, or refused with its path.
//!
//! The readers of the `xds` crate have already refused what the subset does not declare. Here each message is
//! taken apart without `..`, so a field added to the subset does not compile before someone decides about it;
//! `name: _` marks a field whose declaration says why it is ignored. Paths are relative to the resource.

mod access_log;
mod address;
mod bootstrap;
mod circuit_breaker;
mod cluster;
mod cluster_type;
mod compressor;
mod connecting;
mod cors;
mod decompressor;
mod dns;
mod endpoint;
mod errors;
mod expression;
mod ext_authz;
mod extension;
mod fault;
mod filter_chain;
mod forward_proxy;
mod global_rate_limit;
mod grpc_stats;
mod hash_lb;
mod hash_policy;
mod header;
mod header_mutation;
mod header_rules;
mod health_check;
mod http;
mod http_filter;
mod http_options;
mod internal_redirect;
mod istio;
mod jwt_authn;
mod listener;
mod listener_filter;
mod load_balancing;
mod local_rate_limit;
mod matcher;
mod metadata;
mod mirror;
mod original_dst;
mod outlier;
mod overlap;
mod overload;
mod proxy_protocol;
mod rate_limit;
mod rbac;
mod redirect;
mod retry;
mod rewrite;
mod route;
mod route_action;
mod route_match;
mod runtime;
mod service;
mod small_filters;
mod socket_option;
mod source;
mod stateful_session;
mod statistics;
mod subset;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;
mod tracing;
mod upstream_http;
mod value;

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::{HeaderMatcher, RouteConfiguration};
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;

use crate::config::{self, Invalid};

/// Decodes a bootstrap file; paths start at its root, for example `static_resources.listeners[0].name`.
///
/// # Errors
/// Every refused field that could be found; never empty.
pub fn bootstrap(proto: &Bootstrap) -> Result<config::bootstrap::Bootstrap, Vec<Invalid>> {
    bootstrap::bootstrap(proto).map_err(errors::Errors::into_vec)
}

/// Decodes a listener.
///
/// # Errors
/// As [`bootstrap()`].
pub fn listener(proto: &Listener) -> Result<config::listener::Listener, Vec<Invalid>> {
    listener::listener(proto).map_err(errors::Errors::into_vec)
}

/// Decodes a route table.
///
/// # Errors
/// As [`bootstrap()`].
pub fn route_config(
    proto: &RouteConfiguration,
) -> Result<config::route::RouteConfig, Vec<Invalid>> {
    route::route_config(proto).map_err(errors::Errors::into_vec)
}

/// Decodes a header matcher.
///
/// # Errors
/// As [`bootstrap()`].
pub fn header_matcher(
    proto: &HeaderMatcher,
) -> Result<config::matcher::HeaderMatcher, Vec<Invalid>> {
    matcher::header_matcher(proto).map_err(errors::Errors::into_vec)
}

pub use crate::net::structure::json;

/// Decodes a cluster.
///
/// # Errors
/// As [`bootstrap()`].
pub fn cluster(proto: &Cluster) -> Result<config::cluster::Cluster, Vec<Invalid>> {
    cluster::cluster(proto).map_err(errors::Errors::into_vec)
}

/// Decodes the endpoints of a cluster.
///
/// # Errors
/// As [`bootstrap()`].
pub fn load_assignment(
    proto: &ClusterLoadAssignment,
) -> Result<config::endpoint::LoadAssignment, Vec<Invalid>> {
    endpoint::load_assignment(proto).map_err(errors::Errors::into_vec)
}

/// Checks a discovered filter as far as that is possible without its chain.
///
/// # Errors
/// As [`bootstrap()`].
pub fn extension(proto: TypedExtensionConfig) -> Result<TypedExtensionConfig, Vec<Invalid>> {
    let nowhere = config::Name::from("");
    http_filter::found(&proto, &nowhere).map_err(errors::Errors::into_vec)?;
    Ok(proto)
}

/// What a discovered filter does in the connection manager with this `stat_prefix`; none if nothing.
///
/// # Errors
/// As [`bootstrap()`], and if it is of none of these `types`.
pub fn discovered_filter(
    proto: &TypedExtensionConfig,
    types: &[Box<str>],
    stat_prefix: &config::Name,
) -> Result<Option<config::http_filter::FilterKind>, Vec<Invalid>> {
    http_filter::of_types(proto, types)
        .and_then(|()| http_filter::found(proto, stat_prefix))
        .map_err(errors::Errors::into_vec)
}

/// Decodes a secret.
///
/// # Errors
/// As [`bootstrap()`].
pub fn secret(proto: &Secret) -> Result<config::tls::Secret, Vec<Invalid>> {
    tls::secret(proto).map_err(errors::Errors::into_vec)
}
