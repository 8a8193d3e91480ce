//! Whether an endpoint has failed since somebody began to depend on it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Release},
};

use tokio::sync::Notify;

use super::host::Host;

/// The failures of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: AtomicU32,
    told: Notify,
}

/// Somebody who depends on an endpoint from a certain moment on.
#[derive(Debug)]
pub struct Watch {
    host: Arc<Host>,
    /// Failures until that moment.
    before: u32,
}

impl Failures {
    /// The endpoint has failed.
    pub(super) fn tell(&self) {
        self.count.fetch_add(1, Release);
        self.told.notify_waiters();
    }
}

impl Watch {
    /// Watches from now on.
    pub(super) fn begin(host: &Arc<Host>) -> Self {
        Self { before: host.failures.count.load(Acquire), host: Arc::clone(host) }
    }

    /// Resolves when the endpoint has been found unhealthy since the watch began, by active checks or outlier
    /// detection.
    pub async fn failure(self) {
        let failures = &self.host.failures;
        loop {
            let mut told = pin!(failures.told.notified());
            told.as_mut().enable();
            if failures.count.load(Acquire) != self.before {
                return;
            }
            told.await;
        }
    }
}
