//! Retry policies.

use std::time::Duration;

use xds::envoy::config::route::v3::RetryPolicy;
use xds::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use xds::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate};
use xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use super::errors::{At, Result, each, refuse, required};
use super::extension::{unpack, unsupported};
use super::matcher::header_matcher;
use super::value::{optional_duration, positive_duration, unless_zero};
use crate::config::retry::{self, RetryOn};

/// Envoy counts in whole milliseconds.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(1);

/// A retry policy.
pub(super) fn retry_policy(proto: &RetryPolicy) -> Result<retry::RetryPolicy> {
    let RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_host_predicate,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        retriable_headers,
    } = proto;
    let defaults = retry::RetryPolicy::default();
    let predicates = each("retry_host_predicate", retry_host_predicate, previous_hosts)?;
    let (backoff_base, backoff_max) = match retry_back_off {
        Some(proto) => backoff(proto).at("retry_back_off")?,
        None => (defaults.backoff_base, defaults.backoff_max),
    };
    let per_try_idle = optional_duration("per_try_idle_timeout", per_try_idle_timeout.as_ref())?;
    Ok(retry::RetryPolicy {
        on: words(retry_on),
        num_retries: num_retries.unwrap_or(defaults.num_retries),
        per_try_timeout: optional_duration("per_try_timeout", per_try_timeout.as_ref())?
            .and_then(unless_zero),
        per_try_idle_timeout: per_try_idle.and_then(unless_zero),
        retriable_status_codes: each("retriable_status_codes", retriable_status_codes, status)?,
        retriable_headers: each("retriable_headers", retriable_headers, header_matcher)?,
        avoid_previous_hosts: !predicates.is_empty(),
        host_selection_attempts: match host_selection_retry_max_attempts {
            0 => defaults.host_selection_attempts,
            attempts => u32::try_from(*attempts)
                .map_err(|_| String::from("must be 0 to 4294967295"))
                .at("host_selection_retry_max_attempts")?,
        },
        backoff_base,
        backoff_max,
    })
}

/// Envoy takes no notice of words it does not know, status codes among them; here they are at least logged.
fn words(list: &str) -> RetryOn {
    let known = |word: &&str| RetryOn::word(word).is_none();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()).filter(known) {
        tracing::warn!(
            word,
            "retry_on has no such word, so it has no effect; status codes belong in retriable_status_codes"
        );
    }
    RetryOn::parse(list).0
}

fn status(code: &u32) -> Result<u16> {
    u16::try_from(*code).map_err(|_| format!("{code} is no HTTP status")).at("")
}

fn previous_hosts(proto: &RetryHostPredicate) -> Result<()> {
    let RetryHostPredicate { name: _, config_type } = proto;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    match unpack::<PreviousHostsPredicate>(any).at("typed_config")? {
        Some(PreviousHostsPredicate {}) => Ok(()),
        None => unsupported(any).at("typed_config"),
    }
}

fn backoff(proto: &RetryBackOff) -> Result<(Duration, Duration)> {
    let RetryBackOff { base_interval, max_interval } = proto;
    required("base_interval", base_interval)?;
    let base = positive_duration("base_interval", base_interval.as_ref())?
        .map_or(SHORTEST_BACKOFF, |base| base.max(SHORTEST_BACKOFF));
    let max = positive_duration("max_interval", max_interval.as_ref())?
        .map_or(base.saturating_mul(10), |max| max.max(SHORTEST_BACKOFF));
    if max < base {
        return refuse("max_interval", "must be at least base_interval");
    }
    Ok((base, max))
}
