//! The live connections of one worker: how a drain reaches each of them without a lock or a channel.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

use super::Phase;

/// The handle of one live connection, shared by its task and its listener.
#[derive(Debug)]
pub struct Control {
    phase: Cell<Phase>,
    waker: RefCell<Option<Waker>>,
}

impl Default for Control {
    fn default() -> Self {
        Self { phase: Cell::new(Phase::Serving), waker: RefCell::default() }
    }
}

impl Control {
    /// Tells the connection's task to go to `phase`.
    pub fn advance(&self, phase: Phase) {
        if phase > self.phase.get() {
            self.phase.set(phase);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The phase now, with the task woken when it advances.
    pub fn poll_phase(&self, cx: &mut Context<'_>) -> Phase {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.phase.get()
    }
}

/// All live connections of one listener on one worker.
#[derive(Debug, Default)]
pub struct ConnectionSet {
    controls: RefCell<BTreeMap<u64, Rc<Control>>>,
    joined: Cell<u64>,
    phase: Cell<Option<Phase>>,
    emptied: Notify,
}

impl ConnectionSet {
    /// Adds a connection; it leaves when the guard is dropped.
    pub fn join(self: &Rc<Self>) -> Membership {
        let control = Rc::new(Control::default());
        if let Some(phase) = self.phase.get() {
            control.advance(phase);
        }
        let key = self.joined.replace(self.joined.get() + 1);
        self.controls.borrow_mut().insert(key, Rc::clone(&control));
        Membership { set: Rc::clone(self), key, control }
    }

    /// Moves every connection, present and future, to `phase`.
    pub fn advance(&self, phase: Phase) {
        self.phase.set(Some(phase));
        self.advance_present(phase);
    }

    /// Moves the connections there are to `phase`, but none that joins later.
    pub fn advance_present(&self, phase: Phase) {
        for control in self.controls.borrow().values() {
            control.advance(phase);
        }
    }

    /// Has every connection look at its timers again.
    pub fn wake(&self) {
        for control in self.controls.borrow().values() {
            control.wake();
        }
    }

    /// Live connections.
    pub fn len(&self) -> usize {
        self.controls.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.controls.borrow().is_empty()
    }

    /// Waits until there is none.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.emptied.notified().await;
        }
    }
}

/// A connection's place in its [`ConnectionSet`].
#[derive(Debug)]
pub struct Membership {
    set: Rc<ConnectionSet>,
    key: u64,
    /// The connection's handle.
    pub control: Rc<Control>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.set.controls.borrow_mut().remove(&self.key);
        if self.set.is_empty() {
            self.set.emptied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_of_those_present_spares_the_next() {
        let set = Rc::new(ConnectionSet::default());
        let first = set.join();
        set.advance_present(Phase::Draining);
        let second = set.join();
        assert_eq!(
            (first.control.phase(), second.control.phase()),
            (Phase::Draining, Phase::Serving)
        );
    }

    #[test]
    fn a_drain_reaches_members_present_and_future_and_members_leave() {
        let set = Rc::new(ConnectionSet::default());
        let first = set.join();
        set.advance(Phase::Draining);
        let second = set.join();
        assert_eq!(
            (first.control.phase(), second.control.phase()),
            (Phase::Draining, Phase::Draining)
        );
        drop(first);
        assert_eq!(set.len(), 1);
        drop(second);
        assert!(set.is_empty());
    }
}
