//! Listener filters: what is learned of a connection before its filter chain is chosen.

mod http_inspector;
mod peek;
mod proxy_protocol;
mod tls_inspector;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::config::Name;
use crate::config::listener::filter::OriginalSrc;
use crate::config::listener::{Listener, ListenerFilter, ListenerFilterKind};
use crate::net::listening::NOWHERE;
use crate::net::proxy_protocol::Tlv;
use crate::telemetry::metrics::ListenerStats;
use crate::upstream::client::Origin;
use crate::worker::Worker;
use http_inspector::Http;
use peek::Peek;
use tls_inspector::Inspection;

/// What is known of a connection whose filter chain is not chosen yet. Listener filters add to it.
#[derive(Debug)]
pub(super) struct Seen {
    /// The Unix socket it came over; then its addresses are [`NOWHERE`] until a filter knows better.
    pub(super) pipe: Option<Name>,
    /// The address it was made to.
    pub(super) local: SocketAddr,
    /// The address of the socket itself.
    pub(super) direct_local: SocketAddr,
    /// The same as `local` if a filter found it: it was redirected here, or carried on by a proxy in front.
    pub(super) original_dst: Option<SocketAddr>,
    /// Who made it.
    pub(super) remote: SocketAddr,
    /// The peer of the socket itself.
    pub(super) direct_remote: SocketAddr,
    /// `tls` or `raw_buffer`; the latter also where nobody looked.
    pub(super) transport_protocol: &'static str,
    /// The server name asked for, in lower case.
    pub(super) server_name: Option<Box<str>>,
    /// The protocols offered by ALPN, or the one that plain text begins with.
    pub(super) application_protocols: Vec<Box<[u8]>>,
    /// Extensions of its PROXY header that may be passed on.
    pub(super) tlvs: Option<Rc<[Tlv]>>,
    /// The address that connections made for it come from.
    pub(super) origin: Option<Origin>,
}

impl Seen {
    /// What the socket itself says.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, pipe: Option<Name>) -> Self {
        let (local, remote) = (canonical(local), canonical(remote));
        Self {
            pipe,
            local,
            direct_local: local,
            original_dst: None,
            remote,
            direct_remote: remote,
            transport_protocol: "raw_buffer",
            server_name: None,
            application_protocols: Vec::new(),
            tlvs: None,
            origin: None,
        }
    }

    /// Has connections made for this one come from its client's address (Envoy `original_src`).
    pub(super) fn keep_source(&mut self, config: OriginalSrc) {
        if self.remote == NOWHERE {
            return;
        }
        let mut address = self.remote;
        address.set_port(0);
        self.origin = Some(Origin { address, mark: config.mark });
    }

    /// Notes where the connection was really made to.
    fn restore(&mut self, destination: SocketAddr) {
        self.local = canonical(destination);
        self.original_dst = Some(self.local);
    }
}

/// IPv4 as IPv4, also where an IPv6 socket took it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What the runtime knows of a connection after the filters have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// What there is to read.
    Known,
    /// It may have forgotten that there is something to read: a filter gave up waiting for more.
    Forgotten,
}

impl Readiness {
    /// The connection for its filter chain to read.
    ///
    /// # Errors
    /// As [`refresh`].
    pub(super) fn refreshed(self, stream: TcpStream) -> io::Result<TcpStream> {
        match self {
            Self::Known => Ok(stream),
            Self::Forgotten => refresh(stream),
        }
    }
}

/// The connection for its filter chain to read, after a filter was kept from waiting for more.
///
/// # Errors
/// When the system cannot watch it anew.
pub(super) fn refresh(stream: TcpStream) -> io::Result<TcpStream> {
    peek::wake(stream)
}

/// Runs the filters of `listener` on a connection.
///
/// # Errors
/// `UnexpectedEof` when the client leaves, `TimedOut` after `listener_filters_timeout`, `InvalidData` when
/// a filter refuses the connection, and whatever the socket reports.
pub(super) async fn run(
    listener: &Listener,
    worker: &Worker,
    stream: &TcpStream,
    seen: &mut Seen,
    stats: &ListenerStats,
) -> io::Result<Readiness> {
    if listener.listener_filters.is_empty() {
        return Ok(Readiness::Known);
    }
    let _inspected = Inspected::count(stats);
    let filters = run_all(&listener.listener_filters, worker, stream, seen);
    let outcome = match listener.listener_filters_timeout {
        None => Some(filters.await),
        Some(limit) => tokio::time::timeout(limit, filters).await.ok(),
    };
    match outcome {
        Some(Ok(())) => Ok(Readiness::Known),
        Some(Err(error)) => {
            match error.kind() {
                io::ErrorKind::UnexpectedEof => stats.downstream_listener_filter_remote_close.inc(),
                // The filter has counted it.
                io::ErrorKind::InvalidData => {}
                _ => stats.downstream_listener_filter_error.inc(),
            }
            Err(error)
        }
        None => {
            stats.downstream_pre_cx_timeout.inc();
            if listener.continue_on_timeout {
                return Ok(Readiness::Forgotten);
            }
            let silent = "it sent too little to inspect in time";
            Err(io::Error::new(io::ErrorKind::TimedOut, silent))
        }
    }
}

