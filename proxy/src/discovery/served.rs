//! What management servers have sent: resources in use, resources that wait for others, and names that stand for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prost_types::Any;
use xds::type_url::ResourceType;
use xds::yaml::Error as Located;

use super::assemble::state::State;
use super::file::{self, Item, Kind, Origin};
use crate::config::sharing::Parts;
use crate::config::source::Server;
use crate::config::{Invalid, Name};

/// One kind of resources of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ServedKey {
    pub(super) kind: Kind,
    pub(super) server: Server,
}

/// The resources of one kind that a server has sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    /// The version of the last response that was taken.
    pub(super) version: String,
    /// Whether there was any response.
    pub(super) heard: bool,
    /// What is in use.
    pub(super) active: BTreeMap<Name, Arc<Item>>,
    /// What is to be used once all has come that it needs.
    pub(super) warming: BTreeMap<Name, Arc<Item>>,
    /// Names that are asked for and for which nothing is to be expected: nobody waits for them.
    pub(super) absent: BTreeSet<Name>,
    /// What was refused, and not replaced by anything better since.
    pub(super) refused: BTreeMap<Name, RefusedItem>,
}

/// A resource that was refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RefusedItem {
    pub(super) raw: Option<Any>,
    pub(super) version: String,
    pub(super) at: SystemTime,
    pub(super) reason: String,
}

/// What a server says of one kind of resources.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: ServedKey,
    /// The version, if this is a response.
    pub(super) version: Option<String>,
    /// New and changed ones.
    pub(super) items: BTreeMap<Name, Arc<Item>>,
    /// Those that exist no more.
    pub(super) removed: Vec<Name>,
    /// Those for whose time to live is over.
    pub(super) expired: Vec<Name>,
    /// Those that have not come in time, or cannot be used.
    pub(super) missing: Vec<Name>,
}

impl Change {
    /// No change.
    pub(super) fn none(key: ServedKey) -> Self {
        Self {
            key,
            version: None,
            items: BTreeMap::new(),
            removed: Vec::new(),
            expired: Vec::new(),
            missing: Vec::new(),
        }
    }
}

impl Kind {
    /// How the protocol calls it.
    pub(super) fn resource_type(self) -> ResourceType {
        match self {
            Self::Secret => ResourceType::Secret,
            Self::Cluster => ResourceType::Cluster,
            Self::Endpoints => ResourceType::Endpoints,
            Self::Listener => ResourceType::Listener,
            Self::Extension => ResourceType::ExtensionConfig,
            Self::Routes => ResourceType::Routes,
        }
    }

    /// What the protocol calls so; none if nobody here wants it.
    pub(super) fn of(kind: ResourceType) -> Option<Self> {
        Some(match kind {
            ResourceType::Secret => Self::Secret,
            ResourceType::Cluster => Self::Cluster,
            ResourceType::Endpoints => Self::Endpoints,
            ResourceType::Listener => Self::Listener,
            ResourceType::ExtensionConfig => Self::Extension,
            ResourceType::Routes => Self::Routes,
            ResourceType::VirtualHost => return None,
        })
    }
}

/// A resource as messages name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Label(pub(super) Kind, pub(super) Name);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} resource {}", self.0, self.1)
    }
}

impl Label {
    /// Whether an error is about this resource.
    pub(super) fn is_at(&self, error: &Located) -> bool {
        *error.file == *self.to_string()
    }
}

/// A resource as it was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) body: &'a Any,
}

/// Decodes a resource; what is equal to `old` keeps its identity.
///
/// # Errors
/// What is refused, each with its field path.
pub(super) fn decode(
    kind: Kind,
    sent: Sent<'_>,
    old: Option<&Arc<Item>>,
    parts: &mut Parts,
) -> Result<Arc<Item>, Vec<Invalid>> {
    xds::strict::check(sent.body).map_err(|found| {
        found.into_iter().map(|it| Invalid::new(it.path, it.reason)).collect::<Vec<_>>()
    })?;
    let name = Name::from(sent.name);
    let origin = Origin::in_binary(&Label(kind, Arc::clone(&name)).to_string().into());
    let item = file::item(kind, sent.body.clone(), sent.version, &origin, parts)?;
    let own = item.resource.name();
    if own != name {
        let reason = format!("a resource called {own:?} was sent as {name:?}");
        return Err(vec![Invalid::new("name", reason)]);
    }
    Ok(Arc::new(match old.filter(|old| old.resource == item.resource) {
        Some(old) => Item { resource: old.resource.clone(), ..item },
        None => item,
    }))
}

