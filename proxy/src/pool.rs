//! Connections to one endpoint: a ready one, or a new one.
//!
//! Every worker has its own pools, so nothing here is shared or locked; only circuit breakers and the number
//! of requests under way are counted over all workers.
//!
//! A pool knows three ways to lose a request to a dying connection and what to do against each. An idle
//! connection whose end has arrived is thrown away when it is found so. A request that must not be sent
//! twice asks for [`Reuse::Verified`]: the kernel is asked whether the peer has said anything, and a
//! connection near the end of its server's patience ([`server_idle`]) is not used. What still goes wrong is
//! told precisely ([`SendError`]), so that the caller can send again what may be sent again, on a connection
//! of its own ([`Reuse::Never`]).

pub mod circuit_breaker;
mod connection;
mod connections;
mod dedicated;
mod expiry;
mod lease;
mod load;
mod open;
mod send_error;
mod server_idle;
mod waiting;
mod wire;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::address::HostAddress;
use crate::config::cluster::{Cluster, UpstreamProtocol};
use crate::config::istio::Alpn;
use crate::config::route::Priority;
use crate::config::tls::UpstreamTls;
use crate::config::{HashMap, Name};
use crate::telemetry::metrics::ClusterStats;
use crate::tls::client::ClientTls;
use crate::upstream::client::{Client, Presence};
use crate::upstream::failure::{ConnectError, Limit};
use crate::upstream::http::Protocol;
use circuit_breaker::LocalBreaker;
use connections::Connections;
use load::Active;

pub use dedicated::{Dedicated, Usage};
pub use lease::{Lease, ResponseBody};
pub use load::{HostCounts, Load};
pub use send_error::{Cause, SendError, Stage};

/// How connections to an endpoint are made and kept. Replaced as a whole when the configuration changes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The endpoint.
    pub address: HostAddress,
    /// Its other addresses, tried after the first.
    pub additional_addresses: Arc<[SocketAddr]>,
    /// The name it was configured or resolved by; may be empty.
    pub hostname: Name,
    /// Its cluster.
    pub cluster: Arc<Cluster>,
    /// TLS to it; none means plain text.
    pub tls: Option<Tls>,
}

/// TLS as configured and as built.
#[derive(Debug, Clone)]
pub struct Tls {
    /// As configured.
    pub config: Arc<UpstreamTls>,
    /// As built.
    pub client: Arc<ClientTls>,
}

impl Tls {
    fn alpn(&self) -> impl Iterator<Item = &str> {
        self.config.common.alpn.iter().map(AsRef::as_ref)
    }
}

impl Settings {
    /// The server name to send for requests to `host`.
    fn server_name<'a>(&'a self, host: Option<&'a str>) -> Option<&'a str> {
        let tls = self.tls.as_ref()?;
        let host = host.filter(|host| self.cluster.http.auto_sni && is_name(host));
        let by_hostname = tls.config.auto_host_sni && !self.hostname.is_empty();
        let configured = || {
            if by_hostname { Some(&*self.hostname) } else { tls.config.sni.as_deref() }
        };
        host.or_else(configured)
    }

    /// The host of the request at `authority`, if connections are made for it alone.
    fn own_host<'a>(&self, authority: Option<&'a str>) -> Option<&'a str> {
        let http = &self.cluster.http;
        if self.tls.is_none() || !(http.auto_sni || http.auto_san_validation) {
            return None;
        }
        let host = host_of(authority?);
        (http.auto_san_validation || is_name(host)).then_some(host)
    }

    /// Whether connections made with these settings are as good as ones made with `other`.
    fn is_interchangeable(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a.client, &b.client) && a.config == b.config,
            (None, None) => true,
            _ => false,
        };
        let (a, b) = (&self.cluster, &other.cluster);
        same_tls
            && self.hostname == other.hostname
            && self.additional_addresses == other.additional_addresses
            && (Arc::ptr_eq(a, b)
                || (a.http == b.http
                    && a.buffer_limit == b.buffer_limit
                    && a.connect_timeout == b.connect_timeout
                    && a.connecting == b.connecting))
    }
}

