//! One cluster as all workers know it: breakers, endpoints, and who of them is ejected.

use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Weak};
use std::time::Instant;

use fastrand::Rng;
use parking_lot::Mutex;

use super::dynamic::DynamicHost;
use super::health::HealthFlags;
use super::health_check::Counts;
use super::host::{Host, HostId, Outcome, Results, Shard};
use super::load_balancer::hash_table::HashTables;
use super::outlier_detection::{self, Detector, Found, Population, Rates, Verdict};
use super::{ClusterSpec, Reports};
use crate::config::HashMap;
use crate::config::address::{Address, HostAddress};
use crate::config::cluster::OutlierDetection;
use crate::pool::circuit_breaker::Breaker;

/// One cluster as all workers know it.
#[derive(Debug)]
pub(super) struct SharedCluster {
    /// Breakers of priority DEFAULT and HIGH.
    pub(super) breakers: [Arc<Breaker>; 2],
    members: Mutex<Members>,
    /// Changes with the health of any endpoint, so that workers know their view is old.
    health: AtomicU64,
    pub(super) outliers: OutlierCounts,
    /// Active health checks in numbers.
    pub(super) checks: Counts,
    /// Who hears what becomes of its hosts.
    pub(super) reports: Reports,
    /// Whether a worker has ever sent something to it.
    used: AtomicBool,
    /// What hashing policies have made of its endpoints.
    pub(super) hash_tables: HashTables,
}

/// The endpoints.
#[derive(Debug)]
struct Members {
    spec: Arc<ClusterSpec>,
    current: Vec<Arc<Host>>,
    /// Every endpoint somebody still uses, current or not, so that one that returns is recognised.
    known: HashMap<HostKey, Weak<Host>>,
    /// Those that requests have named, for as long as a worker keeps them.
    dynamic: HashMap<DynamicHost, Weak<Host>>,
    /// How often one of these came, or some went.
    dynamic_changes: u64,
    last_sweep: Instant,
}

/// What makes an endpoint the same one: its address, and which of several with that address it is.
pub(super) type HostKey = (HostAddress, u32);

/// Outlier detection in numbers. Detections are rare, so these are shared.
#[derive(Debug, Default)]
pub(super) struct OutlierCounts {
    pub(super) detected: [AtomicU64; 7],
    pub(super) enforced: [AtomicU64; 7],
    pub(super) overflow: AtomicU64,
}

impl SharedCluster {
    pub(super) fn new(spec: &Arc<ClusterSpec>, reports: Reports, now: Instant) -> Self {
        let [default, high] = &*spec.config.circuit_breakers;
        let mut members = Members {
            spec: Arc::clone(spec),
            current: Vec::new(),
            known: HashMap::default(),
            dynamic: HashMap::default(),
            dynamic_changes: 0,
            last_sweep: now,
        };
        members.adopt(spec);
        Self {
            breakers: [Arc::new(Breaker::new(default)), Arc::new(Breaker::new(high))],
            members: Mutex::new(members),
            health: AtomicU64::new(0),
            outliers: OutlierCounts::default(),
            checks: Counts::default(),
            reports,
            used: AtomicBool::new(false),
            hash_tables: HashTables::default(),
        }
    }

    /// Takes over a changed configuration; endpoints that stay keep their state.
    pub(super) fn adopt(&self, spec: &Arc<ClusterSpec>) {
        for (breaker, thresholds) in self.breakers.iter().zip(&*spec.config.circuit_breakers) {
            breaker.set_thresholds(thresholds);
        }
        let mut members = self.members.lock();
        members.adopt(spec);
        if spec.config.outlier_detection.is_none() {
            for host in members.hosts() {
                host.record.lock().monitor.forgive();
                host.set_ejected(false);
            }
        }
        drop(members);
        self.health_changed();
    }

    /// The endpoint a worker means, known or new.
    pub(super) fn host(&self, key: HostKey) -> Arc<Host> {
        self.members.lock().host(key)
    }

    /// The endpoint a request has named, known or new.
    pub(super) fn dynamic_host(&self, wanted: &DynamicHost) -> Arc<Host> {
        self.members.lock().dynamic_host(wanted)
    }

    /// The endpoints that requests have named, and how often this list has changed.
    pub(super) fn dynamic(&self) -> (Vec<(DynamicHost, Arc<Host>)>, u64) {
        let mut members = self.members.lock();
        members.forget_unused();
        let live = members.dynamic.iter();
        let live = live.filter_map(|(wanted, host)| Some((wanted.clone(), host.upgrade()?)));
        let mut live: Vec<_> = live.collect();
        live.sort_by(|(a, _), (b, _)| (&a.hostname, &a.address).cmp(&(&b.hostname, &b.address)));
        (live, members.dynamic_changes)
    }

