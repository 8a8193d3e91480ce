//! Clusters: what a request is sent to. Picks an endpoint and keeps what is learned about it.
//!
//! A cluster exists three times. [`ClusterSpec`] is its configuration, part of a snapshot. [`Clusters`] holds
//! what all workers share and what outlives a configuration: circuit breakers, each endpoint's load, results
//! and ejection. [`LocalClusters`] is one worker's side: the arrangement for picking, and the connections.
//! A worker takes a lock on the shared part when it first meets a cluster or a changed one, an endpoint that a
//! request names or one that is just found to be an outlier, never for an ordinary request.

mod dynamic;
mod failures;
mod health;
pub mod health_check;
mod home;
pub mod host;
mod latency;
pub mod load_balancer;
mod local;
mod member;
mod original_dst;
pub mod outlier_detection;
mod pick_context;
mod settings;
mod shared;
mod slow_start;
mod statistics;
mod subsets;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::address::{Address, HostAddress};
use crate::config::cluster::Cluster;
use crate::config::endpoint::{Endpoint, LoadAssignment};
use crate::config::{HashMap, Name};
use crate::telemetry::access_log::AccessLogger;
use crate::telemetry::metrics::Metrics;
use crate::tls::client::ClientTls;
use home::Home;
use shared::SharedCluster;

pub use dynamic::DynamicHost;
pub use failures::Watch;
pub use health::HealthFlags;
pub use home::Place;
pub use host::{HostId, Outcome};
pub use local::{LocalCluster, LocalHost};
pub use pick_context::{OverrideHost, PickContext};
pub use statistics::{ClusterView, HostView};
pub use subsets::preview::{Preview, Reason};

/// One cluster, linked: its configuration, its endpoints as discovered, and its TLS contexts.
///
/// Part of a snapshot. A change of anything in it is a new `Arc<ClusterSpec>`; what did not change should
/// keep its `Arc` (a new [`ClientTls`] makes pools drain the connections made with the old one).
#[derive(Debug)]
pub struct ClusterSpec {
    /// The cluster as configured.
    pub config: Arc<Cluster>,
    /// Its endpoints; every address is an [`crate::config::address::Address::Literal`].
    pub assignment: Arc<LoadAssignment>,
    /// TLS to its endpoints, if `config.tls` wants it. An endpoint whose TLS is configured but missing here
    /// gets no requests.
    pub tls: Option<Arc<ClientTls>>,
    /// TLS of each of `config.transport_socket_matches`, in their order.
    pub match_tls: Vec<Option<Arc<ClientTls>>>,
}

impl ClusterSpec {
    /// The endpoint at `address`, if it is one of the cluster's. Looks at one after the other.
    pub fn endpoint(&self, address: &HostAddress) -> Option<&Endpoint> {
        let mut endpoints = self.assignment.endpoints.iter();
        endpoints.find(|it| matches!(&it.address, Address::Literal(at) if at == address))
    }
}

/// The live side of all clusters, shared by all workers.
#[derive(Debug)]
pub struct Clusters {
    metrics: Arc<Metrics>,
    reports: Reports,
    /// Tells whoever checks hosts of a new snapshot.
    published: Notify,
    known: Mutex<HashMap<Name, Known>>,
    /// Where this proxy belongs.
    place: OnceLock<Place>,
}

/// To whom clusters tell what becomes of their hosts.
#[derive(Debug, Clone, Default)]
struct Reports {
    /// Where events of health checks are written.
    events: Option<AccessLogger>,
    /// Told when a host that stayed only for its health has failed.
    departures: Arc<Notify>,
}

/// A cluster of the newest snapshot.
#[derive(Debug, Clone)]
struct Known {
    spec: Arc<ClusterSpec>,
    /// Set up when a worker first sends something to it, or at once if its hosts start slowly or are
    /// actively checked.
    live: Option<Arc<SharedCluster>>,
    /// How often its endpoints have changed.
    membership_changes: u64,
}

