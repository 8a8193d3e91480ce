//! How the process ends: a signal or `/quitquitquit` begins a drain, a deadline or a second signal cuts it short.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::{Phase, Trigger};

/// The signals that end the process.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    /// The system refuses the handlers.
    pub(super) fn take_over() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either signal and says which came.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Drains: gives requests in flight `limit` to finish, then cuts what is left. A second signal cuts at once.
/// `served` resolves when every worker has served its last connection.
pub(super) async fn drain(
    trigger: &Trigger,
    limit: Duration,
    signals: &mut Signals,
    served: impl Future<Output = ()>,
) {
    trigger.advance(Phase::Draining);
    let mut served = std::pin::pin!(served);
    let cut = tokio::select! {
        () = &mut served => None,
        () = tokio::time::sleep(limit) => Some("the drain time is over"),
        signal = signals.next() => Some(signal),
    };
    if let Some(reason) = cut {
        tracing::warn!(reason, "cutting the requests that are still in flight");
        trigger.advance(Phase::Closing);
        served.await;
    }
}
