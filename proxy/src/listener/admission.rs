//! Which connections are served at all: limits on their number, and what an overloaded process does.

use std::sync::Arc;

use super::accept::Acceptor;
use crate::config::listener::Listener;
use crate::overload::{Full, Permit};
use crate::worker::Worker;

/// Waits while the process is too short of memory to take connections; they queue in the kernel meanwhile.
pub(super) async fn relieved(worker: &Worker, acceptor: &Acceptor) {
    let overload = &worker.shared.overload;
    if !overload.stops_connections() {
        return;
    }
    let mut changes = overload.changes();
    let bypasses = || listener(worker, acceptor).is_some_and(|it| it.bypass_overload_manager);
    while overload.stops_connections() && !bypasses() && changes.changed().await.is_ok() {}
}

/// Counts a connection that was accepted just now; none if it must be closed again.
pub(super) fn admit(worker: &Worker, acceptor: &Acceptor) -> Option<Permit> {
    let overload = &worker.shared.overload;
    let listener = listener(worker, acceptor)?;
    let stats = || worker.listener_stats(&listener.stat_prefix);
    if !listener.bypass_overload_manager && overload.rejects_connection(worker.random()) {
        stats().downstream_cx_overload_reject.inc();
        return None;
    }
    let is_counted = !listener.ignore_global_conn_limit;
    match overload.limits.admit(&listener.name, is_counted) {
        Ok(permit) => Some(permit),
        Err(Full::Listener) => {
            stats().downstream_cx_overflow.inc();
            None
        }
        Err(Full::Global) => {
            stats().downstream_global_cx_overflow.inc();
            None
        }
    }
}

fn listener(worker: &Worker, acceptor: &Acceptor) -> Option<Arc<Listener>> {
    let snapshot = worker.snapshot();
    let listener = snapshot.listener(&acceptor.listener(), &acceptor.address)?;
    Some(Arc::clone(&listener.config))
}
