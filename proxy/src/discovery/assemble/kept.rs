//! Starts from the configuration that was kept on disk, and has what is taken kept there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use prost_types::Any;
use xds::envoy::service::discovery::v3::Resource;

use super::Assembler;
use super::state::State;
use crate::config::bootstrap::Node;
use crate::config::sharing::Parts;
use crate::config::{Invalid, Name};
use crate::discovery::file::{Item, Kind};
use crate::discovery::kept::{Found, Keeper, Place, Set, server_mark};
use crate::discovery::served::{Change, Sent, ServedKey, decode};
use crate::discovery::streams::{Held, Resumed};

impl Assembler {
    /// Keeps what management servers send in `directory`, and starts from what is kept there.
    #[must_use]
    pub fn keeping_configuration_in(self, directory: Option<PathBuf>) -> Self {
        Self { kept_in: directory, ..self }
    }

    /// Takes what a former run has kept, and begins to keep what is sent. Gives what servers are told of that, so that
    /// they send only what has changed since.
    pub(super) fn start_from_disk(&mut self, node: &Node) -> Resumed {
        let Some(directory) = self.kept_in.clone() else { return Resumed::default() };
        let place = Place::new(directory, node);
        let (stats, file) = (self.stats.config_cache(), place.path());
        match place.read() {
            Ok(None) => {}
            Ok(Some(Found { at, sets })) => {
                sets.into_iter().for_each(|set| self.restore(set, at));
                self.show_served();
                let age = at.elapsed().unwrap_or_default();
                let resources = self.state.resources_from_disk();
                tracing::warn!(file = %file.display(), ?age, resources, "the configuration of the last run is in use until a management server says otherwise");
            }
            Err(error) => {
                stats.load_rejected.inc();
                tracing::warn!(file = %file.display(), %error, "the configuration of the last run is not used: management servers are waited for");
            }
        }
        self.keeper = Some(Keeper::start(place, stats));
        self.resumed()
    }

    /// Takes as much of a set as can be used by this version, and with this bootstrap.
    fn restore(&mut self, set: Set, at: SystemTime) {
        let Set { kind, server, version, resources } = set;
        let needed = self.state.needed_and_all(true);
        let is_it = |key: &&ServedKey| key.kind == kind && server_mark(&key.server) == server;
        let Some(key) = needed.keys().find(is_it).cloned() else {
            tracing::info!(%kind, server, "what was kept of a server is not needed any more");
            return;
        };
        let mut change = Change::none(key.clone());
        let (mut parts, mut complete) = (Parts::default(), true);
        for resource in resources {
            let name = Name::from(resource.name.as_str());
            match item(kind, resource, at, &mut parts) {
                Ok(item) => drop(change.items.insert(name, Arc::new(item))),
                Err(errors) => {
                    complete = false;
                    let error = errors.iter().map(ToString::to_string).collect::<Vec<_>>();
                    tracing::warn!(%kind, %name, error = error.join("; "), "a resource of the last run cannot be used any more");
                }
            }
        }
        for (label, error) in self.take(&change, None) {
            complete = false;
            tracing::warn!(kind = %label.0, name = %label.1, error, "a resource of the last run cannot be used any more");
        }
        let served = Arc::make_mut(self.state.served.entry(key).or_default());
        served.heard = true;
        served.version = if complete { version } else { String::new() };
    }

    /// Whether all clusters and listeners there are to be are known from the last run.
    pub(super) fn knows_all(&self) -> bool {
        self.keeper.is_some()
            && self.state.resources_from_disk() > 0
            && self.state.has_heard_of_all()
    }

    fn resumed(&self) -> Resumed {
        let held = |(key, set): (&ServedKey, &Arc<crate::discovery::served::Served>)| {
            let resources = set
                .active
                .iter()
                .map(|(name, item)| (name.to_string(), item.version.clone(), item.raw.clone()));
            let is_all = set.warming.is_empty();
            let version = if is_all { set.version.clone() } else { String::new() };
            (key.clone(), Held { version, resources: resources.collect() })
        };
        self.state.served.iter().map(held).collect()
    }

    /// What servers have sent is to be kept as it is now.
    pub(super) fn keep(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(&self.state.served);
        }
    }
}

impl State {
    /// How many resources in use are those of the last run.
    pub(super) fn resources_from_disk(&self) -> usize {
        let items = self.served.values().flat_map(|set| set.active.values());
        items.filter(|item| item.from_disk).count()
    }
}

/// A resource of the last run, written `at` that time.
fn item(
    kind: Kind,
    resource: Resource,
    at: SystemTime,
    parts: &mut Parts,
) -> Result<Item, Vec<Invalid>> {
    let Resource { name, version, resource, .. } = resource;
    let body: Any = resource.unwrap_or_default();
    let sent = Sent { name: &name, version: &version, body: &body };
    let item = decode(kind, sent, None, parts)?;
    Ok(Item { from_disk: true, updated: at, ..Arc::unwrap_or_clone(item) })
}
