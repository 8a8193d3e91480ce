//! The `fault` filter, and what routes say to it, which is the same.

use http::StatusCode;
use xds::envoy::extensions::filters::common::fault::v3::fault_delay::{
    FaultDelaySecifier as DelayKind, HeaderDelay,
};
use xds::envoy::extensions::filters::common::fault::v3::fault_rate_limit::{
    FixedLimit, HeaderLimit, LimitType,
};
use xds::envoy::extensions::filters::common::fault::v3::{FaultDelay, FaultRateLimit};
use xds::envoy::extensions::filters::http::fault::v3::fault_abort::{ErrorType, HeaderAbort};
use xds::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use xds::envoy::r#type::v3::FractionalPercent;

use super::errors::{At, Result, each, optional, refuse, required};
use super::matcher::header_matcher;
use super::metadata::json;
use super::value::{duration, fraction};
use crate::config::fault::{Abort, Delay, Fault, Rate};
use crate::config::matcher::Fraction;

/// A fault.
pub(super) fn fault(proto: &HttpFault) -> Result<Fault> {
    let HttpFault {
        delay: delay_proto,
        abort: abort_proto,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime: _,
        abort_percent_runtime: _,
        delay_duration_runtime: _,
        abort_http_status_runtime: _,
        max_active_faults_runtime: _,
        response_rate_limit_percent_runtime: _,
        abort_grpc_status_runtime: _,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = proto;
    Ok(Fault {
        delay: optional("delay", delay_proto, delay)?,
        abort: optional("abort", abort_proto, abort)?,
        rate: optional("response_rate_limit", response_rate_limit, rate)?,
        upstream_cluster: upstream_cluster.as_str().into(),
        headers: each("headers", headers, header_matcher)?,
        downstream_nodes: downstream_nodes.iter().map(|node| node.as_str().into()).collect(),
        max_active: *max_active_faults,
        counts_clusters: !disable_downstream_cluster_stats,
        metadata: filter_metadata.as_ref().map(json).filter(|metadata| !metadata.is_empty()),
    })
}

fn delay(proto: &FaultDelay) -> Result<(Delay, Fraction)> {
    let FaultDelay { fault_delay_secifier, percentage } = proto;
    let delay = match required("fixed_delay or header_delay", fault_delay_secifier)? {
        DelayKind::FixedDelay(fixed) => match duration(fixed).at("fixed_delay")? {
            delay if delay.is_zero() => return refuse("fixed_delay", "must be longer than 0s"),
            delay => Delay::Fixed(delay),
        },
        DelayKind::HeaderDelay(HeaderDelay {}) => Delay::Header,
    };
    Ok((delay, share(percentage)?))
}

fn abort(proto: &FaultAbort) -> Result<(Abort, Fraction)> {
    let FaultAbort { error_type, percentage } = proto;
    let kind = required("http_status, grpc_status or header_abort", error_type)?;
    let abort = match kind {
        ErrorType::HttpStatus(status @ 200..600) => {
            let status = u16::try_from(*status).ok().and_then(|it| StatusCode::from_u16(it).ok());
            Abort::Http(status.unwrap_or_default())
        }
        ErrorType::HttpStatus(_) => return refuse("http_status", "must be 200 to 599"),
        ErrorType::GrpcStatus(status) => Abort::Grpc(*status),
        ErrorType::HeaderAbort(HeaderAbort {}) => Abort::Header,
    };
    Ok((abort, share(percentage)?))
}

fn rate(proto: &FaultRateLimit) -> Result<(Rate, Fraction)> {
    let FaultRateLimit { limit_type, percentage } = proto;
    let rate = match required("fixed_limit or header_limit", limit_type)? {
        LimitType::FixedLimit(FixedLimit { limit_kbps: 0 }) => {
            return refuse("fixed_limit.limit_kbps", "must be at least 1");
        }
        LimitType::FixedLimit(FixedLimit { limit_kbps }) => Rate::Fixed(*limit_kbps),
        LimitType::HeaderLimit(HeaderLimit {}) => Rate::Header,
    };
    Ok((rate, share(percentage)?))
}

/// The share of requests; none at all unless it is said.
fn share(proto: &Option<FractionalPercent>) -> Result<Fraction> {
    let none = Fraction { numerator: 0, denominator: 100 };
    Ok(optional("percentage", proto, fraction)?.unwrap_or(none))
}
