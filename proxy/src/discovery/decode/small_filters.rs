//! HTTP filters that have little to say: `buffer`, `csrf`, `health_check`, `set_filter_state`.

use std::sync::Arc;

use xds::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use xds::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{
    Key, SharedWithUpstream, Value,
};
use xds::envoy::extensions::filters::http::buffer::v3::buffer_per_route::Override;
use xds::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute};
use xds::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use xds::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use xds::envoy::extensions::filters::http::set_filter_state::v3::Config as SetFilterState;

use super::access_log::substitution_format;
use super::errors::{At, Result, each, optional, refuse, required};
use super::matcher::{header_matcher, string_matcher};
use super::value::{enumeration, non_empty, percent, positive_duration, runtime_fraction};
use crate::config::access_log::LogFormat;
use crate::config::http_filter;
use crate::config::matcher::Fraction;

/// The only kind of filter state that others read here.
const TEXT: &str = "envoy.string";

/// How large a request may be, in bytes.
pub(super) fn buffer(proto: &Buffer) -> Result<u32> {
    let Buffer { max_request_bytes } = proto;
    match required("max_request_bytes", max_request_bytes)? {
        0 => refuse("max_request_bytes", "must be at least 1"),
        limit => Ok(*limit),
    }
}

/// The same, as a route says it; none means that requests are not waited for.
pub(super) fn buffer_route(proto: &BufferPerRoute) -> Result<Option<u32>> {
    let BufferPerRoute { r#override } = proto;
    match required("disabled or buffer", r#override)? {
        Override::Disabled(true) => Ok(None),
        Override::Disabled(false) => refuse("disabled", "must be true"),
        Override::Buffer(proto) => buffer(proto).at("buffer").map(Some),
    }
}

/// What the `csrf` filter does, and what routes say to it.
pub(super) fn csrf(proto: &CsrfPolicy) -> Result<http_filter::CsrfPolicy> {
    let CsrfPolicy { filter_enabled, shadow_enabled, additional_origins } = proto;
    let none = Fraction { numerator: 0, denominator: 100 };
    let enabled = required("filter_enabled", filter_enabled)?;
    let shadow = optional("shadow_enabled", shadow_enabled, runtime_fraction)?;
    Ok(http_filter::CsrfPolicy {
        enabled: runtime_fraction(enabled).at("filter_enabled")?,
        shadow_enabled: shadow.unwrap_or(none),
        additional_origins: each("additional_origins", additional_origins, string_matcher)?,
    })
}

/// The `health_check` filter.
pub(super) fn health_check(proto: &HealthCheck) -> Result<Arc<http_filter::HealthCheck>> {
    let HealthCheck { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } =
        proto;
    let pass_through = *required("pass_through_mode", pass_through_mode)?;
    if !pass_through && cache_time.is_some() {
        return refuse("cache_time", "must not be set unless pass_through_mode is");
    }
    if pass_through && !cluster_min_healthy_percentages.is_empty() {
        let reason = "must not be set together with pass_through_mode";
        return refuse("cluster_min_healthy_percentages", reason);
    }
    let mut clusters = Vec::new();
    for (cluster, proto) in cluster_min_healthy_percentages {
        let field = format!("cluster_min_healthy_percentages[{cluster:?}]");
        clusters.push((cluster.as_str().into(), percent(&field, Some(proto), 0.0)?));
    }
    clusters.sort_by(|(a, _): &(crate::config::Name, f64), (b, _)| a.cmp(b));
    Ok(Arc::new(http_filter::HealthCheck {
        pass_through,
        cache_time: positive_duration("cache_time", cache_time.as_ref())?,
        clusters,
        headers: each("headers", headers, header_matcher)?,
    }))
}

/// What the `set_filter_state` filter sets, and what routes have it set.
pub(super) fn filter_state(proto: &SetFilterState) -> Result<Vec<http_filter::SetFilterState>> {
    let SetFilterState { on_request_headers } = proto;
    each("on_request_headers", on_request_headers, state_value)
}

fn state_value(proto: &FilterStateValue) -> Result<http_filter::SetFilterState> {
    let FilterStateValue {
        factory_key,
        read_only: _,
        shared_with_upstream,
        skip_if_empty,
        key,
        value,
    } = proto;
    let Key::ObjectKey(key) = required("object_key", key)?;
    let key = non_empty("object_key", key)?;
    if key != TEXT && factory_key != TEXT {
        return refuse("factory_key", "only envoy.string is supported by this version");
    }
    if enumeration::<SharedWithUpstream>("shared_with_upstream", *shared_with_upstream)?
        != SharedWithUpstream::None
    {
        return refuse("shared_with_upstream", "only NONE is supported by this version");
    }
    let Value::FormatString(proto) = required("format_string", value)?;
    match substitution_format(proto).at("format_string")? {
        LogFormat::Text { line, omit_empty } => Ok(http_filter::SetFilterState {
            key: key.into(),
            format: line,
            omits_empty: omit_empty,
            skip_if_empty: *skip_if_empty,
        }),
        LogFormat::Json { .. } => refuse("format_string.json_format", "must be a text"),
    }
}
