//! Serves a connection as its filter chain says: TLS first, then the chain's filters.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::filters::Seen;
use super::network_filters;
use crate::config::Name;
use crate::config::overload::Timer;
use crate::drain::connections::Membership;
use crate::http::codec;
use crate::http::connection::{Connection, Downstream};
use crate::net::copy::End;
use crate::net::readable::Readable;
use crate::snapshot::{FilterChain, Terminal};
use crate::tcp::Session;
use crate::telemetry::metrics::ListenerStats;
use crate::tls::peer::PeerInfo;
use crate::tls::server::ServerTls;
use crate::upstream::client::Presence;
use crate::worker::{Held, Worker};

/// A connection that a filter has taken over: resolves when it ends. In a box, so that no connection is as
/// large as what came before, handshakes above all.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Gets `stream` served. What comes back is to be polled until it ends.
///
/// # Errors
/// When the connection ends before a filter takes it over.
pub(super) async fn serve(arrival: Arrival<'_>, stream: TcpStream) -> io::Result<Serving> {
    Ok(match arrival.chain.tls.as_ref().map(Arc::clone) {
        None => {
            let server_name = arrival.seen.server_name.clone();
            arrival.filter(None, server_name, stream).await?
        }
        Some(tls) => {
            let (stream, peer) = handshake(&arrival, &tls, stream).await?;
            let server_name = peer.sni().map(Into::into);
            arrival.filter(Some(peer), server_name, stream).await?
        }
    })
}

/// A connection with its chain, before TLS.
pub(super) struct Arrival<'a> {
    /// The worker that accepted it.
    pub(super) worker: &'a Rc<Worker>,
    /// Its listener.
    pub(super) name: Name,
    /// The configuration it is served by.
    pub(super) snapshot: Rc<Held>,
    /// Its chain.
    pub(super) chain: Arc<FilterChain>,
    /// What is known of it.
    pub(super) seen: Seen,
    /// Its place among the listener's connections.
    pub(super) membership: Membership,
    /// `per_connection_buffer_limit_bytes` of its listener.
    pub(super) buffer_limit: u32,
    /// Its session, if the endpoint is reached already.
    pub(super) raced: Option<Session>,
    /// Statistics of its listener.
    pub(super) stats: &'a ListenerStats,
}

impl Arrival<'_> {
    /// Lets the chain's filters serve the connection, unless one of them is against it.
    async fn filter<S>(
        self,
        tls: Option<PeerInfo>,
        server_name: Option<Box<str>>,
        stream: S,
    ) -> io::Result<Serving>
    where
        S: Readable + End + Send + 'static,
    {
        let Self { worker, name, snapshot, chain, seen, membership, buffer_limit, raced, .. } =
            self;
        let downstream = downstream(worker, name, &seen, tls, server_name);
        let passed = network_filters::pass(worker, &chain, &downstream).await;
        let worker = Rc::clone(worker);
        let proxy = match &chain.terminal {
            Terminal::Tcp(proxy) => proxy,
            Terminal::Http(http) => {
                passed.map_err(|refusal| io::Error::other(refusal.details().to_owned()))?;
                let served = (Arc::clone(&chain), Arc::clone(http));
                let connection = Connection::new(worker, downstream, membership, snapshot, served);
                return Ok(Box::pin(codec::serve(connection, stream)));
            }
        };
        let session = if let Some(mut session) = raced {
            session.adopt(downstream, membership);
            session
        } else {
            let serves = (Arc::clone(&chain), Arc::clone(proxy));
            Session::new(worker, downstream, membership, serves, buffer_limit)
        };
        match passed {
            Ok(()) => Ok(Box::pin(session.serve(snapshot, stream))),
            Err(refusal) => {
                let error = io::Error::other(refusal.details().to_owned());
                session.refuse(refusal);
                Err(error)
            }
        }
    }
}

/// The facts of a connection of `listener` whose chain is chosen.
pub(super) fn downstream(
    worker: &Worker,
    listener: Name,
    seen: &Seen,
    tls: Option<PeerInfo>,
    server_name: Option<Box<str>>,
) -> Downstream {
    Downstream {
        id: worker.next_id(),
        pipe: seen.pipe.clone(),
        local: seen.local,
        direct_local: seen.direct_local,
        original_dst: seen.original_dst,
        remote: seen.remote,
        direct_remote: seen.direct_remote,
        tls,
        server_name,
        tlvs: seen.tlvs.clone(),
        origin: seen.origin,
        presence: Presence::default(),
        dynamic: RefCell::default(),
        listener,
    }
}

/// The server's handshake, within the chain's time limit.
async fn handshake(
    arrival: &Arrival<'_>,
    tls: &ServerTls,
    stream: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, PeerInfo)> {
    let stats = arrival.stats;
    let handshake = tls.accept(stream);
    let overload = &arrival.worker.shared.overload;
    let limit = arrival.chain.config.handshake_timeout;
    let result = match limit.map(|it| overload.timeout(Timer::TransportSocketConnect, it)) {
        Some(limit) => tokio::time::timeout(limit, handshake).await.unwrap_or_else(|_| {
            stats.downstream_cx_transport_socket_connect_timeout.inc();
            Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))
        }),
        None => handshake.await,
    };
    let accepted = result.inspect_err(|_| stats.ssl_connection_error.inc())?;
    stats.ssl_handshake.inc();
    Ok(accepted)
}
