//! Which sockets are open: compares each new snapshot with what listens now, binds first, closes last.
//!
//! Runs on the control thread. Only a changed address opens or closes a socket; every other change of a
//! listener reaches its connections through the snapshot. A socket whose listener leaves its address passes to
//! the one that takes the address over, so that nobody who connects meanwhile is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::access_logs::Sinks;
use crate::config::listener::{Listener, TrafficDirection};
use crate::config::{Invalid, Name};
use crate::net::socket::{self, ListenOptions};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Metrics;

/// What a worker is told to do.
#[derive(Debug)]
pub enum Command {
    /// Accept connections for the listener of this name.
    Listen {
        /// Which open socket this is; unique for the life of the process.
        id: u64,
        /// The listener's name in the snapshot.
        name: Name,
        /// Its address in the snapshot: port 0 asks for any.
        address: SocketAddr,
        /// This worker's own socket.
        socket: TcpListener,
    },
    /// The socket `id` is another listener's from now on: drain the connections of the one before.
    Pass {
        /// As in [`Command::Listen`].
        id: u64,
        /// The listener's name in the snapshot.
        to: Name,
    },
    /// Stop accepting on the socket `id`, and drain its connections.
    Stop {
        /// As in [`Command::Listen`].
        id: u64,
    },
    /// Drain the connections of the socket `id`, those accepted from now on included.
    Drain {
        /// As in [`Command::Listen`].
        id: u64,
    },
}

/// A listener that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener {listener}: {error}")]
pub struct CannotListen {
    /// Its name.
    pub listener: Name,
    /// The field at fault, from the listener's root.
    pub error: Invalid,
}

/// The open listeners.
#[derive(Debug)]
pub struct Manager {
    workers: Vec<UnboundedSender<Command>>,
    open: BTreeMap<Name, Open>,
    next_id: u64,
    log_sinks: Sinks,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    id: u64,
    /// As configured: port 0 asks for any.
    address: SocketAddr,
    /// As given by the system.
    bound: SocketAddr,
    /// As published last.
    inbound: bool,
    stopped: bool,
    ipv4_compat: bool,
}

impl Open {
    fn serves(&self, listener: &Listener) -> bool {
        self.address == listener.address && self.ipv4_compat == listener.ipv4_compat
    }
}

/// Sockets for a snapshot that is not published yet. Dropping it closes those that are new.
#[derive(Debug, Default)]
pub struct Prepared {
    bound: Vec<(Name, Open, Vec<TcpListener>)>,
    /// To whom a socket passes, and from whom.
    passed: Vec<(Name, Name)>,
}

impl Manager {
    /// A manager that steers `workers`.
    pub fn new(workers: Vec<UnboundedSender<Command>>, metrics: Arc<Metrics>) -> Self {
        Self { workers, open: BTreeMap::new(), next_id: 0, log_sinks: Sinks::default(), metrics }
    }

    /// Binds whatever `next` needs and is not open yet; nothing that listens now is touched.
    ///
    /// # Errors
    /// The first access log that cannot be opened, or the first address that cannot be bound; sockets
    /// bound before it are closed again.
    pub fn prepare(&mut self, next: &Snapshot) -> Result<Prepared, CannotListen> {
        self.log_sinks.check(next)?;
        let mut prepared = Prepared::default();
        let Some(workers) = NonZeroUsize::new(self.workers.len()) else { return Ok(prepared) };
        let mut names: Vec<&Name> = next.listeners.keys().collect();
        names.sort();
        for name in names {
            let Some(listener) = next.listeners.get(name) else { continue };
            let config = &listener.config;
            if self.open.get(name).is_some_and(|open| open.serves(config)) {
                continue;
            }
            if let Some(heirloom) = self.left_by(config, next) {
                prepared.passed.push((Arc::clone(name), heirloom));
                continue;
            }
            let options =
                ListenOptions { backlog: config.backlog, ipv4_compat: config.ipv4_compat };
            let sockets = socket::listen(config.address, options, workers).map_err(|reason| {
                let error = Invalid::new("address.socket_address.port_value", reason.to_string());
                CannotListen { listener: Arc::clone(name), error }
            })?;
            let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
            let open = Open {
                id: self.next_id,
                address: config.address,
                bound: bound.unwrap_or(config.address),
                inbound: false,
                stopped: false,
                ipv4_compat: config.ipv4_compat,
            };
            self.next_id += 1;
            prepared.bound.push((Arc::clone(name), open, sockets));
        }
        Ok(prepared)
    }

