//! What one worker thread owns: its view of the snapshot, its clusters and pools, its statistics, its clock.
//!
//! Everything here is single-threaded (`Rc`, `Cell`): a request is served on the worker that accepted it.

mod filter_stats;
pub mod mirror_budget;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, StatusCode};

use crate::call::Caller;
use crate::cluster::{Clusters, LocalClusters};
use crate::config::http_filter::HealthCheck;
use crate::config::local_rate_limit::LocalRateLimit;
use crate::config::tracing::Provider;
use crate::config::{HashMap, Name};
use crate::dns::cache::Cache;
use crate::dns::caches::Caches;
use crate::drain::connections::ConnectionSet;
use crate::jwt::{self, remote::RemoteSets};
use crate::overload::Overload;
use crate::route::local_limit::{LocalLimiter, LocalLimits};
use crate::snapshot::{Reader, Snapshot, SnapshotCell};
use crate::telemetry::access_log::{AccessLogger, LogBuffer};
use crate::telemetry::metrics::{
    ConnectionLimitStats, HttpInspectorStats, HttpStats, ListenerStats, ListenerWorkerStats,
    Metrics, ProxyProtocolShards, TcpStats, TlsInspectorStats,
};
use crate::telemetry::trace::{Reporter, Reporters};
use mirror_budget::MirrorBudget;

pub use filter_stats::{FilterStats, GrpcKey, Shards};

type Limiters = HashMap<*const LocalRateLimit, (Arc<LocalRateLimit>, Arc<LocalLimiter>)>;

/// By the identity of their configuration, until when they are repeated, and what they are.
type HealthAnswers = HashMap<*const HealthCheck, (Arc<HealthCheck>, Instant, (StatusCode, bool))>;

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The published configuration.
    pub snapshots: Arc<SnapshotCell>,
    /// Live state of clusters and hosts.
    pub clusters: Arc<Clusters>,
    /// The names that requests bring.
    pub dns_caches: Arc<Caches>,
    /// The keys of token issuers.
    pub jwks: Arc<RemoteSets>,
    /// Statistics.
    pub metrics: Arc<Metrics>,
    /// Access-log sinks.
    pub access_log: AccessLogger,
    /// How long a drain may take (`--drain-time-s`).
    pub drain_time: Duration,
    /// What protects the process.
    pub overload: Arc<Overload>,
    /// Whether the proxy has been told to fail its health checks.
    pub fails_health_checks: Arc<AtomicBool>,
    /// What requests are counted against by this process itself.
    pub local_limits: Arc<LocalLimits>,
    /// The cluster that this proxy belongs to (`--service-cluster`).
    pub service_cluster: Name,
    /// Whether the fragment of a path is taken off; otherwise its request is refused.
    pub strip_fragments: bool,
    /// Who collects spans.
    pub reporters: Arc<Reporters>,
}

/// One worker thread's own state.
#[derive(Debug)]
pub struct Worker {
    /// Position among the workers, from 0.
    pub id: usize,
    /// Clusters with their pools.
    pub clusters: Rc<LocalClusters>,
    /// Sends requests of the proxy's own to them.
    pub caller: Rc<Caller>,
    /// What HTTP filters count.
    pub filter_stats: FilterStats,
    /// What it knows of token issuers.
    pub issuers: jwt::Providers,
    /// Access-log lines on their way out.
    pub log: Rc<LogBuffer>,
    /// What it spends on mirrored requests.
    pub mirrors: Rc<MirrorBudget>,
    /// What all workers share.
    pub shared: Shared,
    reader: RefCell<Reader>,
    held: RefCell<Rc<Held>>,
    connections: RefCell<HashMap<Name, Rc<ConnectionSet>>>,
    http_stats: RefCell<HashMap<Name, Arc<HttpStats>>>,
    listener_stats: RefCell<HashMap<Name, Arc<ListenerStats>>>,
    own_listener_stats: RefCell<HashMap<Name, Arc<ListenerWorkerStats>>>,
    tls_inspector_stats: OnceCell<Arc<TlsInspectorStats>>,
    http_inspector_stats: OnceCell<Arc<HttpInspectorStats>>,
    tcp_stats: RefCell<HashMap<Name, Arc<TcpStats>>>,
    connection_limit_stats: RefCell<HashMap<Name, Arc<ConnectionLimitStats>>>,
    proxy_protocol_stats: RefCell<HashMap<Name, Rc<ProxyProtocolShards>>>,
    /// By collector, as the newest snapshot has them.
    reporters: RefCell<Vec<KnownReporter>>,
    /// As the newest snapshot has them.
    dns_caches: RefCell<HashMap<Name, Arc<Cache>>>,
    /// By the identity of their configuration, which is held as long.
    local_limiters: RefCell<Limiters>,
    health_answers: RefCell<HealthAnswers>,
    date: RefCell<Date>,
    random: RefCell<fastrand::Rng>,
    next_id: Cell<u64>,
}

