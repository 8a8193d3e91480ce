//! Takes what management servers send: the good resources of a response at once or when they are warm, the bad ones not
//! at all, each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use xds::client::{Cause, Lapse, Rejection, Update};
use xds::yaml::Error as Located;

use super::candidates::Candidates;
use super::state::State;
use super::{Assembler, Publish, notice};
use crate::config::sharing::Parts;
use crate::config::source::Server;
use crate::config::{Invalid, Name};
use crate::discovery::file::Kind;
use crate::discovery::served::{Change, Label, RefusedItem, Sent, ServedKey, decode};
use crate::discovery::streams::Streams;

/// Resources that are refused, and why.
type Refused = BTreeMap<Label, String>;

impl Assembler {
    /// Takes what is good of an update, and has it answered.
    pub(super) fn hear(
        &mut self,
        streams: &mut Streams,
        server: &Server,
        update: Update,
        publish: &mut Publish<'_>,
    ) {
        let Some(kind) = Kind::of(update.kind) else {
            let _ = streams.settle(server, update, Vec::new());
            return;
        };
        let key = ServedKey { kind, server: server.clone() };
        for Rejection { name, reason } in &update.withheld {
            tracing::warn!(%kind, name, reason, "a management server cannot give a resource");
        }
        let names: Vec<Name> = update.resources.iter().map(|it| it.name.as_str().into()).collect();
        let (change, mut refused) = self.decode(&key, &update);
        refused.extend(self.take(&change, Some(publish)));
        self.remember(&key, &update, &refused);
        let is_own = |label: &&Label| label.0 == kind;
        let rejected = refused.keys().filter(is_own).map(|label| Rejection {
            name: label.1.to_string(),
            reason: refused.get(label).cloned().unwrap_or_default(),
        });
        let rejected = rejected.collect();
        let version = update.version.clone();
        let Some(standing) = streams.settle(server, update, rejected) else { return };
        if let Some(error) = standing.error {
            tracing::error!(%kind, version, "part of an update is refused: {error}");
        } else {
            tracing::debug!(%kind, version, "an update is in use");
        }
        let is_taken = standing.error.is_none();
        self.stats.heard(&key, &names, is_taken, &version, &self.state);
        self.show_served();
        self.keep();
    }

    /// Takes away what time has taken away.
    pub(super) fn lapse(&mut self, server: &Server, lapses: Vec<Lapse>, publish: &mut Publish<'_>) {
        let mut changes: BTreeMap<Kind, Change> = BTreeMap::new();
        for Lapse { kind, name, cause } in lapses {
            let Some(kind) = Kind::of(kind) else { continue };
            let key = ServedKey { kind, server: server.clone() };
            let change = changes.entry(kind).or_insert_with(|| Change::none(key.clone()));
            let name = Name::from(name);
            match cause {
                Cause::Missing => {
                    tracing::warn!(%kind, %name, "a resource has not come in time; it is waited for no longer");
                    self.stats.missing(&key, &name, &self.state);
                    change.missing.push(name);
                }
                Cause::Expired => {
                    tracing::warn!(%kind, %name, "the time to live of a resource is over");
                    change.expired.push(name);
                }
            }
        }
        for change in changes.into_values() {
            self.take(&change, Some(publish));
        }
        self.show_served();
        self.keep();
    }

    /// Opens the listeners that were withheld. One of a server that cannot be opened is left out.
    ///
    /// # Errors
    /// If one of the bootstrap or of a file cannot be opened.
    pub(super) fn open_listeners(&mut self, publish: &mut Publish<'_>) -> Result<(), Vec<Located>> {
        self.withheld = false;
        loop {
            let Err(errors) = self.settle(Candidates::default(), Some(publish)) else {
                return Ok(());
            };
            let mut left_out = false;
            for (key, set) in &mut self.state.served {
                let is_at = |name: &Name| {
                    let label = Label(key.kind, Arc::clone(name));
                    errors.iter().any(|error| label.is_at(error))
                };
                let bad: Vec<Name> =
                    set.active.keys().filter(|name| is_at(name)).cloned().collect();
                for name in bad {
                    Arc::make_mut(set).active.remove(&name);
                    left_out = true;
                }
            }
            if !left_out {
                return Err(errors);
            }
            notice::errors("a discovered listener cannot be opened", &errors);
        }
    }

