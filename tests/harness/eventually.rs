//! Waiting for something to become true, without guessing how long it takes.

use std::time::Duration;

use tokio::time::Instant;

use crate::PATIENCE;

/// Polls `attempt` every 10 ms until it yields a value; panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Polls `attempt` until it is true; panics with `what` after [`PATIENCE`].
pub async fn eventually_true(what: &str, mut attempt: impl AsyncFnMut() -> bool) {
    eventually(what, async || attempt().await.then_some(())).await;
}

/// Runs `work`; panics with `what` if it takes longer than [`PATIENCE`].
pub async fn within_patience<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("took longer than {PATIENCE:?}: {what}"),
    }
}

/// Whether a proxy that was to wait for `wait` has done so, when it `took` this long. A tick less is enough:
/// Envoy's timers count from the kernel's coarse clock, which is up to one old.
pub fn has_waited(took: Duration, wait: Duration) -> bool {
    const TICK: Duration = Duration::from_millis(10);
    took + TICK >= wait
}
