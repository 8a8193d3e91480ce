//! The line of requests that wait for a connection, first come, first served.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::connections::Grant;
use super::{Common, Reuse};
use crate::upstream::failure::ConnectError;

/// What a request in line is told.
pub(super) type Turn = Result<Grant, ConnectError>;

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line(RefCell<VecDeque<Waiter>>);

#[derive(Debug)]
pub(super) struct Waiter {
    reuse: Reuse,
    turn: oneshot::Sender<Turn>,
}

impl Line {
    /// Joins the line; whoever gives up just drops the receiver.
    pub(super) fn join(&self, reuse: Reuse) -> oneshot::Receiver<Turn> {
        let (turn, wait) = oneshot::channel();
        self.0.borrow_mut().push_back(Waiter { reuse, turn });
        wait
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// How the request is to be served that has `ahead` others before it, if there is one.
    pub(super) fn after(&self, ahead: usize) -> Option<Reuse> {
        let mut line = self.0.borrow_mut();
        line.retain(Waiter::is_waiting);
        line.get(ahead).map(|waiter| waiter.reuse)
    }

    /// Takes the first out of the line that `accepts` what is to be had.
    pub(super) fn next(&self, accepts: impl Fn(Reuse) -> bool) -> Option<Waiter> {
        let mut line = self.0.borrow_mut();
        line.retain(Waiter::is_waiting);
        let index = line.iter().position(|waiter| accepts(waiter.reuse))?;
        line.remove(index)
    }
}

impl Waiter {
    fn is_waiting(&self) -> bool {
        !self.turn.is_closed()
    }

    /// Ends the wait. A grant nobody waits for any more goes back to the pool through its drop.
    pub(super) fn tell(self, turn: Turn) {
        drop(self.turn.send(turn));
    }
}

/// One request in line, in the statistics: cancelled unless it was served.
#[derive(Debug)]
pub(super) struct Wait {
    common: Rc<Common>,
    served: bool,
}

impl Wait {
    pub(super) fn begin(common: &Rc<Common>) -> Self {
        common.stats.upstream_rq_pending_total.inc();
        common.stats.upstream_rq_pending_active.inc();
        Self { common: Rc::clone(common), served: false }
    }

    pub(super) fn end(mut self) {
        self.served = true;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.common.stats.upstream_rq_pending_active.dec();
        if !self.served {
            self.common.stats.upstream_rq_cancelled.inc();
        }
    }
}
