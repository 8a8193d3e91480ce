//! The bytes of one connection, counted, and the account that is settled when the connection is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::circuit_breaker::ConnectionPermit;
use super::load::HostCounts;
use crate::config::format::millis;
use crate::telemetry::metrics::ClusterStats;
use crate::upstream::Stream;
use crate::upstream::failure::ConnectError;

/// What is seen of a connection from outside while a codec owns its bytes. One thread writes.
#[derive(Debug, Default)]
pub(super) struct Wire {
    sent: AtomicU64,
    received: AtomicU64,
    streams: AtomicU32,
    requests: AtomicU32,
    ended_by_peer: AtomicBool,
    abandoned: AtomicBool,
}

/// Byte counts of a connection at one moment, to tell later what passed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    sent: u64,
    received: u64,
}

impl Wire {
    pub(super) fn mark(&self) -> Mark {
        Mark { sent: self.sent.load(Relaxed), received: self.received.load(Relaxed) }
    }

    /// Whether any byte was handed to the transport since `mark`.
    pub(super) fn sent_since(&self, mark: Mark) -> bool {
        self.sent.load(Relaxed) != mark.sent
    }

    /// Whether any byte arrived since `mark`.
    pub(super) fn received_since(&self, mark: Mark) -> bool {
        self.received.load(Relaxed) != mark.received
    }

    /// Whether the peer has ended or broken the connection.
    pub(super) fn ended_by_peer(&self) -> bool {
        self.ended_by_peer.load(Relaxed)
    }

    /// Requests under way.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Requests it has carried.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    /// One request more under way.
    pub(super) fn begin(&self) {
        self.streams.store(self.streams() + 1, Relaxed);
        self.requests.store(self.requests().saturating_add(1), Relaxed);
    }

    /// A request is given up, and the connection with it.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Relaxed);
    }

    /// One request less under way.
    pub(super) fn finish(&self) {
        self.streams.store(self.streams().saturating_sub(1), Relaxed);
    }
}

/// The bytes of one connection. A codec owns it, so that its end is the connection's end.
#[derive(Debug)]
pub(super) struct Io {
    stream: Stream,
    account: Account,
}

/// One connection in the statistics, from the first attempt to its end.
#[derive(Debug)]
pub(super) struct Account {
    wire: Arc<Wire>,
    stats: Arc<ClusterStats>,
    counts: Arc<HostCounts>,
    opened: Instant,
    permit: Option<ConnectionPermit>,
}

impl Account {
    /// Counts a connection from now on.
    pub(super) fn open(
        stats: Arc<ClusterStats>,
        counts: Arc<HostCounts>,
        permit: Option<ConnectionPermit>,
    ) -> Self {
        stats.upstream_cx_total.inc();
        stats.upstream_cx_active.inc();
        counts.cx_total.inc();
        counts.cx_active.inc();
        Self { wire: Arc::default(), stats, counts, opened: Instant::now(), permit }
    }

    /// The connection could not be made.
    pub(super) fn failed(self, error: &ConnectError) {
        self.stats.upstream_cx_connect_fail.inc();
        self.counts.cx_connect_fail.inc();
        match error {
            ConnectError::Bind(_) => {}
            ConnectError::Timeout => self.stats.upstream_cx_connect_timeout.inc(),
            _ => self.wire.ended_by_peer.store(true, Relaxed),
        }
    }

    /// The connection has been made.
    pub(super) fn made(&self) {
        self.stats.upstream_cx_connect_ms.record(millis(self.opened.elapsed()));
    }

    /// The connection has been made, and `stream` is what it carries.
    pub(super) fn connected(self, stream: Stream) -> Io {
        self.made();
        Io { stream, account: self }
    }

    /// Notes that it was the peer that ended the connection.
    pub(super) fn note_ended_by_peer(&self) {
        self.wire.ended_by_peer.store(true, Relaxed);
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }
}

impl Io {
    fn count_sent(&self, sent: io::Result<usize>) -> io::Result<usize> {
        match &sent {
            Ok(bytes) => {
                let bytes = *bytes as u64;
                self.account.wire.sent.store(self.account.wire.sent.load(Relaxed) + bytes, Relaxed);
                self.account.stats.upstream_cx_tx_bytes_total.add(bytes);
            }
            Err(_) => self.account.wire.ended_by_peer.store(true, Relaxed),
        }
        sent
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let result = ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        let bytes = (buffer.filled().len() - before) as u64;
        if result.is_err() || (bytes == 0 && room > 0) {
            this.account.wire.ended_by_peer.store(true, Relaxed);
        }
        this.account.wire.received.store(this.account.wire.received.load(Relaxed) + bytes, Relaxed);
        this.account.stats.upstream_cx_rx_bytes_total.add(bytes);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(Pin::new(&mut this.stream).poll_write(context, bytes));
        Poll::Ready(this.count_sent(sent))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, slices));
        Poll::Ready(this.count_sent(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let stats = &self.stats;
        self.permit.take();
        stats.upstream_cx_active.dec();
        self.counts.cx_active.dec();
        stats.upstream_cx_destroy.inc();
        let busy = self.wire.streams() > 0 || self.wire.abandoned.load(Relaxed);
        if busy {
            stats.upstream_cx_destroy_with_active_rq.inc();
        }
        let (destroyed, destroyed_busy) = if self.wire.ended_by_peer() {
            (&stats.upstream_cx_destroy_remote, &stats.upstream_cx_destroy_remote_with_active_rq)
        } else {
            (&stats.upstream_cx_destroy_local, &stats.upstream_cx_destroy_local_with_active_rq)
        };
        destroyed.inc();
        destroyed_busy.add(u64::from(busy));
        stats.upstream_cx_length_ms.record(millis(self.opened.elapsed()));
        stats.upstream_rq_per_cx.record(u64::from(self.wire.requests()));
    }
}
