//! A client, its application, a server and the wires between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::{Message, Name};
use prost_types::Any;
use xds::client::{self, Client, Rejection};
use xds::envoy::config::cluster::v3::{Cluster, cluster};
use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource, Node};
use xds::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::server::{self, Heard, Session};
use xds::snapshot::{Entry, Snapshot};
use xds::subscription::{Subscription, WILDCARD};
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

pub(crate) const KINDS: [ResourceType; 4] =
    [ResourceType::Cluster, ResourceType::Endpoints, ResourceType::Listener, ResourceType::Routes];

pub(crate) const BOTH: [Variant; 2] = [Variant::StateOfTheWorld, Variant::Incremental];

/// A content that the application refuses.
pub(crate) const BAD: u8 = 0;

/// A resource with a content that is a number.
pub(crate) fn resource(kind: ResourceType, name: &str, content: u8) -> Any {
    let (name, mark) = (name.to_owned(), content.to_string());
    match kind {
        ResourceType::Cluster => {
            let ads = ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
            let eds_config =
                ConfigSource { config_source_specifier: Some(ads), ..Default::default() };
            let config =
                cluster::EdsClusterConfig { eds_config: Some(eds_config), ..Default::default() };
            let eds = cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into());
            pack(&Cluster {
                name,
                alt_stat_name: mark,
                cluster_discovery_type: Some(eds),
                eds_cluster_config: Some(config),
                ..Cluster::default()
            })
        }
        ResourceType::Endpoints => {
            let endpoints = vec![LocalityLbEndpoints::default(); content.into()];
            pack(&ClusterLoadAssignment { cluster_name: name, endpoints, ..Default::default() })
        }
        ResourceType::Listener => pack(&Listener { name, stat_prefix: mark, ..Default::default() }),
        ResourceType::Routes => pack(&RouteConfiguration {
            name,
            internal_only_headers: vec![mark],
            ..Default::default()
        }),
        other => panic!("{other} has no place here"),
    }
}

fn pack<M: Message + Name>(message: &M) -> Any {
    Any::from_msg(message).unwrap()
}

/// The number in a resource.
fn content(kind: ResourceType, body: &Any) -> u8 {
    let mark = match kind {
        ResourceType::Cluster => body.to_msg::<Cluster>().unwrap().alt_stat_name,
        ResourceType::Endpoints => {
            body.to_msg::<ClusterLoadAssignment>().unwrap().endpoints.len().to_string()
        }
        ResourceType::Listener => body.to_msg::<Listener>().unwrap().stat_prefix,
        _ => body.to_msg::<RouteConfiguration>().unwrap().internal_only_headers.remove(0),
    };
    mark.parse().unwrap()
}

pub(crate) struct World {
    pub(crate) variant: Variant,
    pub(crate) now: Instant,
    pub(crate) client: Client,
    pub(crate) session: Option<Session>,
    pub(crate) to_server: VecDeque<Request>,
    pub(crate) to_client: VecDeque<Response>,
    /// What the server has.
    pub(crate) has: BTreeMap<(ResourceType, String), u8>,
    snapshot: Snapshot,
    /// What the application was told and accepted.
    pub(crate) uses: BTreeMap<(ResourceType, String), u8>,
    pub(crate) wants: BTreeMap<ResourceType, Subscription>,
    /// What was sent on the present stream.
    nonces: BTreeSet<(ResourceType, String)>,
    /// The versions that were accepted as a whole.
    accepted: BTreeSet<(ResourceType, String)>,
    /// Whether a message of the present stream went another way than in order, once.
    pub(crate) disturbed: bool,
    /// Messages so far.
    pub(crate) messages: usize,
    /// Everything that went over the wire, for people to read.
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new(variant: Variant) -> Self {
        let node = Node { id: "node".into(), ..Node::default() };
        let client = Client::new(client::Options {
            variant,
            node,
            node_on_first_message_only: true,
            fetch_timeout: client::FETCH_TIMEOUT,
        });
        let mut world = Self {
            variant,
            now: Instant::now(),
            client,
            session: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            has: BTreeMap::new(),
            snapshot: Snapshot::default(),
            uses: BTreeMap::new(),
            wants: BTreeMap::new(),
            nonces: BTreeSet::new(),
            accepted: BTreeSet::new(),
            disturbed: false,
            messages: 0,
            log: Vec::new(),
        };
        world.connect();
        world
    }

