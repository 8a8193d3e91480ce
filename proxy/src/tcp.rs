//! The TCP proxy: one client's connection carried over one connection to an endpoint.

mod ahead;
mod facts;
mod ledger;
mod line;
mod reach;
mod tunnel;

use std::cell::{OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::config::access_log::LogKind;
use crate::config::tcp::TcpProxy;
use crate::drain::connections::Membership;
use crate::http::connection::Downstream;
use crate::http::stream::Upstream;
use crate::net::copy::{self, Broken, End, Side, Until};
use crate::pool::Usage;
use crate::snapshot::FilterChain;
use crate::telemetry::metrics::TcpStats;
use crate::telemetry::response_flags::ResponseFlags;
use crate::worker::{Held, Moment, Worker};
use ahead::{Ahead, Reached};
use ledger::Ledger;
use line::Line;

/// A client's connection that is to be carried on.
#[derive(Debug)]
pub struct Session {
    worker: Rc<Worker>,
    downstream: Downstream,
    /// Its place among the listener's connections.
    membership: Membership,
    /// The chain it arrived on. It lives on with it when a newer configuration has another: what a TCP client
    /// does is nobody's to cut because of an update that has nothing to do with it (Envoy drains it).
    chain: Arc<FilterChain>,
    proxy: Arc<TcpProxy>,
    stats: Arc<TcpStats>,
    /// `per_connection_buffer_limit_bytes` of the listener, in bytes.
    buffer_limit: u32,
    start: Moment,
    random: u64,
    upstream: RefCell<Upstream>,
    ledger: Ledger,
    ahead: Ahead,
    /// Why it ended before it began.
    refusal: OnceCell<Refusal>,
}

/// Why a filter is against a connection.
#[derive(Debug)]
pub enum Refusal {
    /// A policy, as `%CONNECTION_TERMINATION_DETAILS%` has it.
    Policy(String),
    /// A service, as `%RESPONSE_CODE_DETAILS%` has it.
    Service(&'static str),
}

impl Refusal {
    /// The reason.
    pub fn details(&self) -> &str {
        match self {
            Self::Policy(details) => details,
            Self::Service(details) => details,
        }
    }
}

/// How a session ended.
#[derive(Debug)]
enum Ending {
    /// Both sides ended, this one last.
    Whole(Side),
    /// One side broke.
    Broken(Broken),
    /// No endpoint could be reached.
    Unreached,
    /// Nothing moved for `idle_timeout`.
    Idle,
    /// It reached `max_downstream_connection_duration`.
    TooOld,
    /// Its host is no longer healthy, and connections to such hosts are cut.
    HostFailed,
    /// The proxy stops serving it.
    Drained,
}

impl Session {
    /// A connection that `proxy` of `chain` serves.
    pub fn new(
        worker: Rc<Worker>,
        downstream: Downstream,
        membership: Membership,
        (chain, proxy): (Arc<FilterChain>, Arc<TcpProxy>),
        buffer_limit: u32,
    ) -> Self {
        let stats = worker.tcp_stats(&proxy.stat_prefix);
        let start = Moment::now();
        Self {
            downstream,
            membership,
            chain,
            ledger: Ledger::new(Arc::clone(&stats), start.instant),
            stats,
            buffer_limit,
            start,
            random: worker.random(),
            upstream: RefCell::default(),
            ahead: Ahead::default(),
            refusal: OnceCell::new(),
            proxy,
            worker,
        }
    }

    /// Carries the bytes of `client` until both sides have ended, to an endpoint of a cluster of `snapshot`.
    pub async fn serve<S: End>(self, snapshot: Rc<Held>, mut client: S) {
        self.stats.downstream_cx_total.inc();
        let dies = self.proxy.max_duration.map(|limit| {
            let jitter = limit.mul_f64(self.proxy.max_duration_jitter / 100.0 * self.fraction());
            self.start.instant + limit + jitter
        });
        let ending = self.carry(snapshot, &mut client, dies).await;
        match &ending {
            Ending::Idle => self.stats.idle_timeout.inc(),
            Ending::TooOld => {
                self.stats.max_downstream_connection_duration.inc();
                self.flag(ResponseFlags::DURATION_TIMEOUT);
            }
            _ => {}
        }
        tracing::debug!(connection = self.downstream.id, ?ending, "TCP connection ended");
        if !matches!(&ending, Ending::Broken(_)) {
            say_goodbye(&mut client).await;
        }
        self.log(LogKind::TcpConnectionEnd);
    }

    /// Ends it before it begins, for a filter is against it: it is only counted and logged.
    pub fn refuse(self, refusal: Refusal) {
        self.stats.downstream_cx_total.inc();
        if matches!(refusal, Refusal::Service(_)) {
            self.ledger.flag(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE);
        }
        let _ = self.refusal.set(refusal);
        self.log(LogKind::TcpConnectionEnd);
    }

    async fn carry<S: End>(
        &self,
        snapshot: Rc<Held>,
        client: &mut S,
        dies: Option<Instant>,
    ) -> Ending {
        let reaching = async {
            match self.ahead.take() {
                Some(reached) => reached,
                None => self.reach(&snapshot).await,
            }
        };
        let reached = tokio::select! {
            reached = reaching => reached,
            ending = self.end(dies, None) => return ending,
        };
        // Connections may last for days: none keeps an old configuration.
        drop(snapshot);
        let Some(reached) = reached else { return Ending::Unreached };
        let Reached { mut line, usage, buffer_limit: most, depends_on, greeting } = reached;
        if self.proxy.log_on_connected {
            self.log(LogKind::TcpUpstreamConnected);
        }
        self.ledger.touch();
        let limit = buffer_limit(self.buffer_limit, most);
        let meter = self.ledger.with(usage.as_ref());
        let copying = async {
            ahead::greet(client, &greeting, &meter).await?;
            copy::copy(client, &mut line, Until::BothEnd, limit, &meter).await
        };
        let ending = tokio::select! {
            copied = copying => match copied {
                Ok(last) => Ending::Whole(last),
                Err(broken) => Ending::Broken(broken),
            },
            ending = self.end(dies, self.proxy.idle_timeout) => ending,
            () = ahead::host_fails(depends_on) => Ending::HostFailed,
        };
        match &ending {
            Ending::Broken(broken) => self.broken(broken, client, (&line, usage.as_ref())),
            ending => {
                if let (Ending::Whole(Side::Upstream), Some(usage)) = (ending, &usage) {
                    usage.ended_by_peer();
                }
                say_goodbye(&mut line).await;
            }
        }
        if let Line::Tunnel(tunnel) = &line {
            self.note_end(tunnel);
        }
        ending
    }

    /// Passes on to the other side that one was reset; of any other end it knows already.
    fn broken<S: End>(&self, broken: &Broken, client: &S, (line, usage): (&Line, Option<&Usage>)) {
        let other = match broken.side {
            Side::Downstream => line.socket(),
            Side::Upstream => {
                if let Some(usage) = usage {
                    usage.ended_by_peer();
                }
                client.socket()
            }
        };
        if !broken.is_reset() {
            return;
        }
        if broken.side == Side::Upstream {
            self.flag(ResponseFlags::UPSTREAM_REMOTE_RESET);
        }
        if let Some(socket) = other {
            // If even this fails, the peer sees an end instead of a reset.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Resolves when the session has to end, whatever its sides say.
    async fn end(&self, dies: Option<Instant>, idle: Option<Duration>) -> Ending {
        tokio::select! {
            ending = self.times_out(dies, idle) => ending,
            () = self.membership.control.drained(self.worker.shared.drain_time) => Ending::Drained,
        }
    }

    async fn times_out(&self, dies: Option<Instant>, idle: Option<Duration>) -> Ending {
        let mut log_due = self.proxy.log_interval.map(|interval| Instant::now() + interval);
        loop {
            let now = Instant::now();
            let idle_due = idle.map(|limit| self.ledger.quiet_since() + limit);
            if dies.is_some_and(|due| due <= now) {
                return Ending::TooOld;
            }
            if idle_due.is_some_and(|due| due <= now) {
                return Ending::Idle;
            }
            if log_due.is_some_and(|due| due <= now) {
                self.log(LogKind::TcpPeriodic);
                log_due = self.proxy.log_interval.map(|interval| now + interval);
            }
            match [dies, idle_due, log_due].into_iter().flatten().min() {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    fn flag(&self, flag: ResponseFlags) {
        self.ledger.flag(flag);
    }

    /// The session's random number as a fraction, 0 to 1.
    fn fraction(&self) -> f64 {
        self.random as f64 / u64::MAX as f64
    }

    fn log(&self, kind: LogKind) {
        for log in &self.proxy.access_logs {
            self.worker.log.log(log, kind, self);
        }
    }
}

/// The smaller of two limits on what a connection may buffer, of which zero is none; never none.
fn buffer_limit(listener: u32, cluster: u32) -> usize {
    const MOST: u32 = 1 << 20;
    let limits = [listener, cluster].into_iter().filter(|limit| *limit > 0);
    let least = limits.min().unwrap_or(MOST).min(MOST);
    usize::try_from(least).unwrap_or(usize::MAX)
}

/// Ends TLS as far as that can be done without waiting. A plain socket needs no word before it is closed.
async fn say_goodbye(stream: &mut impl End) {
    if stream.is_plain() {
        return;
    }
    let mut stream = Pin::new(stream);
    std::future::poll_fn(|cx| {
        let _ = stream.as_mut().poll_shutdown(cx);
        Poll::Ready(())
    })
    .await;
}
