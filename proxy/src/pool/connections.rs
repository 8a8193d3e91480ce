//! The connections to one endpoint that can stand in for each other, and the requests that wait for one.
//!
//! HTTP/1 connections are used last in, first out, so that few are kept warm and the rest can expire. HTTP/2
//! connections are shared until they have no room. A request that finds neither waits in line; whatever
//! comes free first serves it, an old connection or a new one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::circuit_breaker::LocalBreaker;
use super::connection::{Connection, Facts};
use super::server_idle::ServerIdle;
use super::waiting::{Line, Wait};
use super::{Common, Key, Reuse, Settings};
use crate::upstream::client::Follower;
use crate::upstream::failure::{ConnectError, Limit};
use crate::upstream::http::Protocol;

/// How long an HTTP/1 connection may take to finish sending a request that has been answered early.
const SETTLE: Duration = Duration::from_secs(5);

/// Interchangeable connections to one endpoint.
pub(super) struct Connections {
    pub(super) settings: Rc<Settings>,
    pub(super) key: Key,
    pub(super) common: Rc<Common>,
    /// HTTP/1 connections without a request, the most recently used last.
    pub(super) idle: RefCell<Vec<Rc<Connection>>>,
    /// HTTP/2 connections that take requests.
    pub(super) shared: RefCell<Vec<Rc<Connection>>>,
    waiting: Line,
    /// Connections that take requests, now or after the one under way.
    usable: Cell<u32>,
    /// Connections being made.
    pub(super) connecting: Cell<u32>,
    /// The protocol of the connection made last.
    pub(super) spoken: Cell<Option<Protocol>>,
    server_idle: Cell<ServerIdle>,
    retired: Cell<bool>,
    /// The clients they are for, if they are for some alone.
    clients: Cell<usize>,
    /// Whether the last of these is gone.
    over: Cell<bool>,
    pub(super) reaper: RefCell<Option<AbortHandle>>,
}

/// The right to send one request on a connection. Goes back to the pool when dropped.
#[derive(Debug)]
pub(super) struct Grant {
    connections: Rc<Connections>,
    pub(super) connection: Rc<Connection>,
    /// Whether the connection had carried requests before.
    pub(super) reused: bool,
    /// Whether nothing of an exchange is left on an HTTP/1 connection.
    clean: bool,
}

impl Connections {
    pub(super) fn new(settings: Rc<Settings>, key: Key, common: Rc<Common>) -> Self {
        Self {
            settings,
            key,
            common,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: Line::default(),
            usable: Cell::new(0),
            connecting: Cell::new(0),
            spoken: Cell::new(None),
            server_idle: Cell::default(),
            retired: Cell::new(false),
            clients: Cell::new(0),
            over: Cell::new(false),
            reaper: RefCell::default(),
        }
    }

    /// A connection to send one request on: a ready one, or the first that comes free or is made.
    pub(super) async fn acquire(self: &Rc<Self>, reuse: Reuse) -> Result<Grant, ConnectError> {
        if reuse != Reuse::Never
            && let Some(grant) = self.ready(reuse)
        {
            return Ok(grant);
        }
        let Some(_pending) = self.breaker().try_pending() else {
            self.common.stats.upstream_rq_pending_overflow.inc();
            return Err(ConnectError::Overflow(Limit::PendingRequests));
        };
        let wait = Wait::begin(&self.common);
        let turn = self.waiting.join(reuse);
        self.open_wanted();
        let turn = turn.await;
        wait.end();
        turn.unwrap_or_else(|_| Err(ConnectError::Http("the pool was closed".to_owned())))
    }

    /// Takes no more requests: idle connections close now, busy ones after what is under way.
    pub(super) fn retire_all(&self) {
        self.retired.set(true);
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        let shared = std::mem::take(&mut *self.shared.borrow_mut());
        for connection in idle.iter().chain(&shared) {
            self.retire(&connection.facts);
        }
    }

