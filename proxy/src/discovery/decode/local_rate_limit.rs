//! Limits that this process counts by itself: the HTTP filter, what routes say to it, and the network filter.

use std::sync::Arc;

use http::StatusCode;
use xds::envoy::config::core::v3::HeaderValueOption;
use xds::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use xds::envoy::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, VhRateLimitsOptions, XRateLimitHeadersRfcVersion,
};
use xds::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use xds::envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit as NetworkLocalRateLimit;
use xds::envoy::r#type::v3::{HttpStatus, TokenBucket};

use super::errors::{At, Result, each, optional, refuse, required};
use super::header::to_add;
use super::rate_limit::{own_rate_limits, stage};
use super::value::{duration, enumeration, feature, name, runtime_fraction};
use crate::config::header::HeaderChange;
use crate::config::local_rate_limit::{self, ConnectionRate, DescriptorLimit};
use crate::config::matcher::Fraction;
use crate::config::rate_limit::VirtualHostLimits;

/// The shortest time in which a bucket is filled, in milliseconds.
const SHORTEST_FILL: u128 = 50;
/// As many headers a refusal may add.
const MOST_HEADERS: usize = 10;
/// How many buckets a descriptor without a value has, unless that is said.
const DYNAMIC_DESCRIPTORS: u32 = 20;
const NONE: Fraction = Fraction { numerator: 0, denominator: 100 };

/// What a route says to the filter, which is all that the filter itself may say, and a bucket.
pub(super) fn route(proto: &LocalRateLimit) -> Result<Arc<local_rate_limit::LocalRateLimit>> {
    if proto.token_bucket.is_none() {
        return refuse("token_bucket", "required where a route says what the filter does");
    }
    filter(proto)
}

/// The HTTP filter.
pub(super) fn filter(proto: &LocalRateLimit) -> Result<Arc<local_rate_limit::LocalRateLimit>> {
    let LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced: request_headers,
        response_headers_to_add: response_headers,
        descriptors,
        stage: at,
        local_rate_limit_per_downstream_connection,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
    } = proto;
    let headers: XRateLimitHeadersRfcVersion =
        enumeration("enable_x_ratelimit_headers", *enable_x_ratelimit_headers)?;
    let most = max_dynamic_descriptors.unwrap_or(DYNAMIC_DESCRIPTORS);
    if most == 0 {
        return refuse("max_dynamic_descriptors", "must be at least 1");
    }
    Ok(Arc::new(local_rate_limit::LocalRateLimit {
        stat_prefix: name("stat_prefix", stat_prefix)?,
        status: optional("status", status, refusal)?.unwrap_or(StatusCode::TOO_MANY_REQUESTS),
        bucket: optional("token_bucket", token_bucket, bucket)?,
        enabled: optional("filter_enabled", filter_enabled, runtime_fraction)?.unwrap_or(NONE),
        enforced: optional("filter_enforced", filter_enforced, runtime_fraction)?.unwrap_or(NONE),
        request_headers: added("request_headers_to_add_when_not_enforced", request_headers)?,
        response_headers: added("response_headers_to_add", response_headers)?,
        descriptors: descriptor_limits(descriptors)?,
        stage: stage("stage", Some(*at))?,
        per_connection: *local_rate_limit_per_downstream_connection,
        tells_clients: headers == XRateLimitHeadersRfcVersion::DraftVersion03,
        host_limits: match enumeration("vh_rate_limits", *vh_rate_limits)? {
            VhRateLimitsOptions::Override => VirtualHostLimits::Override,
            VhRateLimitsOptions::Include => VirtualHostLimits::Include,
            VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
        },
        always_takes_from_bucket: always_consume_default_token_bucket.unwrap_or(true),
        resource_exhausted: *rate_limited_as_resource_exhausted,
        rate_limits: own_rate_limits(rate_limits)?,
        max_dynamic_descriptors: most as usize,
    }))
}

/// The network filter.
pub(super) fn network_filter(proto: &NetworkLocalRateLimit) -> Result<ConnectionRate> {
    let NetworkLocalRateLimit { stat_prefix, token_bucket, runtime_enabled, share_key } = proto;
    let enabled = optional("runtime_enabled", runtime_enabled, feature)?;
    Ok(ConnectionRate {
        stat_prefix: name("stat_prefix", stat_prefix)?,
        bucket: bucket(required("token_bucket", token_bucket)?).at("token_bucket")?,
        share_key: share_key.as_str().into(),
        enabled: enabled.unwrap_or(true),
    })
}

/// What those beyond the limit get: any error, or 429.
fn refusal(proto: &HttpStatus) -> Result<StatusCode> {
    let HttpStatus { code } = proto;
    let _: xds::envoy::r#type::v3::StatusCode = enumeration("code", *code)?;
    let status = u16::try_from(*code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    Ok(status.filter(|it| it.as_u16() >= 400).unwrap_or(StatusCode::TOO_MANY_REQUESTS))
}

fn bucket(proto: &TokenBucket) -> Result<local_rate_limit::TokenBucket> {
    let TokenBucket { max_tokens, tokens_per_fill, fill_interval } = proto;
    let interval = duration(required("fill_interval", fill_interval)?).at("fill_interval")?;
    if interval.as_millis() < SHORTEST_FILL {
        return refuse("fill_interval", "must be at least 0.05s");
    }
    let tokens_per_fill = tokens_per_fill.unwrap_or(1);
    if tokens_per_fill == 0 {
        return refuse("tokens_per_fill", "must be at least 1");
    }
    Ok(local_rate_limit::TokenBucket {
        max_tokens: *max_tokens,
        tokens_per_fill,
        fill_interval: interval,
    })
}

fn added(field: &str, protos: &[HeaderValueOption]) -> Result<Vec<HeaderChange>> {
    if protos.len() > MOST_HEADERS {
        return refuse(field, format!("must be at most {MOST_HEADERS}"));
    }
    each(field, protos, |proto| to_add(proto).map(HeaderChange::Add))
}

fn descriptor_limits(protos: &[LocalRateLimitDescriptor]) -> Result<Vec<DescriptorLimit>> {
    let limits = each("descriptors", protos, descriptor_limit)?;
    for (index, limit) in limits.iter().enumerate() {
        if limits.iter().take(index).any(|before| before.entries == limit.entries) {
            return refuse(&format!("descriptors[{index}]"), "there is one with these entries");
        }
    }
    Ok(limits)
}

fn descriptor_limit(proto: &LocalRateLimitDescriptor) -> Result<DescriptorLimit> {
    let LocalRateLimitDescriptor { entries, token_bucket } = proto;
    if entries.is_empty() {
        return refuse("entries", "at least one is required");
    }
    let entry = |Entry { key, value }: &Entry| {
        let key = super::value::non_empty("key", key)?.into();
        Ok((key, super::value::unless_empty(value)))
    };
    Ok(DescriptorLimit {
        entries: each("entries", entries, entry)?,
        bucket: bucket(required("token_bucket", token_bucket)?).at("token_bucket")?,
    })
}
