//! What Istio's agent publishes of its certificates: how long they are good for, and how asking for them goes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::held::Held;
use crate::telemetry::metrics::{Probe, Samples, Scope};

/// Read when somebody asks.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    called: AtomicU64,
    failed: AtomicU64,
    /// Of the last call, in milliseconds.
    took: AtomicU64,
    /// When the leaf, the first above it, and the first root end to be valid.
    ends: Mutex<[Option<SystemTime>; 3]>,
}

/// By which names the ends are published.
const RESOURCES: [&str; 3] = ["default", "intermediate", "ROOTCA"];

impl Statistics {
    pub(super) fn called(&self, succeeded: bool, took: Duration) {
        self.called.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(!succeeded), Relaxed);
        self.took.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn took(&self, held: &Held) {
        let [above, root] = held.ends;
        *self.ends.lock() = [Some(held.validity.not_after), above, root];
    }
}

impl Probe for Statistics {
    fn collect(&self, out: &mut Samples) {
        let requests = Scope::Agent("request_type", "csr");
        out.counter(&requests, "num_outgoing_requests", self.called.load(Relaxed));
        out.counter(&requests, "num_failed_outgoing_requests", self.failed.load(Relaxed));
        let took = i64::try_from(self.took.load(Relaxed)).unwrap_or(i64::MAX);
        out.gauge(&requests, "outgoing_latency", took);
        let now = SystemTime::now();
        let ends = *self.ends.lock();
        for (resource, end) in RESOURCES.into_iter().zip(ends) {
            let Some(end) = end else { continue };
            let scope = Scope::Agent("resource_name", resource);
            out.gauge(&scope, "cert_expiry_seconds", seconds_left(end, now));
        }
    }
}

/// Negative once it is over.
fn seconds_left(end: SystemTime, now: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => whole(left),
        Err(over) => -whole(over.duration()),
    }
}
