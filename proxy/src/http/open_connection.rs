//! The statistics of a downstream connection while it is open.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use crate::config::format::millis;
use crate::telemetry::metrics::HttpStats;

/// Counts the connection while it is open.
#[derive(Debug)]
pub(super) struct OpenConnection {
    stats: Arc<HttpStats>,
    version: Cell<Version>,
    opened: Instant,
    tls: bool,
}

#[derive(Debug, Clone, Copy)]
enum Version {
    Unknown,
    Http1,
    Http2,
}

impl OpenConnection {
    /// Counts one that was `opened` just now, by `tls` or without.
    pub(super) fn count(stats: &Arc<HttpStats>, opened: Instant, tls: bool) -> Self {
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        if tls {
            stats.downstream_cx_ssl_total.inc();
            stats.downstream_cx_ssl_active.inc();
        }
        Self { stats: Arc::clone(stats), version: Cell::new(Version::Unknown), opened, tls }
    }

    /// Counts it as one of HTTP/1.
    pub(super) fn is_http1(&self) -> Arc<HttpStats> {
        self.version.set(Version::Http1);
        self.stats.downstream_cx_http1_total.inc();
        self.stats.downstream_cx_http1_active.inc();
        Arc::clone(&self.stats)
    }

    /// Counts it as one of HTTP/2.
    pub(super) fn is_http2(&self) -> Arc<HttpStats> {
        self.version.set(Version::Http2);
        self.stats.downstream_cx_http2_total.inc();
        self.stats.downstream_cx_http2_active.inc();
        Arc::clone(&self.stats)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let stats = &self.stats;
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
        stats.downstream_cx_length_ms.record(millis(self.opened.elapsed()));
        if self.tls {
            stats.downstream_cx_ssl_active.dec();
        }
        match self.version.get_mut() {
            Version::Http1 => stats.downstream_cx_http1_active.dec(),
            Version::Http2 => stats.downstream_cx_http2_active.dec(),
            Version::Unknown => {}
        }
    }
}
