//! The `ratelimit` filter, which asks a service, and what routes say to it.

use std::time::Duration;

use http::StatusCode;
use xds::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use xds::envoy::extensions::filters::http::ratelimit::v3::rate_limit::XRateLimitHeadersRfcVersion;
use xds::envoy::extensions::filters::http::ratelimit::v3::rate_limit_per_route::VhRateLimitsOptions;
use xds::envoy::extensions::filters::http::ratelimit::v3::{RateLimit, RateLimitPerRoute};

use super::errors::{At, Result, each, optional, refuse, required};
use super::ext_authz::api_version;
use super::header::to_add;
use super::rate_limit::{own_rate_limits, stage};
use super::service::grpc_service;
use super::value::{
    enumeration, http_status, non_empty, positive_duration, runtime_fraction, unless_empty,
};
use crate::config::global_rate_limit::{GlobalRateLimit, RequestType, RouteRateLimit};
use crate::config::header::HeaderChange;
use crate::config::matcher::Fraction;
use crate::config::rate_limit::VirtualHostLimits;
use crate::config::service::GrpcService;

/// How long the service may take if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_millis(20);
const ALL: Fraction = Fraction { numerator: 1, denominator: 1 };
const NONE: Fraction = Fraction { numerator: 0, denominator: 1 };

/// The filter.
pub(super) fn filter(proto: &RateLimit) -> Result<GlobalRateLimit> {
    let RateLimit {
        domain,
        stage: of_stage,
        request_type: requests,
        timeout,
        failure_mode_deny,
        rate_limited_as_resource_exhausted,
        rate_limit_service,
        enable_x_ratelimit_headers,
        disable_x_envoy_ratelimited_header,
        rate_limited_status: limited,
        response_headers_to_add,
        status_on_error,
        stat_prefix,
        filter_enabled,
        filter_enforced,
        failure_mode_deny_percent: deny_share,
        rate_limits,
    } = proto;
    let rfc: XRateLimitHeadersRfcVersion =
        enumeration("enable_x_ratelimit_headers", *enable_x_ratelimit_headers)?;
    let limited =
        http_status("rate_limited_status", limited.as_ref(), StatusCode::TOO_MANY_REQUESTS)?;
    let is_error = limited.is_client_error() || limited.is_server_error();
    let error = StatusCode::INTERNAL_SERVER_ERROR;
    let deny_share = optional("failure_mode_deny_percent", deny_share, runtime_fraction)?;
    let add = |proto: &_| to_add(proto).map(HeaderChange::Add);
    let service = required("rate_limit_service", rate_limit_service)?;
    Ok(GlobalRateLimit {
        service: GrpcService {
            timeout: positive_duration("timeout", timeout.as_ref())?.or(Some(TIMEOUT)),
            ..rate_limit_service_of(service).at("rate_limit_service")?
        },
        domain: non_empty("domain", domain)?.into(),
        stage: stage("stage", Some(*of_stage))?,
        requests: request_type(requests).at("request_type")?,
        rate_limits: own_rate_limits(rate_limits)?,
        enabled: optional("filter_enabled", filter_enabled, runtime_fraction)?.unwrap_or(ALL),
        enforced: optional("filter_enforced", filter_enforced, runtime_fraction)?.unwrap_or(ALL),
        deny_on_error: deny_share.unwrap_or(if *failure_mode_deny { ALL } else { NONE }),
        status_on_error: http_status("status_on_error", status_on_error.as_ref(), error)?,
        // As in Envoy, what is no error does not do.
        limited_status: if is_error { limited } else { StatusCode::TOO_MANY_REQUESTS },
        resource_exhausted: *rate_limited_as_resource_exhausted,
        tells_clients: rfc == XRateLimitHeadersRfcVersion::DraftVersion03,
        marks_responses: !disable_x_envoy_ratelimited_header,
        response_headers: each("response_headers_to_add", response_headers_to_add, add)?,
        stat_prefix: stat_prefix.as_str().into(),
    })
}

fn rate_limit_service_of(proto: &RateLimitServiceConfig) -> Result<GrpcService> {
    let RateLimitServiceConfig { grpc_service: service, transport_api_version } = proto;
    api_version(*transport_api_version)?;
    grpc_service(required("grpc_service", service)?).at("grpc_service")
}

fn request_type(text: &str) -> Result<RequestType> {
    Ok(match text {
        "" | "both" => RequestType::Both,
        "internal" => RequestType::Internal,
        "external" => RequestType::External,
        _ => return refuse("", "must be internal, external or both"),
    })
}

/// What a route says to the filter.
pub(super) fn route(proto: &RateLimitPerRoute) -> Result<RouteRateLimit> {
    let RateLimitPerRoute { vh_rate_limits, rate_limits, domain } = proto;
    Ok(RouteRateLimit {
        hosts: match enumeration("vh_rate_limits", *vh_rate_limits)? {
            VhRateLimitsOptions::Override => VirtualHostLimits::Override,
            VhRateLimitsOptions::Include => VirtualHostLimits::Include,
            VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
        },
        rate_limits: own_rate_limits(rate_limits)?,
        domain: unless_empty(domain),
    })
}
