//! The filters that policies put into a proxy's filter chains, whether a sidecar's inbound ones or a gateway's.

use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::proxy::Proxy;
use super::{attachment, authorization, jwt};
use crate::model::istio::request_authentication::RequestAuthentication;
use crate::model::{Found, Mesh};

/// The filters of `AuthorizationPolicy` and `RequestAuthentication` for requests, in their order: they come before all
/// others.
pub fn http_filters(mesh: &Mesh, proxy: &Proxy) -> Vec<HttpFilter> {
    let mut filters = authorization::custom_http(mesh, proxy);
    filters.extend(jwt::filter(mesh, proxy));
    filters.extend(authorization::http(mesh, proxy));
    filters
}

/// The filters of `AuthorizationPolicy` for connections without HTTP, in their order: they come before all others.
pub fn network_filters(mesh: &Mesh, proxy: &Proxy) -> Vec<Filter> {
    let mut filters = authorization::custom_network(mesh, proxy);
    filters.extend(authorization::network(mesh, proxy));
    filters
}

/// The policies that say which tokens a proxy believes.
pub fn request_authentications<'m>(
    mesh: &'m Mesh,
    proxy: &Proxy,
) -> Vec<Found<'m, RequestAuthentication>> {
    attachment::policies(mesh, proxy)
}
