//! What a client knows of one kind of resources, and what it has yet to say about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use prost_types::Any;
use twox_hash::XxHash64;

use super::{Cause, Received, Rejection, Standing, Update};
use crate::envoy::service::discovery::v3::{ResourceError, ResourceName};
use crate::google::rpc::Status;
use crate::pace;
use crate::resource::digest;
use crate::subscription::{Subscription, WILDCARD};

/// The code of a NACK, as Envoy's: INTERNAL.
const REFUSED: i32 = 13;
/// Most bytes of a NACK's text, as Envoy's.
const LONGEST_TEXT: usize = 4096;
/// Most resources that are told of one by one.
const MOST_DETAILS: usize = 100;
/// A refusal is no repetition if the last one is longer ago.
const FORGIVEN: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct Track {
    pub(super) wanted: Subscription,
    held: BTreeMap<String, Held>,
    expiries: BTreeMap<String, Instant>,
    /// Wanted names that nothing was heard of, and when they are missing.
    awaited: BTreeMap<String, Instant>,
    /// The version that was last accepted as a whole.
    version: String,
    /// Whether something else is held than that version says.
    differs: bool,
    acks: u64,
    refusals: Refusals,
    pub(super) talk: Talk,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) version: String,
    pub(super) aliases: Vec<String>,
    pub(super) digest: u64,
}

#[derive(Debug, Default)]
struct Refusals {
    total: u64,
    /// What was refused last, how often in a row, and when.
    last: Option<(u64, u32, Instant)>,
    error: Option<String>,
}

/// What was said on the present stream, and is to be said.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// Whether anything was asked.
    pub(super) asked: bool,
    /// Whether anything was ever named.
    pub(super) named: bool,
    /// Of the response answered last.
    pub(super) nonce: String,
    /// Whether other things are wanted than when we last spoke.
    pub(super) changed: bool,
    /// The names we said we want.
    pub(super) told: BTreeSet<String>,
    /// The names of which we have yet to say that we do not want them, even if we want them again: what was held was
    /// forgotten, and only what is asked for anew is sent again.
    pub(super) left: BTreeSet<String>,
    /// State of the world: the names that requests left out which bear the present nonce. If a response crosses them,
    /// they were not heard.
    pub(super) withdrawn: BTreeSet<String>,
    pub(super) answers: VecDeque<Answer>,
}

/// An ACK or a NACK.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) nonce: String,
    /// The version that was in use after it was settled.
    pub(super) version: String,
    pub(super) error: Option<Status>,
    pub(super) not_before: Instant,
}

impl Talk {
    /// Whether an answer is to be sent by now. One that is held back goes before the next.
    pub(super) fn may_answer(&self, now: Instant) -> bool {
        self.answers.len() > 1 || self.answers.front().is_some_and(|first| first.not_before <= now)
    }
}

impl Track {
    pub(super) fn want(&mut self, name: &str, missing_at: Option<Instant>) {
        if !self.wanted.add(name) {
            return;
        }
        self.talk.changed = true;
        // The version may be one of a response to names, which held less.
        self.differs |= name == WILDCARD;
        if let Some(at) = missing_at.filter(|_| name != WILDCARD && !self.knows(name)) {
            self.awaited.insert(name.to_owned(), at);
        }
    }

    pub(super) fn leave(&mut self, name: &str) {
        if !self.wanted.remove(name) {
            return;
        }
        self.talk.changed = true;
        self.awaited.remove(name);
        if self.talk.told.remove(name) {
            self.talk.left.insert(name.to_owned());
        }
    }

    pub(super) fn forget_unwanted(&mut self) {
        let before = self.held.len();
        let wanted = &self.wanted;
        self.held.retain(|name, held| wanted.wants(name, &held.aliases));
        self.expiries.retain(|name, _| self.held.contains_key(name));
        self.differs |= self.held.len() < before;
    }

    /// Holds what was accepted earlier.
    pub(super) fn resume<'a>(
        &mut self,
        version: &str,
        held: impl IntoIterator<Item = (&'a str, &'a str, &'a Any)>,
    ) {
        self.differs = version.is_empty();
        version.clone_into(&mut self.version);
        for (name, version, body) in held {
            if !self.wanted.wants(name, &[]) {
                self.differs = true;
                continue;
            }
            self.awaited.remove(name);
            let held =
                Held { version: version.to_owned(), aliases: Vec::new(), digest: digest(body) };
            self.held.insert(name.to_owned(), held);
        }
    }

    /// Names that are wanted again and that the server has not heard were not wanted in between.
    pub(super) fn wanted_again(&self) -> BTreeSet<String> {
        let again = |name: &&String| match name.as_str() {
            WILDCARD => self.wanted.is_wildcard(),
            name => self.wanted.names().contains(name) && !self.held.contains_key(name),
        };
        self.talk.left.iter().filter(again).cloned().collect()
    }

    /// Whether something is held by a name or an alias.
    fn knows(&self, name: &str) -> bool {
        self.held.contains_key(name)
            || self.held.values().any(|held| held.aliases.iter().any(|alias| alias == name))
    }

