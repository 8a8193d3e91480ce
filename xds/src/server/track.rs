//! What a session knows of one kind of resources: what the client wants, what it has, and what it has yet to answer.

mod difference;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::{Message, Name};

use super::push::Push;
use super::{Heard, Standing};
use crate::client::Rejection;
use crate::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, ResourceError,
};
use crate::google::rpc::Status;
use crate::pace;
use crate::snapshot::Entry;
use crate::subscription::{Subscription, WILDCARD};
use crate::type_url::{ResourceType, Variant};

/// A heartbeat comes so many times within a time to live.
const BEATS: u32 = 3;

#[derive(Debug)]
pub(super) struct Track {
    kind: ResourceType,
    wanted: Subscription,
    /// Whether it asked before.
    asked: bool,
    /// The version it said it had when it began (state of the world).
    claimed: String,
    /// What was sent to it or it said it has, whatever became of that.
    sent: BTreeMap<Arc<str>, Sent>,
    /// Names that have to be answered, whether they have changed or not.
    due: BTreeSet<String>,
    /// Whether it has to be told, even if there is nothing.
    owed: bool,
    /// The version of the set of which it was sent all that it wants.
    settled: Option<Arc<str>>,
    /// Whether it has what is gone.
    stale: bool,
    last: Last,
    acked: String,
    refusals: Refusals,
    beats: BTreeMap<Arc<str>, Instant>,
}

#[derive(Debug)]
enum Sent {
    /// By an earlier stream: the version is all that is known.
    Earlier(Arc<str>),
    Now(Arc<Entry>),
}

/// The last response.
#[derive(Debug, Default)]
struct Last {
    nonce: String,
    version: String,
    names: Vec<String>,
    /// When it was sent, until it is answered.
    unanswered: Option<Instant>,
}

#[derive(Debug, Default)]
struct Refusals {
    total: u64,
    in_a_row: u32,
    /// Until when nothing is sent.
    until: Option<Instant>,
    error: Option<String>,
    named: Vec<Rejection>,
}

