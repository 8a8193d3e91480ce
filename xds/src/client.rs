//! The client half of xDS, both variants: what is wanted goes in, requests come out; responses go in, what they change
//! comes out, is judged, and is answered with ACK or NACK. No sockets, and no clock of its own.
//!
//! A driver connects ([`Client::connected`]), sends whatever [`Client::request`] gives, hands each response to
//! [`Client::receive`], decodes what is in the [`Update`], and says with [`Client::settle`] what of it is unusable. The
//! good resources of a bad response are taken all the same: real Envoys do so with clusters and listeners, and nothing
//! in the protocol ties resources to one another. It wakes up at [`Client::deadline`] to ask for what has lapsed and to
//! send what was held back.
//!
//! Section names in quotes are those of Envoy's "xDS REST and gRPC protocol".

mod asking;
mod reading;
mod track;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prost_types::Any;

use self::track::Track;
use crate::envoy::config::core::v3::Node;
use crate::type_url::{ResourceType, Variant};
use crate::wire::{Request, Response};

/// The recommended wait for a resource before it counts as missing ("Knowing When a Requested Resource Does Not
/// Exist").
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Client feature: resources may have a time to live ("TTL").
pub const RESOURCE_TTL: &str = "xds.config.supports-resource-ttl";
/// Client feature: resources may be wrapped in the state-of-the-world variant too ("SotW TTL").
pub const RESOURCE_IN_SOTW: &str = "xds.config.supports-resource-in-sotw";

/// What does not change while a client lives.
#[derive(Debug, Clone)]
pub struct Options {
    /// How it speaks.
    pub variant: Variant,
    /// Who it is.
    pub node: Node,
    /// Whether only a stream's first request says who it is (`ApiConfigSource.set_node_on_first_message_only`).
    pub node_on_first_message_only: bool,
    /// How long a subscribed name may go without an answer before it is [`Cause::Missing`]
    /// (`ConfigSource.initial_fetch_timeout`); zero: forever.
    pub fetch_timeout: Duration,
}

/// The client half.
#[derive(Debug)]
pub struct Client {
    options: Options,
    stream: Option<Stream>,
    /// Streams so far.
    streams: u64,
    tracks: BTreeMap<ResourceType, Track>,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    /// Whether anything was sent.
    started: bool,
}

/// What a response would change. To be handed back to [`Client::settle`], whatever becomes of it.
#[derive(Debug)]
#[must_use = "a response that is not settled is never answered"]
pub struct Update {
    /// What kind of resources these are.
    pub kind: ResourceType,
    /// The version of the response.
    pub version: String,
    /// Resources that are wanted, as the server has them now.
    pub resources: Vec<Received>,
    /// Resources that exist no more, and subscribed names that stand for nothing.
    pub removed: Vec<String>,
    /// Resources that the server cannot give for now, and why.
    pub withheld: Vec<Rejection>,
    /// What is wrong with the response before anyone looks into its resources.
    faults: Vec<Rejection>,
    /// New times to live of resources that have not changed ("TTL").
    lifetimes: Vec<(String, Option<Duration>)>,
    nonce: String,
    stream: u64,
}

/// A resource of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Its name.
    pub name: String,
    /// Other names by which it can be subscribed to.
    pub aliases: Vec<String>,
    /// Its version; in the state-of-the-world variant that of the response.
    pub version: String,
    /// The resource.
    pub body: Any,
    /// Whether these are the very bytes that were accepted last.
    pub unchanged: bool,
    ttl: Option<Duration>,
    digest: u64,
}

/// A resource that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its name; empty for a response as a whole.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A resource that time has taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapse {
    /// Its kind.
    pub kind: ResourceType,
    /// Its name.
    pub name: String,
    /// Why.
    pub cause: Cause,
}

/// Why a resource lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was subscribed to and has not come. It may still come.
    Missing,
    /// Its time to live is over.
    Expired,
}

/// How things stand with one kind of resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The version that was last accepted as a whole.
    pub version: &'a str,
    /// Responses accepted as a whole.
    pub acks: u64,
    /// Responses refused, in part or as a whole.
    pub nacks: u64,
    /// How often in a row the same was refused.
    pub repeats: u32,
    /// What the last NACK said; none once a response was accepted.
    pub error: Option<&'a str>,
}

impl Client {
    /// A client that wants nothing yet and is not connected. Its node says that it knows of times to live.
    pub fn new(mut options: Options) -> Self {
        let features = &mut options.node.client_features;
        for feature in [RESOURCE_TTL, RESOURCE_IN_SOTW] {
            if !features.iter().any(|known| known == feature) {
                features.push(feature.to_owned());
            }
        }
        Self { options, stream: None, streams: 0, tracks: BTreeMap::new() }
    }

