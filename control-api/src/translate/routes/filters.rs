//! What filters do for one route: faults and CORS.

use xds::envoy::config::core::v3::RuntimeFractionalPercent;
use xds::envoy::extensions::filters::common::fault::v3::FaultDelay;
use xds::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use xds::envoy::extensions::filters::http::cors::v3::CorsPolicy as EnvoyCors;
use xds::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use xds::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use xds::envoy::r#type::v3::FractionalPercent;
use xds::envoy::r#type::v3::fractional_percent::DenominatorType;

use super::matching;
use crate::model::istio::virtual_service::{
    Abort, CorsPolicy, Delay, HttpFaultInjection, Percent, StringMatch, UnmatchedPreflights,
};
use crate::translate::values;

/// gRPC's status codes by name, in the order of their numbers.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A share of a hundred, exact to a millionth.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a percentage times ten thousand; what is out of range saturates"
)]
pub(super) fn percent(share: Percent) -> FractionalPercent {
    FractionalPercent {
        numerator: (share.value * 10_000.0) as u32,
        denominator: DenominatorType::Million.into(),
    }
}

/// A share of a hundred.
pub(super) fn whole_percent(numerator: u32) -> FractionalPercent {
    FractionalPercent { numerator, denominator: DenominatorType::Hundred.into() }
}

/// Faults; none if there is nothing that Envoy can do.
pub(super) fn fault(wanted: &HttpFaultInjection) -> Option<HttpFault> {
    let delay = wanted.delay.as_ref().and_then(delay);
    let abort = wanted.abort.as_ref().and_then(abort);
    if delay.is_none() && abort.is_none() {
        return None;
    }
    Some(HttpFault { delay, abort, ..HttpFault::default() })
}

fn delay(wanted: &Delay) -> Option<FaultDelay> {
    let whole = u32::try_from(wanted.percent).unwrap_or(0);
    Some(FaultDelay {
        percentage: Some(wanted.percentage.map_or_else(|| whole_percent(whole), percent)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(values::duration(
            wanted.fixed_delay?,
        ))),
    })
}

fn abort(wanted: &Abort) -> Option<FaultAbort> {
    let error = if let Some(status) = wanted.http_status {
        ErrorType::HttpStatus(u32::try_from(status).ok()?)
    } else {
        let name = wanted.grpc_status.as_deref()?;
        let code = GRPC_STATUS.iter().position(|it| *it == name)?;
        ErrorType::GrpcStatus(u32::try_from(code).ok()?)
    };
    Some(FaultAbort { percentage: wanted.percentage.map(percent), error_type: Some(error) })
}

/// Who may use answers from other origins.
pub(super) fn cors(wanted: &CorsPolicy) -> EnvoyCors {
    let exact: Vec<StringMatch>;
    let origins = if wanted.allow_origins.is_empty() {
        exact = wanted.allow_origin.iter().cloned().map(StringMatch::Exact).collect();
        &exact
    } else {
        &wanted.allow_origins
    };
    let always = RuntimeFractionalPercent {
        default_value: Some(whole_percent(100)),
        ..RuntimeFractionalPercent::default()
    };
    EnvoyCors {
        allow_origin_string_match: origins.iter().filter_map(matching::string).collect(),
        allow_methods: wanted.allow_methods.join(","),
        allow_headers: wanted.allow_headers.join(","),
        expose_headers: wanted.expose_headers.join(","),
        max_age: wanted.max_age.map_or_else(String::new, |it| it.as_secs().to_string()),
        allow_credentials: wanted.allow_credentials,
        filter_enabled: Some(always),
        forward_not_matching_preflights: Some(
            wanted.unmatched_preflights != UnmatchedPreflights::Ignore,
        ),
        ..EnvoyCors::default()
    }
}
