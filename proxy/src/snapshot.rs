//! The published configuration: one immutable, fully linked set, swapped whole and read without locks.
//!
//! There is one writer (discovery) and a [`Reader`] per worker. Whatever a change does not touch keeps its
//! `Arc` from one snapshot to the next, so that a pointer comparison tells what changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::watch;

use crate::cluster::ClusterSpec;
use crate::config::address::HostAddress;
use crate::config::cluster::Discovery;
use crate::config::dns::Resolver;
use crate::config::http::{FixedHeaders, HttpConnectionManager};
use crate::config::jwt::{RemoteJwks, StatsScope};
use crate::config::listener::{ConnectionLimit, ListenAddress};
use crate::config::local_rate_limit::ConnectionRate;
use crate::config::tcp::TcpProxy;
use crate::config::{self, HashMap, Name};
use crate::filter_chain::FilterChainMatcher;
use crate::overload::TokenBucket;
use crate::route::RouteTable;
use crate::tls::server::ServerTls;

/// A consistent set of everything a request may need.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts publications; the empty set before the first has 0.
    pub version: u64,
    /// Listeners by name.
    pub listeners: HashMap<Name, Arc<Listener>>,
    /// The same by each of their addresses.
    pub destinations: HashMap<SocketAddr, Arc<Listener>>,
    /// Discovered route tables by name; inline ones hang off their chain.
    pub routes: HashMap<Name, Arc<RouteTable>>,
    /// Clusters by name.
    pub clusters: HashMap<Name, Arc<ClusterSpec>>,
    /// Who is asked for names, unless somebody else is named.
    pub resolver: Arc<Resolver>,
}

/// A listener with its chains built.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    pub config: Arc<config::listener::Listener>,
    /// Picks a position in `chains`.
    pub matcher: FilterChainMatcher,
    /// One per configured chain, in the same order.
    pub chains: Vec<Arc<FilterChain>>,
    /// Taken when no chain matches.
    pub default_chain: Option<Arc<FilterChain>>,
}

/// A filter chain with its TLS context and its last filter.
#[derive(Debug)]
pub struct FilterChain {
    /// As configured.
    pub config: Arc<config::listener::FilterChain>,
    /// TLS termination; none means plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Its enabled `connection_limit` filters, in their order.
    pub limiters: Vec<Arc<ConnectionLimiter>>,
    /// Its enabled `local_ratelimit` filters, in their order, with their buckets, which outlive a configuration.
    pub rates: Vec<(Arc<ConnectionRate>, Arc<TokenBucket>)>,
    /// What serves the connection.
    pub terminal: Terminal,
}

/// A `connection_limit` filter with the connections it counts, which outlive a configuration.
#[derive(Debug)]
pub struct ConnectionLimiter {
    config: Arc<ConnectionLimit>,
    open: AtomicU64,
}

/// One of the connections of a [`ConnectionLimiter`], until it is dropped.
#[derive(Debug)]
pub struct OneConnection(Arc<ConnectionLimiter>);

impl ConnectionLimiter {
    /// A limit that counts nothing yet.
    pub fn new(config: Arc<ConnectionLimit>) -> Self {
        Self { config, open: AtomicU64::new(0) }
    }

    /// As configured.
    pub fn config(&self) -> &Arc<ConnectionLimit> {
        &self.config
    }

    /// A place for one more connection; none if the limit is reached.
    pub fn try_take(limiter: &Arc<Self>) -> Option<OneConnection> {
        let below = |open| (open < limiter.config.max_connections).then_some(open + 1);
        let taken = limiter.open.fetch_update(Relaxed, Relaxed, below).is_ok();
        taken.then(|| OneConnection(Arc::clone(limiter)))
    }
}

impl Drop for OneConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The last filter of a chain, linked.
#[derive(Debug)]
pub enum Terminal {
    /// `http_connection_manager`
    Http(Arc<Http>),
    /// `tcp_proxy`
    Tcp(Arc<TcpProxy>),
}

impl Terminal {
    /// Whether it serves as `other` does.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(a), Self::Http(b)) => Arc::ptr_eq(a, b),
            (Self::Tcp(a), Self::Tcp(b)) => a == b,
            _ => false,
        }
    }
}

impl FilterChain {
    /// Its connection manager, if it serves HTTP.
    pub fn http(&self) -> Option<&Arc<Http>> {
        match &self.terminal {
            Terminal::Http(http) => Some(http),
            Terminal::Tcp(_) => None,
        }
    }
}

/// A connection manager with its route table.
#[derive(Debug)]
pub struct Http {
    /// As configured.
    pub config: Arc<HttpConnectionManager>,
    /// None while the discovered table has not arrived: requests get 404.
    pub routes: Option<Arc<RouteTable>>,
    /// What every response gets.
    pub fixed: FixedHeaders,
}

impl Http {
    /// Links `config` with its table.
    pub fn new(config: Arc<HttpConnectionManager>, routes: Option<Arc<RouteTable>>) -> Self {
        let fixed = config.fixed_headers();
        Self { config, routes, fixed }
    }
}

