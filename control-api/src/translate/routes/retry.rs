//! Retries: Istio retries twice where nothing else is said.

use xds::envoy::config::route::v3::RetryPolicy;
use xds::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType as HostConfig;
use xds::envoy::config::route::v3::retry_policy::retry_priority::ConfigType as PriorityConfig;
use xds::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority,
};
use xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::model::istio::virtual_service::HttpRetry;
use crate::translate::values;

/// What is retried where nothing else is said: what has surely not been acted on.
const RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// Without it, a status code in the list has no effect.
const STATUS_CODES: &str = "retriable-status-codes";

/// The retries that are asked for, or Istio's. None: nothing is retried. With `sticky`, the endpoint that a hash has
/// chosen is tried again.
pub(super) fn policy(wanted: Option<&HttpRetry>, sticky: bool) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: Some(2),
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    };
    if !sticky {
        out.retry_host_predicate.push(other_hosts());
    }
    let Some(wanted) = wanted else { return Some(out) };
    out.num_retries = Some(u32::try_from(wanted.attempts).ok().filter(|it| *it > 0)?);
    if !wanted.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&wanted.retry_on);
    }
    out.per_try_timeout = wanted.per_try_timeout.map(values::duration);
    if let Some(others) = wanted.retry_ignore_previous_hosts {
        out.retry_host_predicate = if others { vec![other_hosts()] } else { Vec::new() };
    }
    if wanted.retry_remote_localities == Some(true) {
        let config = PreviousPrioritiesConfig { update_frequency: 2 };
        out.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(PriorityConfig::TypedConfig(values::any(&config))),
        });
    }
    out.retry_back_off = wanted.backoff.map(|base| RetryBackOff {
        base_interval: Some(values::duration(base)),
        max_interval: None,
    });
    Some(out)
}

fn other_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(HostConfig::TypedConfig(values::any(&PreviousHostsPredicate {}))),
    }
}

/// Envoy's conditions, and the status codes that stand among them.
fn conditions(wanted: &str) -> (String, Vec<u32>) {
    let parts = wanted.split(',').map(str::trim).filter(|part| !part.is_empty());
    let (codes, mut names): (Vec<&str>, Vec<&str>) = parts.partition(|part| is_code(part));
    let codes: Vec<u32> = codes.iter().filter_map(|code| code.parse().ok()).collect();
    if !codes.is_empty() && !names.contains(&STATUS_CODES) {
        names.push(STATUS_CODES);
    }
    (names.join(","), codes)
}

fn is_code(part: &str) -> bool {
    part.parse::<u32>().is_ok_and(|code| (100..600).contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_told_from_conditions() {
        assert_eq!(conditions("503, 5xx"), ("5xx,retriable-status-codes".into(), vec![503]));
        assert_eq!(conditions("reset"), ("reset".into(), vec![]));
    }

    #[test]
    fn zero_attempts_are_none_and_hashes_stay_where_they_are() {
        let none = HttpRetry::default();
        assert_eq!(policy(Some(&none), false), None);
        assert!(policy(None, true).unwrap().retry_host_predicate.is_empty());
        assert_eq!(policy(None, false).unwrap().num_retries, Some(2));
    }
}
