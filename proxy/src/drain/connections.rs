//! The live connections of one worker: how a drain reaches each of them without a lock or a channel.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::Phase;

/// The handle of one live connection, shared by its task and its listener.
#[derive(Debug)]
pub struct Control {
    phase: Cell<Phase>,
    /// The task that serves the connection.
    waker: RefCell<Option<Waker>>,
    /// Everybody else.
    advanced: Notify,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            phase: Cell::new(Phase::Serving),
            waker: RefCell::default(),
            advanced: Notify::new(),
        }
    }
}

impl Control {
    /// Tells the connection's task to go to `phase`.
    pub fn advance(&self, phase: Phase) {
        if phase > self.phase.get() {
            self.phase.set(phase);
            self.wake();
            self.advanced.notify_waiters();
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

    /// Waits until `phase` is reached or passed; in any task, and in several at once.
    pub async fn reached(&self, phase: Phase) {
        loop {
            let advanced = self.advanced.notified();
            if self.phase() >= phase {
                return;
            }
            advanced.await;
        }
    }

    /// Waits for the end of a drain, for which its beginning is given `limit`: nothing tells the client to go
    /// elsewhere before.
    pub async fn drained(&self, limit: Duration) {
        self.reached(Phase::Draining).await;
        let _ = tokio::time::timeout(limit, self.reached(Phase::Closing)).await;
    }

    /// The phase now, with the task woken when it advances. For the one task that serves the connection.
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
        let key = self.insert(&control);
        Membership { set: Rc::clone(self), key, control, kept: None }
    }

    fn insert(&self, control: &Rc<Control>) -> u64 {
        if let Some(phase) = self.phase.get() {
            control.advance(phase);
        }
        let key = self.joined.replace(self.joined.get() + 1);
        self.controls.borrow_mut().insert(key, Rc::clone(control));
        key
    }

    fn remove(&self, key: u64) {
        self.controls.borrow_mut().remove(&key);
        if self.is_empty() {
            self.emptied.notify_one();
        }
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
    kept: Option<Box<dyn Any>>,
}

impl Membership {
    /// Moves the connection to another set.
    pub fn move_to(&mut self, set: &Rc<ConnectionSet>) {
        self.set.remove(self.key);
        self.key = set.insert(&self.control);
        self.set = Rc::clone(set);
    }

    /// Keeps `what` for as long as the connection lives, whoever serves it until then. Replaces what was kept.
    pub fn keep(&mut self, what: impl Any) {
        self.kept = Some(Box::new(what));
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.set.remove(self.key);
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

    #[tokio::test]
    async fn everybody_who_waits_is_told() {
        let set = Rc::new(ConnectionSet::default());
        let member = set.join();
        let control = &member.control;
        let polled = std::future::poll_fn(|cx| match control.poll_phase(cx) {
            Phase::Serving => std::task::Poll::Pending,
            phase => std::task::Poll::Ready(phase),
        });
        let (phase, ..) = tokio::join!(
            polled,
            control.reached(Phase::Draining),
            control.drained(Duration::ZERO),
            async { set.advance(Phase::Draining) }
        );
        assert_eq!(phase, Phase::Draining);
    }

    #[test]
    fn who_moves_is_drained_with_the_new_set_and_keeps_what_it_has() {
        let (from, to) = (Rc::new(ConnectionSet::default()), Rc::new(ConnectionSet::default()));
        let kept = Rc::new(());
        let mut member = from.join();
        member.keep(Rc::clone(&kept));
        member.move_to(&to);
        from.advance(Phase::Closing);
        assert_eq!((from.len(), to.len(), member.control.phase()), (0, 1, Phase::Serving));
        to.advance(Phase::Draining);
        assert_eq!((member.control.phase(), Rc::strong_count(&kept)), (Phase::Draining, 2));
        drop(member);
        assert_eq!((to.len(), Rc::strong_count(&kept)), (0, 1));
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