    pub(super) fn has_to_speak(&self, now: Instant) -> bool {
        let talk = &self.talk;
        if !talk.asked {
            return !self.wanted.is_empty();
        }
        talk.changed || talk.may_answer(now)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Held> {
        self.held.get(name)
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (&str, &str)> {
        self.held.iter().map(|(name, held)| (&**name, &*held.version))
    }

    /// The version that is in use.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The version to begin a stream with: none unless exactly that is held, or the server would leave out what we lack.
    pub(super) fn version_for_sure(&self) -> &str {
        if self.differs { "" } else { &self.version }
    }

    pub(super) fn settle(
        &mut self,
        update: Update,
        rejected: Vec<Rejection>,
        stream: Option<u64>,
        now: Instant,
    ) {
        let mut faults = update.faults;
        faults.extend(rejected);
        let refused: BTreeSet<&str> = faults.iter().map(|fault| &*fault.name).collect();
        let mut refused_bytes = 0_u64;
        let mut took = false;
        let answers = stream == Some(update.stream);
        if answers {
            let mut withdrawn = std::mem::take(&mut self.talk.withdrawn);
            // What has come need not be asked for anew, be it refused.
            withdrawn.retain(|name| update.resources.iter().all(|it| it.name != *name));
            self.talk.left.extend(withdrawn);
            if self.wanted.is_wildcard() {
                self.talk.left.remove(WILDCARD);
            }
        }
        for received in update.resources {
            if refused.contains(&*received.name) {
                refused_bytes = refused_bytes.wrapping_add(received.digest);
            } else if self.wanted.wants(&received.name, &received.aliases) {
                took |= self.take(received, now);
            }
        }
        for (name, ttl) in update.lifetimes {
            if self.held.contains_key(&name) {
                self.live_for(name, ttl, now);
            }
        }
        for name in &update.removed {
            self.awaited.remove(name);
            took |= self.drop_held(name);
        }
        let mut not_before = now;
        if faults.is_empty() {
            self.version = update.version;
            self.differs = false;
            self.acks += 1;
            self.refusals.error = None;
        } else {
            self.differs |= took;
            not_before += self.refusals.note(refused_bytes, &faults, now);
        }
        if answers {
            self.talk.answers.push_back(Answer {
                nonce: update.nonce,
                version: self.version.clone(),
                error: (!faults.is_empty()).then(|| status(&faults)),
                not_before,
            });
        }
    }

    /// Holds a resource; says whether it is another than before.
    fn take(&mut self, received: Received, now: Instant) -> bool {
        let Received { name, aliases, version, ttl, digest, body: _, unchanged } = received;
        self.awaited.remove(&name);
        for alias in &aliases {
            self.awaited.remove(alias);
        }
        self.live_for(name.clone(), ttl, now);
        self.held.insert(name, Held { version, aliases, digest });
        !unchanged
    }

    fn live_for(&mut self, name: String, ttl: Option<Duration>, now: Instant) {
        match ttl.and_then(|ttl| now.checked_add(ttl)) {
            Some(at) => self.expiries.insert(name, at),
            None => self.expiries.remove(&name),
        };
    }

    /// Forgets a resource by its name or by an alias; says whether there was one.
    fn drop_held(&mut self, name: &str) -> bool {
        self.expiries.remove(name);
        if self.held.remove(name).is_some() {
            return true;
        }
        let before = self.held.len();
        self.held.retain(|_, held| held.aliases.iter().all(|alias| alias != name));
        self.held.len() < before
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let held_back = self.talk.answers.front().map(|first| first.not_before);
        let lapses = self.awaited.values().chain(self.expiries.values()).copied();
        lapses.chain(held_back).min()
    }

    pub(super) fn lapsed(&mut self, now: Instant) -> impl Iterator<Item = (String, Cause)> {
        let mut lapsed: Vec<(String, Cause)> = Vec::new();
        self.awaited.retain(|name, at| {
            let over = *at <= now;
            if over {
                lapsed.push((name.clone(), Cause::Missing));
            }
            !over
        });
        let over = self.expiries.iter().filter(|(_, at)| **at <= now);
        let expired: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in expired {
            self.differs |= self.drop_held(&name);
            lapsed.push((name, Cause::Expired));
        }
        lapsed.into_iter()
    }

    pub(super) fn standing(&self) -> Standing<'_> {
        Standing {
            version: &self.version,
            acks: self.acks,
            nacks: self.refusals.total,
            repeats: self.refusals.last.map_or(0, |(_, times, _)| times),
            error: self.refusals.error.as_deref(),
        }
    }
}

impl Refusals {
    /// Counts a refusal; says how long its NACK has to wait.
    fn note(&mut self, refused_bytes: u64, faults: &[Rejection], now: Instant) -> Duration {
        self.total += 1;
        let text = text(faults);
        // Of a response that is wrong as a whole, only the reason is known.
        let what = refused_bytes ^ XxHash64::oneshot(0, text.as_bytes());
        let times = match self.last {
            Some((last, times, at)) if last == what && now < at + FORGIVEN => {
                times.saturating_add(1)
            }
            _ => 1,
        };
        self.last = Some((what, times, now));
        self.error = Some(text);
        pace::wait(times)
    }
}

fn status(faults: &[Rejection]) -> Status {
    let detail = |fault: &Rejection| {
        let name = ResourceName { name: fault.name.clone(), ..ResourceName::default() };
        let message = fault.reason.clone();
        let error_detail = Some(Status { code: REFUSED, message, details: Vec::new() });
        Any::from_msg(&ResourceError { resource_name: Some(name), error_detail }).ok()
    };
    let named = faults.iter().filter(|fault| !fault.name.is_empty());
    let details = named.take(MOST_DETAILS).filter_map(detail).collect();
    Status { code: REFUSED, message: text(faults), details }
}

fn text(faults: &[Rejection]) -> String {
    let mut text = String::new();
    for Rejection { name, reason } in faults {
        let line_break = if text.is_empty() { "" } else { "\n" };
        let colon = if name.is_empty() { "" } else { ": " };
        text.extend([line_break, name, colon, reason]);
        if text.len() > LONGEST_TEXT {
            text.truncate(text.floor_char_boundary(LONGEST_TEXT));
            text.push_str("...(truncated)");
            break;
        }
    }
    text
}
