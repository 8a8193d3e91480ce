//! How many connections may be open: of each listener, and of all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::overload::Overload;
use crate::config::{HashMap, Name};
use crate::net::splice;

/// Connections of all listeners, unless configured otherwise.
const MOST: u64 = 50_000;

/// File descriptors that are no connection's: the log, listening sockets, event queues, the admin API.
const RESERVE: u64 = 64;

/// The limits, with what is open.
#[derive(Debug)]
pub struct Limits {
    global: Arc<Limit>,
    by_listener: HashMap<Name, Arc<Limit>>,
}

#[derive(Debug)]
struct Limit {
    max: u64,
    open: AtomicU64,
}

/// Why a connection cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Its listener has as many as it may have.
    Listener,
    /// All listeners together have.
    Global,
}

/// A connection that counts, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    _listener: Option<Held>,
    _global: Option<Held>,
}

#[derive(Debug)]
struct Held(Arc<Limit>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Limit {
    fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { max, open: AtomicU64::new(0) })
    }

    fn take(self: &Arc<Self>) -> Option<Held> {
        // Counted first: two that come at once must not both be the last.
        let held = (self.open.fetch_add(1, Relaxed), Held(Arc::clone(self)));
        (held.0 < self.max).then_some(held.1)
    }
}

impl Limits {
    /// The limits of `config`. Without one for all listeners it is 50,000, or what the file `descriptors` that the
    /// process may have suffice for, if every connection needs another one upstream.
    pub(super) fn new(config: &Overload, descriptors: u64) -> Self {
        let others = descriptors / splice::SHARE + RESERVE;
        let suffices = (descriptors.saturating_sub(others) / 2).max(1);
        let global = config.max_connections.unwrap_or_else(|| MOST.min(suffices));
        let limits = config.listener_limits.iter();
        Self {
            global: Limit::new(global),
            by_listener: limits.map(|(name, max)| (Arc::clone(name), Limit::new(*max))).collect(),
        }
    }

    /// Counts a connection of `listener`; `is_counted` says whether it counts among all (Envoy
    /// `ignore_global_conn_limit`).
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&self, listener: &str, is_counted: bool) -> Result<Permit, Full> {
        let own = self.by_listener.get(listener);
        let own = own.map(|limit| limit.take().ok_or(Full::Listener)).transpose()?;
        let global = is_counted.then(|| self.global.take().ok_or(Full::Global)).transpose()?;
        Ok(Permit { _listener: own, _global: global })
    }

    /// The limit for all listeners together, and what is open.
    pub(super) fn global(&self) -> (u64, u64) {
        (self.global.max, self.global.open.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_what_ends_makes_room() {
        let config = Overload {
            max_connections: Some(3),
            listener_limits: HashMap::from_iter([("small".into(), 1)]),
            ..Overload::default()
        };
        let limits = Limits::new(&config, 1000);
        let small = limits.admit("small", true).unwrap();
        assert_eq!(limits.admit("small", true).unwrap_err(), Full::Listener);
        let others: Vec<Permit> = (0..2).map(|_| limits.admit("any", true).unwrap()).collect();
        assert_eq!(limits.admit("any", true).unwrap_err(), Full::Global);
        limits.admit("any", false).unwrap();
        drop(small);
        assert_eq!(limits.global(), (3, 2));
        let again = limits.admit("small", true).unwrap();
        drop((again, others));
        assert_eq!(limits.global(), (3, 0));
    }

    #[test]
    fn file_descriptors_bound_what_nobody_configured() {
        assert_eq!(Limits::new(&Overload::default(), 1024).global(), (416, 0));
        assert_eq!(Limits::new(&Overload::default(), u64::MAX).global(), (50_000, 0));
    }
}
