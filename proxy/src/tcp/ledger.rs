//! What a session counts: bytes, pauses, when something last moved, what went wrong.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use crate::net::copy::{Meter, Side};
use crate::pool::Usage;
use crate::telemetry::metrics::TcpStats;
use crate::telemetry::response_flags::ResponseFlags;

/// The counts of one session.
#[derive(Debug)]
pub(super) struct Ledger {
    stats: Arc<TcpStats>,
    received: Cell<u64>,
    sent: Cell<u64>,
    quiet_since: Cell<Instant>,
    flags: Cell<ResponseFlags>,
    waiting_upstream: Cell<i64>,
    waiting_downstream: Cell<i64>,
}

impl Ledger {
    pub(super) fn new(stats: Arc<TcpStats>, now: Instant) -> Self {
        Self {
            stats,
            received: Cell::new(0),
            sent: Cell::new(0),
            quiet_since: Cell::new(now),
            flags: Cell::default(),
            waiting_upstream: Cell::new(0),
            waiting_downstream: Cell::new(0),
        }
    }

    /// Bytes that came from the client.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes that went to the client.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Since when nothing has moved.
    pub(super) fn quiet_since(&self) -> Instant {
        self.quiet_since.get()
    }

    /// Something moves now.
    pub(super) fn touch(&self) {
        self.quiet_since.set(Instant::now());
    }

    pub(super) fn flags(&self) -> ResponseFlags {
        self.flags.get()
    }

    pub(super) fn flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get() | flag);
    }

    /// Something moves that had to wait: its receiver is slow, but not silent.
    fn touch_if_waiting(&self, to: Side) {
        let waiting = match to {
            Side::Downstream => &self.waiting_downstream,
            Side::Upstream => &self.waiting_upstream,
        };
        if waiting.get() > 0 {
            self.touch();
        }
    }

    /// Counts what moves to and from the endpoint of `usage`.
    pub(super) fn with<'a>(&'a self, usage: Option<&'a Usage>) -> Both<'a> {
        Both { ledger: self, usage }
    }

    /// Bytes that wait, having come from `side`.
    fn wait(&self, side: Side, bytes: i64) {
        let (waiting, gauge) = match side {
            Side::Downstream => {
                (&self.waiting_upstream, &self.stats.downstream_cx_rx_bytes_buffered)
            }
            Side::Upstream => {
                (&self.waiting_downstream, &self.stats.downstream_cx_tx_bytes_buffered)
            }
        };
        waiting.set(waiting.get() + bytes);
        gauge.add(bytes);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.wait(Side::Downstream, -self.waiting_upstream.get());
        self.wait(Side::Upstream, -self.waiting_downstream.get());
    }
}

/// A session's counts, and those of its connection to the endpoint.
pub(super) struct Both<'a> {
    ledger: &'a Ledger,
    usage: Option<&'a Usage>,
}

impl Meter for Both<'_> {
    fn read(&self, side: Side, bytes: usize) {
        let (ledger, bytes) = (self.ledger, bytes as u64);
        ledger.touch();
        match side {
            Side::Downstream => {
                ledger.received.set(ledger.received.get() + bytes);
                ledger.stats.downstream_cx_rx_bytes_total.add(bytes);
            }
            Side::Upstream => {
                if let Some(usage) = self.usage {
                    usage.received(bytes);
                }
            }
        }
    }

    fn wrote(&self, side: Side, bytes: usize) {
        let (ledger, bytes) = (self.ledger, bytes as u64);
        ledger.touch_if_waiting(side);
        match side {
            Side::Downstream => {
                ledger.sent.set(ledger.sent.get() + bytes);
                ledger.stats.downstream_cx_tx_bytes_total.add(bytes);
            }
            Side::Upstream => {
                if let Some(usage) = self.usage {
                    usage.sent(bytes);
                }
            }
        }
    }

    fn paused(&self, side: Side, bytes: usize) {
        if side == Side::Downstream {
            self.ledger.stats.downstream_flow_control_paused_reading_total.inc();
        }
        self.ledger.wait(side, i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn resumed(&self, side: Side, bytes: usize) {
        if side == Side::Downstream {
            self.ledger.stats.downstream_flow_control_resumed_reading_total.inc();
        }
        self.ledger.wait(side, -i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