    pub(crate) fn connect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.nonces.clear();
        self.disturbed = false;
        self.log.push("---".into());
        self.client.connected();
        self.session = Some(Session::new(server::Options {
            variant: self.variant,
            only: None,
            control_plane: String::new(),
            patience: server::PATIENCE,
        }));
    }

    pub(crate) fn put(&mut self, kind: ResourceType, name: &str, content: u8) {
        self.has.insert((kind, name.to_owned()), content);
        self.publish();
    }

    pub(crate) fn take(&mut self, kind: ResourceType, name: &str) {
        self.has.remove(&(kind, name.to_owned()));
        self.publish();
    }

    fn publish(&mut self) {
        let entry = |((kind, name), content): (&(ResourceType, String), &u8)| {
            Arc::new(Entry::new(resource(*kind, name, *content)).unwrap())
        };
        self.snapshot = self.has.iter().map(entry).collect();
    }

    pub(crate) fn subscribe(&mut self, kind: ResourceType, name: &str) {
        self.wants.entry(kind).or_default().add(name);
        self.client.subscribe(kind, [name], self.now);
    }

    pub(crate) fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        self.wants.entry(kind).or_default().remove(name);
        self.client.unsubscribe(kind, [name]);
        self.forget();
    }

    /// The application forgets what the client has forgotten.
    fn forget(&mut self) {
        for kind in KINDS {
            let held: BTreeSet<&str> = self.client.held(kind).map(|(name, _)| name).collect();
            self.uses.retain(|(it, name), _| *it != kind || held.contains(&**name));
            let used = self.uses.keys().filter(|(it, _)| *it == kind).count();
            assert_eq!(used, held.len(), "{kind}: what is held was told of");
        }
    }

    /// Lets both halves say what they have to say by now.
    pub(crate) fn speak(&mut self) {
        while let Some(request) = self.client.request(self.now) {
            self.check_request(&request);
            self.log.push(format!("-> {}", brief_request(&request)));
            self.to_server.push_back(request);
            self.messages += 1;
        }
        let Some(session) = &mut self.session else { return };
        if session.node().is_none() {
            return;
        }
        while let Some(response) = session.respond(&self.snapshot, self.now) {
            let kind = ResourceType::of(response.type_url()).unwrap();
            self.log.push(format!("<- {}", brief_response(&response)));
            let new = self.nonces.insert((kind, response.nonce().to_owned()));
            assert!(new, "a nonce is used once");
            self.to_client.push_back(response);
            self.messages += 1;
        }
    }

    /// An answer bears a nonce of the stream, and the version it is about or the one in use.
    fn check_request(&self, request: &Request) {
        let kind = ResourceType::of(request.type_url()).unwrap();
        let nonce = request.nonce();
        if nonce.is_empty() {
            assert_eq!(request.error_detail(), None, "a NACK is of a response");
            return;
        }
        assert!(self.nonces.contains(&(kind, nonce.to_owned())), "a nonce of this stream");
        let Request::Sotw(request) = request else { return };
        let said = request.version_info.clone();
        let accepted = said.is_empty() || self.accepted.contains(&(kind, said));
        assert!(accepted, "{kind}: a version in use: {request:?}");
    }

    /// The server takes its next request.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        let request = self.to_server.pop_front()?;
        let disturbed = self.disturbed;
        match self.session.as_mut()?.receive(request, self.now) {
            Ok(heard) => Some(heard),
            // Its first request was lost.
            Err(violation) => {
                assert!(disturbed, "{violation}");
                None
            }
        }
    }

    /// The client takes its next response, and the application looks at what it says.
    pub(crate) fn listen(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let Some(update) = self.client.receive(response) else { return };
        let kind = update.kind;
        let mut rejected = Vec::new();
        for received in &update.resources {
            let content = content(kind, &received.body);
            let key = (kind, received.name.clone());
            if content == BAD {
                assert!(!update.removed.contains(&received.name), "a bad resource removes nothing");
                rejected.push(Rejection { name: received.name.clone(), reason: "bad".into() });
            } else {
                assert_eq!(received.unchanged, self.uses.get(&key) == Some(&content));
                self.uses.insert(key, content);
            }
        }
        for name in &update.removed {
            self.uses.remove(&(kind, name.clone()));
        }
        if rejected.is_empty() {
            self.accepted.insert((kind, update.version.clone()));
        }
        self.client.settle(update, rejected, self.now);
        self.forget();
    }

    /// Lets time pass until something may happen by itself.
    fn wait(&mut self) -> bool {
        let session = self.session.as_ref().and_then(|session| session.deadline(self.now));
        let Some(next) = self.client.deadline().into_iter().chain(session).min() else {
            return false;
        };
        self.now = next.max(self.now + Duration::from_millis(1));
        self.client.lapsed(self.now);
        self.forget();
        true
    }

    /// Lets everything happen until nothing does.
    pub(crate) fn rest(&mut self) {
        let before = self.messages;
        loop {
            self.speak();
            if self.to_server.is_empty() && self.to_client.is_empty() {
                if !self.wait() {
                    return;
                }
                continue;
            }
            while !self.to_server.is_empty() {
                self.hear();
            }
            while !self.to_client.is_empty() {
                self.listen();
            }
            assert!(self.messages - before < 500, "no end: {:#?}", self.log);
        }
    }

    /// What the client has to hold once all is at rest, and does.
    pub(crate) fn assert_in_step(&self) {
        // What could refer to a cluster that is gone was refused: the old one may still refer to it.
        let refuses = self.has.iter().any(|((kind, name), content)| {
            let wanted = self.wants.get(kind);
            *content == BAD && wanted.is_some_and(|wanted| wanted.wants(name, &[]))
        });
        for kind in KINDS {
            let Some(wanted) = self.wants.get(&kind) else { continue };
            for ((_, name), content) in self.has.iter().filter(|((it, _), _)| *it == kind) {
                let used = self.uses.get(&(kind, name.clone()));
                if !wanted.wants(name, &[]) {
                    assert_eq!(used, None, "{kind} {name} is not wanted: {:#?}", self.log);
                } else if *content != BAD {
                    assert_eq!(used, Some(content), "{kind} {name} is wanted: {:#?}", self.log);
                }
            }
            // The state-of-the-world variant has no way to take away what is not a cluster or a listener.
            let takes_away = (self.variant == Variant::Incremental || kind.is_full_state())
                && (kind == ResourceType::Listener || !refuses);
            for (_, name) in self.uses.keys().filter(|(it, _)| *it == kind) {
                assert!(wanted.wants(name, &[]), "{kind} {name} is not wanted");
                let exists = self.has.contains_key(&(kind, name.clone()));
                assert!(exists || !takes_away, "{kind} {name} is gone: {:#?}", self.log);
            }
        }
    }
}

