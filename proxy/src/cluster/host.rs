//! One endpoint as all workers know it: its load, its results, its health.
//!
//! Survives a new configuration as long as its address stays in the cluster. Workers touch only atomics here;
//! what they count for statistics and rates is each worker's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::failures::Failures;
use super::health::{HealthFlags, SharedFlags};
use super::health_check::Checked;
use super::latency::Latency;
use super::outlier_detection::{Detector, Monitor, Tally};
use super::slow_start::Since;
use crate::config::address::HostAddress;
use crate::config::cluster::OutlierDetection;
use crate::pool::{HostCounts, Load};
use crate::telemetry::metrics::Counter;

/// Which endpoint of a process's life this is; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostId(u64);

/// How a request to an endpoint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response came, with this status (a gRPC status as its HTTP equivalent).
    Response(u16),
    /// No response: the connection could not be made, or was lost, or the stream was reset.
    Failed,
    /// No response in time.
    Timeout,
}

/// One endpoint of one cluster.
#[derive(Debug)]
pub struct Host {
    id: HostId,
    address: HostAddress,
    pub(super) load: Arc<Load>,
    /// How long it takes to answer, where the balancing policy wants to know.
    pub(super) latency: Latency,
    in_a_row: InARow,
    pub(super) flags: SharedFlags,
    /// When it joined the cluster, or came back into use: what slow start counts from.
    pub(super) since: Since,
    /// Told each time it is found unhealthy.
    pub(super) failures: Failures,
    pub(super) record: Mutex<Record>,
}

/// Failures in a row, by detector.
#[derive(Debug, Default)]
#[repr(align(64))]
struct InARow {
    any_5xx: AtomicU32,
    gateway: AtomicU32,
    local_origin: AtomicU32,
}

/// What is only touched now and then.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) monitor: Monitor,
    /// What active checks have found out; none if there are none.
    pub(super) check: Option<Box<Checked>>,
    shards: Vec<Arc<Shard>>,
    /// What shards counted whose worker has let go of them.
    retired: Totals,
    /// Results as they stood at the last sweep.
    swept: Results,
    /// Rates of success of the last sweep's interval, in percent.
    pub(super) success_rate: Option<f64>,
    /// The same, of results of our own making.
    pub(super) local_success_rate: Option<f64>,
}

/// One worker's counts about an endpoint.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) counts: Arc<HostCounts>,
    external: Counts,
    local: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    total: Counter,
    success: Counter,
}

/// Results of requests, by their origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Results {
    /// What the endpoint answered.
    pub(super) external: Tally,
    /// Whether it could be reached at all.
    pub(super) local: Tally,
}

/// An endpoint's totals over all workers (Envoy's `HostStats`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections opened.
    pub cx_total: u64,
    /// Connections open now.
    pub cx_active: i64,
    /// Connections that could not be made.
    pub cx_connect_fail: u64,
    /// Requests sent.
    pub rq_total: u64,
    /// Requests under way.
    pub rq_active: i64,
    /// Responses other than 5xx.
    pub rq_success: u64,
    /// 5xx responses, and requests without a response.
    pub rq_error: u64,
    /// Requests that took too long.
    pub rq_timeout: u64,
    results: Results,
}

