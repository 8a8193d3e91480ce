//! Active health checks: every host of a cluster that wants it is asked regularly, and its flags follow.
//!
//! One task per host on the control runtime. What results come to is decided by [`progress`], which is
//! pure; it is kept with the host, so that it outlives a change of configuration, and so that a worker can
//! take in what an ordinary response says about its host.

mod connection;
mod event;
mod grpc;
mod headers;
mod http;
mod progress;
mod tcp;

use std::sync::Arc;
use std::time::SystemTime;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::Clusters;
use super::health::HealthFlags;
use super::host::{Host, HostId};
use super::shared::{SharedCluster, keys};
use crate::config::HashMap;
use crate::config::access_log::LogSink;
use crate::config::cluster::Cluster;
use crate::config::endpoint::{Endpoint, Locality};
use crate::config::health_check::{Checker, HealthCheck};
use crate::telemetry::metrics::{Samples, Scope, SharedCounter};
use connection::Target;
use grpc::GrpcProbe;
use http::HttpProbe;
use progress::{CheckResult, Event, Failure, FailureKind, Progress, Transition, below, wait};
use tcp::TcpProbe;

pub use http::IMMEDIATE_FAIL;

/// What checks have found out about a host.
#[derive(Debug)]
pub(super) struct Checked {
    progress: Progress,
    /// Where the host is, for the event log.
    locality: Arc<Locality>,
}

/// Checks in numbers. They are rare, so these are shared.
#[derive(Debug, Default)]
pub(super) struct Counts {
    attempt: SharedCounter,
    success: SharedCounter,
    failure: SharedCounter,
    passive_failure: SharedCounter,
    network_failure: SharedCounter,
    verify_cluster: SharedCounter,
}

/// Checks the hosts of `clusters` for as long as it is polled, on a runtime for local tasks. `first_round`
/// is dropped when every host that is there at first has its first result.
pub async fn run(clusters: Arc<Clusters>, first_round: mpsc::Sender<()>) {
    let mut sessions = Sessions::default();
    let mut first_round = Some(first_round);
    loop {
        sessions = follow(&clusters, sessions, first_round.take().as_ref());
        clusters.published().await;
    }
}

/// The checks that are being made, by host.
type Sessions = HashMap<HostId, Session>;

/// The task that checks one host. Ends when dropped.
#[derive(Debug)]
struct Session {
    target: Arc<Target>,
    task: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins and ends checks so that exactly the hosts of the newest configuration are checked.
fn follow(
    clusters: &Clusters,
    mut before: Sessions,
    first_round: Option<&mpsc::Sender<()>>,
) -> Sessions {
    let mut now = Sessions::default();
    for live in clusters.checked() {
        let (spec, hosts) = live.current();
        for ((index, key), host) in keys(&spec).into_iter().zip(hosts) {
            let endpoint = spec.assignment.endpoints.get(index);
            let target = endpoint
                .filter(|endpoint| is_checked(&spec.config, endpoint))
                .and_then(|endpoint| Target::new(&spec, endpoint, &key.0));
            let Some(target) = target else { continue };
            let id = host.id();
            let session = match before.remove(&id) {
                Some(session) if session.target.is_same(&target) => session,
                _ => begin(Arc::clone(&live), host, target, first_round.cloned()),
            };
            now.insert(id, session);
        }
    }
    now
}

fn begin(
    live: Arc<SharedCluster>,
    host: Arc<Host>,
    target: Target,
    first_round: Option<mpsc::Sender<()>>,
) -> Session {
    let target = Arc::new(target);
    let task = tokio::task::spawn_local(check(live, host, Arc::clone(&target), first_round));
    Session { target, task }
}

/// Checks one host until it is dropped.
async fn check(
    live: Arc<SharedCluster>,
    host: Arc<Host>,
    target: Arc<Target>,
    mut first_round: Option<mpsc::Sender<()>>,
) {
    let check = Arc::clone(&target.check);
    let mut random = Rng::new();
    let mut due = Instant::now() + below(check.intervals.initial_jitter, &mut random);
    let mut probe = Probe::new(&target);
    loop {
        let result = tokio::select! {
            () = sleep_until(due) => {
                live.checks.attempt.inc();
                let made = probe.check(&check.checker, &live.checks);
                timeout(check.timeout, made).await.unwrap_or_else(|_| {
                    // What the old one was doing is of no use any more.
                    probe = Probe::new(&target);
                    CheckResult::Failed(Failure::of(FailureKind::NetworkTimeout))
                })
            }
            () = probe.lost() => CheckResult::NETWORK,
        };
        let Some(transition) = live.take_in(&host, result) else { return };
        drop(first_round.take());
        let passed = matches!(result, CheckResult::Passed { .. });
        due = Instant::now()
            + wait(&check.intervals, passed, transition, live.is_used(), &mut random);
    }
}

/// Makes checks of one kind.
#[derive(Debug)]
enum Probe {
    Http(HttpProbe),
    Tcp(TcpProbe),
    Grpc(GrpcProbe),
}

impl Probe {
    fn new(target: &Arc<Target>) -> Self {
        let at = Arc::clone(target);
        match target.check.checker {
            Checker::Http(_) => Self::Http(HttpProbe::new(at)),
            Checker::Tcp(_) => Self::Tcp(TcpProbe::new(at)),
            Checker::Grpc(_) => Self::Grpc(GrpcProbe::new(at)),
        }
    }