impl State {
    /// Applies `change` but for what is `excluded`, and takes into use whatever has become warm.
    pub(super) fn apply(&mut self, change: &Change, excluded: &BTreeSet<Label>) {
        let kind = change.key.kind;
        let is_excluded = |name: &Name| excluded.contains(&Label(kind, Arc::clone(name)));
        let set = Arc::make_mut(self.served.entry(change.key.clone()).or_default());
        if let Some(version) = &change.version {
            set.heard = true;
            set.version.clone_from(version);
        }
        for (name, item) in change.items.iter().filter(|(name, _)| !is_excluded(name)) {
            set.absent.remove(name);
            set.refused.remove(name);
            let into = if kind.is_full_set() { &mut set.warming } else { &mut set.active };
            into.insert(Arc::clone(name), Arc::clone(item));
        }
        // Endpoints, tables and secrets that are taken away while somebody asks for them stay, as in Envoy.
        let gone = change.removed.iter().filter(|_| kind.is_full_set()).chain(&change.expired);
        for name in gone {
            set.active.remove(name);
            set.warming.remove(name);
            set.refused.remove(name);
        }
        let unusable = change.items.keys().filter(|name| is_excluded(name));
        let not_there = change.missing.iter().chain(&change.removed).chain(unusable);
        for name in not_there.filter(|_| !kind.is_full_set()) {
            if !set.active.contains_key(name) {
                set.absent.insert(Arc::clone(name));
            }
        }
        self.promote(excluded);
        self.forget_unneeded();
    }

    /// Takes into use what waits for nothing any more, and lets go of what is `excluded`.
    fn promote(&mut self, excluded: &BTreeSet<Label>) {
        let waiting: Vec<ServedKey> = self
            .served
            .iter()
            .filter(|(_, set)| !set.warming.is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            let Some(set) = self.served.get(&key) else { continue };
            let is_excluded = |name: &Name| excluded.contains(&Label(key.kind, Arc::clone(name)));
            let bad = set.warming.keys().filter(|name| is_excluded(name)).cloned();
            let bad: Vec<Name> = bad.collect();
            let is_warm = |(name, item): &(&Name, &Arc<Item>)| {
                !is_excluded(name) && self.is_warm(&item.resource)
            };
            let warm: Vec<Name> =
                set.warming.iter().filter(is_warm).map(|(name, _)| name.clone()).collect();
            if bad.is_empty() && warm.is_empty() {
                continue;
            }
            let Some(set) = self.served.get_mut(&key).map(Arc::make_mut) else { continue };
            for name in bad {
                set.warming.remove(&name);
            }
            for name in warm {
                if let Some(item) = set.warming.remove(&name) {
                    set.active.insert(name, item);
                }
            }
        }
    }

    /// What nobody asks for any more is not held either: who asks again is sent it again.
    fn forget_unneeded(&mut self) {
        let needed = self.needed();
        for (key, set) in &mut self.served {
            if key.kind.is_full_set() {
                continue;
            }
            let names = needed.get(key);
            let is_needed = |name: &Name| names.is_some_and(|names| names.contains_key(name));
            let all = set.active.keys().chain(&set.absent).chain(set.refused.keys());
            if all.into_iter().all(is_needed) {
                continue;
            }
            let set = Arc::make_mut(set);
            set.active.retain(|name, _| is_needed(name));
            set.absent.retain(is_needed);
            set.refused.retain(|name, _| is_needed(name));
        }
    }

    /// As if everything were in use that still waits.
    pub(super) fn all_in_use(&self) -> Self {
        let mut state = self.clone();
        for set in state.served.values_mut().filter(|set| !set.warming.is_empty()) {
            let set = Arc::make_mut(set);
            set.active.append(&mut set.warming);
        }
        state
    }

    /// The resources in use or waiting that are others than in `old`.
    pub(super) fn changed_since(&self, old: &Self) -> BTreeSet<Label> {
        let mut changed = BTreeSet::new();
        for (key, set) in &self.served {
            let old = old.served.get(key);
            if old.is_some_and(|old| Arc::ptr_eq(old, set)) {
                continue;
            }
            let was = |name: &Name, item: &Arc<Item>| {
                old.and_then(|old| old.active.get(name)).is_some_and(|old| Arc::ptr_eq(old, item))
            };
            let all = set.active.iter().chain(&set.warming);
            let new = all.filter(|(name, item)| !was(name, item));
            changed.extend(new.map(|(name, _)| Label(key.kind, Arc::clone(name))));
        }
        changed
    }
}
