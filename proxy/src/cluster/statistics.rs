//! What clusters tell about themselves: gauges computed when they are read, and the view of `/clusters`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::health::HealthFlags;
use super::host::{Host, Totals};
use super::load_balancer::Health;
use super::outlier_detection::Detector;
use super::shared::{OutlierCounts, SharedCluster};
use super::{ClusterSpec, Clusters, Known};
use crate::config::address::HostAddress;
use crate::config::endpoint::Endpoint;
use crate::pool::circuit_breaker::{Breaker, Resource};
use crate::telemetry::metrics::{Probe, Samples, Scope};

/// One cluster with its endpoints, at one moment.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// Its configuration.
    pub spec: Arc<ClusterSpec>,
    /// Its endpoints, in the order of `spec.assignment`.
    pub hosts: Vec<HostView>,
}

/// One endpoint at one moment.
#[derive(Debug, Clone)]
pub struct HostView {
    /// As configured.
    pub endpoint: Endpoint,
    /// Where it is.
    pub address: HostAddress,
    /// What is known of its health.
    pub health: HealthFlags,
    /// Counts over all workers.
    pub totals: Totals,
    /// Percent of good responses in the last interval; none if too few to tell.
    pub success_rate: Option<f64>,
    /// The same, of connections and timeouts.
    pub local_success_rate: Option<f64>,
}

impl Clusters {
    /// All clusters of the newest snapshot, by name.
    pub fn view(&self) -> Vec<ClusterView> {
        let mut clusters: Vec<_> = self.all().iter().map(Known::view).collect();
        clusters.sort_by(|a, b| a.spec.config.name.cmp(&b.spec.config.name));
        clusters
    }

    /// All clusters at one moment. Looked at in peace: workers that meet a new cluster wait for the lock.
    fn all(&self) -> Vec<Known> {
        self.known.lock().values().cloned().collect()
    }
}

impl Known {
    fn view(&self) -> ClusterView {
        let (spec, hosts) = match &self.live {
            Some(live) => live.current(),
            None => (Arc::clone(&self.spec), Vec::new()),
        };
        let dynamic = self.live.as_ref().map(|live| live.dynamic().0).unwrap_or_default();
        let dynamic = dynamic.iter().map(|(wanted, host)| {
            HostView::new(wanted.endpoint(&spec.config.name), wanted.address.clone(), Some(host))
        });
        let endpoints = super::shared::keys(&spec).into_iter().enumerate();
        let hosts = endpoints.filter_map(|(place, (index, (address, _)))| {
            let endpoint = spec.assignment.endpoints.get(index)?.clone();
            Some(HostView::new(endpoint, address, hosts.get(place)))
        });
        ClusterView { hosts: hosts.chain(dynamic).collect(), spec: Arc::clone(&spec) }
    }
}

impl HostView {
    fn new(endpoint: Endpoint, address: HostAddress, host: Option<&Arc<Host>>) -> Self {
        let rates = host.map(|host| {
            let record = host.record.lock();
            (record.success_rate, record.local_success_rate)
        });
        let (success_rate, local_success_rate) = rates.unwrap_or_default();
        let stated = HealthFlags::stated(endpoint.health);
        Self {
            endpoint,
            address,
            health: host.map_or(stated, |host| host.health()),
            totals: host.map(|host| host.totals()).unwrap_or_default(),
            success_rate,
            local_success_rate,
        }
    }
}

impl Clusters {
    /// How many hosts of `cluster` are healthy, and how many there are; none if there is no such cluster.
    pub fn membership(&self, cluster: &str) -> Option<(usize, usize)> {
        let known = self.known.lock();
        let (healths, _) = known.get(cluster)?.healths();
        let healthy = healths.iter().filter(|health| **health == Health::Healthy).count();
        Some((healthy, healths.len()))
    }
}

impl Probe for Clusters {
    fn collect(&self, out: &mut Samples) {
        for known in &self.all() {
            let scope = Scope::cluster(&known.spec.config.stat_name);
            known.membership(&scope, out);
            match &known.live {
                Some(live) => {
                    let [default, high] = &live.breakers;
                    breaker(default, &scope, DEFAULT, out);
                    breaker(high, &scope, HIGH, out);
                    if known.spec.config.outlier_detection.is_some() {
                        outliers(live, &scope, out);
                    }
                    if known.spec.config.hosts.health_check.is_some() {
                        live.collect_checks(&scope, out);
                    }
                    if let Some(table) = live.hash_tables.newest(|_| true) {
                        for (name, figure) in table.figures() {
                            out.gauge(&scope, name, i64::try_from(figure).unwrap_or(i64::MAX));
                        }
                    }
                }
                None => {
                    let [default, high] = &*known.spec.config.circuit_breakers;
                    breaker(&Breaker::new(default), &scope, DEFAULT, out);
                    breaker(&Breaker::new(high), &scope, HIGH, out);
                    if known.spec.config.outlier_detection.is_some() {
                        outlier_counts(&OutlierCounts::default(), 0, &scope, out);
                    }
                }
            }
        }
    }
}