    /// Whose socket `listener` can take over: one at its address whose own listener is elsewhere in `next`.
    /// A port that the system chose belongs to its listener.
    fn left_by(&self, listener: &Listener, next: &Snapshot) -> Option<Name> {
        let is_left = |name: &Name, open: &Open| {
            let owner = next.listeners.get(name);
            !open.stopped && owner.is_none_or(|owner| !open.serves(&owner.config))
        };
        let mut open = self.open.iter().filter(|_| listener.address.port() != 0);
        let found = open.find(|(name, open)| open.serves(listener) && is_left(name, open));
        found.map(|(name, _)| Arc::clone(name))
    }

    /// Hands sockets to the workers, new ones and those that pass from one listener to another, and closes
    /// what `published` has no use for.
    pub fn commit(&mut self, published: &Snapshot, prepared: Prepared) {
        let mut before = std::mem::take(&mut self.open);
        let known: BTreeSet<Name> = before.keys().cloned().collect();
        let mut changed = BTreeMap::new();
        for (to, from) in prepared.passed {
            if let Some(open) = before.remove(&from) {
                tell(&self.workers, || Command::Pass { id: open.id, to: Arc::clone(&to) });
                changed.insert(to, open);
            }
        }
        for (name, open, sockets) in prepared.bound {
            let (id, address) = (open.id, open.address);
            for (worker, socket) in self.workers.iter().zip(sockets) {
                let name = Arc::clone(&name);
                // A worker that is gone has stopped serving; the others go on.
                let _ = worker.send(Command::Listen { id, name, address, socket });
            }
            changed.insert(name, open);
        }
        self.count(&known, &changed, published);
        let is_kept =
            |name: &Name| published.listeners.contains_key(name) && !changed.contains_key(name);
        let (kept, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.into_iter().partition(|(name, _)| is_kept(name));
        for open in left.values().filter(|open| !open.stopped) {
            tell(&self.workers, || Command::Stop { id: open.id });
        }
        self.open = kept.into_iter().chain(changed).collect();
        for (name, open) in &mut self.open {
            let direction = published.listeners.get(name).map(|it| it.config.direction);
            open.inbound = direction == Some(TrafficDirection::Inbound);
        }
        self.metrics.server().total_listeners_active.set(self.open.len() as i64);
    }

    fn count(&self, known: &BTreeSet<Name>, changed: &BTreeMap<Name, Open>, published: &Snapshot) {
        let stats = self.metrics.server();
        for name in changed.keys() {
            let known = known.contains(name);
            let count = if known { &stats.listener_modified } else { &stats.listener_added };
            count.inc();
            stats.listener_create_success.inc();
        }
        let removed = known.iter().filter(|name| !published.listeners.contains_key(*name));
        stats.listener_removed.add(removed.count() as u64);
    }

    /// Closes the sockets of all listeners, or of the inbound ones, and drains their connections.
    pub fn stop_all(&mut self, inbound_only: bool) {
        for open in self.open.values_mut().filter(|open| open.inbound || !inbound_only) {
            if !std::mem::replace(&mut open.stopped, true) {
                self.metrics.server().listener_stopped.inc();
                tell(&self.workers, || Command::Stop { id: open.id });
            }
        }
    }

    /// Drains the connections of all listeners, or of the inbound ones, without closing a socket.
    pub fn drain_all(&self, inbound_only: bool) {
        for open in self.open.values().filter(|open| open.inbound || !inbound_only) {
            tell(&self.workers, || Command::Drain { id: open.id });
        }
    }

    /// The listeners and the addresses they are bound to.
    pub fn addresses(&self) -> Vec<(Name, SocketAddr)> {
        self.open.iter().map(|(name, open)| (Arc::clone(name), open.bound)).collect()
    }
}

fn tell(workers: &[UnboundedSender<Command>], command: impl Fn() -> Command) {
    for worker in workers {
        // A worker that is gone has nothing to stop.
        let _ = worker.send(command());
    }
}

#[cfg(test)]
mod tests;
