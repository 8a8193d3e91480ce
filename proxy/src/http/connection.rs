//! One downstream connection: which HTTP version it speaks, how long it may idle, how it ends.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::deadline::Timer;
use super::io::{Heard, ServerIo, Sniffed, sniff};
use super::{forwarded, service};
use crate::config::Name;
use crate::config::http::{CodecType, HttpConnectionManager};
use crate::drain::Phase;
use crate::drain::connections::{Control, Membership};
use crate::net;
use crate::snapshot::FilterChain;
use crate::telemetry::metrics::HttpStats;
use crate::tls::peer::PeerInfo;
use crate::upstream::http::LocalExecutor;
use crate::worker::{Held, Worker};

/// What is known of a downstream connection before its first byte of HTTP.
#[derive(Debug)]
pub struct Downstream {
    /// Unique on its worker.
    pub id: u64,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// What TLS established; none on plain text.
    pub tls: Option<PeerInfo>,
    /// SNI, from TLS termination or the inspector.
    pub server_name: Option<Box<str>>,
}

/// The configuration a connection is served by, as of one snapshot.
#[derive(Debug)]
pub struct Served {
    /// The snapshot.
    pub snapshot: Rc<Held>,
    /// The chain; kept from an older snapshot if the newer one has none of that name.
    pub chain: Arc<FilterChain>,
    /// Statistics of the chain's connection manager.
    pub stats: Arc<HttpStats>,
    /// This hop's element of `x-forwarded-client-cert`, once somebody asked.
    pub(super) client_cert: OnceCell<Option<HeaderValue>>,
}

impl Served {
    fn new(worker: &Worker, snapshot: Rc<Held>, chain: Arc<FilterChain>) -> Rc<Self> {
        let stats = worker.http_stats(&chain.http.config.stat_prefix);
        Rc::new(Self { snapshot, chain, stats, client_cert: OnceCell::new() })
    }

    /// The connection manager's configuration.
    pub fn config(&self) -> &HttpConnectionManager {
        &self.chain.http.config
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
    listener: Name,
    served: RefCell<Rc<Served>>,
    heard: Heard,
    opened: Instant,
    requests: Cell<u32>,
    active: Cell<u32>,
    idle_since: Cell<Instant>,
}

impl Connection {
    /// A connection accepted by `listener` and matched to `chain` of `snapshot`.
    pub fn new(
        worker: Rc<Worker>,
        downstream: Downstream,
        membership: Membership,
        listener: Name,
        snapshot: Rc<Held>,
        chain: Arc<FilterChain>,
    ) -> Rc<Self> {
        let served = Served::new(&worker, snapshot, chain);
        let opened = Instant::now();
        let forwarded = forwarded::Downstream::new(
            downstream.remote,
            downstream.local,
            downstream.tls.is_some(),
            net::own_address(),
            served.config().represent_ipv4_as_mapped,
        );
        Rc::new(Self {
            worker,
            downstream,
            forwarded,
            membership,
            listener,
            served: RefCell::new(served),
            heard: Heard::default(),
            opened,
            requests: Cell::new(0),
            active: Cell::new(0),
            idle_since: Cell::new(opened),
        })
    }

    /// The configuration for a request that begins now: the newest snapshot's.
    pub fn served(&self) -> Rc<Served> {
        let newest = self.worker.snapshot();
        let mut served = self.served.borrow_mut();
        if !Rc::ptr_eq(&served.snapshot, &newest) {
            let chain = newest.chain(&self.listener, &served.chain.config.name);
            let chain = Arc::clone(chain.unwrap_or(&served.chain));
            *served = Served::new(&self.worker, newest, chain);
        }
        Rc::clone(&served)
    }

    /// Notes that a request begins. The last one that the connection may serve drains it.
    pub fn request_begins(&self, served: &Served) {
        self.requests.set(self.requests.get().saturating_add(1));
        self.active.set(self.active.get() + 1);
        self.heard.clear();
        let limit = served.config().limits.max_requests_per_connection;
        if limit != 0 && self.requests.get() == limit {
            served.stats.downstream_cx_max_requests_reached.inc();
            self.control().advance(Phase::Draining);
        }
    }

