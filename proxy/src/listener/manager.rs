//! Which sockets are open: compares each new snapshot with what listens now, binds first, closes last.
//!
//! Runs on the control thread. Only a changed address opens or closes a socket; every other change of a
//! listener reaches its connections through the snapshot.

use std::collections::BTreeMap;
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
        /// This worker's own socket.
        socket: TcpListener,
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
    inbound: bool,
    stopped: bool,
    ipv4_compat: bool,
}

impl Open {
    fn serves(&self, listener: &Listener) -> bool {
        self.address == listener.address && self.ipv4_compat == listener.ipv4_compat
    }
}

/// Sockets bound for a snapshot that is not published yet. Dropping it closes them again.
#[derive(Debug, Default)]
pub struct Prepared {
    bound: Vec<(Name, Open, Vec<TcpListener>)>,
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
                inbound: config.direction == TrafficDirection::Inbound,
                stopped: false,
                ipv4_compat: config.ipv4_compat,
            };
            self.next_id += 1;
            prepared.bound.push((Arc::clone(name), open, sockets));
        }
        Ok(prepared)
    }

    /// Hands new sockets to the workers and closes those that `published` no longer has.
    pub fn commit(&mut self, published: &Snapshot, prepared: Prepared) {
        let stats = self.metrics.server();
        for (name, open, sockets) in prepared.bound {
            let id = open.id;
            match self.open.insert(Arc::clone(&name), open) {
                Some(old) => {
                    stats.listener_modified.inc();
                    tell(&self.workers, |id| Command::Stop { id }, old.id);
                }
                None => stats.listener_added.inc(),
            }
            for (worker, socket) in self.workers.iter().zip(sockets) {
                // A worker that is gone has stopped serving; the others go on.
                let _ = worker.send(Command::Listen { id, name: Arc::clone(&name), socket });
            }
            stats.listener_create_success.inc();
        }
        let gone: Vec<Name> = self
            .open
            .keys()
            .filter(|name| !published.listeners.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(open) = self.open.remove(&name) {
                stats.listener_removed.inc();
                tell(&self.workers, |id| Command::Stop { id }, open.id);
            }
        }
        stats.total_listeners_active.set(self.open.len() as i64);
    }

    /// Closes the sockets of all listeners, or of the inbound ones, and drains their connections.
    pub fn stop_all(&mut self, inbound_only: bool) {
        for open in self.open.values_mut().filter(|open| open.inbound || !inbound_only) {
            if !std::mem::replace(&mut open.stopped, true) {
                self.metrics.server().listener_stopped.inc();
                tell(&self.workers, |id| Command::Stop { id }, open.id);
            }
        }
    }

    /// Drains the connections of all listeners, or of the inbound ones, without closing a socket.
    pub fn drain_all(&self, inbound_only: bool) {
        for open in self.open.values().filter(|open| open.inbound || !inbound_only) {
            tell(&self.workers, |id| Command::Drain { id }, open.id);
        }
    }

    /// The listeners and the addresses they are bound to.
    pub fn addresses(&self) -> Vec<(Name, SocketAddr)> {
        self.open.iter().map(|(name, open)| (Arc::clone(name), open.bound)).collect()
    }
}

fn tell(workers: &[UnboundedSender<Command>], command: impl Fn(u64) -> Command, id: u64) {
    for worker in workers {
        // A worker that is gone has nothing to stop.
        let _ = worker.send(command(id));
    }
}
