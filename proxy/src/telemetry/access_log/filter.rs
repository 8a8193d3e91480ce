//! Which requests a log takes (Envoy `AccessLogFilter`).

use super::Event;
use crate::config::access_log::{Comparison, ComparisonOp, LogFilter};
use crate::config::format::millis;
use crate::config::metadata::{MetadataMatcher, MetadataOf};

pub(super) fn passes(filter: &LogFilter, event: &Event<'_>) -> bool {
    let facts = event.facts;
    match filter {
        LogFilter::Status(comparison) => holds(*comparison, u64::from(facts.response_code())),
        LogFilter::Duration(comparison) => holds(*comparison, millis(facts.duration())),
        LogFilter::NotHealthCheck => !facts.is_health_check(),
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
        LogFilter::Metadata { matcher, if_absent } => {
            let found = matcher.as_ref().and_then(|matcher| matches_metadata(matcher, event));
            found.unwrap_or(*if_absent)
        }
        LogFilter::Kind { kinds, exclude } => kinds.contains(&event.kind) != *exclude,
        LogFilter::Expression(expression) => expression.holds(event),
        LogFilter::And(all) => all.iter().all(|filter| passes(filter, event)),
        LogFilter::Or(any) => any.iter().any(|filter| passes(filter, event)),
    }
}

/// Whether the value that `matcher` speaks of matches; none if there is no such value.
fn matches_metadata(matcher: &MetadataMatcher, event: &Event<'_>) -> Option<bool> {
    let mut found = None;
    event.facts.with_metadata(MetadataOf::Dynamic, &mut |metadata| {
        let value = metadata.get(&matcher.namespace, &matcher.path);
        found = value.map(|value| matcher.value.matches(Some(value)));
    });
    found
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
