//! One downstream connection as its requests share it: its facts, its configuration, what is under way on it.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

use super::deadline::Timer;
use super::dynamic::Dynamic;
use super::forwarded;
use super::head_guard::Offence;
use super::io::Signals;
use super::open_connection::OpenConnection;
use super::trace::Tracer;
use crate::config::Name;
use crate::config::address::HostAddress;
use crate::config::http::HttpConnectionManager;
use crate::config::listener::TrafficDirection;
use crate::config::local_rate_limit::LocalRateLimit;
use crate::drain::Phase;
use crate::drain::connections::{Control, Membership};
use crate::net;
use crate::net::listening::NOWHERE;
use crate::net::proxy_protocol::Tlv;
use crate::route::local_limit::LocalLimiter;
use crate::snapshot::{FilterChain, Http};
use crate::telemetry::metrics::HttpStats;
use crate::tls::peer::PeerInfo;
use crate::upstream::client::{Client, Origin, Presence};
use crate::worker::{Held, Worker};

/// What is known of a downstream connection before its first byte of HTTP.
#[derive(Debug)]
pub struct Downstream {
    /// Unique on its worker.
    pub id: u64,
    /// The Unix socket it came over. Where its addresses are [`NOWHERE`], they are shown as this path.
    pub pipe: Option<Name>,
    /// Our address.
    pub local: SocketAddr,
    /// The address of the socket itself.
    pub direct_local: SocketAddr,
    /// Where it was made to before it was redirected here; none if it was not.
    pub original_dst: Option<SocketAddr>,
    /// Who made the connection, as a PROXY header or the socket says.
    pub remote: SocketAddr,
    /// The peer of the socket itself.
    pub direct_remote: SocketAddr,
    /// What TLS established; none on plain text.
    pub tls: Option<PeerInfo>,
    /// SNI, from TLS termination or the inspector.
    pub server_name: Option<Box<str>>,
    /// Extensions of its PROXY header that may be passed on.
    pub tlvs: Option<Rc<[Tlv]>>,
    /// The address that connections made for it come from; none leaves it to the cluster.
    pub origin: Option<Origin>,
    /// That it is there.
    pub presence: Presence,
    /// What network filters have said of it.
    pub dynamic: RefCell<Dynamic>,
    /// The listener that it is served by.
    pub listener: Name,
}

impl Downstream {
    /// One of its addresses, to be shown.
    pub fn shown(&self, address: SocketAddr) -> HostAddress {
        match &self.pipe {
            Some(path) if address == NOWHERE => HostAddress::Pipe(Name::clone(path)),
            _ => HostAddress::Ip(address),
        }
    }

    /// What may show of it at endpoints.
    pub fn client(&self) -> Client {
        let ends = Some((self.remote, self.local)).filter(|ends| ends.0 != NOWHERE);
        Client { ends, tlvs: self.tlvs.clone(), origin: self.origin }
    }
}

/// The configuration a connection is served by, as of one snapshot.
#[derive(Debug)]
pub struct Served {
    /// The snapshot.
    pub snapshot: Rc<Held>,
    /// The chain; kept from an older snapshot if the newer one has none of that name.
    pub chain: Arc<FilterChain>,
    /// The chain's connection manager.
    pub http: Arc<Http>,
    /// Its statistics.
    pub stats: Arc<HttpStats>,
    /// What traces its requests; nothing unless configured.
    pub tracer: Option<Tracer>,
    /// This hop's element of `x-forwarded-client-cert`, once somebody asked.
    pub(super) client_cert: OnceCell<Option<HeaderValue>>,
}

impl Served {
    fn new(
        worker: &Worker,
        snapshot: Rc<Held>,
        chain: Arc<FilterChain>,
        http: Arc<Http>,
        listener: &Name,
    ) -> Rc<Self> {
        let stats = worker.http_stats(&http.config.stat_prefix);
        let egress = || {
            let listener = snapshot.listeners.get(listener);
            listener.is_some_and(|it| it.config.direction == TrafficDirection::Outbound)
        };
        let tracer = http.config.tracing.is_some().then(egress);
        let tracer = tracer.and_then(|egress| Tracer::new(worker, &http.config, egress));
        Rc::new(Self { snapshot, chain, http, stats, tracer, client_cert: OnceCell::new() })
    }

    /// The connection manager's configuration.
    pub fn config(&self) -> &HttpConnectionManager {
        &self.http.config
    }
}

/// One downstream HTTP connection, shared by the requests on it.
#[derive(Debug)]
pub struct Connection {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// Its facts.
    pub downstream: Downstream,
    /// What forwarded headers say of it.
    pub(super) forwarded: forwarded::Downstream,
    /// Its place among the listener's connections; left when the last request on it is gone.
    membership: Membership,
    served: RefCell<Rc<Served>>,
    pub(super) signals: Signals,
    pub(super) opened: Instant,
    /// Left with the last request, like its place: an upgraded one outlives the codec.
    pub(super) open: OpenConnection,
    requests: Cell<u32>,
    pub(super) active: Cell<u32>,
    pub(super) idle_since: Cell<Instant>,
    /// Whether the last request that ended had arrived to its last byte.
    whole: Cell<bool>,
    timer: RefCell<Timer>,
    /// Buckets of its own.
    local_limiters: RefCell<Vec<(Arc<LocalRateLimit>, Arc<LocalLimiter>)>>,
}