    /// Wants resources of these names; `*` stands for all the server has for this node. The names that are new begin
    /// to be missing now.
    pub fn subscribe<N: AsRef<str>>(
        &mut self,
        kind: ResourceType,
        names: impl IntoIterator<Item = N>,
        now: Instant,
    ) {
        self.subscribe_within(kind, names, self.options.fetch_timeout, now);
    }

    /// The same, where names may go without an answer for `timeout`; zero: forever.
    pub fn subscribe_within<N: AsRef<str>>(
        &mut self,
        kind: ResourceType,
        names: impl IntoIterator<Item = N>,
        timeout: Duration,
        now: Instant,
    ) {
        let missing_at = (!timeout.is_zero()).then(|| now + timeout);
        let track = self.tracks.entry(kind).or_default();
        for name in names {
            track.want(name.as_ref(), missing_at);
        }
    }

    /// No longer wants resources of these names. What is held under them is forgotten, unless it may also belong to the
    /// wildcard: then the server's answer will tell ("Unsubscribing from Resources").
    pub fn unsubscribe<N: AsRef<str>>(
        &mut self,
        kind: ResourceType,
        names: impl IntoIterator<Item = N>,
    ) {
        let Some(track) = self.tracks.get_mut(&kind) else { return };
        for name in names {
            track.leave(name.as_ref());
        }
        track.forget_unwanted();
    }

    /// Holds what was accepted before this client was made, as if a stream had carried it: the next one begins with these
    /// versions. Each is a name, a version and a body; what is not wanted is left out. `version` is the one of exactly all
    /// of them, or empty.
    pub fn resume<'a>(
        &mut self,
        kind: ResourceType,
        version: &str,
        held: impl IntoIterator<Item = (&'a str, &'a str, &'a Any)>,
    ) {
        self.tracks.entry(kind).or_default().resume(version, held);
    }

    /// There is a new stream. All that is wanted will be asked for again, with what is held.
    pub fn connected(&mut self) {
        self.disconnected();
        self.streams += 1;
        self.stream = Some(Stream { number: self.streams, started: false });
    }

    /// The stream has ended. What is held stays ("ACK/NACK and resource type instance version").
    pub fn disconnected(&mut self) {
        self.stream = None;
        for track in self.tracks.values_mut() {
            track.talk = track::Talk::default();
        }
    }

    /// The next request to send, if there is anything to say.
    pub fn request(&mut self, now: Instant) -> Option<Request> {
        let stream = self.stream.as_mut()?;
        let (&kind, track) = self.tracks.iter_mut().find(|(_, track)| track.has_to_speak(now))?;
        let says_who = !stream.started || !self.options.node_on_first_message_only;
        let node = says_who.then(|| self.options.node.clone());
        stream.started = true;
        Some(match self.options.variant {
            Variant::StateOfTheWorld => Request::Sotw(asking::sotw(kind, track, node)),
            Variant::Incremental => Request::Delta(asking::delta(kind, track, node, now)),
        })
    }

    /// What a response would change. None, and no answer, if nothing of its type was ever wanted.
    pub fn receive(&mut self, response: Response) -> Option<Update> {
        let stream = self.stream.as_ref()?.number;
        let kind = ResourceType::of(response.type_url())?;
        let track = self.tracks.get(&kind)?;
        Some(match response {
            Response::Sotw(response) => reading::sotw(kind, response, track, stream),
            Response::Delta(response) => reading::delta(kind, response, track, stream),
        })
    }

    /// Takes what is not `rejected` of an update, and answers it: ACK if nothing is wrong, otherwise NACK with every
    /// resource's error. A NACK of what was refused before is held back ([`crate::pace`]).
    pub fn settle(&mut self, update: Update, rejected: Vec<Rejection>, now: Instant) {
        let stream = self.stream.as_ref().map(|stream| stream.number);
        if let Some(track) = self.tracks.get_mut(&update.kind) {
            track.settle(update, rejected, stream, now);
        }
    }

    /// When [`request`](Self::request) or [`lapsed`](Self::lapsed) may have something new without anything else
    /// happening.
    pub fn deadline(&self) -> Option<Instant> {
        self.tracks.values().filter_map(Track::deadline).min()
    }

    /// What is missing or has expired by now; each is told once.
    pub fn lapsed(&mut self, now: Instant) -> Vec<Lapse> {
        let mut lapses = Vec::new();
        for (&kind, track) in &mut self.tracks {
            lapses.extend(track.lapsed(now).map(|(name, cause)| Lapse { kind, name, cause }));
        }
        lapses
    }

    /// The names that are held, with their versions.
    pub fn held(&self, kind: ResourceType) -> impl Iterator<Item = (&str, &str)> {
        self.tracks.get(&kind).into_iter().flat_map(Track::held)
    }

    /// How things stand with a kind; none if it was never wanted.
    pub fn standing(&self, kind: ResourceType) -> Option<Standing<'_>> {
        self.tracks.get(&kind).map(Track::standing)
    }
}
