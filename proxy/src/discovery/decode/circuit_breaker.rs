//! Circuit-breaker thresholds.

use xds::envoy::config::cluster::v3::CircuitBreakers;
use xds::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use xds::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use xds::envoy::config::core::v3::RoutingPriority;

use super::errors::{Result, each, optional};
use super::value::{enumeration, percent};
use crate::config::sharing::Shared;
use crate::config::{cluster, retry};

/// The thresholds of priority DEFAULT and HIGH.
pub(super) fn circuit_breakers(
    proto: &CircuitBreakers,
) -> Result<Shared<[cluster::Thresholds; 2]>> {
    let CircuitBreakers { thresholds } = proto;
    let all = each("thresholds", thresholds, decode)?;
    // As in Envoy, the first of a priority counts.
    let of = |wanted| all.iter().find(|(priority, _)| *priority == wanted).map(|(_, found)| *found);
    let both = [RoutingPriority::Default, RoutingPriority::High];
    Ok(both.map(|it| of(it).unwrap_or_default()).into())
}

fn decode(proto: &Thresholds) -> Result<(RoutingPriority, cluster::Thresholds)> {
    let Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
    } = proto;
    let defaults = cluster::Thresholds::default();
    let thresholds = cluster::Thresholds {
        max_connections: max_connections.unwrap_or(defaults.max_connections),
        max_pending_requests: max_pending_requests.unwrap_or(defaults.max_pending_requests),
        max_requests: max_requests.unwrap_or(defaults.max_requests),
        max_retries: max_retries.unwrap_or(defaults.max_retries),
        retry_budget: optional("retry_budget", retry_budget, budget)?,
        track_remaining: *track_remaining,
    };
    Ok((enumeration("priority", *priority)?, thresholds))
}

fn budget(proto: &RetryBudget) -> Result<retry::RetryBudget> {
    let RetryBudget { budget_percent, min_retry_concurrency } = proto;
    Ok(retry::RetryBudget {
        percent: percent("budget_percent", budget_percent.as_ref(), 20.0)?,
        min_concurrency: min_retry_concurrency.unwrap_or(3),
    })
}
