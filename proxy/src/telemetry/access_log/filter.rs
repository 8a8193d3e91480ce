//! Which requests a log takes (Envoy `AccessLogFilter`).

use super::LogFacts;
use crate::config::access_log::{Comparison, ComparisonOp, LogFilter};
use crate::config::format::millis;

pub(super) fn passes(filter: &LogFilter, facts: &dyn LogFacts) -> bool {
    match filter {
        LogFilter::Status(comparison) => holds(*comparison, u64::from(facts.response_code())),
        LogFilter::Duration(comparison) => holds(*comparison, millis(facts.duration())),
        // Only Envoy's health check filter marks requests, and it is not here.
        LogFilter::NotHealthCheck => true,
        LogFilter::Traceable => facts.is_traced(),
        LogFilter::Fraction(fraction) => fraction.takes(facts.random()),
        LogFilter::Header(matcher) => facts.request().is_some_and(|head| matcher.matches(&head)),
        LogFilter::ResponseFlag(wanted) if wanted.is_empty() => !facts.flags().is_empty(),
        LogFilter::ResponseFlag(wanted) => {
            facts.flags().short_names().any(|set| wanted.iter().any(|flag| **flag == *set))
        }
        LogFilter::GrpcStatus { codes, exclude } => {
            let status = facts.grpc_status().unwrap_or_else(|| from_http(facts.response_code()));
            codes.contains(&status) != *exclude
        }
        LogFilter::And(all) => all.iter().all(|filter| passes(filter, facts)),
        LogFilter::Or(any) => any.iter().any(|filter| passes(filter, facts)),
    }
}

fn holds(comparison: Comparison, actual: u64) -> bool {
    match comparison.op {
        ComparisonOp::Equal => actual == comparison.value,
        ComparisonOp::AtLeast => actual >= comparison.value,
        ComparisonOp::AtMost => actual <= comparison.value,
        ComparisonOp::NotEqual => actual != comparison.value,
    }
}

/// The gRPC status a client makes of a response that carries none (gRPC's http-grpc-status-mapping).
fn from_http(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}
