//! The order of a push: what is referred to before what refers to it, and removals last ("Eventual consistency
//! considerations").

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::track::Track;
use crate::snapshot::Snapshot;
use crate::type_url::ResourceType::{
    self, Cluster, Endpoints, ExtensionConfig, Listener, Routes, Secret, VirtualHost,
};

/// The two halves of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// What is new or different; and what is gone, where nothing refers to it.
    Make,
    /// What is gone, after what referred to it.
    Break,
}

/// The steps of a push.
pub(super) const STEPS: [(ResourceType, Pass); 10] = [
    (Cluster, Pass::Make),
    (Endpoints, Pass::Make),
    (Secret, Pass::Make),
    (Listener, Pass::Make),
    (ExtensionConfig, Pass::Make),
    (Routes, Pass::Make),
    (VirtualHost, Pass::Make),
    (Cluster, Pass::Break),
    (Endpoints, Pass::Break),
    (Secret, Pass::Break),
];

/// What lead to clusters.
const REFERRING: [ResourceType; 4] = [Listener, ExtensionConfig, Routes, VirtualHost];

/// Whether resources of a kind that are gone stay until [`Pass::Break`].
pub(super) fn is_broken_last(kind: ResourceType) -> bool {
    matches!(kind, Cluster | Endpoints | Secret)
}

/// Endpoints that a client needs for the clusters it was sent, and until when others wait for them.
#[derive(Debug, Default)]
pub(super) struct Waits {
    until: BTreeMap<String, Instant>,
}

impl Waits {
    pub(super) fn begin(&mut self, endpoints: &str, until: Instant) {
        self.until.insert(endpoints.to_owned(), until);
    }

    pub(super) fn arrived(&mut self, endpoints: &[String]) {
        for name in endpoints {
            self.until.remove(name);
        }
    }

    /// Gives up on what has not come.
    pub(super) fn forget(&mut self, now: Instant) {
        self.until.retain(|_, until| *until > now);
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.until.values().copied()
    }
}

/// Whether a step has to wait for others.
///
/// Nothing holds up clusters, and what they need to get warm: an Envoy does not answer for clusters before that.
/// Listeners and routes wait, with `patience`, for the answers to these. Removals wait, as long as it takes, until all
/// that could refer to what is removed is as it should be.
pub(super) fn is_held_up(
    (kind, pass): (ResourceType, Pass),
    tracks: &BTreeMap<ResourceType, Track>,
    waits: &Waits,
    snapshot: &Snapshot,
    now: Instant,
    patience: Duration,
) -> bool {
    let of = |kind: &ResourceType| tracks.get(kind);
    match pass {
        Pass::Make if is_broken_last(kind) => false,
        Pass::Make => {
            let unanswered = |track: &Track| track.is_unanswered(now, patience);
            [Cluster, Endpoints].iter().filter_map(of).any(unanswered) || !waits.until.is_empty()
        }
        Pass::Break => {
            let referring: &[ResourceType] = match kind {
                Cluster => &REFERRING,
                _ => &[Cluster, Listener, ExtensionConfig, Routes, VirtualHost],
            };
            let unsure = |kind: &ResourceType| {
                of(kind)
                    .is_some_and(|track| !track.is_settled(snapshot.set(*kind).map(|set| &**set)))
            };
            referring.iter().any(unsure)
        }
    }
}
