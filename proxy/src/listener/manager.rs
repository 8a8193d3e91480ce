//! Which sockets are open: compares each new snapshot with what listens now, binds first, closes last.
//!
//! Runs on the control thread. Only a changed address opens or closes a socket; every other change of a
//! listener reaches its connections through the snapshot. A socket whose listener leaves its address passes to
//! the one that takes the address over, so that nobody who connects meanwhile is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::access_logs::Sinks;
use super::balance::{self, Seat};
use crate::config::address::HostAddress;
use crate::config::listener::{ListenAddress, Listener, TrafficDirection};
use crate::config::{Invalid, Name};
use crate::net::listening::Bound;
use crate::net::socket::{self, BindError, ListenOptions};
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
        address: HostAddress,
        /// This worker's own socket, and its seat among the workers that have one; none for a listener that
        /// others hand connections to.
        socket: Option<(Bound, Seat)>,
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
    open: BTreeMap<Place, Open>,
    next_id: u64,
    log_sinks: Sinks,
    metrics: Arc<Metrics>,
}

/// A listener's name, and one of its addresses as configured: port 0 asks for any.
type Place = (Name, HostAddress);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    id: u64,
    /// As given by the system.
    bound: HostAddress,
    /// Whether there is a socket.
    is_bound: bool,
    options: ListenOptions,
    /// As published last.
    inbound: bool,
    stopped: bool,
}

impl Open {
    /// Whether it is what `listener` asks for at one of its addresses. A path is bound once and stays as it is: a
    /// second socket there would take it from the first before it is known whether that may go.
    fn serves(&self, listener: &Listener, at: &ListenAddress) -> bool {
        let is_path = matches!(at.address, HostAddress::Pipe(_));
        self.is_bound == listener.bind_to_port && (is_path || self.options == at.options)
    }
}

