//! Endpoints that requests and connections name themselves, instead of a list in the configuration: made when
//! first named, let go when nobody has named them for a while and no connection to them is left.
//!
//! For clusters whose [`Discovery::cleanup_interval`](crate::config::cluster::Discovery::cleanup_interval) says
//! how long a while is. The caller puts a [`DynamicHost`] into
//! [`PickContext::dynamic`](super::PickContext::dynamic); health does not matter, as there is no choice.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::local::LocalHost;
use crate::config::address::{Address, HostAddress};
use crate::config::endpoint::{Endpoint, HealthStatus};
use crate::config::{HashMap, Name};
use crate::pool::Settings;

/// Most endpoints of one cluster on one worker: whoever names them may be a stranger.
const MOST: usize = 16_384;

/// An endpoint as it is named. Whatever differs in any of this is another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DynamicHost {
    /// Where it is.
    pub address: HostAddress,
    /// Its other addresses, tried after the first.
    pub additional_addresses: Arc<[SocketAddr]>,
    /// The name it was resolved by; empty if it was named by its address.
    pub hostname: Name,
}

impl DynamicHost {
    /// It as if it had been configured for `cluster`. Envoy makes up the name of one that has none.
    pub(super) fn endpoint(&self, cluster: &Name) -> Endpoint {
        let hostname = match &*self.hostname {
            "" => format!("{cluster}{}", self.address).into(),
            _ => Arc::clone(&self.hostname),
        };
        Endpoint {
            hash_key: None,
            metadata: None,
            address: Address::Literal(self.address.clone()),
            additional_addresses: Arc::clone(&self.additional_addresses),
            hostname,
            weight: 1,
            locality: Arc::default(),
            health: HealthStatus::Healthy,
            health_check: None,
            transport_socket_match: HashMap::default(),
            is_leaving: false,
        }
    }
}

/// One worker's dynamic endpoints of one cluster. Outlives the cluster's configuration.
#[derive(Debug, Default)]
pub(super) struct DynamicHosts {
    hosts: RefCell<HashMap<DynamicHost, Entry>>,
    /// Between two sweeps; none when it keeps nothing any more.
    interval: Cell<Option<Duration>>,
    is_swept: Cell<bool>,
}

#[derive(Debug)]
struct Entry {
    host: Rc<LocalHost>,
    /// Whether it was named since the last sweep.
    named: Cell<bool>,
}

impl DynamicHosts {
    /// The endpoint `wanted`, which `make` makes if it is new. None if that fails, or if there are too many.
    pub(super) fn get(
        self: &Rc<Self>,
        wanted: &DynamicHost,
        make: impl FnOnce() -> Option<LocalHost>,
    ) -> Option<Rc<LocalHost>> {
        if let Some(entry) = self.hosts.borrow().get(wanted) {
            entry.named.set(true);
            return Some(Rc::clone(&entry.host));
        }
        if self.interval.get().is_none() {
            // Whoever still holds the old cluster gets an endpoint for itself.
            return make().map(Rc::new);
        }
        if self.hosts.borrow().len() >= MOST {
            return None;
        }
        let host = Rc::new(make()?);
        let entry = Entry { host: Rc::clone(&host), named: Cell::new(true) };
        self.hosts.borrow_mut().insert(wanted.clone(), entry);
        if !self.is_swept.replace(true) {
            tokio::task::spawn_local(keep_sweeping(Rc::downgrade(self)));
        }
        Some(host)
    }

    /// Takes over a configuration: `interval` between sweeps (none lets go of all), and `settings` for
    /// connections (none lets go of the endpoint).
    pub(super) fn reconfigure(
        &self,
        interval: Option<Duration>,
        settings: impl Fn(&DynamicHost) -> Option<Settings>,
    ) {
        self.interval.set(interval);
        self.hosts.borrow_mut().retain(|wanted, entry| {
            match interval.and_then(|_| settings(wanted)) {
                Some(settings) => {
                    entry.host.reconfigure(settings);
                    true
                }
                None => {
                    entry.host.retire();
                    false
                }
            }
        });
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts.borrow().is_empty()
    }

    /// Closes what is idle, lets what is under way finish, and keeps nothing.
    pub(super) fn retire(&self) {
        self.reconfigure(None, |_| None);
    }

    /// Lets go of the endpoints that were not named since the last time, are not in use and have no
    /// connection.
    fn sweep(&self) {
        self.hosts.borrow_mut().retain(|_, Entry { host, named }| {
            named.replace(false) || Rc::strong_count(host) > 1 || host.has_connections()
        });
    }
}

/// Sweeps until there is nothing left to sweep.
async fn keep_sweeping(hosts: Weak<DynamicHosts>) {
    while let Some(now) = hosts.upgrade() {
        let interval = now.interval.get().filter(|_| !now.hosts.borrow().is_empty());
        let Some(interval) = interval else {
            now.is_swept.set(false);
            return;
        };
        drop(now);
        tokio::time::sleep(interval).await;
        let Some(hosts) = hosts.upgrade() else { return };
        hosts.sweep();
    }
}
