//! What a client lacks of what there is for it, and has of what there is no more: the next response.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Sent, Track};
use crate::server::order::{Pass, is_broken_last};
use crate::server::push::Push;
use crate::snapshot::{Entry, Set};
use crate::type_url::Variant;

/// What stands at the end of a version whose resources are joined by others that are on their way out.
const WITH_OLD: &str = "+old";
/// What stands at the end of a version of which only some resources were asked for.
const IN_PART: &str = "+part";

impl Track {
    /// What is to be sent in this pass, if anything.
    pub(in crate::server) fn next(
        &mut self,
        variant: Variant,
        set: Option<&Set>,
        pass: Pass,
    ) -> Option<Push> {
        let version = version_of(set);
        match pass {
            Pass::Make if self.settled.as_deref() == Some(version) => return None,
            Pass::Break if !self.stale => return None,
            _ => {}
        }
        let push = match variant {
            Variant::Incremental => self.next_delta(set, pass),
            Variant::StateOfTheWorld if self.kind.is_full_state() => {
                self.next_full_state(set, pass)
            }
            Variant::StateOfTheWorld => self.next_partial(set),
        };
        if push.is_some() {
            self.settled = None;
        } else if pass == Pass::Make {
            self.settled = Some(version.into());
            self.due.clear();
        }
        push
    }

    fn next_delta(&mut self, set: Option<&Set>, pass: Pass) -> Option<Push> {
        let exists = |name: &str| set.is_some_and(|set| set.get(name).is_some());
        let here = |name: &str| set.is_some_and(|set| set.entries().contains_key(name));
        let gone: Vec<String> =
            self.sent.keys().filter(|name| !here(name)).map(ToString::to_string).collect();
        let mut push = Push { version: version_of(set).to_owned(), ..Push::default() };
        if pass == Pass::Make {
            self.stale = is_broken_last(self.kind) && !gone.is_empty();
            push.changed = self.target(set).filter(|entry| self.lacks(entry)).cloned().collect();
            push.unknown = self.due.iter().filter(|name| !exists(name)).cloned().collect();
        } else {
            self.stale = false;
        }
        if !self.stale {
            push.removed = gone;
            push.unknown.retain(|name| !push.removed.contains(name));
        }
        let owed = self.owed && pass == Pass::Make;
        (push.is_something() || owed).then_some(push)
    }

    /// Clusters or listeners: all that there is for the client.
    fn next_full_state(&mut self, set: Option<&Set>, pass: Pass) -> Option<Push> {
        let target: Vec<&Arc<Entry>> = self.target(set).collect();
        let version = version_of(set).to_owned();
        if self.owed && self.claimed == version && self.wants_all() {
            let have = |entry: &&Arc<Entry>| (Arc::clone(entry.name()), Sent::of(entry));
            self.sent = target.iter().map(have).collect();
            self.acked = version;
            self.owed = false;
            return None;
        }
        let wanted: BTreeSet<&str> = target.iter().map(|entry| &**entry.name()).collect();
        let gone = self.sent.iter().filter(|(name, _)| !wanted.contains(&***name));
        let gone: Vec<Arc<Entry>> = gone.filter_map(|(_, sent)| sent.entry().cloned()).collect();
        let (changed, kept): (Vec<_>, Vec<_>) =
            target.into_iter().cloned().partition(|entry| self.lacks(entry));
        let keeps_old = is_broken_last(self.kind) && pass == Pass::Make;
        let is_news = !changed.is_empty() || self.owed || (!gone.is_empty() && !keeps_old);
        let mut push = Push { version, changed, kept, ..Push::default() };
        if !self.wants_all() {
            push.version.push_str(IN_PART);
        }
        self.stale = keeps_old && !gone.is_empty();
        if self.stale {
            push.version.push_str(WITH_OLD);
            push.kept.extend(gone);
        }
        is_news.then_some(push)
    }

    /// Other kinds: what has changed. There is no way to say that something is gone.
    fn next_partial(&mut self, set: Option<&Set>) -> Option<Push> {
        self.sent.retain(|name, _| set.is_some_and(|set| set.entries().contains_key(name)));
        let changed = self.target(set).filter(|entry| self.lacks(entry)).cloned().collect();
        let push = Push { version: version_of(set).to_owned(), changed, ..Push::default() };
        push.is_something().then_some(push)
    }

    /// Whether the client wants everything, and names nothing.
    fn wants_all(&self) -> bool {
        self.wanted.is_wildcard() && self.wanted.names().is_empty()
    }

    /// What there is of what the client wants.
    fn target<'a>(&'a self, set: Option<&'a Set>) -> impl Iterator<Item = &'a Arc<Entry>> {
        let all = set.filter(|_| self.wanted.is_wildcard());
        let named = set.filter(|_| !self.wanted.is_wildcard());
        let all = all.into_iter().flat_map(|set| set.entries().values());
        let names = self.wanted.names().iter();
        let found: BTreeMap<&Arc<str>, &Arc<Entry>> = named
            .into_iter()
            .flat_map(|set| names.clone().filter_map(|name| set.get(name)))
            .map(|entry| (entry.name(), entry))
            .collect();
        all.chain(found.into_values())
    }

    /// Whether the client has to be told of a resource.
    fn lacks(&self, entry: &Arc<Entry>) -> bool {
        let name = entry.name();
        self.sent.get(name).is_none_or(|sent| sent.version() != &**entry.version())
            || self.due.contains(&**name)
            || entry.aliases().iter().any(|alias| self.due.contains(alias))
    }

    /// Whether the client has, and has accepted, all that there is for it.
    pub(in crate::server) fn is_settled(&self, set: Option<&Set>) -> bool {
        self.settled.as_deref() == Some(version_of(set))
            && !self.stale
            && self.last.unanswered.is_none()
            && self.refusals.error.is_none()
    }
}

/// The version of a set. No set has one too: an empty one stands for a client that has accepted nothing.
fn version_of(set: Option<&Set>) -> &str {
    set.map_or("none", |set| set.version())
}