    /// Whether the clients are gone that it was for, so that nobody will ask again.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether there is nothing here: no connection, none being made, nobody waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.usable.get() == 0 && self.connecting.get() == 0 && self.waiting.is_empty()
    }

    pub(super) fn breaker(&self) -> &LocalBreaker {
        self.common.breaker(self.key.priority)
    }

    /// A connection that can be used at once.
    fn ready(self: &Rc<Self>, reuse: Reuse) -> Option<Grant> {
        self.ready_shared(reuse).or_else(|| self.ready_idle(reuse))
    }

    fn ready_shared(self: &Rc<Self>, reuse: Reuse) -> Option<Grant> {
        loop {
            let connection =
                self.shared.borrow().iter().find(|c| self.is_fit(c, reuse)).cloned()?;
            if !self.close_if_expired(&connection, Instant::now()) {
                return Some(self.grant(connection));
            }
        }
    }

    /// Whether an HTTP/2 connection can take a request now. One that is busy shows that it is alive.
    fn is_fit(&self, connection: &Connection, reuse: Reuse) -> bool {
        let facts = &connection.facts;
        connection.has_room(&self.settings)
            && (reuse == Reuse::Any || !facts.is_idle() || facts.observer.is_quiet())
    }

    fn ready_idle(self: &Rc<Self>, reuse: Reuse) -> Option<Grant> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            let facts = &connection.facts;
            let now = Instant::now();
            if !connection.has_room(&self.settings) {
                self.retire(facts);
            } else if self.close_if_expired(&connection, now) {
                // Gone; try the next.
            } else if reuse == Reuse::Any {
                return Some(self.grant(connection));
            } else if !facts.observer.is_quiet() {
                self.retire(facts);
            } else if self.is_trusted(facts, now) {
                return Some(self.grant(connection));
            } else {
                // Those below have been idle for longer still.
                self.idle.borrow_mut().push(connection);
                return None;
            }
        }
    }

    /// Whether the server will hardly close this open, idle connection within the next moments.
    fn is_trusted(&self, facts: &Facts, now: Instant) -> bool {
        let idle = now.duration_since(facts.idle_since.get());
        let mut server = self.server_idle.get();
        server.observe_open(idle);
        self.server_idle.set(server);
        server.trusted(facts.told_idle.get()).is_none_or(|trusted| idle < trusted)
    }

    fn grant(self: &Rc<Self>, connection: Rc<Connection>) -> Grant {
        let facts = &connection.facts;
        let reused = facts.wire.requests() > 0;
        facts.wire.begin();
        if facts.is_exhausted(&self.settings) && self.retire(facts) {
            self.common.stats.upstream_cx_max_requests.inc();
        }
        Grant { connections: Rc::clone(self), connection, reused, clean: true }
    }

    /// Opens as many connections as those in line need beyond the ones being made, within the limit.
    /// Like Envoy, an endpoint without any connection gets one whatever the limit says: nothing else
    /// would ever serve its requests.
    pub(super) fn open_wanted(self: &Rc<Self>) {
        loop {
            let served = self.connecting.get().saturating_mul(self.requests_per_connection());
            let Some(reuse) = self.waiting.after(served as usize) else { return };
            let permit = self.breaker().try_connection();
            if permit.is_none() {
                self.common.stats.upstream_cx_overflow.inc();
                if self.usable.get() + self.connecting.get() > 0 {
                    self.make_way(reuse);
                    return;
                }
            }
            self.open(permit);
        }
    }

    /// At the limit: closes an idle connection that the request in line must not use. The new one is made
    /// when it is gone.
    fn make_way(&self, reuse: Reuse) {
        let oldest = {
            let mut idle = self.idle.borrow_mut();
            (reuse != Reuse::Any && !idle.is_empty()).then(|| idle.remove(0))
        };
        if let Some(connection) = oldest {
            self.retire(&connection.facts);
        }
    }

    /// How many of those in line a connection being made will serve at once, as far as can be foreseen.
    fn requests_per_connection(&self) -> u32 {
        match self.key.protocol.or(self.spoken.get()) {
            Some(Protocol::Http1) => 1,
            Some(Protocol::Http2) | None => {
                self.settings.cluster.http.http2.max_concurrent_streams.max(1)
            }
        }
    }

    /// Takes in a connection that has just been made.
    pub(super) fn add(self: &Rc<Self>, connection: Rc<Connection>) {
        self.usable.set(self.usable.get() + 1);
        self.spoken.set(Some(connection.facts.protocol));
        if connection.facts.protocol == Protocol::Http2 && !self.retired.get() {
            self.shared.borrow_mut().push(Rc::clone(&connection));
        }
        self.offer(connection);
        self.open_wanted();
    }

    /// A connection could not be made: what waited for it fails.
    pub(super) fn connect_failed(self: &Rc<Self>, error: &ConnectError) {
        let nothing_left = self.usable.get() == 0 && self.connecting.get() == 0;
        let served = if nothing_left { u32::MAX } else { self.requests_per_connection() };
        for _ in 0..served {
            let Some(waiter) = self.waiting.next(|_| true) else { break };
            self.common.stats.upstream_rq_pending_failure_eject.inc();
            waiter.tell(Err(error.clone()));
        }
        self.open_wanted();
    }

    /// Gives a connection with room to those in line, or keeps it for later.
    fn offer(self: &Rc<Self>, connection: Rc<Connection>) {
        let facts = &connection.facts;
        let is_new = facts.wire.requests() == 0;
        while connection.has_room(&self.settings) {
            let accepts = |reuse| match reuse {
                Reuse::Any => true,
                Reuse::Verified => is_new || facts.observer.is_quiet(),
                Reuse::Never => is_new,
            };
            let Some(waiter) = self.waiting.next(accepts) else {
                return self.keep(connection);
            };
            waiter.tell(Ok(self.grant(Rc::clone(&connection))));
        }
    }

    fn keep(self: &Rc<Self>, connection: Rc<Connection>) {
        if self.retired.get() {
            self.retire(&connection.facts);
            return;
        }
        if connection.facts.protocol == Protocol::Http1 {
            self.idle.borrow_mut().push(connection);
        }
        self.start_reaper();
    }

    /// Takes back a connection after a request; `clean` says whether HTTP/1 could go on with the next.
    fn release(self: &Rc<Self>, connection: &Rc<Connection>, clean: bool) {
        let facts = &connection.facts;
        facts.wire.finish();
        if facts.is_idle() {
            facts.idle_since.set(Instant::now());
        }
        if facts.protocol == Protocol::Http1 && !clean {
            self.retire(facts);
        } else if connection.has_room(&self.settings) {
            self.offer(Rc::clone(connection));
        } else if facts.protocol == Protocol::Http1 && !facts.retired.get() {
            self.settle(Rc::clone(connection));
        }
        self.open_wanted();
    }

    /// Waits until a connection that was answered before it had sent everything can be used again.
    fn settle(self: &Rc<Self>, connection: Rc<Connection>) {
        let connections = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let ready =
                std::future::poll_fn(|context| connection.sender.borrow_mut().poll_ready(context));
            if tokio::time::timeout(SETTLE, ready).await == Ok(true) {
                connections.offer(connection);
            } else {
                connections.retire(&connection.facts);
                connections.open_wanted();
            }
        });
    }

    /// The connection takes no more requests; false if that was known.
    pub(super) fn retire(&self, facts: &Facts) -> bool {
        let first = !facts.retired.replace(true);
        if first {
            self.usable.set(self.usable.get().saturating_sub(1));
            self.shared.borrow_mut().retain(|other| !std::ptr::eq(&*other.facts, facts));
        }
        first
    }

    /// The codec has stopped: the peer closed the connection, or we let go of it.
    pub(super) fn ended(self: &Rc<Self>, facts: &Facts) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|other| !std::ptr::eq(&*other.facts, facts));
        if idle.len() < before && facts.wire.ended_by_peer() {
            let mut server = self.server_idle.get();
            server.observe_close(facts.idle_since.get().elapsed());
            self.server_idle.set(server);
        }
        drop(idle);
        self.retire(facts);
        self.open_wanted();
    }
}

impl Follower for Connections {
    fn comes(&self) {
        self.clients.set(self.clients.get() + 1);
    }

    fn goes(&self) {
        self.clients.set(self.clients.get().saturating_sub(1));
        if self.clients.get() == 0 {
            self.over.set(true);
            self.retire_all();
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("address", &self.settings.address)
            .field("key", &self.key)
            .field("usable", &self.usable.get())
            .field("connecting", &self.connecting.get())
            .finish_non_exhaustive()
    }
}

impl Grant {
    /// An exchange has begun: until [`Grant::complete`], its HTTP/1 connection is of no use to others.
    pub(super) fn begin(&mut self) {
        self.clean = false;
    }

    /// The exchange is over.
    pub(super) fn complete(&mut self) {
        self.clean = true;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.connections.release(&self.connection, self.clean);
    }
}
