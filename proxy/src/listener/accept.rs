//! The accept loop of one listener on one worker, and what happens to a connection before HTTP.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::inspector::{self, ClientHello, Inspection};
use crate::config::Name;
use crate::drain::Phase;
use crate::drain::connections::{ConnectionSet, Membership};
use crate::filter_chain::ConnectionFacts;
use crate::http::codec;
use crate::http::connection::{Connection, Downstream};
use crate::snapshot::{FilterChain, Listener};
use crate::telemetry::metrics::ListenerStats;
use crate::tls::server::ServerTls;
use crate::worker::{Held, Worker};

/// Pause after the process ran out of file descriptors; accepting at once again would only spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// One socket this worker accepts on, as its accept loop and those who steer it share it.
#[derive(Debug)]
pub struct Acceptor {
    listener: RefCell<Name>,
    address: SocketAddr,
    stop: Notify,
    /// Its live connections.
    pub connections: Rc<ConnectionSet>,
}

impl Acceptor {
    /// A socket of `listener`, which configures it as `address`.
    pub fn new(listener: Name, address: SocketAddr) -> Self {
        let listener = RefCell::new(listener);
        Self { listener, address, stop: Notify::default(), connections: Rc::default() }
    }

    /// Ends its accept loop, and drains its connections.
    pub fn close(&self) {
        self.stop.notify_one();
        self.connections.advance(Phase::Draining);
    }

    /// Makes it a socket of `listener`, and drains the connections of the one before.
    pub fn pass_to(&self, listener: Name) {
        self.listener.replace(listener);
        self.connections.advance_present(Phase::Draining);
    }

    fn listener(&self) -> Name {
        Arc::clone(&self.listener.borrow())
    }
}

/// Accepts connections until `acceptor` is closed, then takes what already waits in the socket's queue,
/// so that closing it resets nobody.
pub async fn run(worker: Rc<Worker>, acceptor: Rc<Acceptor>, socket: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = acceptor.stop.notified() => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => spawn(&worker, &acceptor, stream, remote),
            Err(error) => pause_after(&acceptor.listener(), &error).await,
        }
    }
    while let Some(Ok((stream, remote))) = accept_waiting(&socket).await {
        spawn(&worker, &acceptor, stream, remote);
    }
}

