//! Protocols in which the server speaks first: while inspectors wait for the client's first bytes, the endpoint
//! that silence would lead to is reached already. If it says something before the client does, there is
//! nothing to inspect. A client that has spoken is inspected in any case; if its chain is the one that silence leads
//! to, the connection that was begun is its own.
//!
//! A list of ports on which servers are known to speak first would add nothing: the endpoint is dialled at once
//! whatever the port, and what speaks first there is remembered ([`super::first_words`]). It would take something
//! away, though, for HTTP on such a port would no longer be found. Where a protocol is declared, the listener has
//! no inspectors, and nothing waits or races.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

use super::accept::Acceptor;
use super::filters::{self, Seen};
use super::first_words::Speaker;
use super::network_filters::would_pass;
use super::receive::{handed_on, pick};
use super::serve::downstream;
use crate::config::listener::{ListenerFilterKind, NetworkFilter};
use crate::config::tcp::{TcpCluster, TcpProxy};
use crate::snapshot::{FilterChain, Listener, Terminal};
use crate::tcp::Session;
use crate::telemetry::metrics::ListenerStats;
use crate::worker::{Held, Worker};

/// What is at hand when the filters of a listener are about to run.
pub(super) struct Start<'a> {
    /// The worker that accepted the connection.
    pub(super) worker: &'a Rc<Worker>,
    /// The socket it arrived on.
    pub(super) acceptor: &'a Acceptor,
    /// The listener that serves it.
    pub(super) listener: &'a Arc<Listener>,
    /// The configuration.
    pub(super) snapshot: &'a Rc<Held>,
    /// Statistics of the listener.
    pub(super) stats: &'a ListenerStats,
}

/// Runs the filters of the listener, unless the endpoint speaks before there is anything to inspect. Returns
/// the connection, and the session whose endpoint has been dialed already: to be used if its chain is chosen.
///
/// # Errors
/// As [`filters::run`].
pub(super) async fn run(
    start: &Start<'_>,
    stream: TcpStream,
    seen: &mut Seen,
) -> io::Result<(TcpStream, Option<Session>)> {
    let Start { worker, acceptor, listener, snapshot, stats } = start;
    let words = &acceptor.first_words;
    let now = Instant::now();
    let contest = silent_chain(start, &stream, seen).filter(|(chain, _)| {
        let known = words.borrow().of(seen.local, now);
        let silent = || downstream(worker, Arc::clone(&listener.config.name), seen, None, None);
        known != Some(Speaker::Client) && !has_spoken(&stream) && would_pass(chain, silent)
    });
    let Some(serves) = contest else {
        let state = filters::run(&listener.config, worker, &stream, seen, stats).await?;
        return Ok((state.refreshed(stream)?, None));
    };
    let name = Arc::clone(&listener.config.name);
    let downstream = downstream(worker, name, seen, None, None);
    let membership = acceptor.connections.join();
    let limit = listener.config.buffer_limit;
    let session = Session::new(Rc::clone(worker), downstream, membership, serves, limit);
    let destination = seen.local;
    let state = {
        let mut dialing = pin!(session.dial(snapshot));
        let state = tokio::select! {
            biased;
            state = filters::run(&listener.config, worker, &stream, seen, stats) => Some(state?),
            () = async { dialing.as_mut().await; session.hear().await } => None,
        };
        let is_chosen = || {
            handed_on(listener, snapshot, seen).is_none()
                && pick(listener, seen).is_some_and(|chain| Arc::ptr_eq(&chain, session.chain()))
        };
        // What is under way is what it needs.
        if state.is_some() && is_chosen() && !session.has_dialed() {
            dialing.await;
        } else if state.is_some() && !is_chosen() {
            words.borrow_mut().note(destination, Speaker::Client, now);
        }
        state
    };
    let Some(state) = state else {
        words.borrow_mut().note(destination, Speaker::Server, now);
        return Ok((filters::refresh(stream)?, Some(session)));
    };
    Ok((state.refreshed(stream)?, Some(session).filter(Session::has_dialed)))
}

/// The chain that a connection without a word leads to, if nothing is lost by reaching its endpoint early: a
/// TCP proxy to one cluster behind inspectors.
fn silent_chain(
    start: &Start<'_>,
    stream: &TcpStream,
    seen: &mut Seen,
) -> Option<(Arc<FilterChain>, Arc<TcpProxy>)> {
    let Start { listener, snapshot, .. } = start;
    let mut inspects = false;
    for filter in &listener.config.listener_filters {
        if filter.is_disabled_for(seen.local.port()) {
            continue;
        }
        match filter.kind {
            ListenerFilterKind::TlsInspector | ListenerFilterKind::HttpInspector => inspects = true,
            // These wait for nobody, and the chain or the way to the endpoint depends on them.
            ListenerFilterKind::OriginalDst => filters::restore_original_dst(stream, seen),
            ListenerFilterKind::OriginalSrc(config) => seen.keep_source(config),
            ListenerFilterKind::ProxyProtocol(_) => return None,
        }
    }
    if !inspects || handed_on(listener, snapshot, seen).is_some() {
        return None;
    }
    let chain = pick(listener, seen).filter(|chain| chain.tls.is_none())?;
    let Terminal::Tcp(proxy) = &chain.terminal else { return None };
    let is_plain = chain.limiters.is_empty()
        && !chain.config.filters.iter().any(needs_server_name)
        && matches!(proxy.cluster, TcpCluster::Name(_));
    let proxy = Arc::clone(proxy);
    is_plain.then_some((chain, proxy))
}

/// Whether the way to the endpoint depends on what an inspector finds.
fn needs_server_name(filter: &NetworkFilter) -> bool {
    matches!(filter, NetworkFilter::SniCluster | NetworkFilter::SniForwardProxy { .. })
}

/// Whether the client has sent something already. Asks the kernel: the runtime does not know yet.
fn has_spoken(stream: &TcpStream) -> bool {
    recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
}