/// What a request needs of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// Which circuit breaker counts it.
    pub priority: Priority,
    /// What the client speaks, for clusters that follow it.
    pub downstream: Protocol,
    /// Host header or `:authority`, for clusters with `auto_sni` or `auto_san_validation`.
    pub host: Option<&'a str>,
    /// The client, for endpoints at which something shows of it.
    pub client: &'a Client,
    /// That it is there; connections at which its port shows end with it.
    pub presence: &'a Presence,
    /// What to offer by ALPN, in place of what the endpoint's TLS says.
    pub alpn: Option<&'a Alpn>,
    /// Which connections will do.
    pub reuse: Reuse,
}

/// Which connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any: the request can be sent again if the connection turns out to be dead.
    Any,
    /// A new one, or one that shows no sign of ending: the request must not be sent twice.
    Verified,
    /// A new one only: a request that is sent again.
    Never,
}

/// What decides whether two connections to the same endpoint can stand in for each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Key {
    /// The protocol; none leaves it to ALPN.
    protocol: Option<Protocol>,
    /// Whose circuit breaker counts them. A connection is never lent across priorities: it would let
    /// requests through that its own limit is there to hold back.
    priority: Priority,
    /// The host whose name is sent (`auto_sni`) or must be certified (`auto_san_validation`).
    host: Option<Box<str>>,
    /// What shows of the client at the endpoint.
    client: Client,
    /// What is offered by ALPN, in place of what its TLS says.
    alpn: Option<Alpn>,
}

/// What all connections of one endpoint on one worker have in common, whatever their settings.
pub struct Common {
    /// The worker's shard of the cluster's statistics.
    pub stats: Arc<ClusterStats>,
    /// The worker's counts about the endpoint.
    pub counts: Arc<HostCounts>,
    /// Requests under way at the endpoint, over all workers.
    pub load: Arc<Load>,
    /// Circuit breakers of priority DEFAULT and HIGH.
    pub breakers: [LocalBreaker; 2],
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("load", &self.load).finish_non_exhaustive()
    }
}

impl Common {
    fn breaker(&self, priority: Priority) -> &LocalBreaker {
        let [default, high] = &self.breakers;
        match priority {
            Priority::Default => default,
            Priority::High => high,
        }
    }
}

/// The connections of one worker to one endpoint.
#[derive(Debug)]
pub struct HostPool {
    common: Rc<Common>,
    /// The kind of connection used last, which mostly is the only one.
    latest: RefCell<Rc<Connections>>,
    others: RefCell<HashMap<Key, Rc<Connections>>>,
    /// How many others there may be before the empty ones are forgotten.
    room: Cell<usize>,
}

/// How many kinds of connections are kept in mind without a look at whether there still are any.
const ROOM: usize = 16;

impl HostPool {
    /// A pool without connections.
    pub fn new(settings: Settings, common: Common) -> Self {
        let common = Rc::new(common);
        let key = Key { protocol: protocol(&settings, Protocol::Http1), ..Key::default() };
        let latest = Rc::new(Connections::new(Rc::new(settings), key, Rc::clone(&common)));
        Self {
            common,
            latest: RefCell::new(latest),
            others: RefCell::default(),
            room: Cell::new(ROOM),
        }
    }

    /// A connection for one request, ready or new.
    ///
    /// # Errors
    /// When a circuit breaker is open or no connection can be made.
    pub async fn acquire(&self, need: Need<'_>) -> Result<Lease, ConnectError> {
        let active = Active::enter(&self.common);
        let grant = self.connections(need).acquire(need.reuse).await?;
        let Some(permit) = self.common.breaker(need.priority).try_request() else {
            self.common.stats.upstream_rq_active_overflow.inc();
            return Err(ConnectError::Overflow(Limit::Requests));
        };
        Ok(Lease::new(grant, Rc::clone(&self.common), permit, active))
    }