    /// Notes that a request has ended.
    pub fn request_ends(&self) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.active.get() == 0 {
            self.idle_since.set(Instant::now());
            // What was heard since was this request's body, not the next one's headers.
            self.heard.clear();
        }
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

/// Serves `connection` on `stream` until either side ends it.
pub async fn serve<S>(connection: Rc<Connection>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = connection.served();
    let open = OpenConnection::count(&connection, &served.stats);
    let limit = served.config().limits.request_headers_timeout;
    let Some(sniffed) = codec_of(&connection, served.config(), &mut stream, limit).await else {
        return;
    };
    match sniffed {
        Sniffed::Http1(head) => {
            let stats = open.is_http1();
            let io = ServerIo::new(stream, head, stats, connection.heard.clone());
            serve_http1(&connection, io, served.config()).await;
        }
        Sniffed::Http2(head) => {
            let stats = open.is_http2();
            let io = ServerIo::new(stream, head, stats, connection.heard.clone());
            serve_http2(&connection, io, served.config()).await;
        }
    }
}

/// The HTTP version of the connection; none if it ended or stayed silent before that was clear.
async fn codec_of<S: AsyncRead + Unpin>(
    connection: &Connection,
    config: &HttpConnectionManager,
    stream: &mut S,
    limit: Option<Duration>,
) -> Option<Sniffed> {
    let alpn = connection.downstream.tls.as_ref().and_then(PeerInfo::alpn);
    match (config.codec, alpn) {
        (CodecType::Http1, _) => return Some(Sniffed::Http1(Bytes::new())),
        (CodecType::Http2, _) | (CodecType::Auto, Some(b"h2")) => {
            return Some(Sniffed::Http2(Bytes::new()));
        }
        (CodecType::Auto, Some(b"http/1.1" | b"http/1.0")) => {
            return Some(Sniffed::Http1(Bytes::new()));
        }
        (CodecType::Auto, _) => {}
    }
    // Silence here is an idle connection, not a slow request: the longer limit applies.
    let limit = limit.max(config.limits.idle_timeout);
    let sniffing = async {
        match limit {
            Some(limit) => tokio::time::timeout(limit, sniff(stream)).await.ok()?.ok(),
            None => sniff(stream).await.ok(),
        }
    };
    let mut sniffing = std::pin::pin!(sniffing);
    poll_fn(|cx| {
        if connection.control().poll_phase(cx) >= Phase::Draining {
            return Poll::Ready(None);
        }
        sniffing.as_mut().poll(cx)
    })
    .await
}

async fn serve_http1<S>(
    connection: &Rc<Connection>,
    io: ServerIo<S>,
    config: &HttpConnectionManager,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = config.limits.max_request_headers as usize;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(config.limits.max_headers_count as usize)
        .max_header_size(limit)
        .max_buf_size(limit.max(MIN_BUFFER))
        .auto_date_header(false)
        .title_case_headers(config.http1.proper_case);
    let owner = Rc::clone(connection);
    let service = service_fn(move |request: http::Request<Incoming>| {
        service::serve(Rc::clone(&owner), request)
    });
    let mut http = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut watchdog = Watchdog::new(connection, true);
    let end = poll_fn(|cx| {
        loop {
            if Pin::new(&mut http).poll(cx).is_ready() {
                return Poll::Ready(End::Finished);
            }
            match ready!(watchdog.poll(cx)) {
                End::Drain => Pin::new(&mut http).graceful_shutdown(),
                end => return Poll::Ready(end),
            }
        }
    })
    .await;
    if let (End::HeadersTimeout, Some(parts)) = (end, http.into_parts()) {
        answer_timeout(connection, parts.io.into_inner().into_inner()).await;
    }
}

/// The smallest read buffer the codec takes.
const MIN_BUFFER: usize = 16 * 1024;

/// Tells a client that never finished its headers why the connection ends (RFC 9110, section 15.5.9).
async fn answer_timeout(connection: &Connection, mut stream: impl AsyncWrite + Unpin) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let stats = &connection.served().stats;
    stats.downstream_rq_header_timeout.inc();
    let write = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    // The client may not read either: one second is all it gets.
    let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
}

async fn serve_http2<S>(
    connection: &Rc<Connection>,
    io: ServerIo<S>,
    config: &HttpConnectionManager,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.http2.max_concurrent_streams)
        .initial_stream_window_size(config.http2.initial_stream_window)
        .initial_connection_window_size(config.http2.initial_connection_window)
        .max_header_list_size(config.limits.max_request_headers)
        .max_pending_accept_reset_streams(20)
        .auto_date_header(false);
    if let Some((interval, timeout)) = config.http2.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    if config.http2.allow_connect {
        builder.enable_connect_protocol();
    }
    let owner = Rc::clone(connection);
    let service = service_fn(move |request: http::Request<Incoming>| {
        service::serve(Rc::clone(&owner), request)
    });
    let mut http = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut watchdog = Watchdog::new(connection, false);
    poll_fn(|cx| {
        loop {
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match ready!(watchdog.poll(cx)) {
                End::Drain => http.as_mut().graceful_shutdown(),
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// Why a connection stops being polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The codec is done with it.
    Finished,
    /// No new requests; what is in flight goes on.
    Drain,
    /// The client began a request and did not finish its headers in time.
    HeadersTimeout,
    /// Now, whatever is in flight.
    Cut,
}

/// The timers of one connection, as one lazily moved deadline: a busy connection never touches the timer.
struct Watchdog {
    connection: Rc<Connection>,
    idle: Option<Duration>,
    headers: Option<Duration>,
    lifetime: Option<Duration>,
    drain_timeout: Duration,
    headers_since: Option<Instant>,
    draining_since: Option<Instant>,
    timer: Timer,
}

impl Watchdog {
    fn new(connection: &Rc<Connection>, headers_apart: bool) -> Self {
        let served = connection.served();
        let limits = &served.config().limits;
        Self {
            connection: Rc::clone(connection),
            idle: limits.idle_timeout,
            headers: limits.request_headers_timeout.filter(|_| headers_apart),
            lifetime: limits.max_connection_duration,
            drain_timeout: limits.drain_timeout,
            headers_since: None,
            draining_since: None,
            timer: Timer::default(),
        }
    }

    /// Ready when something is due. [`End::Drain`] is told once; after it the connection may finish what is
    /// under way, and is cut when it has been idle for the drain timeout.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let phase = self.connection.control().poll_phase(cx);
        if phase == Phase::Closing {
            return Poll::Ready(End::Cut);
        }
        if phase == Phase::Draining && self.draining_since.is_none() {
            self.draining_since = Some(Instant::now());
            return Poll::Ready(End::Drain);
        }
        let active = self.connection.active.get() > 0;
        if active {
            self.headers_since = None;
        } else if self.headers_since.is_none() && self.connection.heard.get() {
            self.headers_since = Some(Instant::now());
        }
        // A busy connection with nothing due never touches the timer.
        if active && (self.lifetime.is_none() || self.draining_since.is_some()) {
            return Poll::Pending;
        }
        self.wait(cx)
    }

    /// What is due next, and when.
    fn next(&self) -> Option<(Instant, End)> {
        let idle_since = self.connection.idle_since.get();
        let active = self.connection.active.get() > 0;
        if let Some(since) = self.draining_since {
            return (!active).then(|| (since.max(idle_since) + self.drain_timeout, End::Cut));
        }
        let life = self.lifetime.map(|limit| (self.connection.opened + limit, End::Drain));
        if active {
            return life;
        }
        let quiet = match (self.headers_since, self.headers) {
            (Some(since), Some(limit)) => Some((since + limit, End::HeadersTimeout)),
            _ => self.idle.map(|limit| (idle_since + limit, End::Drain)),
        };
        [life, quiet].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut timer = std::mem::take(&mut self.timer);
        let due = timer.poll(cx, || self.next());
        self.timer = timer;
        let end = ready!(due);
        if end == End::Drain {
            self.begin_drain();
        }
        Poll::Ready(end)
    }

    /// The connection has idled or lived long enough.
    fn begin_drain(&mut self) {
        let stats = &self.connection.served().stats;
        if self.connection.active.get() == 0 {
            stats.downstream_cx_idle_timeout.inc();
        } else {
            stats.downstream_cx_max_duration_reached.inc();
        }
        self.draining_since = Some(Instant::now());
        self.connection.control().advance(Phase::Draining);
    }
}

/// Counts the connection while it is open.
struct OpenConnection {
    stats: Arc<HttpStats>,
    version: Cell<Version>,
    opened: Instant,
    tls: bool,
}

enum Version {
    Unknown,
    Http1,
    Http2,
}

impl OpenConnection {
    fn count(connection: &Connection, stats: &Arc<HttpStats>) -> Self {
        let tls = connection.downstream.tls.is_some();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        if tls {
            stats.downstream_cx_ssl_total.inc();
            stats.downstream_cx_ssl_active.inc();
        }
        Self {
            stats: Arc::clone(stats),
            version: Cell::new(Version::Unknown),
            opened: connection.opened,
            tls,
        }
    }

    fn is_http1(&self) -> Arc<HttpStats> {
        self.version.set(Version::Http1);
        self.stats.downstream_cx_http1_total.inc();
        self.stats.downstream_cx_http1_active.inc();
        Arc::clone(&self.stats)
    }

    fn is_http2(&self) -> Arc<HttpStats> {
        self.version.set(Version::Http2);
        self.stats.downstream_cx_http2_total.inc();
        self.stats.downstream_cx_http2_active.inc();
        Arc::clone(&self.stats)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let stats = &self.stats;
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats.downstream_cx_length_ms.record(crate::config::format::millis(self.opened.elapsed()));
        if self.tls {
            stats.downstream_cx_ssl_active.dec();
        }
        match self.version.get_mut() {
            Version::Http1 => stats.downstream_cx_http1_active.dec(),
            Version::Http2 => stats.downstream_cx_http2_active.dec(),
            Version::Unknown => {}
        }
    }
}