    async fn check(&mut self, checker: &Checker, counts: &Counts) -> CheckResult {
        match (self, checker) {
            (Self::Http(probe), Checker::Http(check)) => probe.check(check, counts).await,
            (Self::Tcp(probe), Checker::Tcp(check)) => probe.check(check).await,
            (Self::Grpc(probe), Checker::Grpc(check)) => probe.check(check).await,
            // A probe is made for its checker.
            _ => CheckResult::NETWORK,
        }
    }

    async fn lost(&mut self) {
        match self {
            Self::Tcp(probe) => probe.lost().await,
            Self::Http(_) | Self::Grpc(_) => std::future::pending().await,
        }
    }
}

/// Whether a cluster has its endpoint checked.
fn is_checked(cluster: &Cluster, endpoint: &Endpoint) -> bool {
    let disabled = endpoint.health_check.as_ref().is_some_and(|check| check.disabled);
    cluster.hosts.health_check.is_some() && !disabled
}

impl Host {
    /// Begins or ends to go by active checks. A host that was in use before stays so until its checks
    /// say otherwise; a `new` one has to pass first.
    pub(super) fn follow_checks(&self, cluster: &Cluster, endpoint: &Endpoint, new: bool) {
        let mut record = self.record.lock();
        let checked = is_checked(cluster, endpoint);
        match &mut record.check {
            Some(check) if checked => check.locality = Arc::clone(&endpoint.locality),
            None if checked => {
                let locality = Arc::clone(&endpoint.locality);
                record.check = Some(Box::new(Checked { progress: Progress::default(), locality }));
                let pending = cluster.hosts.ignore_new_until_first_check;
                self.flags.set(HealthFlags::FAILED_ACTIVE_HC, new);
                self.flags.set(HealthFlags::PENDING_ACTIVE_HC, new && pending);
            }
            Some(_) => {
                record.check = None;
                self.flags.set(HealthFlags::ACTIVE, false);
            }
            None => {}
        }
    }
}

impl Host {
    /// Whether it is checked, and has not failed.
    pub(super) fn passes_checks(&self) -> bool {
        const FAILED: HealthFlags =
            HealthFlags::FAILED_ACTIVE_HC.union(HealthFlags::FAILED_EDS_HEALTH);
        !self.health().has(FAILED) && self.record.lock().check.is_some()
    }
}

impl SharedCluster {
    /// Takes in how a check of `host` went, and tells what this has changed. None if it is not checked. What it
    /// means is for the newest configuration to say: checks that stay the same outlive a change of the rest.
    fn take_in(&self, host: &Host, result: CheckResult) -> Option<Transition> {
        let config = &self.spec().config;
        let check = config.hosts.health_check.as_ref()?;
        let mut record = host.record.lock();
        let checked = record.check.as_mut()?;
        let before = host.health();
        let verdict = checked.progress.judge(before, result, check);
        host.flags.update(|now| {
            now.without(HealthFlags::ACTIVE) | verdict.flags.only(HealthFlags::ACTIVE)
        });
        self.checks.count(result);
        self.log(host, config, check, &checked.locality, &verdict.events);
        let outlier = config.outlier_detection.as_ref();
        let unejects = outlier.is_some_and(|detection| detection.uneject_on_active_success);
        if unejects && matches!(result, CheckResult::Passed { .. }) && host.is_ejected() {
            record.monitor.uneject();
            host.set_ejected(false);
        }
        drop(record);
        if before.has(HealthFlags::FAILED_ACTIVE_HC)
            && !verdict.flags.has(HealthFlags::FAILED_ACTIVE_HC)
        {
            host.since.restart();
        }
        let now = host.health();
        if now != before {
            self.health_changed();
        }
        if now.has(HealthFlags::FAILED_ACTIVE_HC) && !before.has(HealthFlags::FAILED_ACTIVE_HC) {
            host.failures.tell();
            if now.has(HealthFlags::PENDING_DYNAMIC_REMOVAL) {
                self.reports.departures.notify_one();
            }
        }
        Some(verdict.transition)
    }

