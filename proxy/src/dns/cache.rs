//! The names that requests bring: looked up when first named, kept fresh while in use, bounded in number.
//!
//! Names that are known are read without a lock; a new one takes a lock for a moment. Lookups run on the control
//! runtime, one for each name however many wait for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::schedule::Schedule;
use super::{Failed, Resolved, Resolvers};
use crate::config::dns::{self, Resolver};
use crate::config::{HashMap, Name};
use crate::telemetry::metrics::{DnsCacheStats, Metrics};

/// A cache of one configuration.
#[derive(Debug)]
pub struct Cache {
    config: Arc<dns::Cache>,
    resolver: Arc<Resolver>,
    resolvers: Arc<Resolvers>,
    control: Handle,
    started: Instant,
    /// By name with port.
    entries: ArcSwap<HashMap<Name, Arc<Entry>>>,
    /// Held by whoever changes `entries`.
    writing: Mutex<()>,
    waiting: AtomicU32,
    stats: Arc<DnsCacheStats>,
}

/// A name that has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The name with its port, as it was asked for.
    pub name: Name,
    /// Its first address.
    pub address: SocketAddr,
    /// The others, in order.
    pub others: Arc<[SocketAddr]>,
}

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many names as there may be.
    Overflow,
    /// As many requests wait as may.
    TooManyWaiting,
    /// It does not resolve; what was the matter, in Envoy's words.
    Unresolved(Arc<str>),
}

/// One name.
#[derive(Debug)]
struct Entry {
    name: Name,
    host: Name,
    port: u16,
    /// None until the first lookup has ended.
    state: ArcSwapOption<State>,
    /// Whether the first lookup has ended.
    ended: watch::Sender<bool>,
    /// What keeps it fresh.
    lookups: OnceLock<AbortHandle>,
    /// When it was last asked for, in milliseconds after the start of the cache.
    used: AtomicU64,
}

type State = Result<Known, Arc<str>>;

/// A request that may wait for a lookup.
#[derive(Debug)]
pub struct Permit<'a>(&'a Cache);

impl Cache {
    /// A cache that looks names up on `control`, of `resolver` unless it names its own, and begins with those
    /// that are to be known from the start.
    pub(super) fn new(
        config: Arc<dns::Cache>,
        resolver: &Arc<Resolver>,
        resolvers: &Arc<Resolvers>,
        control: Handle,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let cache = Arc::new(Self {
            resolver: Arc::clone(config.resolver.as_ref().unwrap_or(resolver)),
            resolvers: Arc::clone(resolvers),
            control,
            started: Instant::now(),
            entries: ArcSwap::default(),
            writing: Mutex::new(()),
            waiting: AtomicU32::new(0),
            stats: metrics.dns_cache(&config.name),
            config,
        });
        cache.show_waiting();
        for (host, port) in &cache.config.preresolve {
            // One that does not fit is looked up when it is needed, as any other.
            drop(cache.entry(&authority(host, *port), *port));
        }
        cache
    }

    /// Whether it does what `config` wants, which asks `resolver` unless it names its own.
    pub(super) fn serves(&self, config: &dns::Cache, resolver: &Arc<Resolver>) -> bool {
        *self.config == *config && self.resolver == *config.resolver.as_ref().unwrap_or(resolver)
    }