impl Connection {
    /// A connection that was matched to `chain` of `snapshot`, which is served by `http`.
    pub fn new(
        worker: Rc<Worker>,
        downstream: Downstream,
        membership: Membership,
        snapshot: Rc<Held>,
        (chain, http): (Arc<FilterChain>, Arc<Http>),
    ) -> Rc<Self> {
        let served = Served::new(&worker, snapshot, chain, http, &downstream.listener);
        let opened = Instant::now();
        let forwarded = forwarded::Downstream::new(
            downstream.remote,
            downstream.local,
            downstream.tls.is_some(),
            net::own_address(),
            served.config().represent_ipv4_as_mapped,
        );
        let open = OpenConnection::count(&served.stats, opened, downstream.tls.is_some());
        Rc::new(Self {
            open,
            worker,
            downstream,
            forwarded,
            membership,
            served: RefCell::new(served),
            signals: Signals::default(),
            opened,
            requests: Cell::new(0),
            active: Cell::new(0),
            idle_since: Cell::new(opened),
            whole: Cell::new(false),
            timer: RefCell::default(),
            local_limiters: RefCell::default(),
        })
    }

    /// Its own buckets of `config`, where connections have some.
    pub fn local_limiter(&self, config: &Arc<LocalRateLimit>, now: Instant) -> Arc<LocalLimiter> {
        let mut known = self.local_limiters.borrow_mut();
        if let Some((_, limiter)) = known.iter().find(|(known, _)| Arc::ptr_eq(known, config)) {
            return Arc::clone(limiter);
        }
        let limiter = Arc::new(LocalLimiter::new(config, now));
        known.push((Arc::clone(config), Arc::clone(&limiter)));
        limiter
    }

    /// The configuration for a request that begins now: the newest snapshot's.
    pub fn served(&self) -> Rc<Served> {
        let newest = self.worker.snapshot();
        let mut served = self.served.borrow_mut();
        if !Rc::ptr_eq(&served.snapshot, &newest) {
            let chain = newest.chain(&self.downstream.listener, &served.chain.config.name);
            let found = chain.and_then(|chain| Some((chain, chain.http()?)));
            if found.is_none() {
                // Its chain is gone: what is under way ends by the old one.
                self.control().advance(Phase::Draining);
            }
            let (chain, http) = found.unwrap_or((&served.chain, &served.http));
            let (chain, http) = (Arc::clone(chain), Arc::clone(http));
            *served = Served::new(&self.worker, newest, chain, http, &self.downstream.listener);
        }
        Rc::clone(&served)
    }

    /// Notes that a request begins, and returns what was wrong with its bytes. The last one that the
    /// connection may serve drains it.
    pub fn request_begins(&self, served: &Served) -> Option<Offence> {
        self.requests.set(self.requests.get().saturating_add(1));
        self.active.set(self.active.get() + 1);
        let limit = served.config().limits.max_requests_per_connection;
        if self.worker.shared.overload.disables_keepalive() && !self.is_draining() {
            served.stats.downstream_cx_overload_disable_keepalive.inc();
            self.control().advance(Phase::Draining);
        }
        if limit != 0 && self.requests.get() == limit {
            served.stats.downstream_cx_max_requests_reached.inc();
            self.control().advance(Phase::Draining);
        }
        self.signals.request_begins()
    }

    /// Notes that a request begins that another one became (Envoy calls its stream recreated).
    pub fn request_goes_on(&self) {
        self.active.set(self.active.get() + 1);
    }

    /// Notes that a request has ended; `whole` if it had arrived to its last byte.
    pub fn request_ends(&self, whole: bool) {
        self.active.set(self.active.get().saturating_sub(1));
        self.whole.set(whole);
        if self.active.get() == 0 {
            self.idle_since.set(Instant::now());
            self.signals.request_ends();
        }
    }

    /// Whether the codec of an HTTP/1 connection keeps nothing that a new one would miss: between two
    /// requests, with nothing on its way in or out.
    pub(super) fn is_quiet(&self) -> bool {
        self.active.get() == 0
            && self.whole.get()
            && !self.signals.heard()
            && self.signals.all_sent()
    }

    /// Gives back what only requests need.
    pub(super) fn park(&self) {
        self.timer.take();
    }

    /// The timer of the last request that waited, so that each need not make its own; a new one if another
    /// request has it.
    pub(super) fn take_timer(&self) -> Timer {
        self.timer.take()
    }

    /// Gives the timer back for the next request.
    pub(super) fn return_timer(&self, timer: Timer) {
        self.timer.replace(timer);
    }

    /// Whether its listener serves however little memory is left.
    pub(super) fn bypasses_overload(&self) -> bool {
        let served = self.served.borrow();
        let listener = served.snapshot.listeners.get(&self.downstream.listener);
        listener.is_some_and(|listener| listener.config.bypass_overload_manager)
    }

    /// Its handle for drains.
    pub fn control(&self) -> &Control {
        &self.membership.control
    }

    /// Whether responses should tell the client to go elsewhere.
    pub fn is_draining(&self) -> bool {
        self.control().phase() >= Phase::Draining
    }
}
