//! Outlier detection: which endpoints are left out for a while because they fail. Pure: time and randomness
//! are arguments; whoever calls keeps the counts.
//!
//! An endpoint is detected by failures in a row, or in a sweep by comparing its rate of success with the
//! others'. It is then ejected, unless chance ([`OutlierDetection`]'s `enforcing_*`) or the share of ejected
//! endpoints forbids it, for a time that grows with every ejection and shrinks while the endpoint behaves.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::config::cluster::OutlierDetection;

/// What an endpoint was detected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// 5xx responses in a row.
    Consecutive5xx,
    /// 502, 503, 504 in a row.
    ConsecutiveGatewayFailure,
    /// Failures of our own making in a row: no connection, a timeout.
    ConsecutiveLocalOriginFailure,
    /// A rate of success far below the others'.
    SuccessRate,
    /// A rate of failure above the threshold.
    FailurePercentage,
    /// As `SuccessRate`, of failures of our own making.
    LocalOriginSuccessRate,
    /// As `FailurePercentage`, of failures of our own making.
    LocalOriginFailurePercentage,
}

impl Detector {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayFailure,
        Self::ConsecutiveLocalOriginFailure,
        Self::SuccessRate,
        Self::FailurePercentage,
        Self::LocalOriginSuccessRate,
        Self::LocalOriginFailurePercentage,
    ];

    /// Percent of detections that are acted on.
    fn enforcing(self, config: &OutlierDetection) -> u32 {
        match self {
            Self::Consecutive5xx => config.enforcing_consecutive_5xx,
            Self::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
            Self::ConsecutiveLocalOriginFailure => {
                config.enforcing_consecutive_local_origin_failure
            }
            Self::SuccessRate | Self::LocalOriginSuccessRate => config.success_rate.enforcing,
            Self::FailurePercentage | Self::LocalOriginFailurePercentage => {
                config.failure_percentage.enforcing
            }
        }
    }
}

/// How many endpoints a cluster has, and how many of them are ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Population {
    /// All endpoints.
    pub hosts: usize,
    /// Ejected ones.
    pub ejected: usize,
}

impl Population {
    /// Whether one more may be ejected.
    fn has_room(self, config: &OutlierDetection) -> bool {
        let after = 100 * (self.ejected + 1);
        after <= config.max_ejection_percent.min(100) as usize * self.hosts
            || (config.always_eject_one_host && self.ejected == 0)
    }
}

/// What came of a detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint is ejected from now on.
    Ejected,
    /// It was ejected already.
    AlreadyEjected,
    /// Chance spared it: the detection is only counted.
    NotEnforced,
    /// Too many others are ejected.
    Overflow,
}

/// What outlier detection remembers of one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Monitor {
    ejected: Option<Ejection>,
    /// Ejections that still count: one more with each, one less with each sweep that finds it in use.
    backoff: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ejection {
    at: Instant,
    jitter: Duration,
}

impl Monitor {
    /// Whether the endpoint is ejected.
    pub fn is_ejected(&self) -> bool {
        self.ejected.is_some()
    }

    /// Decides about an endpoint that was detected.
    pub fn detected(
        &mut self,
        detector: Detector,
        config: &OutlierDetection,
        population: Population,
        now: Instant,
        random: &mut Rng,
    ) -> Verdict {
        if self.is_ejected() {
            return Verdict::AlreadyEjected;
        }
        if !population.has_room(config) {
            return Verdict::Overflow;
        }
        if random.u32(..100) >= detector.enforcing(config) {
            return Verdict::NotEnforced;
        }
        let jitter = config.max_ejection_time_jitter.mul_f64(random.f64());
        self.ejected = Some(Ejection { at: now, jitter });
        let longest = config.max_ejection_time.saturating_add(config.base_ejection_time);
        if config.base_ejection_time.saturating_mul(self.backoff) < longest {
            self.backoff += 1;
        }
        Verdict::Ejected
    }

    /// A sweep looks at the endpoint; true if its ejection has just ended.
    pub fn sweep(&mut self, config: &OutlierDetection, now: Instant) -> bool {
        let Some(Ejection { at, jitter }) = self.ejected else {
            self.backoff = self.backoff.saturating_sub(1);
            return false;
        };
        let time = config.base_ejection_time.saturating_mul(self.backoff);
        let time = time.min(config.max_ejection_time).saturating_add(jitter);
        let over = now.saturating_duration_since(at) >= time;
        if over {
            self.ejected = None;
        }
        over
    }

    /// An active health check has shown that the endpoint is well: its ejection ends.
    pub fn uneject(&mut self) {
        self.ejected = None;
    }

    /// Detection was turned off: the endpoint is as good as any.
    pub fn forgive(&mut self) {
        *self = Self::default();
    }
}

/// Results of one endpoint since the last sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub total: u64,
    /// Good ones.
    pub success: u64,
}

impl Tally {
    /// Percent of good results, if there were at least `volume`.
    pub fn success_rate(self, volume: u32) -> Option<f64> {
        let enough = self.total >= u64::from(volume).max(1);
        enough.then(|| 100.0 * self.success as f64 / self.total as f64)
    }
}

/// The endpoints whose rate of success is an outlier's; numbers are places in `rates`, which holds none for
/// an endpoint that is ejected or had too few requests.
///
/// `volumes` are rates of endpoints with enough requests for either detector.
pub fn outliers(rates: &Rates, config: &OutlierDetection) -> Vec<(usize, Found)> {
    let mut found = Vec::new();
    let success: Vec<(usize, f64)> = present(&rates.success);
    if !success.is_empty() && success.len() >= config.success_rate.minimum_hosts as usize {
        let factor = f64::from(config.success_rate_stdev_factor) / 1000.0;
        let threshold = success_rate_threshold(&success, factor);
        let low = success.iter().filter(|(_, rate)| *rate < threshold);
        found.extend(low.map(|(index, _)| (*index, Found::SuccessRate)));
    }
    let failure: Vec<(usize, f64)> = present(&rates.failure);
    if !failure.is_empty() && failure.len() >= config.failure_percentage.minimum_hosts as usize {
        let threshold = f64::from(config.failure_percentage_threshold);
        let high = failure.iter().filter(|(_, rate)| 100.0 - *rate >= threshold);
        found.extend(high.map(|(index, _)| (*index, Found::FailurePercentage)));
    }
    found
}

/// Rates of success of all endpoints, as far as each detector has enough to go by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    /// For the success-rate detector.
    pub success: Vec<Option<f64>>,
    /// For the failure-percentage detector.
    pub failure: Vec<Option<f64>>,
}

/// Which rate was an outlier's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Success rate too far below the mean.
    SuccessRate,
    /// Failure percentage above the threshold.
    FailurePercentage,
}

fn present(rates: &[Option<f64>]) -> Vec<(usize, f64)> {
    let rates = rates.iter().enumerate();
    rates.filter_map(|(index, rate)| rate.map(|rate| (index, rate))).collect()
}

/// The mean, less `factor` standard deviations (of the population).
fn success_rate_threshold(rates: &[(usize, f64)], factor: f64) -> f64 {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - factor * variance.sqrt()
}

#[cfg(test)]
pub(crate) mod tests;