    /// How many endpoints are ejected.
    pub(super) fn ejected(&self) -> usize {
        self.members.lock().population().ejected
    }

    /// The endpoints of the newest configuration, with it.
    pub(super) fn current(&self) -> (Arc<ClusterSpec>, Vec<Arc<Host>>) {
        let members = self.members.lock();
        (Arc::clone(&members.spec), members.current.clone())
    }

    /// The newest configuration.
    pub(super) fn spec(&self) -> Arc<ClusterSpec> {
        Arc::clone(&self.members.lock().spec)
    }

    /// A number that changes with the health of any endpoint.
    pub(super) fn health_version(&self) -> u64 {
        self.health.load(Acquire)
    }

    /// Counts how a request went, and ejects its endpoint if that says so.
    pub(super) fn observe(
        &self,
        host: &Host,
        shard: &Shard,
        outcome: Outcome,
        config: &OutlierDetection,
    ) {
        for detector in host.observe(shard, outcome, config).into_iter().flatten() {
            self.detected(host, detector, config, Instant::now());
            host.restart(detector);
        }
    }

    fn detected(&self, host: &Host, detector: Detector, config: &OutlierDetection, now: Instant) {
        let members = self.members.lock();
        self.detected_among(&members, host, detector, config, now);
    }

    /// The lock on all endpoints makes sure that no two decisions count on the same last place.
    fn detected_among(
        &self,
        members: &Members,
        host: &Host,
        detector: Detector,
        config: &OutlierDetection,
        now: Instant,
    ) {
        let population = members.population();
        let mut random = Rng::new();
        let verdict =
            host.record.lock().monitor.detected(detector, config, population, now, &mut random);
        if verdict != Verdict::AlreadyEjected {
            self.outliers.detected(detector);
        }
        match verdict {
            Verdict::Ejected => {
                self.outliers.enforced(detector);
                host.set_ejected(true);
                host.failures.tell();
                self.health_changed();
            }
            Verdict::Overflow => {
                self.outliers.overflow.fetch_add(1, Relaxed);
            }
            Verdict::AlreadyEjected | Verdict::NotEnforced => {}
        }
    }

    /// Ends ejections and compares rates, if an interval has passed since the last time.
    pub(super) fn sweep(&self, now: Instant) {
        let mut members = self.members.lock();
        members.forget_unused();
        let spec = Arc::clone(&members.spec);
        let Some(config) = &spec.config.outlier_detection else { return };
        if now.saturating_duration_since(members.last_sweep) < config.interval {
            return;
        }
        members.last_sweep = now;
        let hosts: Vec<Arc<Host>> = members.hosts().collect();
        for host in &hosts {
            if host.record.lock().monitor.sweep(config, now) {
                host.set_ejected(false);
                self.health_changed();
            }
        }
        let results: Vec<Option<Results>> = hosts
            .iter()
            .map(|host| {
                let results = host.record.lock().sweep_results();
                (!host.is_ejected()).then_some(results)
            })
            .collect();
        self.compare((&members, &hosts), &results, config, now);
    }

    fn compare(
        &self,
        (members, hosts): (&Members, &[Arc<Host>]),
        results: &[Option<Results>],
        config: &OutlierDetection,
        now: Instant,
    ) {
        let external = rates(results, config, |results| results.external);
        for (host, rate) in hosts.iter().zip(&external.shown) {
            host.record.lock().success_rate = *rate;
        }
        self.eject_outliers((members, hosts), &external.rates, config, now, |found| match found {
            Found::SuccessRate => Detector::SuccessRate,
            Found::FailurePercentage => Detector::FailurePercentage,
        });
        if !config.split_external_local_origin_errors {
            return;
        }
        let local = rates(results, config, |results| results.local);
        for (host, rate) in hosts.iter().zip(&local.shown) {
            host.record.lock().local_success_rate = *rate;
        }
        self.eject_outliers((members, hosts), &local.rates, config, now, |found| match found {
            Found::SuccessRate => Detector::LocalOriginSuccessRate,
            Found::FailurePercentage => Detector::LocalOriginFailurePercentage,
        });
    }

    fn eject_outliers(
        &self,
        (members, hosts): (&Members, &[Arc<Host>]),
        rates: &Rates,
        config: &OutlierDetection,
        now: Instant,
        detector: impl Fn(Found) -> Detector,
    ) {
        for (index, found) in outlier_detection::outliers(rates, config) {
            if let Some(host) = hosts.get(index) {
                self.detected_among(members, host, detector(found), config, now);
            }
        }
    }

