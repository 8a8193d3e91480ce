//! What is counted about one endpoint: requests under way (shared by all workers, for least-request balancing)
//! and each worker's own totals.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Common;
use crate::telemetry::metrics::{Counter, Gauge};

/// Requests under way at one endpoint, from all workers, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load(AtomicU32);

impl Load {
    /// Requests under way, those waiting for a connection included.
    pub fn active(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// One worker's totals about one endpoint (Envoy's `HostStats`).
#[derive(Debug, Default)]
pub struct HostCounts {
    /// Connections opened.
    pub cx_total: Counter,
    /// Connections open now.
    pub cx_active: Gauge,
    /// Connections that could not be made.
    pub cx_connect_fail: Counter,
    /// Requests sent.
    pub rq_total: Counter,
    /// Requests under way on a connection.
    pub rq_active: Gauge,
    /// Responses other than 5xx.
    pub rq_success: Counter,
    /// 5xx responses, and requests without a response.
    pub rq_error: Counter,
    /// Requests that took too long.
    pub rq_timeout: Counter,
}

/// One request under way at an endpoint.
#[derive(Debug)]
pub(super) struct Active(Rc<Common>);

impl Active {
    pub(super) fn enter(common: &Rc<Common>) -> Self {
        common.load.0.fetch_add(1, Relaxed);
        Self(Rc::clone(common))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.load.0.fetch_sub(1, Relaxed);
    }
}