fn brief_request(request: &Request) -> String {
    let kind = ResourceType::of(request.type_url()).unwrap();
    let (nonce, nack) = (request.nonce(), request.error_detail().is_some());
    match request {
        Request::Sotw(it) => {
            format!("{kind} v={} n={nonce} nack={nack} {:?}", it.version_info, it.resource_names)
        }
        Request::Delta(it) => format!(
            "{kind} n={nonce} nack={nack} +{:?} -{:?} {:?}",
            it.resource_names_subscribe,
            it.resource_names_unsubscribe,
            it.initial_resource_versions
        ),
    }
}

fn brief_response(response: &Response) -> String {
    let kind = ResourceType::of(response.type_url()).unwrap();
    let nonce = response.nonce();
    let show =
        |body: &Any| format!("{}={}", xds::resource::name(body).unwrap(), content(kind, body));
    match response {
        Response::Sotw(it) => {
            let resources: Vec<String> = it.resources.iter().map(show).collect();
            format!("{kind} v={} n={nonce} {resources:?}", it.version_info)
        }
        Response::Delta(it) => {
            let bodies = it.resources.iter().filter_map(|resource| resource.resource.as_ref());
            let resources: Vec<String> = bodies.map(show).collect();
            format!("{kind} n={nonce} {resources:?} -{:?}", it.removed_resources)
        }
    }
}

/// The name that stands for everything, or a short one.
pub(crate) fn name(number: u8) -> &'static str {
    ["a", "b", "c", WILDCARD][usize::from(number) % 4]
}
