//! The server half of xDS, both variants: one session per stream. Requests go in and say what is wanted and how the
//! last response went down; whenever something may have changed, [`Session::respond`] compares what the client has with
//! what there is for it, and gives the next response. No sockets, and no clock of its own.
//!
//! - A kind has one unanswered response at a time. Changes made meanwhile go out together with the next one.
//! - Whatever was sent is not sent again until it changes, also if it was refused; after several refusals in a row even
//!   changes wait ([`crate::pace`]).
//! - What is pushed is made before it breaks ("Eventual consistency considerations"): clusters, endpoints and secrets
//!   come first, listeners and routes wait for the answers to those, and clusters that are gone are taken away only
//!   once everything that could refer to them was accepted.
//!
//! Section names in quotes are those of Envoy's "xDS REST and gRPC protocol".

mod order;
mod push;
mod track;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::order::Waits;
use self::push::Push;
use self::track::Track;
use crate::client::{RESOURCE_IN_SOTW, Rejection};
use crate::envoy::config::core::v3::{ControlPlane, Node};
use crate::google::rpc::Status;
use crate::snapshot::Snapshot;
use crate::type_url::{ResourceType, Variant};
use crate::wire::{Request, Response};

/// How long others wait for an answer that does not come, unless told otherwise. An Envoy answers for its clusters only
/// when all of them are warm.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What does not change while a session lives.
#[derive(Debug, Clone)]
pub struct Options {
    /// How the stream speaks.
    pub variant: Variant,
    /// The only kind of resources on the stream; none if it is aggregated.
    pub only: Option<ResourceType>,
    /// Who answers, for people to read; empty: not said.
    pub control_plane: String,
    /// How long an unanswered response holds up others: newer ones of its kind, and those that come after it.
    pub patience: Duration,
}

/// One stream of a client.
#[derive(Debug)]
pub struct Session {
    options: Options,
    node: Option<Node>,
    nonces: u64,
    tracks: BTreeMap<ResourceType, Track>,
    waits: Waits,
}

/// What a request meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// It may want other resources than before, and answers nothing.
    Asked(ResourceType),
    /// The response of this version was accepted.
    Acked(ResourceType, String),
    /// The response of this version was refused, in part or as a whole.
    Nacked(ResourceType, String, Status),
    /// It answers a response that is no longer the last one ("Resource updates").
    Stale(ResourceType),
    /// It is about resources that are not served here, and stays unanswered.
    Unknown(String),
}

/// Why a stream cannot go on: INVALID_ARGUMENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Who asks is said on the first request, or never.
    #[error("the first request has no node")]
    NoNode,
    /// On an aggregated stream every request has a type.
    #[error("a type URL is required on an aggregated stream")]
    NoType,
    /// The stream is of one kind.
    #[error("{0} is not what this stream is for")]
    WrongType(String),
    /// The other variant's request.
    #[error("a request of the other variant of the protocol")]
    WrongVariant,
}

/// How things stand with one kind of resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing<'a> {
    /// The version of the last response; empty: none yet.
    pub sent: &'a str,
    /// The version that was last accepted as a whole; empty: none yet.
    pub acked: &'a str,
    /// Since when a response has not been answered.
    pub unanswered: Option<Instant>,
    /// Responses that were refused.
    pub nacks: u64,
    /// What the last NACK said; none once a response was accepted.
    pub error: Option<&'a str>,
    /// The resources it named, if the client names them one by one.
    pub rejected: &'a [Rejection],
}

impl Session {
    /// A stream on which nothing was said.
    pub fn new(options: Options) -> Self {
        Self { options, node: None, nonces: 0, tracks: BTreeMap::new(), waits: Waits::default() }
    }

    /// Who the client is, once it has said so.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Takes a request.
    ///
    /// # Errors
    /// If the stream has to end, as the client does not follow the protocol.
    pub fn receive(&mut self, request: Request, now: Instant) -> Result<Heard, Violation> {
        if request.variant() != self.options.variant {
            return Err(Violation::WrongVariant);
        }
        if self.node.is_none() {
            self.node = Some(request.node().cloned().ok_or(Violation::NoNode)?);
        }
        let url = request.type_url();
        let kind = match self.options.only {
            Some(only) if url.is_empty() || url == only.url() => only,
            Some(_) => return Err(Violation::WrongType(url.to_owned())),
            None if url.is_empty() => return Err(Violation::NoType),
            None => match ResourceType::of(url) {
                Some(kind) => kind,
                None => return Ok(Heard::Unknown(url.to_owned())),
            },
        };
        let track = self.tracks.entry(kind).or_insert_with(|| Track::new(kind));
        let heard = match request {
            Request::Sotw(request) => track.hear_sotw(request, now),
            Request::Delta(request) => track.hear_delta(request, now),
        };
        if kind == ResourceType::Endpoints && matches!(heard, Heard::Acked(..) | Heard::Nacked(..))
        {
            self.waits.arrived(track.answered());
        }
        Ok(heard)
    }