    /// A response of `host` asks for it to be left out at once, before any check fails.
    pub(super) fn leave_out(&self, host: &Host) {
        let failure = Failure { excluded: true, ..Failure::of(FailureKind::Passive) };
        self.take_in(host, CheckResult::Failed(failure));
    }

    fn log(
        &self,
        host: &Host,
        config: &Cluster,
        check: &HealthCheck,
        locality: &Locality,
        events: &[Event],
    ) {
        let Some(logger) = &self.reports.events else { return };
        if events.is_empty() || check.event_logs.is_empty() {
            return;
        }
        let address = host.address();
        let subject =
            event::Subject { cluster: &config.name, address, locality, checker: &check.checker };
        let mut lines = String::new();
        let now = SystemTime::now();
        events.iter().for_each(|event| event::write(*event, subject, now, &mut lines));
        for path in &check.event_logs {
            let sink = LogSink::File(path.clone());
            logger.write(sink, lines.clone().into_bytes(), events.len() as u64);
        }
    }

    /// Writes the readings of a cluster with checks.
    pub(super) fn collect_checks(&self, scope: &Scope, out: &mut Samples) {
        let (_, hosts) = self.current();
        let checked: Vec<HealthFlags> = hosts
            .iter()
            .filter(|host| host.record.lock().check.is_some())
            .map(|host| host.health())
            .collect();
        let count = |counts: &dyn Fn(HealthFlags) -> bool| {
            checked.iter().filter(|flags| counts(**flags)).count() as i64
        };
        let healthy = count(&|flags| !flags.has(HealthFlags::FAILED_ACTIVE_HC));
        let degraded = count(&|flags| flags.has(HealthFlags::DEGRADED_ACTIVE_HC));
        out.counter(scope, "health_check.attempt", self.checks.attempt.get());
        out.counter(scope, "health_check.success", self.checks.success.get());
        out.counter(scope, "health_check.failure", self.checks.failure.get());
        out.counter(scope, "health_check.passive_failure", self.checks.passive_failure.get());
        out.counter(scope, "health_check.network_failure", self.checks.network_failure.get());
        out.counter(scope, "health_check.verify_cluster", self.checks.verify_cluster.get());
        out.gauge(scope, "health_check.healthy", healthy);
        out.gauge(scope, "health_check.degraded", degraded);
    }
}

impl Counts {
    fn count(&self, result: CheckResult) {
        match result {
            CheckResult::Passed { .. } => self.success.inc(),
            CheckResult::Failed(Failure { kind, .. }) => {
                self.failure.inc();
                match kind {
                    FailureKind::Network | FailureKind::NetworkTimeout => {
                        self.network_failure.inc();
                    }
                    FailureKind::Passive => self.passive_failure.inc(),
                    FailureKind::Active => {}
                }
            }
        }
    }
}

/// Whether `wanted` stand in `text`, one after the other.
fn find(wanted: &[Vec<u8>], text: &[u8]) -> bool {
    let mut rest = text;
    wanted.iter().all(|part| {
        let found = rest.windows(part.len().max(1)).position(|window| window == part);
        rest = found.and_then(|at| rest.get(at + part.len()..)).unwrap_or_default();
        found.is_some()
    })
}

#[cfg(test)]
mod tests;
