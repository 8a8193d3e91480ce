//! Limits that this process counts by itself (Envoy `local_ratelimit`, as an HTTP and as a network filter).

use std::time::Duration;

use http::StatusCode;

use super::Name;
use super::header::HeaderChange;
use super::matcher::Fraction;
use super::rate_limit::{RateLimit, VirtualHostLimits};

/// Envoy `type.v3.TokenBucket`: full at first, filled evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// `max_tokens`
    pub max_tokens: u32,
    /// `tokens_per_fill`: at least 1
    pub tokens_per_fill: u32,
    /// `fill_interval`: at least 50 ms
    pub fill_interval: Duration,
}

/// Envoy `filters.http.local_ratelimit.v3.LocalRateLimit`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalRateLimit {
    /// `stat_prefix`
    pub stat_prefix: Name,
    /// `status`: what requests beyond the limit get, 400 to 599.
    pub status: StatusCode,
    /// `token_bucket`: for requests that no descriptor is about, and mostly for the others too.
    pub bucket: Option<TokenBucket>,
    /// `filter_enabled`: the share of requests that are counted.
    pub enabled: Fraction,
    /// `filter_enforced`: the share of requests beyond the limit that are refused.
    pub enforced: Fraction,
    /// `request_headers_to_add_when_not_enforced`
    pub request_headers: Vec<HeaderChange>,
    /// `response_headers_to_add`
    pub response_headers: Vec<HeaderChange>,
    /// `descriptors`
    pub descriptors: Vec<DescriptorLimit>,
    /// `stage`
    pub stage: u32,
    /// `local_rate_limit_per_downstream_connection`: whether each connection has buckets of its own.
    pub per_connection: bool,
    /// `enable_x_ratelimit_headers`: whether clients are told.
    pub tells_clients: bool,
    /// `vh_rate_limits`
    pub host_limits: VirtualHostLimits,
    /// `always_consume_default_token_bucket`: whether requests with a descriptor need a token of `bucket` as well.
    pub always_takes_from_bucket: bool,
    /// `rate_limited_as_resource_exhausted`: whether gRPC clients see RESOURCE_EXHAUSTED in place of UNAVAILABLE.
    pub resource_exhausted: bool,
    /// `rate_limits`: how requests are described, in place of what routes say.
    pub rate_limits: Vec<RateLimit>,
    /// `max_dynamic_descriptors`: how many buckets a descriptor that stands for many values has, at least 1.
    pub max_dynamic_descriptors: usize,
}

/// Envoy `LocalRateLimitDescriptor`: requests of this description have a bucket of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// Keys and values, in order; one without a value stands for all values, each with its own bucket.
    pub entries: Vec<(Box<str>, Option<Box<str>>)>,
    /// `token_bucket`
    pub bucket: TokenBucket,
}

/// Envoy `filters.network.local_ratelimit.v3.LocalRateLimit`: new connections beyond it are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRate {
    /// `stat_prefix`
    pub stat_prefix: Name,
    /// `token_bucket`
    pub bucket: TokenBucket,
    /// `share_key`: filters with the same key and bucket share one; empty for a bucket of its own.
    pub share_key: Name,
    /// `runtime_enabled`
    pub enabled: bool,
}
