//! A client's requests ("How the client specifies what resources to return", "ACK/NACK and resource type instance
//! version").

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::track::Track;
use crate::envoy::config::core::v3::Node;
use crate::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use crate::subscription::{Subscription, WILDCARD};
use crate::type_url::ResourceType;

/// Everything that is wanted, and the answer that is next.
///
/// Each request must bear the nonce of the last response, so an answer that is held back goes along with what has
/// changed.
pub(super) fn sotw(kind: ResourceType, track: &mut Track, node: Option<Node>) -> DiscoveryRequest {
    let asked = track.talk.asked;
    let (resource_names, is_all) = sotw_names(kind, track);
    let current = if asked { track.version() } else { track.version_for_sure() }.to_owned();
    let talk = &mut track.talk;
    let answer = talk.answers.pop_front();
    let mut error_detail = None;
    if let Some(answer) = &answer {
        talk.nonce.clone_from(&answer.nonce);
        error_detail.clone_from(&answer.error);
    }
    let version_info = answer.map_or(current, |answer| answer.version);
    talk.asked = true;
    talk.named |= !resource_names.is_empty();
    talk.changed = !is_all;
    DiscoveryRequest {
        version_info,
        node,
        resource_names,
        resource_locators: Vec::new(),
        type_url: kind.url().to_owned(),
        response_nonce: talk.nonce.clone(),
        error_detail,
    }
}

/// The names of the next request, and whether they say all that is to be said.
///
/// What was given up and is wanted again is left out once, or the server would take it for what we have. Naming nothing
/// for the first time means everything, so before that the wildcard is named.
fn sotw_names(kind: ResourceType, track: &mut Track) -> (Vec<String>, bool) {
    let again = track.wanted_again();
    let wanted: BTreeSet<String> = names(&track.wanted).collect();
    let named: Vec<String> = wanted.difference(&again).cloned().collect();
    let talk = &mut track.talk;
    if !talk.named && kind.has_wildcard() {
        if talk.asked && named.is_empty() {
            return (vec![WILDCARD.to_owned()], false);
        }
        if named == [WILDCARD] {
            talk.told = wanted;
            return (Vec::new(), true);
        }
    }
    talk.withdrawn.append(&mut talk.left);
    talk.told = wanted.difference(&again).cloned().collect();
    (named, again.is_empty())
}

/// What has changed since the last request of the stream; on the first one, all that is wanted and all that is held.
pub(super) fn delta(
    kind: ResourceType,
    track: &mut Track,
    node: Option<Node>,
    now: Instant,
) -> DeltaDiscoveryRequest {
    let first = !track.talk.asked;
    let versions: HashMap<String, String> = match first {
        true => track.held().filter(|(_, version)| !version.is_empty()).map(owned).collect(),
        false => HashMap::new(),
    };
    let (subscribe, unsubscribe) = match first || track.talk.changed {
        true => delta_names(kind, track),
        false => (Vec::new(), Vec::new()),
    };
    let talk = &mut track.talk;
    talk.asked = true;
    let answer = if talk.may_answer(now) { talk.answers.pop_front() } else { None };
    let (response_nonce, error_detail) =
        answer.map(|answer| (answer.nonce, answer.error)).unwrap_or_default();
    DeltaDiscoveryRequest {
        node,
        type_url: kind.url().to_owned(),
        resource_names_subscribe: subscribe,
        resource_names_unsubscribe: unsubscribe,
        resource_locators_subscribe: Vec::new(),
        resource_locators_unsubscribe: Vec::new(),
        initial_resource_versions: versions,
        response_nonce,
        error_detail,
    }
}

/// The names that are added and taken away since the last request. Names are sent again whenever they are asked for, but
/// a wildcard that is wanted again has to be given up first.
fn delta_names(kind: ResourceType, track: &mut Track) -> (Vec<String>, Vec<String>) {
    let mut wanted: BTreeSet<String> = names(&track.wanted).collect();
    let legacy = !track.talk.asked && is_only_wildcard(kind, &track.wanted);
    let talk = &mut track.talk;
    let mut left = std::mem::take(&mut talk.left);
    left.retain(|name| name == WILDCARD || !wanted.contains(name));
    talk.changed = left.contains(WILDCARD) && wanted.remove(WILDCARD);
    let new = wanted.difference(&talk.told).filter(|_| !legacy);
    let subscribe: Vec<String> = new.cloned().collect();
    talk.told = wanted;
    talk.named |= !subscribe.is_empty();
    (subscribe, left.into_iter().collect())
}

/// Whether naming nothing says it all. Older servers know no other way to ask for everything.
fn is_only_wildcard(kind: ResourceType, wanted: &Subscription) -> bool {
    kind.has_wildcard() && wanted.is_wildcard() && wanted.names().is_empty()
}

fn names(wanted: &Subscription) -> impl Iterator<Item = String> {
    let wildcard = wanted.is_wildcard().then(|| WILDCARD.to_owned());
    wildcard.into_iter().chain(wanted.names().iter().cloned())
}

fn owned((name, version): (&str, &str)) -> (String, String) {
    (name.to_owned(), version.to_owned())
}
