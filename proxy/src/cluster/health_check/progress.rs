//! What the result of a check comes to: thresholds, flags, events, and when the next check is due. Pure.

use std::time::Duration;

use fastrand::Rng;
use smallvec::{SmallVec, smallvec};

use crate::cluster::health::HealthFlags;
use crate::config::health_check::{HealthCheck, Intervals};

/// How far a host is on its way to healthy or unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cluster) struct Progress {
    /// Whether any result is known.
    checked: bool,
    /// In a row, while it is unhealthy.
    successes: u32,
    /// In a row, while it is healthy.
    failures: u32,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) enum CheckResult {
    Passed {
        /// The host says that it is not at its best.
        degraded: bool,
    },
    Failed(Failure),
}

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) struct Failure {
    pub(super) kind: FailureKind,
    /// Whether it only counts towards the threshold, like a failure of the network.
    pub(super) retriable: bool,
    /// The host asks to be left out at once.
    pub(super) excluded: bool,
    /// The status of the response, or 0.
    pub(super) status: u16,
}

/// Envoy `HealthCheckFailureType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) enum FailureKind {
    /// The answer was not the expected one.
    Active,
    /// An ordinary response said so.
    Passive,
    /// No connection, or it was lost.
    Network,
    /// No answer in time.
    NetworkTimeout,
}

/// What a result has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// Nothing.
    Unchanged,
    /// Nothing yet: results of this kind are being counted.
    Pending,
    /// The host's health.
    Changed,
}

/// What is to be told of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    EjectUnhealthy(Failure),
    AddHealthy { first: bool },
    Failed { failure: Failure, first: bool },
    Degraded,
    NoLongerDegraded,
    Passed,
}

/// What a result came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The host's flags from now on.
    pub(super) flags: HealthFlags,
    pub(super) transition: Transition,
    pub(super) events: SmallVec<[Event; 2]>,
}

impl FailureKind {
    pub(super) fn is_network(self) -> bool {
        matches!(self, Self::Network | Self::NetworkTimeout)
    }
}

impl Failure {
    /// A failure without a response.
    pub(super) fn of(kind: FailureKind) -> Self {
        Self { kind, retriable: false, excluded: false, status: 0 }
    }
}

impl CheckResult {
    /// No connection, or it was lost.
    pub(super) const NETWORK: Self = Self::Failed(Failure {
        kind: FailureKind::Network,
        retriable: false,
        excluded: false,
        status: 0,
    });
}

impl Progress {
    /// Takes a result in; `flags` are the host's at present.
    pub(super) fn judge(
        &mut self,
        flags: HealthFlags,
        result: CheckResult,
        config: &HealthCheck,
    ) -> Verdict {
        let mut verdict = match result {
            CheckResult::Passed { degraded } => self.passed(flags, degraded, config),
            CheckResult::Failed(failure) => self.failed(flags, failure, config),
        };
        // The host counts among the others from now on, even if its health is what it was.
        if verdict.flags.has(HealthFlags::PENDING_ACTIVE_HC) {
            verdict.flags = verdict.flags.without(HealthFlags::PENDING_ACTIVE_HC);
            verdict.transition = Transition::Changed;
        }
        self.checked = true;
        verdict
    }

    fn passed(&mut self, mut flags: HealthFlags, degraded: bool, config: &HealthCheck) -> Verdict {
        self.failures = 0;
        let mut transition = Transition::Unchanged;
        let mut events = SmallVec::new();
        if flags.has(HealthFlags::FAILED_ACTIVE_HC) {
            self.successes += 1;
            // The first result of all is believed at once, which makes starting faster.
            if !self.checked || self.successes >= config.healthy_threshold {
                flags =
                    flags.without(HealthFlags::FAILED_ACTIVE_HC | HealthFlags::ACTIVE_HC_TIMEOUT);
                transition = Transition::Changed;
                events.push(Event::AddHealthy { first: !self.checked });
            } else {
                transition = Transition::Pending;
            }
        }
        // A response that only counted towards the threshold may have asked for it.
        let excluded = flags.has(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL);
        if excluded && !flags.has(HealthFlags::FAILED_ACTIVE_HC) {
            flags = flags.without(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL);
            transition = Transition::Changed;
        }
        if transition != Transition::Changed && config.log_successes {
            events.push(Event::Passed);
        }
        if degraded != flags.has(HealthFlags::DEGRADED_ACTIVE_HC) {
            flags = flags.set(HealthFlags::DEGRADED_ACTIVE_HC, degraded);
            events.push(if degraded { Event::Degraded } else { Event::NoLongerDegraded });
            if transition == Transition::Unchanged {
                transition = Transition::Changed;
            }
        }
        Verdict { flags, transition, events }
    }

    fn failed(
        &mut self,
        mut flags: HealthFlags,
        failure: Failure,
        config: &HealthCheck,
    ) -> Verdict {
        self.successes = 0;
        let mut transition = Transition::Unchanged;
        let mut events = smallvec![];
        if !flags.has(HealthFlags::FAILED_ACTIVE_HC) {
            let counts_only = failure.kind.is_network() || failure.retriable;
            self.failures += u32::from(counts_only);
            if !counts_only || self.failures >= config.unhealthy_threshold {
                flags = flags | HealthFlags::FAILED_ACTIVE_HC;
                self.failures = 0;
                transition = Transition::Changed;
                events.push(Event::EjectUnhealthy(failure));
            } else {
                transition = Transition::Pending;
            }
        }
        let timed_out =
            failure.kind == FailureKind::NetworkTimeout && flags.has(HealthFlags::FAILED_ACTIVE_HC);
        flags = flags.set(HealthFlags::ACTIVE_HC_TIMEOUT, timed_out);
        if failure.excluded {
            flags = flags | HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL;
        }
        if !self.checked || config.log_failures {
            events.push(Event::Failed { failure, first: !self.checked });
        }
        Verdict { flags, transition, events }
    }
}

/// Time until the next check, at least 1 ms. `used` tells whether anything was ever sent to the cluster.
pub(super) fn wait(
    intervals: &Intervals,
    passed: bool,
    transition: Transition,
    used: bool,
    random: &mut Rng,
) -> Duration {
    let pending = transition == Transition::Pending;
    let base = match (used, passed, pending) {
        (true, true, false) => intervals.healthy,
        (true, true, true) => intervals.healthy_edge,
        (true, false, false) => intervals.unhealthy,
        (true, false, true) => intervals.unhealthy_edge,
        (false, true, false) => intervals.no_traffic_healthy,
        (false, _, _) => intervals.no_traffic,
    };
    let share = base.mul_f64(f64::from(intervals.jitter_percent) / 100.0);
    let jitter = below(share, random) + below(intervals.jitter, random);
    base.saturating_add(jitter).max(Duration::from_millis(1))
}

/// A random time below `limit`.
pub(super) fn below(limit: Duration, random: &mut Rng) -> Duration {
    limit.mul_f64(random.f64())
}

#[cfg(test)]
pub(super) mod tests;