    /// What a response changes, and what of it cannot be decoded.
    fn decode(&self, key: &ServedKey, update: &Update) -> (Change, Refused) {
        let set = self.state.served.get(key);
        let mut change = Change::none(key.clone());
        change.version = Some(update.version.clone());
        change.removed = update.removed.iter().map(|name| name.as_str().into()).collect();
        let (mut refused, mut parts) = (Refused::new(), Parts::default());
        for received in &update.resources {
            let name = Name::from(received.name.as_str());
            let held = |of: fn(&crate::discovery::served::Served) -> &BTreeMap<_, _>| {
                set.and_then(|set| of(set).get(&name))
            };
            let (active, warming) = (held(|set| &set.active), held(|set| &set.warming));
            let held = active.or(warming);
            if received.unchanged && held.is_some_and(|item| !item.from_disk) {
                continue;
            }
            let (version, body) = (&*received.version, &received.body);
            match decode(key.kind, Sent { name: &received.name, version, body }, held, &mut parts) {
                Ok(item) => drop(change.items.insert(name, item)),
                Err(errors) => {
                    change.missing.push(Arc::clone(&name));
                    refused.insert(Label(key.kind, name), reasons(errors.iter()));
                }
            }
        }
        (change, refused)
    }

    /// Takes as much of a change as fits the rest; what does not, and why.
    pub(super) fn take(
        &mut self,
        change: &Change,
        mut publish: Option<&mut Publish<'_>>,
    ) -> Refused {
        let (mut refused, mut excluded) = (Refused::new(), BTreeSet::new());
        loop {
            let mut next = self.state.clone();
            next.apply(change, &excluded);
            let changed = next.changed_since(&self.state);
            let errors = match self.try_out(next, change.key.kind, publish.as_deref_mut()) {
                Ok(()) => return refused,
                Err(errors) => errors,
            };
            let mut blamed: BTreeMap<Label, Vec<&Located>> = BTreeMap::new();
            for label in &changed {
                let own: Vec<_> = errors.iter().filter(|error| label.is_at(error)).collect();
                if !own.is_empty() {
                    blamed.insert(label.clone(), own);
                }
            }
            if blamed.is_empty() {
                // What errors point at was there before: without the change it worked.
                let new = |name: &Name| Label(change.key.kind, Arc::clone(name));
                let new = change.items.keys().map(new).filter(|it| !excluded.contains(it));
                blamed = new.map(|label| (label, errors.iter().collect())).collect();
            }
            if blamed.is_empty() {
                notice::errors("what a management server says does not fit the rest", &errors);
                return refused;
            }
            for (label, errors) in blamed {
                let reason = reasons(errors.iter().map(|error| match label.is_at(error) {
                    true => Invalid::new(&*error.path, &*error.reason),
                    false => Invalid::new("", error.to_string()),
                }));
                excluded.insert(label.clone());
                refused.insert(label, reason);
            }
        }
    }

    /// Makes `next` the state in use, if it can be linked, also with what still waits, and published.
    fn try_out(
        &mut self,
        mut next: State,
        kind: Kind,
        publish: Option<&mut Publish<'_>>,
    ) -> Result<(), Vec<Located>> {
        let waits = next.served.values().any(|set| !set.warming.is_empty());
        if waits && kind.is_full_set() {
            let mut trial = next.all_in_use();
            self.complete(&mut trial, &mut Candidates::default())?;
            self.link(&trial)?;
        }
        let mut candidates = Candidates::default();
        self.complete(&mut next, &mut candidates)?;
        let linked = self.link(&next)?;
        if kind == Kind::Secret {
            // A context that the new secret does not fit keeps the old one.
            let is_new = |error: &&Located| !self.linked.kept.contains(error);
            let unfit: Vec<Located> = linked.kept.iter().filter(is_new).cloned().collect();
            if !unfit.is_empty() {
                return Err(unfit);
            }
        }
        let (state, linked) = self.show(next, linked, publish)?;
        self.adopt(state, linked, &candidates);
        Ok(())
    }

    /// Notes what was refused, for those who look.
    fn remember(&mut self, key: &ServedKey, update: &Update, refused: &Refused) {
        for (label, reason) in refused {
            let key = ServedKey { kind: label.0, server: key.server.clone() };
            let received = update.resources.iter().find(|it| *it.name == *label.1);
            let set = Arc::make_mut(self.state.served.entry(key).or_default());
            let refusal = RefusedItem {
                raw: received.map(|it| it.body.clone()),
                version: update.version.clone(),
                at: SystemTime::now(),
                reason: reason.clone(),
            };
            set.refused.insert(Arc::clone(&label.1), refusal);
        }
    }

    pub(super) fn show_served(&mut self) {
        let waiting = |kind| {
            let sets = self.state.served.iter().filter(|(key, _)| key.kind == kind);
            let count: usize = sets.map(|(_, set)| set.warming.len()).sum();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        let server = self.stats.metrics().server();
        server.warming_clusters.set(waiting(Kind::Cluster));
        server.total_listeners_warming.set(waiting(Kind::Listener));
        if self.kept_in.is_some() {
            let count = i64::try_from(self.state.resources_from_disk()).unwrap_or(i64::MAX);
            self.stats.config_cache().resources_in_use.set(count);
        }
        self.dump.update(&self.state, &self.refused);
    }
}

fn reasons(errors: impl Iterator<Item = impl ToString>) -> String {
    errors.map(|error| error.to_string()).collect::<Vec<_>>().join("; ")
}
