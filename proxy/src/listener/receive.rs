//! What happens to an accepted connection: listener filters, the choice of a filter chain, and its filters.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::accept::Acceptor;
use super::connection_limit::Places;
use super::connection_log::ConnectionLog;
use super::connection_rate;
use super::filters::Seen;
use super::race::{self, Start};
use super::serve::{self, Arrival, Serving};
use crate::drain::connections::Membership;
use crate::filter_chain::ConnectionFacts;
use crate::net::listening::NOWHERE;
use crate::snapshot::{FilterChain, Listener, Snapshot};
use crate::telemetry::metrics::{ListenerStats, ListenerWorkerStats};
use crate::worker::{Moment, Worker};

/// Takes one accepted connection to its filter chain, which serves it; what comes back is to be polled until it
/// ends. The connection keeps `counted` for as long as it lives.
pub(super) async fn receive(
    worker: &Rc<Worker>,
    acceptor: &Acceptor,
    stream: TcpStream,
    remote: SocketAddr,
    mut membership: Membership,
    counted: impl Any,
) -> io::Result<Serving> {
    let began = Moment::now();
    let pipe = acceptor.pipe();
    let local = match pipe {
        Some(_) => NOWHERE,
        None => {
            stream.set_nodelay(true)?;
            stream.local_addr()?
        }
    };
    let snapshot = worker.snapshot();
    let Some(mut listener) =
        snapshot.listener(&acceptor.listener(), &acceptor.address).map(Arc::clone)
    else {
        return Err(io::Error::other("its listener is gone"));
    };
    let mut stats = worker.listener_stats(&listener.config.stat_prefix);
    let mut seen = Seen::new(local, remote, pipe);
    let start = Start { worker, acceptor, listener: &listener, snapshot: &snapshot, stats: &stats };
    let (mut stream, mut raced) = race::run(&start, stream, &mut seen).await?;
    if let Some(heir) = handed_on(&listener, &snapshot, &seen) {
        listener = heir;
        if let Some(connections) = worker.connections_of(&listener.config.name) {
            membership.move_to(&connections);
        }
        stats = worker.listener_stats(&listener.config.stat_prefix);
        let start =
            Start { worker, acceptor, listener: &listener, snapshot: &snapshot, stats: &stats };
        (stream, raced) = race::run(&start, stream, &mut seen).await?;
    }
    let chain = pick(&listener, &seen);
    let log = ConnectionLog::of(worker, &listener, chain.as_ref(), &seen, began);
    let Some(chain) = chain else {
        stats.no_filter_chain_match.inc();
        return Err(io::Error::other("no filter chain matches it"));
    };
    let raced = raced.filter(|session| Arc::ptr_eq(session.chain(), &chain));
    let own = worker.own_listener_stats(&listener.config.stat_prefix);
    let open = OpenConnection::count(&stats, own);
    if !connection_rate::admits(worker, &chain) {
        return Err(io::Error::other("local_ratelimit is reached"));
    }
    let Some(places) = Places::take(worker, &chain).await else {
        return Err(io::Error::other("connection_limit is reached"));
    };
    membership.keep((counted, places, open, log));
    let name = Arc::clone(&listener.config.name);
    let buffer_limit = listener.config.buffer_limit;
    let stats = &stats;
    let arrival =
        Arrival { worker, name, snapshot, chain, seen, membership, buffer_limit, raced, stats };
    serve::serve(arrival, stream).await
}

/// The listener that serves the connection in place of the one that accepted it (`use_original_dst`).
pub(super) fn handed_on(
    listener: &Arc<Listener>,
    snapshot: &Snapshot,
    seen: &Seen,
) -> Option<Arc<Listener>> {
    let destination = seen.original_dst.filter(|_| listener.config.use_original_dst)?;
    let heir = snapshot.listener_of(destination)?;
    (!Arc::ptr_eq(heir, listener)).then(|| Arc::clone(heir))
}

/// The chain that takes a connection of which this is known.
pub(super) fn pick(listener: &Listener, seen: &Seen) -> Option<Arc<FilterChain>> {
    let facts = ConnectionFacts {
        destination: seen.local,
        source: seen.remote,
        direct_source: seen.direct_remote,
        server_name: seen.server_name.as_deref(),
        transport_protocol: seen.transport_protocol,
        application_protocols: &seen.application_protocols,
    };
    match listener.matcher.pick(&facts) {
        Some(index) => listener.chains.get(index).map(Arc::clone),
        None => listener.default_chain.as_ref().map(Arc::clone),
    }
}

/// Counts a connection on its listener while it is open.
struct OpenConnection {
    stats: Arc<ListenerStats>,
    own: Arc<ListenerWorkerStats>,
}

impl OpenConnection {
    fn count(stats: &Arc<ListenerStats>, own: Arc<ListenerWorkerStats>) -> Self {
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        own.downstream_cx_total.inc();
        own.downstream_cx_active.inc();
        Self { stats: Arc::clone(stats), own }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.stats.downstream_cx_active.dec();
        self.stats.downstream_cx_destroy.inc();
        self.own.downstream_cx_active.dec();
    }
}