/// Counts a connection while filters look at it.
struct Inspected<'a>(&'a ListenerStats);

impl<'a> Inspected<'a> {
    fn count(stats: &'a ListenerStats) -> Self {
        stats.downstream_pre_cx_active.inc();
        Self(stats)
    }
}

impl Drop for Inspected<'_> {
    fn drop(&mut self) {
        self.0.downstream_pre_cx_active.dec();
    }
}

async fn run_all(
    filters: &[ListenerFilter],
    worker: &Worker,
    stream: &TcpStream,
    seen: &mut Seen,
) -> io::Result<()> {
    let mut peek = Peek::default();
    for filter in filters {
        if filter.is_disabled_for(seen.local.port()) {
            continue;
        }
        match &filter.kind {
            ListenerFilterKind::OriginalDst => restore_original_dst(stream, seen),
            ListenerFilterKind::TlsInspector => {
                inspect_tls(worker, stream, &mut peek, seen).await?;
            }
            ListenerFilterKind::HttpInspector if seen.transport_protocol == "raw_buffer" => {
                inspect_http(worker, stream, &mut peek, seen).await?;
            }
            ListenerFilterKind::HttpInspector => {}
            ListenerFilterKind::ProxyProtocol(config) => {
                proxy_protocol::run(config, worker, stream, &mut peek, seen).await?;
            }
            ListenerFilterKind::OriginalSrc(config) => seen.keep_source(*config),
        }
    }
    Ok(())
}

/// Notes where a connection was made to if it was redirected here (Envoy `original_dst`).
pub(super) fn restore_original_dst(stream: &TcpStream, seen: &mut Seen) {
    if let Some(address) = original_dst(stream) {
        seen.restore(address);
    }
}

/// Where a connection was made to that was redirected here: as the kernel remembers
/// it, or what the socket says if it was taken without changing it (TPROXY).
fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let is_ipv4 = stream.local_addr().is_ok_and(|local| local.ip().to_canonical().is_ipv4());
    let found = if is_ipv4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match found {
        Ok(address) => address.as_socket(),
        Err(_) if socket.ip_transparent_v4().unwrap_or(false) => stream.local_addr().ok(),
        Err(_) => None,
    }
}

/// Refuses the connection.
fn refuse<T>(reason: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// Looks for a TLS ClientHello.
async fn inspect_tls(
    worker: &Worker,
    stream: &TcpStream,
    peek: &mut Peek,
    seen: &mut Seen,
) -> io::Result<()> {
    let stats = worker.tls_inspector_stats();
    let found = peek.until(stream, tls_inspector::MAX_LOOK, tls_inspector::parse).await?;
    stats.bytes_processed.record(peek.seen() as u64);
    match found {
        Some(Inspection::Tls(hello)) => {
            stats.tls_found.inc();
            let has_name = hello.server_name.is_some();
            if has_name { &stats.sni_found } else { &stats.sni_not_found }.inc();
            let has_alpn = !hello.alpn.is_empty();
            if has_alpn { &stats.alpn_found } else { &stats.alpn_not_found }.inc();
            seen.transport_protocol = "tls";
            seen.server_name = hello.server_name;
            seen.application_protocols = hello.alpn;
        }
        Some(Inspection::Raw) => stats.tls_not_found.inc(),
        Some(Inspection::TooLarge) | None => {
            stats.client_hello_too_large.inc();
            return refuse("its ClientHello is larger than any real one");
        }
    }
    Ok(())
}

/// Looks for a request line or the preface of HTTP/2.
async fn inspect_http(
    worker: &Worker,
    stream: &TcpStream,
    peek: &mut Peek,
    seen: &mut Seen,
) -> io::Result<()> {
    let stats = worker.http_inspector_stats();
    let Some(found) = peek.until(stream, http_inspector::MAX_LOOK, http_inspector::parse).await?
    else {
        stats.read_error.inc();
        return refuse("its request line has no end");
    };
    match found {
        Http::Http10 => stats.http10_found.inc(),
        Http::Http11 => stats.http11_found.inc(),
        Http::Http2 => stats.http2_found.inc(),
        Http::Not => stats.http_not_found.inc(),
    }
    if let Some(protocol) = found.application_protocol() {
        seen.application_protocols = vec![protocol.as_bytes().into()];
    }
    Ok(())
}