/// Sockets for a snapshot that is not published yet. Dropping it closes those that are new.
#[derive(Debug, Default)]
pub struct Prepared {
    bound: Vec<(Place, Open, Vec<Bound>)>,
    /// To whom a socket passes, and from whom.
    passed: Vec<(Name, Place)>,
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
        let mut listeners: Vec<&Arc<Listener>> =
            next.listeners.values().map(|listener| &listener.config).collect();
        listeners.sort_by(|a, b| a.name.cmp(&b.name));
        for listener in listeners {
            for (index, at) in listener.addresses.iter().enumerate() {
                let place = (Arc::clone(&listener.name), at.address.clone());
                if self.open.get(&place).is_some_and(|open| open.serves(listener, at)) {
                    continue;
                }
                if let Some(heirloom) = self.left_by(listener, at, next) {
                    prepared.passed.push((place.0, heirloom));
                    continue;
                }
                let (open, sockets) =
                    self.bind(listener, at, workers).map_err(|reason| CannotListen {
                        listener: Arc::clone(&listener.name),
                        error: Invalid::new(field(index, &at.address), reason.to_string()),
                    })?;
                prepared.bound.push((place, open, sockets));
            }
        }
        Ok(prepared)
    }

    /// Opens the sockets of `listener` at one of its addresses.
    fn bind(
        &mut self,
        listener: &Listener,
        at: &ListenAddress,
        workers: NonZeroUsize,
    ) -> Result<(Open, Vec<Bound>), BindError> {
        let ours = |((_, address), open): (&Place, &Open)| {
            *address == at.address && open.is_bound && !open.stopped
        };
        let is_ours = !at.address.asks_for_any_port() && self.open.iter().any(ours);
        let (sockets, bound) = match listener.bind_to_port {
            true => sockets(at, workers, is_ours)?,
            false => (Vec::new(), None),
        };
        let open = Open {
            id: self.next_id,
            bound: bound.unwrap_or_else(|| at.address.clone()),
            is_bound: listener.bind_to_port,
            options: at.options.clone(),
            inbound: false,
            stopped: false,
        };
        self.next_id += 1;
        Ok((open, sockets))
    }

    /// Whose socket `listener` can take over: one at its address whose own listener is elsewhere in `next`.
    /// A port that the system chose belongs to its listener.
    fn left_by(&self, listener: &Listener, at: &ListenAddress, next: &Snapshot) -> Option<Place> {
        let is_left = |name: &Name, open: &Open| {
            let owner = next.listeners.get(name).map(|owner| &owner.config);
            let stays = |owner: &Arc<Listener>| {
                let mut addresses = owner.addresses.iter();
                addresses.any(|it| it.address == at.address && open.serves(owner, it))
            };
            !open.stopped && !owner.is_some_and(stays)
        };
        let found = self.open.iter().filter(|_| !at.address.asks_for_any_port()).find(
            |((name, address), open)| {
                *address == at.address && open.serves(listener, at) && is_left(name, open)
            },
        );
        found.map(|(place, _)| place.clone())
    }

    /// Hands sockets to the workers, new ones and those that pass from one listener to another, and closes
    /// what `published` has no use for.
    pub fn commit(&mut self, published: &Snapshot, prepared: Prepared) {
        let mut before = std::mem::take(&mut self.open);
        let known: BTreeSet<Name> = before.keys().map(|(name, _)| Arc::clone(name)).collect();
        let mut changed = BTreeMap::new();
        for (to, from) in prepared.passed {
            if let Some(open) = before.remove(&from) {
                tell(&self.workers, || Command::Pass { id: open.id, to: Arc::clone(&to) });
                changed.insert((to, from.1), open);
            }
        }
        for ((name, address), open, sockets) in prepared.bound {
            let id = open.id;
            let seats = balance::seats(sockets.len());
            let mut sockets = sockets.into_iter().zip(seats);
            for worker in &self.workers {
                let name = Arc::clone(&name);
                let socket = sockets.next();
                // A worker that is gone has stopped serving; the others go on.
                let address = address.clone();
                let _ = worker.send(Command::Listen { id, name, address, socket });
            }
            changed.insert((name, address), open);
        }
        let is_kept = |(name, address): &Place| {
            let listener = published.listeners.get(name);
            let stays = listener.is_some_and(|it| it.is_at(address));
            stays && !changed.contains_key(&(Arc::clone(name), address.clone()))
        };
        let (kept, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.into_iter().partition(|(place, _)| is_kept(place));
        self.count(&known, changed.keys().chain(left.keys()), published);
        for open in left.values().filter(|open| !open.stopped) {
            tell(&self.workers, || Command::Stop { id: open.id });
        }
        self.open = kept.into_iter().chain(changed).collect();
        for ((name, _), open) in &mut self.open {
            let direction = published.listeners.get(name).map(|it| it.config.direction);
            open.inbound = direction == Some(TrafficDirection::Inbound);
        }
        let names: BTreeSet<&Name> = self.open.keys().map(|(name, _)| name).collect();
        self.metrics.server().total_listeners_active.set(names.len() as i64);
    }

    fn count<'a>(
        &self,
        known: &BTreeSet<Name>,
        changed: impl Iterator<Item = &'a Place>,
        published: &Snapshot,
    ) {
        let stats = self.metrics.server();
        let is_there = |name: &&Name| published.listeners.contains_key(*name);
        let changed: BTreeSet<&Name> = changed.map(|(name, _)| name).filter(is_there).collect();
        for name in changed {
            let known = known.contains(name);
            let count = if known { &stats.listener_modified } else { &stats.listener_added };
            count.inc();
            stats.listener_create_success.inc();
        }
        let left = known.iter().filter(|name| !published.listeners.contains_key(*name));
        stats.listener_removed.add(left.count() as u64);
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
    pub fn addresses(&self) -> Vec<(Name, HostAddress)> {
        self.open.iter().map(|((name, _), open)| (Arc::clone(name), open.bound.clone())).collect()
    }
}

/// The sockets of all workers for one address, and what the system says it is. Those of a path are one, of which
/// each worker has a handle.
fn sockets(
    at: &ListenAddress,
    workers: NonZeroUsize,
    ours: bool,
) -> Result<(Vec<Bound>, Option<HostAddress>), BindError> {
    let path = match &at.address {
        HostAddress::Pipe(path) => path,
        HostAddress::Ip(address) => {
            let sockets = socket::listen(*address, &at.options, workers, ours)?;
            let bound = sockets.first().and_then(|socket| socket.local_addr().ok());
            return Ok((sockets.into_iter().map(Bound::from).collect(), bound.map(Into::into)));
        }
    };
    let socket = socket::unix::listen(path, &at.options)?;
    let mut sockets = Vec::new();
    for _ in 1..workers.get() {
        let handle = socket.try_clone().map_err(|source| BindError {
            address: (**path).into(),
            check: "check `ulimit -n`",
            source,
        })?;
        sockets.push(Bound::Unix(handle));
    }
    sockets.push(Bound::Unix(socket));
    Ok((sockets, None))
}

/// The field of a listener's address.
fn field(index: usize, address: &HostAddress) -> String {
    let place = match index.checked_sub(1) {
        None => "address".to_owned(),
        Some(index) => format!("additional_addresses[{index}].address"),
    };
    match address {
        HostAddress::Ip(_) => place + ".socket_address.port_value",
        HostAddress::Pipe(_) => place + ".pipe.path",
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