    /// Lets a request wait, unless too many do.
    ///
    /// # Errors
    /// [`Refusal::TooManyWaiting`]
    pub fn admit(&self) -> Result<Permit<'_>, Refusal> {
        let may = |waiting| (waiting < self.config.max_pending).then_some(waiting + 1);
        if self.waiting.fetch_update(AcqRel, Acquire, may).is_err() {
            self.stats.dns_rq_pending_overflow.inc();
            return Err(Refusal::TooManyWaiting);
        }
        self.show_waiting();
        Ok(Permit(self))
    }

    /// What `authority`, a name with or without a port, stands for; waits for its first lookup.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn resolve(
        self: &Arc<Self>,
        authority: &str,
        default_port: u16,
    ) -> Result<Known, Refusal> {
        let entry = self.entry(authority, default_port)?;
        entry.used.store(self.now(), Relaxed);
        loop {
            if let Some(state) = &*entry.state.load() {
                return State::clone(state).map_err(Refusal::Unresolved);
            }
            let mut ended = entry.ended.subscribe();
            // The sender is in the entry, which is held.
            if ended.wait_for(|ended| *ended).await.is_err() {
                return Err(Refusal::Overflow);
            }
        }
    }

    fn entry(self: &Arc<Self>, authority: &str, default_port: u16) -> Result<Arc<Entry>, Refusal> {
        let (host, port) = host_and_port(authority);
        let name: std::borrow::Cow<'_, str> = match port {
            Some(_) => authority.into(),
            None => format!("{authority}:{default_port}").into(),
        };
        if let Some(entry) = self.entries.load().get(&*name) {
            return Ok(Arc::clone(entry));
        }
        let _writing = self.writing.lock();
        let entries = self.entries.load();
        if let Some(entry) = entries.get(&*name) {
            return Ok(Arc::clone(entry));
        }
        if entries.len() >= usize::try_from(self.config.max_hosts).unwrap_or(usize::MAX) {
            self.stats.host_overflow.inc();
            return Err(Refusal::Overflow);
        }
        let entry = Arc::new(Entry {
            name: (&*name).into(),
            host: host.into(),
            port: port.unwrap_or(default_port),
            state: ArcSwapOption::empty(),
            ended: watch::Sender::new(false),
            lookups: OnceLock::new(),
            used: AtomicU64::new(self.now()),
        });
        let mut next = HashMap::clone(&entries);
        next.insert(Arc::clone(&entry.name), Arc::clone(&entry));
        self.store(next);
        self.stats.host_added.inc();
        let (cache, kept) = (Arc::downgrade(self), Arc::clone(&entry));
        let lookups = self.control.spawn(keep_resolving(cache, kept));
        entry.lookups.get_or_init(|| lookups.abort_handle());
        Ok(entry)
    }

    fn store(&self, entries: HashMap<Name, Arc<Entry>>) {
        self.stats.num_hosts.set(i64::try_from(entries.len()).unwrap_or(i64::MAX));
        self.entries.store(Arc::new(entries));
    }

    fn remove(&self, name: &str) {
        let _writing = self.writing.lock();
        let mut next = HashMap::clone(&self.entries.load());
        if next.remove(name).is_some() {
            self.stats.host_removed.inc();
            self.store(next);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show_waiting(&self) {
        let left = self.config.max_pending.saturating_sub(self.waiting.load(Relaxed));
        self.stats.rq_pending_remaining.set(left.into());
        self.stats.rq_pending_open.set((left == 0).into());
    }

    /// Looks the name up once, and says how long the answer holds.
    async fn look_up(&self, entry: &Entry) -> Result<Duration, Failed> {
        self.stats.dns_query_attempt.inc();
        let (family, limit) = (self.config.family, self.config.timeout);
        let result = self.resolvers.lookup(&entry.host, family, &self.resolver, limit).await;
        let known = entry.known();
        let outcome = match result {
            Ok(Resolved { addresses, ttl, .. }) if !addresses.is_empty() => {
                self.stats.dns_query_success.inc();
                let found = entry.at(&addresses);
                // In which order they come is for servers to vary; pools are kept by the first that was known.
                if !known.as_ref().is_some_and(|known| known.is_same(&found)) {
                    self.stats.host_address_changed.inc();
                    entry.state.store(Some(Arc::new(Ok(found))));
                }
                // No time to live is one, too: the least that counts.
                Ok(ttl.max(Duration::from_millis(1)))
            }
            // What was known stays, whatever comes after.
            Ok(Resolved { reason, .. }) => {
                self.stats.dns_query_success.inc();
                entry.fail(known.is_some(), reason);
                Ok(Duration::ZERO)
            }
            Err(failed) => {
                if failed.is_too_late() {
                    self.stats.dns_query_timeout.inc();
                }
                self.stats.dns_query_failure.inc();
                entry.fail(known.is_some(), failed.reason());
                Err(failed)
            }
        };
        entry.ended.send_replace(true);
        outcome
    }
}

impl Known {
    /// Whether the addresses are the same, in whatever order.
    fn is_same(&self, other: &Self) -> bool {
        let sorted = |known: &Self| {
            let mut addresses: Vec<SocketAddr> = known.others.to_vec();
            addresses.push(known.address);
            addresses.sort_unstable();
            addresses
        };
        sorted(self) == sorted(other)
    }
}

impl Entry {
    fn known(&self) -> Option<Known> {
        self.state.load_full().and_then(|state| State::clone(&state).ok())
    }

    fn at(&self, addresses: &[IpAddr]) -> Known {
        let mut addresses = addresses.iter().map(|address| SocketAddr::new(*address, self.port));
        Known {
            name: Arc::clone(&self.name),
            // There is one: the caller has looked.
            address: addresses.next().unwrap_or_else(|| ([0, 0, 0, 0], self.port).into()),
            others: addresses.collect(),
        }
    }

    fn fail(&self, is_known: bool, reason: &str) {
        if !is_known {
            self.state.store(Some(Arc::new(Err(reason.into()))));
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        for entry in self.entries.load().values() {
            if let Some(lookups) = entry.lookups.get() {
                lookups.abort();
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Release);
        self.0.show_waiting();
    }
}

/// Looks a name up until it is unused for too long, or the cache is gone.
async fn keep_resolving(cache: std::sync::Weak<Cache>, entry: Arc<Entry>) {
    let mut random = Rng::new();
    let mut schedule = match cache.upgrade() {
        Some(cache) => Schedule::new(cache.config.refresh),
        None => return,
    };
    while let Some(now) = cache.upgrade() {
        let wait = match now.look_up(&entry).await {
            Ok(Duration::ZERO) => schedule.after_nothing(&mut random),
            Ok(ttl) => schedule.after_answer(ttl, &mut random),
            Err(_) => schedule.after_failure(&mut random),
        };
        drop(now);
        let until = tokio::time::Instant::now() + wait;
        if !is_used_until(until, &cache, &entry).await {
            return;
        }
    }
}

/// Waits until `until`; false if the name was forgotten before, or the cache.
async fn is_used_until(
    until: tokio::time::Instant,
    cache: &std::sync::Weak<Cache>,
    entry: &Entry,
) -> bool {
    loop {
        let Some(now) = cache.upgrade() else { return false };
        let unused = Duration::from_millis(now.now().saturating_sub(entry.used.load(Relaxed)));
        let Some(left) = now.config.host_ttl.checked_sub(unused) else {
            now.remove(&entry.name);
            return false;
        };
        drop(now);
        let forgotten = tokio::time::Instant::now() + left + Duration::from_millis(1);
        tokio::time::sleep_until(until.min(forgotten)).await;
        if until <= forgotten {
            return cache.upgrade().is_some();
        }
    }
}

/// Host and port of an authority; brackets around an IPv6 address are taken away.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, port.parse().ok())
        }
        _ => (authority, None),
    };
    let host = if port.is_some() { host } else { authority };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

/// A name and a port in one, brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
