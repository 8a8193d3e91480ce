//! Which sockets are open: compares each new snapshot with what listens now, binds first, closes last.
//!
//! Runs on the control thread. Only a changed address opens or closes a socket; every other change of a
//! listener reaches its connections through the snapshot.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::config::listener::Listener;
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
    /// Stop accepting on every socket, and drain.
    StopAll,
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
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    id: u64,
    address: SocketAddr,
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
        Self { workers, open: BTreeMap::new(), next_id: 0, metrics }
    }

    /// Binds whatever `next` needs and is not open yet; nothing that listens now is touched.
    ///
    /// # Errors
    /// The first address that cannot be bound; sockets bound before it are closed again.
    pub fn prepare(&mut self, next: &Snapshot) -> Result<Prepared, CannotListen> {
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
                let error = Invalid::new("address", reason.to_string());
                CannotListen { listener: Arc::clone(name), error }
            })?;
            let open = Open {
                id: self.next_id,
                // Port 0 asks for any: what matters later is what was asked, not what was given.
                address: config.address,
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
                    self.stop(old.id);
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
                self.stop(open.id);
            }
        }
        stats.total_listeners_active.set(self.open.len() as i64);
    }

    /// Closes every socket and drains all connections.
    pub fn stop_all(&mut self) {
        self.open.clear();
        for worker in &self.workers {
            let _ = worker.send(Command::StopAll);
        }
    }

    fn stop(&self, id: u64) {
        for worker in &self.workers {
            let _ = worker.send(Command::Stop { id });
        }
    }
}
