//! Serves a connection as its filter chain says: TLS first, then the chain's filters.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::filters::Seen;
use crate::config::Name;
use crate::drain::connections::Membership;
use crate::http::codec;
use crate::http::connection::{Connection, Downstream};
use crate::snapshot::FilterChain;
use crate::telemetry::metrics::ListenerStats;
use crate::tls::server::ServerTls;
use crate::worker::{Held, Worker};

/// Serves `stream` until it ends.
///
/// # Errors
/// When the connection ends before a filter takes it over.
pub(super) async fn serve(arrival: Arrival<'_>, stream: TcpStream) -> io::Result<()> {
    match arrival.chain.tls.as_ref().map(Arc::clone) {
        None => {
            let server_name = arrival.seen.server_name().map(Into::into);
            let connection = arrival.connection(None, server_name);
            codec::serve(connection, stream).await;
            Ok(())
        }
        // In a box: a connection without TLS need not be as large as a handshake.
        Some(tls) => Box::pin(terminate_tls(arrival, &tls, stream)).await,
    }
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
    /// Statistics of its listener.
    pub(super) stats: &'a ListenerStats,
}

impl Arrival<'_> {
    fn connection(
        self,
        tls: Option<crate::tls::peer::PeerInfo>,
        server_name: Option<Box<str>>,
    ) -> Rc<Connection> {
        let downstream = Downstream {
            id: self.worker.next_id(),
            local: self.seen.local,
            remote: self.seen.remote,
            tls,
            server_name,
        };
        Connection::new(
            Rc::clone(self.worker),
            downstream,
            self.membership,
            self.name,
            self.snapshot,
            self.chain,
        )
    }
}

async fn terminate_tls(arrival: Arrival<'_>, tls: &ServerTls, stream: TcpStream) -> io::Result<()> {
    let stats = arrival.stats;
    let handshake = tls.accept(stream);
    let result = match arrival.chain.config.handshake_timeout {
        Some(limit) => tokio::time::timeout(limit, handshake).await.unwrap_or_else(|_| {
            stats.downstream_cx_transport_socket_connect_timeout.inc();
            Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))
        }),
        None => handshake.await,
    };
    let (stream, peer) = result.inspect_err(|_| stats.ssl_connection_error.inc())?;
    stats.ssl_handshake.inc();
    let server_name = peer.sni().map(Into::into);
    let connection = arrival.connection(Some(peer), server_name);
    codec::serve(connection, stream).await;
    Ok(())
}
