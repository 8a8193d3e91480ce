//! Limits that a service counts, as configured: the `ratelimit` filter.

use http::StatusCode;

use super::Name;
use super::header::HeaderChange;
use super::matcher::Fraction;
use super::rate_limit::{RateLimit, VirtualHostLimits};
use super::service::GrpcService;

/// Envoy `filters.http.ratelimit.v3.RateLimit`.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalRateLimit {
    /// `rate_limit_service.grpc_service`; its timeout is the filter's, and always there.
    pub service: GrpcService,
    /// `domain`
    pub domain: Box<str>,
    /// `stage`: which limits of routes are heeded, 0 to 10.
    pub stage: u32,
    /// `request_type`
    pub requests: RequestType,
    /// `rate_limits`: the filter's own limits, in place of those of routes; mostly empty.
    pub rate_limits: Vec<RateLimit>,
    /// `filter_enabled`: the share of requests that the service is asked about.
    pub enabled: Fraction,
    /// `filter_enforced`: the share of those beyond a limit that are refused.
    pub enforced: Fraction,
    /// `failure_mode_deny` or `failure_mode_deny_percent`: the share of requests refused when the service does not
    /// answer.
    pub deny_on_error: Fraction,
    /// `status_on_error`
    pub status_on_error: StatusCode,
    /// `rate_limited_status`, at least 400.
    pub limited_status: StatusCode,
    /// `rate_limited_as_resource_exhausted`, for gRPC clients.
    pub resource_exhausted: bool,
    /// `enable_x_ratelimit_headers`: whether clients are told what is left for them.
    pub tells_clients: bool,
    /// Not `disable_x_envoy_ratelimited_header`.
    pub marks_responses: bool,
    /// `response_headers_to_add`, of refusals.
    pub response_headers: Vec<HeaderChange>,
    /// `stat_prefix`; may be empty.
    pub stat_prefix: Name,
}

/// Which requests are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestType {
    /// `both`
    Both,
    /// `internal`
    Internal,
    /// `external`
    External,
}

/// What a route says to the filter (Envoy `RateLimitPerRoute`).
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRateLimit {
    /// `vh_rate_limits`
    pub hosts: VirtualHostLimits,
    /// `rate_limits`, in place of all others; mostly empty.
    pub rate_limits: Vec<RateLimit>,
    /// `domain`, in place of the filter's.
    pub domain: Option<Box<str>>,
}