/// A collector, or that of the bootstrap, and where its spans go.
type KnownReporter = (Option<Arc<Provider>>, Option<Reporter>);

/// A snapshot as one worker's requests share it: counted without touching another core's cache line.
#[derive(Debug)]
pub struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

#[derive(Debug)]
struct Date {
    second: u64,
    value: HeaderValue,
}

impl Worker {
    /// The state of worker number `id`.
    pub fn new(id: usize, shared: Shared) -> Self {
        let mut reader = shared.snapshots.reader();
        let clusters = Rc::new(LocalClusters::new(Arc::clone(&shared.clusters)));
        let held = Rc::new(Held(Arc::clone(reader.load())));
        Self {
            id,
            caller: Rc::new(Caller::new(Rc::clone(&clusters), &shared.snapshots)),
            clusters,
            filter_stats: FilterStats::new(&shared.metrics),
            issuers: jwt::Providers::new(Arc::clone(&shared.jwks)),
            log: Rc::new(shared.access_log.buffer()),
            mirrors: Rc::default(),
            reader: RefCell::new(reader),
            held: RefCell::new(held),
            connections: RefCell::default(),
            http_stats: RefCell::default(),
            listener_stats: RefCell::default(),
            own_listener_stats: RefCell::default(),
            tls_inspector_stats: OnceCell::new(),
            http_inspector_stats: OnceCell::new(),
            tcp_stats: RefCell::default(),
            connection_limit_stats: RefCell::default(),
            proxy_protocol_stats: RefCell::default(),
            reporters: RefCell::default(),
            dns_caches: RefCell::default(),
            local_limiters: RefCell::default(),
            health_answers: RefCell::default(),
            date: RefCell::new(Date { second: 0, value: HeaderValue::from_static("") }),
            random: RefCell::new(fastrand::Rng::new()),
            next_id: Cell::new(0),
            shared,
        }
    }

    /// The newest snapshot. The same `Rc` comes back until a new one is published, so callers may
    /// compare pointers.
    pub fn snapshot(&self) -> Rc<Held> {
        let mut reader = self.reader.borrow_mut();
        let newest = reader.load();
        let mut held = self.held.borrow_mut();
        if !Arc::ptr_eq(&held.0, newest) {
            *held = Rc::new(Held(Arc::clone(newest)));
            self.dns_caches.borrow_mut().clear();
            self.local_limiters.borrow_mut().clear();
            self.health_answers.borrow_mut().clear();
            self.reporters.borrow_mut().clear();
        }
        Rc::clone(&held)
    }

    /// The buckets of `config`, which all workers share.
    pub fn local_limiter(&self, config: &Arc<LocalRateLimit>, now: Instant) -> Arc<LocalLimiter> {
        let mut known = self.local_limiters.borrow_mut();
        let make = || (Arc::clone(config), self.shared.local_limits.get(config, now));
        Arc::clone(&known.entry(Arc::as_ptr(config)).or_insert_with(make).1)
    }

    /// The upstream's last answer to health checks, if it is young enough: its status, and whether it is degraded.
    pub fn health_answer(&self, of: &Arc<HealthCheck>, now: Instant) -> Option<(StatusCode, bool)> {
        let known = self.health_answers.borrow();
        let (_, until, answer) = known.get(&Arc::as_ptr(of))?;
        (now < *until).then_some(*answer)
    }

    /// Notes an answer to a health check, where answers are repeated.
    pub fn note_health_answer(
        &self,
        of: &Arc<HealthCheck>,
        answer: (StatusCode, bool),
        now: Instant,
    ) {
        let Some(until) = of.cache_time.and_then(|time| now.checked_add(time)) else { return };
        let mut known = self.health_answers.borrow_mut();
        let (_, last, noted) =
            known.entry(Arc::as_ptr(of)).or_insert_with(|| (Arc::clone(of), now, answer));
        if *last <= now {
            (*last, *noted) = (until, answer);
        }
    }

    /// The connections of the listener of this name, if it has any place on this worker.
    pub fn connections_of(&self, listener: &str) -> Option<Rc<ConnectionSet>> {
        self.connections.borrow().get(listener).map(Rc::clone)
    }

    /// Notes where connections of the listener of this name belong from now on.
    pub fn set_connections_of(&self, listener: Name, connections: Rc<ConnectionSet>) {
        self.connections.borrow_mut().insert(listener, connections);
    }