    /// Makes connections with `settings` from now on. Connections that would be made differently take no
    /// more requests: idle ones close, busy ones finish what is under way.
    pub fn reconfigure(&self, settings: Settings) {
        let latest = Rc::clone(&*self.latest.borrow());
        if latest.settings.is_interchangeable(&settings) {
            return;
        }
        self.retire();
        self.renew(Rc::new(settings));
    }

    /// Closes idle connections, and busy ones after what is under way; new ones are made as before.
    pub fn drain(&self) {
        self.retire();
        let settings = Rc::clone(&self.latest.borrow().settings);
        self.renew(settings);
    }

    fn renew(&self, settings: Rc<Settings>) {
        let key = Key { protocol: protocol(&settings, Protocol::Http1), ..Key::default() };
        let fresh = Connections::new(settings, key, Rc::clone(&self.common));
        *self.latest.borrow_mut() = Rc::new(fresh);
    }

    /// Lets go of all connections: idle ones close, busy ones finish what is under way.
    pub fn retire(&self) {
        self.latest.borrow().retire_all();
        for (_, connections) in self.others.borrow_mut().drain() {
            connections.retire_all();
        }
    }

    /// The name the endpoint was configured or resolved by; may be empty.
    pub fn hostname(&self) -> Name {
        Arc::clone(&self.latest.borrow().settings.hostname)
    }

    /// The connections that can serve `need`. Those that are for its client alone know of it from now on.
    fn connections(&self, need: Need<'_>) -> Rc<Connections> {
        let connections = self.find(need);
        if connections.key.client.is_alone() {
            need.presence.is_followed_by(&connections);
        }
        connections
    }

    fn find(&self, need: Need<'_>) -> Rc<Connections> {
        let latest = Rc::clone(&*self.latest.borrow());
        let settings = &latest.settings;
        let protocol = protocol(settings, need.downstream);
        let (priority, host) = (need.priority, settings.own_host(need.host));
        let client = need.client.shown(&settings.cluster.connecting);
        let alpn = need.alpn.filter(|_| settings.tls.is_some());
        let key = &latest.key;
        let same = key.protocol == protocol
            && key.priority == priority
            && key.client == client
            && key.alpn.as_ref() == alpn;
        if same && key.host.as_deref() == host && !latest.is_over() {
            return latest;
        }
        let key =
            Key { protocol, priority, host: host.map(Into::into), client, alpn: alpn.cloned() };
        let mut others = self.others.borrow_mut();
        // Clients come and go: no request looks at those of all the others.
        if others.len() >= self.room.get() {
            others.retain(|_, connections| !connections.is_empty() && !connections.is_over());
            self.room.set((2 * others.len()).max(ROOM));
        }
        let wanted = others.remove(&key).filter(|known| !known.is_over()).unwrap_or_else(|| {
            Rc::new(Connections::new(Rc::clone(settings), key, Rc::clone(&self.common)))
        });
        if !latest.is_over() {
            others.insert(latest.key.clone(), latest);
        }
        *self.latest.borrow_mut() = Rc::clone(&wanted);
        wanted
    }
}

impl Drop for HostPool {
    fn drop(&mut self) {
        self.retire();
    }
}

/// The protocol to speak; none leaves it to ALPN, which needs TLS.
fn protocol(settings: &Settings, downstream: Protocol) -> Option<Protocol> {
    match settings.cluster.http.protocol {
        UpstreamProtocol::Http1 => Some(Protocol::Http1),
        UpstreamProtocol::Http2 => Some(Protocol::Http2),
        UpstreamProtocol::Alpn => settings.tls.is_none().then_some(Protocol::Http1),
        UpstreamProtocol::Downstream => Some(downstream),
    }
}

/// The host of an authority, without port and brackets.
fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bracketed.unwrap_or(host)
}

/// Whether a host can be sent as a server name; TLS does not send IP addresses.
fn is_name(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
pub(crate) mod tests;