impl Host {
    pub(super) fn new(address: HostAddress) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: HostId(NEXT.fetch_add(1, Relaxed)),
            address,
            load: Arc::default(),
            latency: Latency::default(),
            in_a_row: InARow::default(),
            since: Since::now(),
            flags: SharedFlags::default(),
            failures: Failures::default(),
            record: Mutex::default(),
        }
    }

    /// Its identity.
    pub fn id(&self) -> HostId {
        self.id
    }

    /// Its address.
    pub fn address(&self) -> &HostAddress {
        &self.address
    }

    /// Whether outlier detection has taken it out of use.
    pub fn is_ejected(&self) -> bool {
        self.health().has(HealthFlags::FAILED_OUTLIER_CHECK)
    }

    /// All that is known of its health.
    pub fn health(&self) -> HealthFlags {
        self.flags.get()
    }

    /// Requests under way from all workers.
    pub fn active(&self) -> u32 {
        self.load.active()
    }

    /// Its totals over all workers.
    pub fn totals(&self) -> Totals {
        self.record.lock().totals()
    }

    pub(super) fn set_ejected(&self, ejected: bool) {
        self.flags.set(HealthFlags::FAILED_OUTLIER_CHECK, ejected);
        if !ejected {
            for count in
                [&self.in_a_row.any_5xx, &self.in_a_row.gateway, &self.in_a_row.local_origin]
            {
                count.store(0, Relaxed);
            }
        }
    }

    /// A worker begins to use the endpoint.
    pub(super) fn shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        let mut record = self.record.lock();
        record.retire_shards();
        record.shards.push(Arc::clone(&shard));
        shard
    }

    /// Counts how a request went; returns what has just been detected by it. Every threshold is reached
    /// exactly once over all workers, because each failure takes its own number.
    pub(super) fn observe(
        &self,
        shard: &Shard,
        outcome: Outcome,
        config: &OutlierDetection,
    ) -> [Option<Detector>; 2] {
        if config.split_external_local_origin_errors {
            let failed = !matches!(outcome, Outcome::Response(_));
            shard.local.count(!failed);
            if failed {
                return [self.local_failure(config), None];
            }
            reset(&self.in_a_row.local_origin);
        }
        let status = match outcome {
            Outcome::Response(status) => status,
            Outcome::Failed => 503,
            Outcome::Timeout => 504,
        };
        shard.external.count(!(500..600).contains(&status));
        self.external(status, config)
    }

    fn external(&self, status: u16, config: &OutlierDetection) -> [Option<Detector>; 2] {
        let gateway = matches!(status, 502..=504);
        if !gateway {
            reset(&self.in_a_row.gateway);
        }
        if !(500..600).contains(&status) {
            reset(&self.in_a_row.any_5xx);
            return [None, None];
        }
        let gateway =
            gateway && reaches(&self.in_a_row.gateway, config.consecutive_gateway_failure);
        let any = reaches(&self.in_a_row.any_5xx, config.consecutive_5xx);
        [
            gateway.then_some(Detector::ConsecutiveGatewayFailure),
            any.then_some(Detector::Consecutive5xx),
        ]
    }

    fn local_failure(&self, config: &OutlierDetection) -> Option<Detector> {
        let count = &self.in_a_row.local_origin;
        let reached = reaches(count, config.consecutive_local_origin_failure);
        reached.then_some(Detector::ConsecutiveLocalOriginFailure)
    }

    /// A detection was dealt with: its count begins anew.
    pub(super) fn restart(&self, detector: Detector) {
        match detector {
            Detector::Consecutive5xx => reset(&self.in_a_row.any_5xx),
            Detector::ConsecutiveGatewayFailure => reset(&self.in_a_row.gateway),
            Detector::ConsecutiveLocalOriginFailure => reset(&self.in_a_row.local_origin),
            _ => {}
        }
    }
}

/// One failure more; true for the one that reaches `threshold`.
fn reaches(count: &AtomicU32, threshold: u32) -> bool {
    count.fetch_add(1, Relaxed) + 1 == threshold.max(1)
}

/// Success is the rule: the cache line is only written when there is something to forget.
fn reset(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}

impl Counts {
    fn count(&self, success: bool) {
        self.total.inc();
        self.success.add(u64::from(success));
    }

    fn tally(&self) -> Tally {
        Tally { total: self.total.get(), success: self.success.get() }
    }
}

impl Record {
    /// What has come in since the last sweep.
    pub(super) fn sweep_results(&mut self) -> Results {
        let now = self.totals().results;
        let before = std::mem::replace(&mut self.swept, now);
        Results {
            external: difference(now.external, before.external),
            local: difference(now.local, before.local),
        }
    }

    fn totals(&self) -> Totals {
        let mut totals = self.retired;
        for shard in &self.shards {
            totals.add(shard);
            totals.cx_active += shard.counts.cx_active.get();
            totals.rq_active += shard.counts.rq_active.get();
        }
        totals
    }

    fn retire_shards(&mut self) {
        let retired = &mut self.retired;
        self.shards.retain(|shard| {
            let alive = Arc::strong_count(shard) > 1;
            if !alive {
                retired.add(shard);
            }
            alive
        });
    }
}

impl Totals {
    /// Adds what only grows.
    fn add(&mut self, shard: &Shard) {
        let counts = &shard.counts;
        self.cx_total += counts.cx_total.get();
        self.cx_connect_fail += counts.cx_connect_fail.get();
        self.rq_total += counts.rq_total.get();
        self.rq_success += counts.rq_success.get();
        self.rq_error += counts.rq_error.get();
        self.rq_timeout += counts.rq_timeout.get();
        self.results.external = sum(self.results.external, shard.external.tally());
        self.results.local = sum(self.results.local, shard.local.tally());
    }
}

fn sum(a: Tally, b: Tally) -> Tally {
    Tally { total: a.total + b.total, success: a.success + b.success }
}

fn difference(now: Tally, before: Tally) -> Tally {
    Tally {
        total: now.total.saturating_sub(before.total),
        success: now.success.saturating_sub(before.success),
    }
}
