//! Drain: one side says that serving ends, the other side watches for it.

pub mod connections;

use tokio::sync::watch;

/// How far a drain has come; phases only ever advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is served.
    Serving,
    /// No new connections; what is in flight is finished, connections are closed as they become idle.
    Draining,
    /// The time is over: whatever is left is cut.
    Closing,
}

/// The side that decides. Dropping it counts as [`Phase::Closing`].
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// The side that obeys; cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<Phase>);

/// A trigger and its watch, in [`Phase::Serving`].
pub fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (Trigger(sender), Watch(receiver))
}

impl Trigger {
    /// Advances to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Another watch on this trigger.
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }
}

impl Watch {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        if self.0.has_changed().is_err() { Phase::Closing } else { *self.0.borrow() }
    }

    /// Waits until `phase` is reached or passed.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the trigger is gone, which counts as the last phase.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_advance_and_never_go_back() {
        let (trigger, mut watch) = channel();
        assert_eq!(watch.phase(), Phase::Serving);
        trigger.advance(Phase::Draining);
        trigger.advance(Phase::Serving);
        watch.reached(Phase::Draining).await;
        assert_eq!(trigger.watch().phase(), Phase::Draining);
        drop(trigger);
        watch.reached(Phase::Closing).await;
        assert_eq!(watch.phase(), Phase::Closing);
    }
}