impl Track {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            wanted: Subscription::default(),
            asked: false,
            claimed: String::new(),
            sent: BTreeMap::new(),
            due: BTreeSet::new(),
            owed: false,
            settled: None,
            stale: false,
            last: Last::default(),
            acked: String::new(),
            refusals: Refusals::default(),
            beats: BTreeMap::new(),
        }
    }

    /// Takes a state-of-the-world request. One that does not bear the last nonce was sent before the last response
    /// arrived; its answer will say all that this one says ("Resource updates").
    pub(super) fn hear_sotw(&mut self, request: DiscoveryRequest, now: Instant) -> Heard {
        let DiscoveryRequest {
            version_info,
            node: _,
            resource_names,
            resource_locators,
            type_url: _,
            response_nonce,
            error_detail,
        } = request;
        if self.asked && response_nonce != self.last.nonce {
            return Heard::Stale(self.kind);
        }
        let first = !mem::replace(&mut self.asked, true);
        if first {
            self.claimed = version_info;
        }
        let locators = resource_locators.into_iter().map(|locator| locator.name);
        let names: Vec<String> = resource_names.into_iter().chain(locators).collect();
        // Every ACK repeats the names.
        if first || !self.wanted.is(&names) {
            let before = self.wanted.clone();
            self.wanted.replace(self.kind, &names);
            let new = self.wanted.names().difference(before.names());
            self.due.extend(new.cloned());
            self.wants_changed(&before);
            // It may have what is gone from an earlier stream, and waits to hear of all that there is.
            self.owed |= first && self.kind.is_full_state();
        }
        self.answer(&response_nonce, error_detail, now).unwrap_or(Heard::Asked(self.kind))
    }

    /// Takes an incremental request. What it says of names counts, whatever it answers ("Incremental xDS").
    pub(super) fn hear_delta(&mut self, request: DeltaDiscoveryRequest, now: Instant) -> Heard {
        let DeltaDiscoveryRequest {
            node: _,
            type_url: _,
            resource_names_subscribe: mut subscribe,
            resource_names_unsubscribe: mut unsubscribe,
            resource_locators_subscribe,
            resource_locators_unsubscribe,
            initial_resource_versions,
            response_nonce,
            error_detail,
        } = request;
        subscribe.extend(resource_locators_subscribe.into_iter().map(|locator| locator.name));
        unsubscribe.extend(resource_locators_unsubscribe.into_iter().map(|locator| locator.name));
        let first = !mem::replace(&mut self.asked, true);
        if first {
            let known = initial_resource_versions.into_iter();
            self.sent = known.map(|(name, version)| (name.into(), Sent::said(version))).collect();
        }
        if first || !(subscribe.is_empty() && unsubscribe.is_empty()) {
            self.change_names(first, subscribe, unsubscribe);
        }
        match self.answer(&response_nonce, error_detail, now) {
            Some(heard) => heard,
            None if response_nonce.is_empty() => Heard::Asked(self.kind),
            None => Heard::Stale(self.kind),
        }
    }

    fn change_names(&mut self, first: bool, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        let before = self.wanted.clone();
        self.wanted.change(self.kind, &subscribe, &unsubscribe);
        for name in subscribe.into_iter().filter(|name| name != WILDCARD) {
            // It may have forgotten what it has, but not what it says it has.
            if !(first && self.sent.contains_key(&*name)) {
                self.due.insert(name);
            }
        }
        for name in unsubscribe.into_iter().filter(|name| name != WILDCARD) {
            self.due.remove(&name);
            // It cannot know whether that also belongs to the wildcard ("Unsubscribing from Resources").
            if self.wanted.is_wildcard() && before.names().contains(&name) {
                self.due.insert(name);
            }
        }
        self.wants_changed(&before);
    }

    fn wants_changed(&mut self, before: &Subscription) {
        if self.wanted.is_wildcard() && !before.is_wildcard() {
            // A client that has nothing yet waits for an answer, even if there is nothing.
            self.owed = self.sent.is_empty();
        }
        if self.wanted != *before || !self.due.is_empty() {
            self.settled = None;
        }
        let wanted = &self.wanted;
        self.sent.retain(|name, sent| {
            sent.entry().is_none_or(|entry| wanted.wants(name, entry.aliases()))
        });
        self.beats.retain(|name, _| self.sent.contains_key(name));
    }

    fn answer(&mut self, nonce: &str, error: Option<Status>, now: Instant) -> Option<Heard> {
        if nonce.is_empty() || nonce != self.last.nonce {
            return None;
        }
        self.last.unanswered.take()?;
        let version = self.last.version.clone();
        let Some(error) = error else {
            self.acked.clone_from(&version);
            self.refusals.accepted();
            return Some(Heard::Acked(self.kind, version));
        };
        self.refusals.refused(&error, now);
        Some(Heard::Nacked(self.kind, version, error))
    }

    /// The names it is asked for by.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.wanted.names().iter().map(String::as_str)
    }

    /// The names in the response that was answered last.
    pub(super) fn answered(&self) -> &[String] {
        &self.last.names
    }

    /// Has to tell of a resource again, if it is wanted.
    pub(super) fn again(&mut self, name: &str) {
        if self.wanted.wants(name, &[]) {
            self.due.insert(name.to_owned());
            self.settled = None;
        }
    }

    /// Notes that a response is sent.
    pub(super) fn sending(&mut self, variant: Variant, push: &Push, nonce: u64, now: Instant) {
        for name in push.removed.iter().chain(&push.unknown) {
            self.sent.remove(&**name);
            self.beats.remove(&**name);
        }
        if variant == Variant::StateOfTheWorld && self.kind.is_full_state() {
            self.sent.clear();
        }
        for entry in push.entries() {
            self.sent.insert(Arc::clone(entry.name()), Sent::of(entry));
        }
        for entry in push.entries().chain(&push.renewed) {
            let next = entry.ttl().and_then(|ttl| now.checked_add(ttl / BEATS));
            match next {
                Some(next) => self.beats.insert(Arc::clone(entry.name()), next),
                None => self.beats.remove(entry.name()),
            };
        }
        if push.renewed.is_empty() {
            self.due.clear();
            self.owed = false;
        }
        let names = push.entries().map(|entry| entry.name().to_string());
        let names = names.chain(push.removed.iter().chain(&push.unknown).cloned()).collect();
        let (nonce, version) = (nonce.to_string(), push.version.clone());
        self.last = Last { nonce, version, names, unanswered: Some(now) };
    }

    pub(super) fn may_send(&self, now: Instant, patience: Duration) -> bool {
        !self.is_unanswered(now, patience) && self.refusals.until.is_none_or(|until| until <= now)
    }

    /// Whether the last response has not been answered, and patience is not over.
    pub(super) fn is_unanswered(&self, now: Instant, patience: Duration) -> bool {
        self.last.unanswered.is_some_and(|at| now < at + patience)
    }

    /// Renews what lives for a time only and has not changed. A client that has refused something may not have it.
    pub(super) fn beat(&mut self, variant: Variant, now: Instant) -> Option<Push> {
        if self.refusals.error.is_some() || !self.beats.values().any(|at| *at <= now) {
            return None;
        }
        let entries = |names: Vec<Arc<str>>| -> Vec<Arc<Entry>> {
            names.iter().filter_map(|name| self.sent.get(name)?.entry().cloned()).collect()
        };
        let version = self.last.version.clone();
        if variant == Variant::StateOfTheWorld && self.kind.is_full_state() {
            // What is not in such a response is removed.
            let kept = entries(self.sent.keys().cloned().collect());
            return Some(Push { version, kept, ..Push::default() });
        }
        let due = self.beats.iter().filter(|(_, at)| **at <= now);
        let renewed = entries(due.map(|(name, _)| Arc::clone(name)).collect());
        Some(Push { version, renewed, ..Push::default() })
    }

    pub(super) fn deadlines(&self, patience: Duration) -> impl Iterator<Item = Instant> {
        let answer = self.last.unanswered.map(|at| at + patience);
        let beats = self.beats.values().copied().min();
        answer.into_iter().chain(self.refusals.until).chain(beats)
    }

    pub(super) fn standing(&self) -> Standing<'_> {
        Standing {
            sent: &self.last.version,
            acked: &self.acked,
            unanswered: self.last.unanswered,
            nacks: self.refusals.total,
            error: self.refusals.error.as_deref(),
            rejected: &self.refusals.named,
        }
    }
}

impl Sent {
    fn said(version: String) -> Self {
        Self::Earlier(version.into())
    }

    fn of(entry: &Arc<Entry>) -> Self {
        Self::Now(Arc::clone(entry))
    }

    fn version(&self) -> &str {
        match self {
            Self::Earlier(version) => version,
            Self::Now(entry) => entry.version(),
        }
    }

    fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Earlier(_) => None,
            Self::Now(entry) => Some(entry),
        }
    }
}

impl Refusals {
    fn accepted(&mut self) {
        *self = Self { total: self.total, ..Self::default() };
    }

    fn refused(&mut self, error: &Status, now: Instant) {
        self.total += 1;
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.until = Some(now + pace::wait(self.in_a_row));
        self.error = Some(error.message.clone());
        let detail = |any: &prost_types::Any| {
            if any.type_url != ResourceError::type_url() {
                return None;
            }
            let error = ResourceError::decode(any.value.as_slice()).ok()?;
            let name = error.resource_name.unwrap_or_default().name;
            Some(Rejection { name, reason: error.error_detail.unwrap_or_default().message })
        };
        self.named = error.details.iter().filter_map(detail).collect();
    }
}