/// A connection that has already arrived, if there is one.
async fn accept_waiting(socket: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match socket.poll_accept(cx) {
            std::task::Poll::Ready(accepted) => Some(accepted),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

async fn pause_after(name: &Name, error: &io::Error) {
    // Errors of one connection that died in the queue need no pause (accept(2)).
    let exhausted = matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    );
    if exhausted {
        tracing::warn!(listener = %name, %error, "cannot accept: out of file descriptors or memory; check `ulimit -n`");
        tokio::time::sleep(BACK_OFF).await;
    } else {
        tracing::debug!(listener = %name, %error, "a connection was gone before it was accepted");
    }
}

fn spawn(worker: &Rc<Worker>, acceptor: &Rc<Acceptor>, stream: TcpStream, remote: SocketAddr) {
    let membership = acceptor.connections.join();
    let (worker, acceptor) = (Rc::clone(worker), Rc::clone(acceptor));
    tokio::task::spawn_local(async move {
        if let Err(error) = receive(&worker, &acceptor, stream, remote, membership).await {
            let listener = acceptor.listener();
            tracing::debug!(%listener, %remote, %error, "connection ended before HTTP");
        }
    });
}

/// Takes one accepted connection to its filter chain and serves it there.
async fn receive(
    worker: &Rc<Worker>,
    acceptor: &Acceptor,
    stream: TcpStream,
    remote: SocketAddr,
    membership: Membership,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let snapshot = worker.snapshot();
    let found = snapshot.listener(&acceptor.listener(), acceptor.address);
    let Some((name, listener)) = found.map(|(name, it)| (Arc::clone(name), Arc::clone(it))) else {
        return Err(io::Error::other("its listener is gone"));
    };
    let stats = worker.listener_stats(&listener.config.stat_prefix);
    let _open = OpenConnection::count(&stats);
    let hello = inspect(&listener, &stream, &stats).await?;
    let Some(chain) = pick(&listener, local, remote, hello.as_ref()) else {
        stats.no_filter_chain_match.inc();
        return Err(io::Error::other("no filter chain matches it"));
    };
    let arrival = Arrival { worker, name, snapshot, chain: &chain, local, remote, membership };
    match &chain.tls {
        None => {
            let server_name = hello.and_then(|hello| hello.server_name);
            let connection = arrival.connection(None, server_name);
            codec::serve(connection, stream).await;
        }
        // In a box: a connection without TLS need not be as large as a handshake.
        Some(tls) => Box::pin(terminate_tls(arrival, tls, stream, &stats)).await?,
    }
    Ok(())
}

/// Peeks for a TLS ClientHello if the listener wants to know.
async fn inspect(
    listener: &Listener,
    stream: &TcpStream,
    stats: &ListenerStats,
) -> io::Result<Option<ClientHello>> {
    if !listener.config.tls_inspector {
        return Ok(None);
    }
    let looking = inspector::inspect(stream);
    let inspection = match listener.config.listener_filters_timeout {
        None => looking.await?,
        Some(limit) => match tokio::time::timeout(limit, looking).await {
            Ok(inspection) => inspection?,
            Err(_) if listener.config.continue_on_timeout => Inspection::Raw,
            Err(_) => {
                stats.downstream_pre_cx_timeout.inc();
                let silent = "it sent nothing to inspect in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
            }
        },
    };
    Ok(match inspection {
        Inspection::Tls(hello) => Some(hello),
        Inspection::Raw => None,
        Inspection::TooLarge => {
            stats.downstream_listener_filter_error.inc();
            return Err(io::Error::other("its ClientHello is larger than any real one"));
        }
    })
}

fn pick(
    listener: &Listener,
    local: SocketAddr,
    remote: SocketAddr,
    hello: Option<&ClientHello>,
) -> Option<Arc<FilterChain>> {
    let facts = ConnectionFacts {
        destination: local,
        source: remote,
        direct_source: remote,
        server_name: hello.and_then(|hello| hello.server_name.as_deref()),
        transport_protocol: if hello.is_some() { "tls" } else { "raw_buffer" },
        application_protocols: hello.map_or(&[], |hello| &hello.alpn),
    };
    match listener.matcher.pick(&facts) {
        Some(index) => listener.chains.get(index).map(Arc::clone),
        None => listener.default_chain.as_ref().map(Arc::clone),
    }
}

/// A connection with its chain, before HTTP.
struct Arrival<'a> {
    worker: &'a Rc<Worker>,
    name: Name,
    snapshot: Rc<Held>,
    chain: &'a Arc<FilterChain>,
    local: SocketAddr,
    remote: SocketAddr,
    membership: Membership,
}

impl Arrival<'_> {
    fn connection(
        self,
        tls: Option<crate::tls::peer::PeerInfo>,
        server_name: Option<Box<str>>,
    ) -> Rc<Connection> {
        let downstream = Downstream {
            id: self.worker.next_id(),
            local: self.local,
            remote: self.remote,
            tls,
            server_name,
        };
        Connection::new(
            Rc::clone(self.worker),
            downstream,
            self.membership,
            self.name,
            self.snapshot,
            Arc::clone(self.chain),
        )
    }
}

async fn terminate_tls(
    arrival: Arrival<'_>,
    tls: &ServerTls,
    stream: TcpStream,
    stats: &ListenerStats,
) -> io::Result<()> {
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

/// Counts a connection on its listener while it is open.
struct OpenConnection(Arc<ListenerStats>);

impl OpenConnection {
    fn count(stats: &Arc<ListenerStats>) -> Self {
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        Self(Arc::clone(stats))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.downstream_cx_active.dec();
        self.0.downstream_cx_destroy.inc();
    }
}