impl Listener {
    /// Whether `address` is one of its own, as configured.
    pub fn is_at(&self, address: &HostAddress) -> bool {
        self.config.addresses.iter().any(|own| own.address == *address)
    }
}

impl Snapshot {
    /// The caches of names that clusters and filters use; one may come several times.
    pub fn dns_caches(&self) -> Vec<&Arc<config::dns::Cache>> {
        let mut caches = Vec::new();
        for cluster in self.clusters.values() {
            if let Discovery::ForwardProxy(cache) = &cluster.config.discovery {
                caches.push(cache);
            }
        }
        let listeners = self.listeners.values();
        for chain in listeners.flat_map(|it| it.chains.iter().chain(&it.default_chain)) {
            caches.extend(chain.config.dns_caches());
        }
        caches
    }

    /// The key sets that filters have fetched, and under what that is counted; one may come several times.
    pub fn remote_jwks(&self) -> impl Iterator<Item = (&Arc<RemoteJwks>, &StatsScope)> {
        let listeners = self.listeners.values();
        let chains = listeners.flat_map(|it| it.chains.iter().chain(&it.default_chain));
        let filters = chains.flat_map(|chain| chain.config.jwt_authn());
        filters.flat_map(|filter| filter.remote_jwks().map(|jwks| (jwks, &filter.stats)))
    }

    /// The listener whose connections arrive at `address` (as configured, port 0 for any), where `name` was
    /// the last that did so. A socket may pass from one listener to another, and connections arrive
    /// before its accept loop is told: then the address decides.
    pub fn listener(&self, name: &str, address: &HostAddress) -> Option<&Arc<Listener>> {
        let last = self.listeners.get(name);
        if last.is_some_and(|listener| listener.is_at(address)) || address.asks_for_any_port() {
            return last;
        }
        self.listeners.values().find(|listener| listener.is_at(address)).or(last)
    }

    /// The listener at `destination`, or at its port on all addresses.
    pub fn listener_of(&self, destination: SocketAddr) -> Option<&Arc<Listener>> {
        let everywhere: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let everywhere = SocketAddr::new(everywhere, destination.port());
        let exact = self.destinations.get(&destination);
        exact.or_else(|| self.destinations.get(&everywhere))
    }

    /// The same clusters, and nothing that is served.
    #[must_use]
    pub fn without_listeners(&self) -> Self {
        let (clusters, resolver) = (self.clusters.clone(), Arc::clone(&self.resolver));
        Self { version: self.version, clusters, resolver, ..Self::default() }
    }

    /// Notes the addresses of all listeners.
    pub fn index_destinations(&mut self) {
        let mut compatible = Vec::new();
        for listener in self.listeners.values() {
            for ListenAddress { address, options } in &listener.config.addresses {
                let Some(address) = address.ip() else { continue };
                self.destinations.insert(address, Arc::clone(listener));
                if options.ipv4_compat && address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
                    let ipv4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
                    compatible.push((ipv4, listener));
                }
            }
        }
        for (address, listener) in compatible {
            self.destinations.entry(address).or_insert_with(|| Arc::clone(listener));
        }
    }

    /// The chain called `chain` of the listener called `listener`.
    pub fn chain(&self, listener: &str, chain: &str) -> Option<&Arc<FilterChain>> {
        let listener = self.listeners.get(listener)?;
        listener
            .chains
            .iter()
            .chain(&listener.default_chain)
            .find(|candidate| &*candidate.config.name == chain)
    }
}

/// Holds the current [`Snapshot`].
#[derive(Debug)]
pub struct SnapshotCell {
    current: Arc<ArcSwap<Snapshot>>,
    version: watch::Sender<u64>,
}

impl SnapshotCell {
    /// A cell that holds `first`.
    pub fn new(first: Snapshot) -> Self {
        let version = watch::Sender::new(first.version);
        Self { current: Arc::new(ArcSwap::from_pointee(first)), version }
    }

    /// The current snapshot. A worker uses its [`Reader`] instead, which is cheaper.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Publishes `next` to all readers at once, and wakes those who wait for a change.
    pub fn store(&self, next: Arc<Snapshot>) {
        let version = next.version;
        self.current.store(next);
        self.version.send_replace(version);
    }

    /// A reader for one worker.
    pub fn reader(&self) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.current)) }
    }

    /// Tells the version of each snapshot after it was published; intermediate ones may be skipped.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

/// One worker's view of the cell: it keeps the last snapshot seen, so that looking costs one load.
#[derive(Debug, Clone)]
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
}

impl Reader {
    /// The current snapshot.
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.cache.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_and_watchers_see_what_was_stored() {
        let cell = SnapshotCell::new(Snapshot::default());
        let mut reader = cell.reader();
        let mut changes = cell.changes();
        let first = Arc::clone(reader.load());
        assert!(Arc::ptr_eq(&first, reader.load()));

        cell.store(Arc::new(Snapshot { version: 1, ..Snapshot::default() }));
        changes.changed().await.unwrap();
        assert_eq!(*changes.borrow(), 1);
        assert_eq!(reader.load().version, 1);
        assert_eq!(first.version, 0, "a request keeps the snapshot it started with");
    }
}
