//! The timers of one downstream connection: idle, headers, whole life, drain.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::deadline::Timer;
use crate::config::overload;
use crate::drain::Phase;

/// Why a connection stops being polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The codec is done with it.
    Finished,
    /// No new requests; what is in flight goes on.
    Drain,
    /// Nothing moved for a while: the connection needs no codec until something does.
    Park,
    /// The client began a request and did not finish its headers in time.
    HeadersTimeout,
    /// Now, whatever is in flight.
    Cut,
}

/// How long an HTTP/1 connection keeps its codec between two requests: the codec's buffers are most of
/// what a connection costs, and making them anew takes a few microseconds.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// The timers of one connection, as one lazily moved deadline: a busy connection never touches the timer.
pub(super) struct Watchdog {
    connection: Rc<Connection>,
    idle: Option<Duration>,
    headers: Option<Duration>,
    lifetime: Option<Duration>,
    drain_timeout: Duration,
    headers_since: Option<Instant>,
    draining_since: Option<Instant>,
    /// Whether the connection has a codec that could be put away.
    can_park: bool,
    timer: Timer,
}

impl Watchdog {
    pub(super) fn new(connection: &Rc<Connection>) -> Self {
        let served = connection.served();
        let limits = &served.config().limits;
        Self {
            connection: Rc::clone(connection),
            idle: limits.idle_timeout,
            headers: None,
            lifetime: limits.max_connection_duration,
            drain_timeout: limits.drain_timeout,
            headers_since: None,
            draining_since: None,
            can_park: false,
            timer: Timer::default(),
        }
    }

    /// From now on headers come one request at a time, and have a time limit.
    pub(super) fn watch_headers(&mut self) {
        let served = self.connection.served();
        self.headers = served.config().limits.request_headers_timeout;
    }

    /// Says whether the connection has a codec that could be put away; no codec is there at first.
    pub(super) fn has_codec(&mut self, can_park: bool) {
        self.can_park = can_park;
        if !can_park {
            self.headers_since = None;
        }
    }

    /// Ready when something is due. [`End::Drain`] is told once; after it the connection may finish what is
    /// under way, and is cut when it has been idle for the drain timeout.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
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
        } else if self.headers_since.is_none() && self.connection.signals.heard() {
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
        let overload = &self.connection.worker.shared.overload;
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
            _ => self.idle.map(|limit| {
                let limit = overload.timeout(overload::Timer::ConnectionIdle, limit);
                (idle_since + limit, End::Drain)
            }),
        };
        let park = (self.can_park && self.connection.is_quiet())
            .then(|| (idle_since + PARK_AFTER, End::Park));
        [life, quiet, park].into_iter().flatten().min_by_key(|(at, _)| *at)
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
        let served = self.connection.served();
        let age = self.connection.opened.elapsed();
        if self.lifetime.is_some_and(|limit| age >= limit) {
            served.stats.downstream_cx_max_duration_reached.inc();
        } else {
            served.stats.downstream_cx_idle_timeout.inc();
        }
        self.draining_since = Some(Instant::now());
        self.connection.control().advance(Phase::Draining);
    }
}
