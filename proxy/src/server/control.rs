//! What the admin API may do to the process: orders go to the main loop, which obeys them one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::admin::{self, Drain, State};
use crate::config::Name;
use crate::config::address::HostAddress;
use crate::listener::manager::Manager;
use crate::telemetry::metrics::Metrics;
use crate::worker::Shared;

/// What somebody asked of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Drain listeners.
    Drain(Drain),
    /// End, as SIGTERM does.
    Quit,
}

/// The process as the admin API reaches it.
#[derive(Debug)]
pub(super) struct Control {
    orders: UnboundedSender<Order>,
    manager: Arc<Mutex<Manager>>,
    metrics: Arc<Metrics>,
    live: AtomicBool,
    draining: AtomicBool,
    failing: Arc<AtomicBool>,
}

impl Control {
    /// A process that is not live yet, whose workers share this, and where its orders arrive.
    pub(super) fn new(
        manager: Arc<Mutex<Manager>>,
        shared: &Shared,
    ) -> (Arc<Self>, UnboundedReceiver<Order>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let control = Self {
            orders,
            manager,
            metrics: Arc::clone(&shared.metrics),
            live: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            failing: Arc::clone(&shared.fails_health_checks),
        };
        control.publish();
        (Arc::new(control), inbox)
    }

    /// The first configuration is served.
    pub(super) fn went_live(&self) {
        self.live.store(true, Relaxed);
        self.publish();
    }

    /// The process drains.
    pub(super) fn began_to_drain(&self) {
        self.draining.store(true, Relaxed);
        self.publish();
    }

    fn publish(&self) {
        use crate::admin::Control as _;
        let stats = self.metrics.server();
        let state = self.state();
        stats.live.set(i64::from(state == State::Live));
        stats.state.set(match state {
            State::Live => 0,
            State::Draining => 1,
            State::PreInitializing => 2,
            State::Initializing => 3,
        });
    }
}

impl admin::Control for Control {
    fn state(&self) -> State {
        if self.draining.load(Relaxed) || self.failing.load(Relaxed) {
            State::Draining
        } else if self.live.load(Relaxed) {
            State::Live
        } else {
            State::PreInitializing
        }
    }

    fn listeners(&self) -> Vec<(Name, HostAddress)> {
        self.manager.lock().addresses()
    }

    fn drain_listeners(&self, drain: Drain) {
        // The main loop is gone only when the process ends anyway.
        let _ = self.orders.send(Order::Drain(drain));
    }

    fn quit(&self) {
        let _ = self.orders.send(Order::Quit);
    }

    fn fail_health_checks(&self, fail: bool) {
        self.failing.store(fail, Relaxed);
        self.publish();
    }
}