    /// A worker begins to send to it.
    pub(super) fn use_it(&self) {
        self.used.store(true, Relaxed);
    }

    /// Whether a worker has ever sent something to it.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    /// Lets workers arrange the endpoints anew.
    pub(super) fn health_changed(&self) {
        self.health.fetch_add(1, Release);
    }
}

/// Rates for the detectors, and for whoever looks.
struct Computed {
    rates: Rates,
    shown: Vec<Option<f64>>,
}

fn rates(
    results: &[Option<Results>],
    config: &OutlierDetection,
    of: impl Fn(Results) -> outlier_detection::Tally,
) -> Computed {
    let rate = |volume: u32| -> Vec<Option<f64>> {
        results.iter().map(|results| of((*results)?).success_rate(volume)).collect()
    };
    let (success, failure) =
        (config.success_rate.request_volume, config.failure_percentage.request_volume);
    Computed {
        shown: rate(success.min(failure)),
        rates: Rates { success: rate(success), failure: rate(failure) },
    }
}

impl Members {
    fn adopt(&mut self, spec: &Arc<ClusterSpec>) {
        self.spec = Arc::clone(spec);
        let before = std::mem::take(&mut self.current);
        let before: HashSet<HostId> = before.iter().map(|host| host.id()).collect();
        let mut current = Vec::with_capacity(spec.assignment.endpoints.len());
        for (index, key) in keys(spec) {
            let new = self.known.get(&key).is_none_or(|host| host.strong_count() == 0);
            let host = self.host(key);
            if !before.contains(&host.id()) {
                host.since.restart();
            }
            if let Some(endpoint) = spec.assignment.endpoints.get(index) {
                host.flags.state(endpoint.health);
                host.flags.set(HealthFlags::PENDING_DYNAMIC_REMOVAL, endpoint.is_leaving);
                host.follow_checks(&spec.config, endpoint, new);
            }
            current.push(host);
        }
        self.current = current;
        self.known.retain(|_, host| host.strong_count() > 0);
    }

    fn host(&mut self, key: HostKey) -> Arc<Host> {
        match self.known.entry(key) {
            Entry::Occupied(mut known) => known.get().upgrade().unwrap_or_else(|| {
                let host = Arc::new(Host::new(known.key().0.clone()));
                known.insert(Arc::downgrade(&host));
                host
            }),
            Entry::Vacant(new) => {
                let host = Arc::new(Host::new(new.key().0.clone()));
                new.insert(Arc::downgrade(&host));
                host
            }
        }
    }

    fn dynamic_host(&mut self, wanted: &DynamicHost) -> Arc<Host> {
        if let Some(host) = self.dynamic.get(wanted).and_then(Weak::upgrade) {
            return host;
        }
        let host = Arc::new(Host::new(wanted.address.clone()));
        self.dynamic.insert(wanted.clone(), Arc::downgrade(&host));
        self.dynamic_changes += 1;
        host
    }

    /// Forgets the endpoints that no worker keeps.
    fn forget_unused(&mut self) {
        let before = self.dynamic.len();
        self.dynamic.retain(|_, host| host.strong_count() > 0);
        self.dynamic_changes += u64::from(self.dynamic.len() < before);
    }

    /// All endpoints in use.
    fn hosts(&self) -> impl Iterator<Item = Arc<Host>> {
        let dynamic = self.dynamic.values().filter_map(Weak::upgrade);
        self.current.iter().cloned().chain(dynamic)
    }

    fn population(&self) -> Population {
        let mut population = Population { hosts: 0, ejected: 0 };
        for host in self.hosts() {
            population.hosts += 1;
            population.ejected += usize::from(host.is_ejected());
        }
        population
    }
}

impl OutlierCounts {
    fn detected(&self, detector: Detector) {
        if let Some(count) = self.detected.get(detector as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn enforced(&self, detector: Detector) {
        if let Some(count) = self.enforced.get(detector as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// The endpoints of `spec` by place in its assignment, with their keys.
pub(super) fn keys(spec: &ClusterSpec) -> Vec<(usize, HostKey)> {
    let mut seen: HashMap<&HostAddress, u32> = HashMap::default();
    let endpoints = spec.assignment.endpoints.iter().enumerate();
    endpoints
        .filter_map(|(index, endpoint)| {
            let Address::Literal(address) = &endpoint.address else { return None };
            let count = seen.entry(address).or_insert(0);
            *count += 1;
            Some((index, (address.clone(), *count - 1)))
        })
        .collect()
}