    /// The next response, if anything is to be said by now. To be called until there is none, after each request and
    /// each change of `snapshot`.
    pub fn respond(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        let Options { variant, patience, .. } = self.options;
        self.waits.forget(now);
        for step @ (kind, pass) in order::STEPS {
            if !self.tracks.get(&kind).is_some_and(|track| track.may_send(now, patience))
                || order::is_held_up(step, &self.tracks, &self.waits, snapshot, now, patience)
            {
                continue;
            }
            let set = snapshot.set(kind).map(|set| &**set);
            let push = self.tracks.get_mut(&kind).and_then(|track| track.next(variant, set, pass));
            let Some(push) = push else { continue };
            if kind == ResourceType::Cluster {
                self.clusters_change(&push, snapshot, now);
            }
            return Some(self.send(kind, push, now));
        }
        let mut free = self.tracks.iter_mut().filter(|(_, track)| track.may_send(now, patience));
        let (kind, push) =
            free.find_map(|(kind, track)| Some((*kind, track.beat(variant, now)?)))?;
        Some(self.send(kind, push, now))
    }

    /// When [`respond`](Self::respond) may have something new without anything else happening.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let patience = self.options.patience;
        let tracks = self.tracks.values().flat_map(|track| track.deadlines(patience));
        tracks.chain(self.waits.deadlines()).filter(|at| *at > now).min()
    }

    /// How things stand with a kind; none if it was never asked for.
    pub fn standing(&self, kind: ResourceType) -> Option<Standing<'_>> {
        self.tracks.get(&kind).map(Track::standing)
    }

    /// The names that a kind is asked for by; none if it was never asked for, or only as a whole.
    pub fn names(&self, kind: ResourceType) -> impl Iterator<Item = &str> {
        self.tracks.get(&kind).into_iter().flat_map(Track::names)
    }

    /// Whether the client has asked for something, and has accepted all that there is for it in `snapshot`. To be asked
    /// once [`respond`](Self::respond) has nothing more to say.
    pub fn is_settled(&self, snapshot: &Snapshot) -> bool {
        let of = |kind: &ResourceType| snapshot.set(*kind).map(|set| &**set);
        let mut tracks = self.tracks.iter();
        !self.tracks.is_empty() && tracks.all(|(kind, track)| track.is_settled(of(kind)))
    }

    /// A cluster that has changed becomes warm with the next response that has its endpoints, even if these are as they
    /// were ("Resource warming").
    fn clusters_change(&mut self, push: &Push, snapshot: &Snapshot, now: Instant) {
        let endpoints = snapshot.set(ResourceType::Endpoints);
        let until = now + self.options.patience;
        for name in push.changed.iter().filter_map(|entry| entry.endpoints()) {
            if let Some(track) = self.tracks.get_mut(&ResourceType::Endpoints) {
                track.again(name);
            }
            if endpoints.is_some_and(|set| set.get(name).is_some()) {
                self.waits.begin(name, until);
            }
        }
    }

    fn send(&mut self, kind: ResourceType, push: Push, now: Instant) -> Response {
        self.nonces += 1;
        let Options { variant, control_plane: identifier, .. } = &self.options;
        if let Some(track) = self.tracks.get_mut(&kind) {
            track.sending(*variant, &push, self.nonces, now);
        }
        let nonce = self.nonces.to_string();
        let control_plane =
            (!identifier.is_empty()).then(|| ControlPlane { identifier: identifier.clone() });
        let mut features = self.node.iter().flat_map(|node| &node.client_features);
        let unwraps = features.any(|feature| feature == RESOURCE_IN_SOTW);
        match variant {
            Variant::StateOfTheWorld => {
                Response::Sotw(push.sotw(kind, nonce, control_plane, unwraps))
            }
            Variant::Incremental => Response::Delta(push.delta(kind, nonce, control_plane)),
        }
    }
}