    /// Forgets `connections`, whose listener is gone.
    pub fn forget_connections(&self, connections: &Rc<ConnectionSet>) {
        self.connections.borrow_mut().retain(|_, known| !Rc::ptr_eq(known, connections));
    }

    /// The cache of names called `name`, if the configuration has it.
    pub fn dns_cache(&self, name: &Name) -> Option<Arc<Cache>> {
        let mut known = self.dns_caches.borrow_mut();
        if let Some(cache) = known.get(name) {
            return Some(Arc::clone(cache));
        }
        let cache = self.shared.dns_caches.get(name)?;
        known.insert(Arc::clone(name), Arc::clone(&cache));
        Some(cache)
    }

    /// Where spans for `provider` go, or for the one of the bootstrap; nowhere if there is none.
    pub fn reporter(&self, provider: Option<&Arc<Provider>>) -> Option<Reporter> {
        let mut known = self.reporters.borrow_mut();
        let same = |other: &Option<Arc<Provider>>| match (provider, other) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if let Some((_, reporter)) = known.iter().find(|(other, _)| same(other)) {
            return reporter.clone();
        }
        let reporter = self.shared.reporters.get(provider);
        known.push((provider.cloned(), reporter.clone()));
        reporter
    }

    /// This worker's shard of the statistics of a connection manager.
    pub fn http_stats(&self, stat_prefix: &Name) -> Arc<HttpStats> {
        let mut known = self.http_stats.borrow_mut();
        let make = || self.shared.metrics.http(stat_prefix);
        Arc::clone(known.entry(Arc::clone(stat_prefix)).or_insert_with(make))
    }

    /// This worker's shard of the statistics of a listener.
    pub fn listener_stats(&self, stat_prefix: &Name) -> Arc<ListenerStats> {
        let mut known = self.listener_stats.borrow_mut();
        let make = || self.shared.metrics.listener(stat_prefix);
        Arc::clone(known.entry(Arc::clone(stat_prefix)).or_insert_with(make))
    }

    /// What of a listener is counted for this worker alone.
    pub fn own_listener_stats(&self, stat_prefix: &Name) -> Arc<ListenerWorkerStats> {
        let mut known = self.own_listener_stats.borrow_mut();
        let make = || self.shared.metrics.listener_worker(stat_prefix, self.id);
        Arc::clone(known.entry(Arc::clone(stat_prefix)).or_insert_with(make))
    }

    /// This worker's shard of the statistics of the TLS inspector.
    pub fn tls_inspector_stats(&self) -> &TlsInspectorStats {
        self.tls_inspector_stats.get_or_init(|| self.shared.metrics.tls_inspector())
    }

    /// This worker's shard of the statistics of the HTTP inspector.
    pub fn http_inspector_stats(&self) -> &HttpInspectorStats {
        self.http_inspector_stats.get_or_init(|| self.shared.metrics.http_inspector())
    }

    /// This worker's shards of the statistics of PROXY filters with this prefix.
    pub fn proxy_protocol_stats(&self, stat_prefix: &Name) -> Rc<ProxyProtocolShards> {
        let mut known = self.proxy_protocol_stats.borrow_mut();
        let make = || Rc::new(self.shared.metrics.proxy_protocol(stat_prefix));
        Rc::clone(known.entry(Arc::clone(stat_prefix)).or_insert_with(make))
    }

    /// This worker's shard of the statistics of a TCP proxy.
    pub fn tcp_stats(&self, stat_prefix: &Name) -> Arc<TcpStats> {
        let mut known = self.tcp_stats.borrow_mut();
        let make = || self.shared.metrics.tcp(stat_prefix);
        Arc::clone(known.entry(Arc::clone(stat_prefix)).or_insert_with(make))
    }

    /// This worker's shard of the statistics of a connection limit.
    pub fn connection_limit_stats(&self, stat_prefix: &Name) -> Arc<ConnectionLimitStats> {
        let mut known = self.connection_limit_stats.borrow_mut();
        let make = || self.shared.metrics.connection_limit(stat_prefix);
        Arc::clone(known.entry(Arc::clone(stat_prefix)).or_insert_with(make))
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// Runs `draw` with this worker's random generator.
    pub fn with_random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }

    /// A number no other connection or stream of this worker has.
    pub fn next_id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// The value of a `date` header for `now`, made once per second.
    pub fn date(&self, now: SystemTime) -> HeaderValue {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let mut date = self.date.borrow_mut();
        if date.second != second {
            let text = httpdate::fmt_http_date(now);
            if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
                *date = Date { second, value };
            }
        }
        date.value.clone()
    }
}

/// Both clocks at one moment: monotonic for durations, wall for logs.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic.
    pub instant: Instant,
    /// Wall clock.
    pub wall: SystemTime,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}