impl Clusters {
    /// No clusters yet. Statistics are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            reports: Reports::default(),
            published: Notify::new(),
            known: Mutex::default(),
            place: OnceLock::new(),
        }
    }

    /// Writes the events of active health checks with `logger`.
    #[must_use]
    pub fn logging_events(self, logger: AccessLogger) -> Self {
        let reports = Reports { events: Some(logger), ..self.reports };
        Self { reports, ..self }
    }

    /// Says which cluster this proxy belongs to. To be called once, before anything is published.
    pub fn settle(&self, place: Place) {
        if self.place.set(place).is_err() {
            tracing::error!("a proxy belongs to one cluster; the first stays");
        }
    }

    /// The cluster this proxy belongs to, unless that is `name` itself.
    fn home_of(&self, name: &Name) -> Option<Rc<Home>> {
        let Place { cluster, locality } = self.place.get()?;
        let mut known = self.known.lock();
        let known = known.get_mut(cluster).filter(|_| cluster != name)?;
        let shared = Arc::clone(known.live(&self.reports));
        Some(Rc::new(Home { locality: locality.clone(), shared }))
    }

    /// Takes over the clusters of a new snapshot. To be called before workers see it.
    pub fn publish(&self, specs: &HashMap<Name, Arc<ClusterSpec>>) {
        let mut known = self.known.lock();
        known.retain(|name, _| specs.contains_key(name));
        for (name, spec) in specs {
            match known.get_mut(name) {
                Some(known) if Arc::ptr_eq(&known.spec, spec) => {}
                Some(known) => known.change(spec),
                None => {
                    known.insert(Arc::clone(name), Known::new(spec));
                }
            }
        }
        // Hosts are checked before anything is sent to them, and hosts that start slowly age from the moment
        // they are known.
        let at_once = |known: &&mut Known| {
            let config = &known.spec.config;
            config.hosts.health_check.is_some() || config.lb_policy.slow_start().is_some()
        };
        for known in known.values_mut().filter(at_once) {
            known.live(&self.reports);
        }
        drop(known);
        self.published.notify_one();
    }

    /// Where hosts of `cluster` are that pass their active checks, so that they may stay although they are no
    /// longer listed (Envoy's PENDING_DYNAMIC_REMOVAL).
    pub fn passing(&self, cluster: &str) -> HashSet<HostAddress> {
        let live = self.known.lock().get(cluster).and_then(|known| known.live.clone());
        let hosts = live.map(|live| live.current().1).unwrap_or_default();
        let passing = hosts.iter().filter(|host| host.passes_checks());
        passing.map(|host| host.address().clone()).collect()
    }

    /// Resolves when a host that was allowed to stay should do so no longer.
    pub async fn departure(&self) {
        self.reports.departures.notified().await;
    }

    /// Resolves when a snapshot has been published since the last time.
    async fn published(&self) {
        self.published.notified().await;
    }

    /// The clusters with active health checks.
    fn checked(&self) -> Vec<Arc<SharedCluster>> {
        let known = self.known.lock();
        let checked = known.values().filter(|known| known.spec.config.hosts.health_check.is_some());
        checked.filter_map(|known| known.live.clone()).collect()
    }

    /// Ends ejections whose time is over and looks for outliers, in every cluster whose interval has passed.
    pub fn sweep(&self, now: Instant) {
        let live: Vec<_> =
            self.known.lock().values().filter_map(|known| known.live.clone()).collect();
        for cluster in live {
            cluster.sweep(now);
        }
    }

    /// What a worker that meets `spec` shares with the others.
    fn join(&self, spec: &Arc<ClusterSpec>) -> Arc<SharedCluster> {
        let mut known = self.known.lock();
        let name = Arc::clone(&spec.config.name);
        let known = known.entry(name).or_insert_with(|| Known::new(spec));
        let live = known.live(&self.reports);
        live.use_it();
        Arc::clone(live)
    }
}

impl Known {
    fn new(spec: &Arc<ClusterSpec>) -> Self {
        let changes = u64::from(!spec.assignment.endpoints.is_empty());
        Self { spec: Arc::clone(spec), live: None, membership_changes: changes }
    }

    fn live(&mut self, reports: &Reports) -> &Arc<SharedCluster> {
        self.live.get_or_insert_with(|| {
            Arc::new(SharedCluster::new(&self.spec, reports.clone(), Instant::now()))
        })
    }

