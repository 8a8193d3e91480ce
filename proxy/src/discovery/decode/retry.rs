//! Retry policies.

use std::num::NonZeroUsize;
use std::time::Duration;

use xds::envoy::config::route::v3::RetryPolicy;
use xds::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use xds::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
    RetryPriority, retry_priority as priority,
};
use xds::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use xds::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use xds::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::matcher::header_matcher;
use super::subset;
use super::value::{enumeration, header_name, optional_duration, positive_duration, unless_zero};
use crate::config::retry::{self, ResetFormat, RetryOn};
use crate::config::subset::Criteria;

/// The longest that an upstream may ask to be left alone, unless configured otherwise.
const LONGEST_RESET: Duration = Duration::from_secs(300);

/// Envoy counts in whole milliseconds.
const SHORTEST_BACKOFF: Duration = Duration::from_millis(1);

/// A retry policy.
pub(super) fn retry_policy(proto: &RetryPolicy) -> Result<retry::RetryPolicy> {
    let RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
    } = proto;
    let defaults = retry::RetryPolicy::default();
    let predicates = each("retry_host_predicate", retry_host_predicate, predicate)?;
    let resets = rate_limited_retry_back_off.as_ref().map(resets);
    let resets = resets.transpose().at("rate_limited_retry_back_off")?;
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
        retriable_request_headers: each(
            "retriable_request_headers",
            retriable_request_headers,
            header_matcher,
        )?,
        resets,
        avoid_previous_hosts: predicates.contains(&Predicate::PreviousHosts),
        omitted_hosts: predicates.into_iter().filter_map(Predicate::omitted).collect(),
        previous_priorities: optional("retry_priority", retry_priority, priority)?,
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

/// Which hosts are not to be tried again.
#[derive(PartialEq)]
enum Predicate {
    PreviousHosts,
    Omitted(Criteria),
}

impl Predicate {
    fn omitted(self) -> Option<Criteria> {
        match self {
            Self::PreviousHosts => None,
            Self::Omitted(criteria) => Some(criteria),
        }
    }
}

fn predicate(proto: &RetryHostPredicate) -> Result<Predicate> {
    let RetryHostPredicate { name: _, config_type } = proto;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    if let Some(PreviousHostsPredicate {}) = unpack(any).at("typed_config")? {
        return Ok(Predicate::PreviousHosts);
    }
    match unpack(any).at("typed_config")? {
        Some(OmitHostMetadataConfig { metadata_match }) => {
            let wanted = subset::wanted(metadata_match.as_ref()).unwrap_or_default();
            Ok(Predicate::Omitted(Criteria::new(&wanted)))
        }
        None => unsupported(any).at("typed_config"),
    }
}

fn priority(proto: &RetryPriority) -> Result<NonZeroUsize> {
    let RetryPriority { name: _, config_type } = proto;
    let priority::ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    match unpack(any).at("typed_config")? {
        Some(PreviousPrioritiesConfig { update_frequency }) => {
            let frequency = usize::try_from(update_frequency).ok().and_then(NonZeroUsize::new);
            let reason = String::from("must be greater than 0");
            frequency.ok_or(reason).at("typed_config.update_frequency")
        }
        None => unsupported(any).at("typed_config"),
    }
}

fn resets(proto: &RateLimitedRetryBackOff) -> Result<retry::Resets> {
    let RateLimitedRetryBackOff { reset_headers, max_interval } = proto;
    if reset_headers.is_empty() {
        return refuse("reset_headers", "at least one is required");
    }
    Ok(retry::Resets {
        headers: each("reset_headers", reset_headers, reset)?,
        max: positive_duration("max_interval", max_interval.as_ref())?.unwrap_or(LONGEST_RESET),
    })
}

fn reset(proto: &ResetHeader) -> Result<retry::ResetHeader> {
    let ResetHeader { name, format } = proto;
    Ok(retry::ResetHeader {
        name: header_name(name).at("name")?,
        format: match enumeration("format", *format)? {
            ResetHeaderFormat::Seconds => ResetFormat::Seconds,
            ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
        },
    })
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
