//! Outlier detection.

use std::time::Duration;

use xds::envoy::config::cluster::v3::OutlierDetection;

use super::errors::{Result, refuse};
use super::value::{optional_duration, positive_duration, whole_percent};
use crate::config::cluster::{self, RateDetection};
use crate::config::sharing::Shared;

/// Envoy's defaults.
const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

/// Outlier detection; absent fields have Envoy's defaults.
pub(super) fn outlier_detection(
    proto: &OutlierDetection,
) -> Result<Shared<cluster::OutlierDetection>> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let OutlierDetection {
        consecutive_5xx, interval, base_ejection_time, max_ejection_percent,
        enforcing_consecutive_5xx, enforcing_success_rate, success_rate_minimum_hosts,
        success_rate_request_volume, success_rate_stdev_factor, consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
        consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate, failure_percentage_threshold,
        enforcing_failure_percentage, failure_percentage_minimum_hosts,
        failure_percentage_request_volume, max_ejection_time, max_ejection_time_jitter,
        successful_active_health_check_uneject_host, always_eject_one_host,
    } = proto;
    no_local_rates(*split_external_local_origin_errors, *enforcing_local_origin_success_rate)?;
    let (base, longest) = ejection_times(base_ejection_time.as_ref(), max_ejection_time.as_ref())?;
    #[rustfmt::skip]
    let [
        enforce_5xx, enforce_gateway, enforce_local, enforce_rate, enforce_failures, ejected, threshold,
    ] = percentages([
        ("enforcing_consecutive_5xx", enforcing_consecutive_5xx, 100),
        ("enforcing_consecutive_gateway_failure", enforcing_consecutive_gateway_failure, 0),
        ("enforcing_consecutive_local_origin_failure", enforcing_consecutive_local_origin_failure, 100),
        ("enforcing_success_rate", enforcing_success_rate, 100),
        ("enforcing_failure_percentage", enforcing_failure_percentage, 0),
        ("max_ejection_percent", max_ejection_percent, 10),
        ("failure_percentage_threshold", failure_percentage_threshold, 85),
    ])?;
    let detection = cluster::OutlierDetection {
        consecutive_5xx: consecutive_5xx.unwrap_or(5),
        consecutive_gateway_failure: consecutive_gateway_failure.unwrap_or(5),
        consecutive_local_origin_failure: consecutive_local_origin_failure.unwrap_or(5),
        enforcing_consecutive_5xx: enforce_5xx,
        enforcing_consecutive_gateway_failure: enforce_gateway,
        enforcing_consecutive_local_origin_failure: enforce_local,
        split_external_local_origin_errors: *split_external_local_origin_errors,
        interval: positive_duration("interval", interval.as_ref())?.unwrap_or(INTERVAL),
        base_ejection_time: base,
        max_ejection_time: longest,
        max_ejection_time_jitter: jitter(max_ejection_time_jitter.as_ref())?,
        max_ejection_percent: ejected,
        success_rate: RateDetection {
            minimum_hosts: success_rate_minimum_hosts.unwrap_or(5),
            request_volume: success_rate_request_volume.unwrap_or(100),
            enforcing: enforce_rate,
        },
        success_rate_stdev_factor: success_rate_stdev_factor.unwrap_or(1900),
        failure_percentage: RateDetection {
            minimum_hosts: failure_percentage_minimum_hosts.unwrap_or(5),
            request_volume: failure_percentage_request_volume.unwrap_or(50),
            enforcing: enforce_failures,
        },
        failure_percentage_threshold: threshold,
        always_eject_one_host: always_eject_one_host.unwrap_or(false),
        uneject_on_active_success: successful_active_health_check_uneject_host.unwrap_or(true),
    };
    Ok(detection.into())
}

fn jitter(proto: Option<&prost_types::Duration>) -> Result<Duration> {
    Ok(optional_duration("max_ejection_time_jitter", proto)?.unwrap_or_default())
}

/// The shortest and the longest ejection.
fn ejection_times(
    base: Option<&prost_types::Duration>,
    longest: Option<&prost_types::Duration>,
) -> Result<(Duration, Duration)> {
    let base = positive_duration("base_ejection_time", base)?.unwrap_or(BASE_EJECTION_TIME);
    let longest = positive_duration("max_ejection_time", longest)?;
    let longest = longest.unwrap_or(MAX_EJECTION_TIME.max(base));
    if longest < base {
        return refuse("max_ejection_time", "cannot be smaller than base_ejection_time");
    }
    Ok((base, longest))
}

/// Refuses to eject hosts by the rate of their local failures, which is not kept.
fn no_local_rates(split: bool, enforcing: Option<u32>) -> Result<()> {
    if split && enforcing.is_some_and(|percent| percent != 0) {
        let reason =
            "only 0 is supported: hosts are not ejected by their rate of failed connections";
        return refuse("enforcing_local_origin_success_rate", reason);
    }
    Ok(())
}

/// Each field's percentage, or its default.
fn percentages<const N: usize>(fields: [(&str, &Option<u32>, u32); N]) -> Result<[u32; N]> {
    let mut values = [0; N];
    for (value, (field, proto, default)) in values.iter_mut().zip(fields) {
        *value = whole_percent(field, *proto, default)?;
    }
    Ok(values)
}