    fn change(&mut self, spec: &Arc<ClusterSpec>) {
        if self.spec.assignment.endpoints != spec.assignment.endpoints {
            self.membership_changes += 1;
        }
        if let Some(live) = &self.live {
            live.adopt(spec);
        }
        self.spec = Arc::clone(spec);
    }
}

/// Sweeps `clusters` for as long as it is polled.
pub async fn run_sweeps(clusters: Arc<Clusters>) {
    // Envoy's intervals are rarely below a second; each cluster keeps its own time.
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        clusters.sweep(Instant::now());
    }
}

/// One worker's clusters, made on first use, and let go when they are not used any more.
#[derive(Debug)]
pub struct LocalClusters {
    shared: Arc<Clusters>,
    local: RefCell<HashMap<Name, Rc<LocalCluster>>>,
    random: RefCell<Rng>,
    /// Minutes, for clusters to know when they were last used.
    minute: Cell<u32>,
}

/// After how many minutes without use a worker lets go of a cluster.
const UNUSED: u32 = 10;

impl LocalClusters {
    /// No clusters yet.
    pub fn new(shared: Arc<Clusters>) -> Self {
        Self {
            shared,
            local: RefCell::default(),
            random: RefCell::new(Rng::new()),
            minute: Cell::new(0),
        }
    }

    /// The cluster of `spec`. A changed specification makes a new one, which takes over the endpoints that
    /// stay, with their connections. A request should ask once and keep the answer.
    pub fn get(&self, spec: &Arc<ClusterSpec>) -> Rc<LocalCluster> {
        let before = self.local.borrow().get(&spec.config.name).cloned();
        let cluster = match before {
            Some(current) if Arc::ptr_eq(current.spec(), spec) => current,
            before => self.renew(spec, before.as_deref()),
        };
        cluster.used(self.minute.get());
        cluster
    }

    /// Lets go of clusters unused for ten minutes, for as long as it is polled. What they counted stays, and
    /// what all workers know of their hosts.
    pub async fn keep_forgetting(&self) {
        let mut minutes = tokio::time::interval(Duration::from_secs(60));
        minutes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            minutes.tick().await;
            self.forget_unused();
        }
    }

    fn forget_unused(&self) {
        let now = self.minute.get().wrapping_add(1);
        self.minute.set(now);
        self.local.borrow_mut().retain(|_, cluster| {
            let unused = now.wrapping_sub(cluster.last_use()) > UNUSED
                && Rc::strong_count(cluster) == 1
                && !cluster.has_connections();
            if unused {
                cluster.retire();
            }
            !unused
        });
    }

    fn renew(&self, spec: &Arc<ClusterSpec>, before: Option<&LocalCluster>) -> Rc<LocalCluster> {
        let shared = self.shared.join(spec);
        let before = before.filter(|before| before.shares(&shared));
        let stats = match before {
            Some(before) if before.spec().config.stat_name == spec.config.stat_name => {
                Arc::clone(&before.stats)
            }
            _ => self.shared.metrics.cluster(&spec.config.stat_name),
        };
        let home = self.shared.home_of(&spec.config.name);
        let mut random = self.random.borrow_mut();
        let cluster = LocalCluster::new(spec, &shared, home, stats, before, &mut random);
        let cluster = Rc::new(cluster);
        if let Some(before) = before {
            before.retire_missing(&cluster);
            cluster.drain_failed();
            cluster.drain_if_hosts_changed(before);
        }
        self.local.borrow_mut().insert(Arc::clone(&spec.config.name), Rc::clone(&cluster));
        cluster
    }

    /// Follows a new snapshot at once instead of with the next request: connections to endpoints and
    /// clusters that are gone, and those made with settings that have changed, close when idle; requests
    /// under way finish.
    pub fn follow(&self, specs: &HashMap<Name, Arc<ClusterSpec>>) {
        let mut changed = Vec::new();
        self.local.borrow_mut().retain(|name, cluster| {
            let spec = specs.get(name);
            match spec {
                None => cluster.retire(),
                Some(spec) if Arc::ptr_eq(cluster.spec(), spec) => {}
                Some(spec) => changed.push(Arc::clone(spec)),
            }
            spec.is_some()
        });
        for spec in changed {
            self.get(&spec);
        }
    }
}

#[cfg(test)]
mod tests;