impl Known {
    fn membership(&self, scope: &Scope, out: &mut Samples) {
        let (healths, dynamic) = self.healths();
        let count = |health: Health| healths.iter().filter(|host| **host == health).count() as i64;
        out.gauge(scope, "membership_total", healths.len() as i64);
        out.gauge(scope, "membership_healthy", count(Health::Healthy));
        out.gauge(scope, "membership_degraded", count(Health::Degraded));
        out.gauge(scope, "membership_excluded", count(Health::Excluded));
        out.counter(scope, "membership_change", self.membership_changes + dynamic);
    }
}

impl Known {
    /// The health of each of its endpoints, and how often those have changed that requests name.
    fn healths(&self) -> (Vec<Health>, u64) {
        let Some(live) = &self.live else {
            let endpoints = self.spec.assignment.endpoints.iter();
            let stated = endpoints.map(|it| HealthFlags::stated(it.health).health());
            return (stated.collect(), 0);
        };
        let (dynamic, changes) = live.dynamic();
        let dynamic = dynamic.iter().map(|(_, host)| host.health().health());
        let (_, current) = live.current();
        (current.iter().map(|host| host.health().health()).chain(dynamic).collect(), changes)
    }
}

/// Names of one priority's gauges: open ones, and what remains; by resource.
type Names = ([&'static str; 4], [&'static str; 4]);

const DEFAULT: Names = (
    [
        "circuit_breakers.default.cx_open",
        "circuit_breakers.default.rq_pending_open",
        "circuit_breakers.default.rq_open",
        "circuit_breakers.default.rq_retry_open",
    ],
    [
        "circuit_breakers.default.remaining_cx",
        "circuit_breakers.default.remaining_pending",
        "circuit_breakers.default.remaining_rq",
        "circuit_breakers.default.remaining_retries",
    ],
);

const HIGH: Names = (
    [
        "circuit_breakers.high.cx_open",
        "circuit_breakers.high.rq_pending_open",
        "circuit_breakers.high.rq_open",
        "circuit_breakers.high.rq_retry_open",
    ],
    [
        "circuit_breakers.high.remaining_cx",
        "circuit_breakers.high.remaining_pending",
        "circuit_breakers.high.remaining_rq",
        "circuit_breakers.high.remaining_retries",
    ],
);

fn breaker(breaker: &Breaker, scope: &Scope, (open, remaining): Names, out: &mut Samples) {
    for ((resource, open), remaining) in Resource::ALL.into_iter().zip(open).zip(remaining) {
        let reading = breaker.read(resource);
        out.gauge(scope, open, i64::from(reading.open()));
        if breaker.tracks_remaining() {
            out.gauge(scope, remaining, i64::from(reading.remaining()));
        }
    }
}

fn outliers(live: &SharedCluster, scope: &Scope, out: &mut Samples) {
    let ejected = live.ejected();
    outlier_counts(&live.outliers, ejected as i64, scope, out);
}

fn outlier_counts(counts: &OutlierCounts, ejected: i64, scope: &Scope, out: &mut Samples) {
    out.gauge(scope, "outlier_detection.ejections_active", ejected);
    let mut total = 0;
    for ((detector, detected), enforced) in
        Detector::ALL.into_iter().zip(&counts.detected).zip(&counts.enforced)
    {
        let (detected_name, enforced_name) = names(detector);
        out.counter(scope, detected_name, detected.load(Relaxed));
        out.counter(scope, enforced_name, enforced.load(Relaxed));
        total += enforced.load(Relaxed);
    }
    out.counter(scope, "outlier_detection.ejections_enforced_total", total);
    out.counter(scope, "outlier_detection.ejections_overflow", counts.overflow.load(Relaxed));
}

/// Names of a detector's counters: detections, and ejections that followed.
fn names(detector: Detector) -> (&'static str, &'static str) {
    macro_rules! names {
        ($name:literal) => {
            (
                concat!("outlier_detection.ejections_detected_", $name),
                concat!("outlier_detection.ejections_enforced_", $name),
            )
        };
    }
    match detector {
        Detector::Consecutive5xx => names!("consecutive_5xx"),
        Detector::ConsecutiveGatewayFailure => names!("consecutive_gateway_failure"),
        Detector::ConsecutiveLocalOriginFailure => names!("consecutive_local_origin_failure"),
        Detector::SuccessRate => names!("success_rate"),
        Detector::FailurePercentage => names!("failure_percentage"),
        Detector::LocalOriginSuccessRate => names!("local_origin_success_rate"),
        Detector::LocalOriginFailurePercentage => names!("local_origin_failure_percentage"),
    }
}
