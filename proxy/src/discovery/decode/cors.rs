//! What routes say to the `cors` filter, which itself says nothing.

use http::HeaderValue;
use xds::envoy::extensions::filters::http::cors::v3::CorsPolicy;

use super::errors::{At, Result, each, optional};
use super::matcher::string_matcher;
use super::value::runtime_fraction;
use crate::config::http_filter;

/// A policy.
pub(super) fn policy(proto: &CorsPolicy) -> Result<http_filter::CorsPolicy> {
    let CorsPolicy {
        allow_origin_string_match: origins,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = proto;
    Ok(http_filter::CorsPolicy {
        allow_origins: each("allow_origin_string_match", origins, string_matcher)?,
        allow_methods: list("allow_methods", allow_methods)?,
        allow_headers: list("allow_headers", allow_headers)?,
        expose_headers: list("expose_headers", expose_headers)?,
        max_age: list("max_age", max_age)?,
        allow_credentials: *allow_credentials,
        enabled: optional("filter_enabled", filter_enabled, runtime_fraction)?,
        shadow_enabled: optional("shadow_enabled", shadow_enabled, runtime_fraction)?,
        allow_private_network_access: *allow_private_network_access,
        forward_not_matching_preflights: *forward_not_matching_preflights,
    })
}

fn list(field: &str, text: &str) -> Result<Option<HeaderValue>> {
    let value = HeaderValue::from_str(text).map_err(|_| String::from("cannot stand in a header"));
    Ok(Some(value.at(field)?).filter(|value| !value.is_empty()))
}
