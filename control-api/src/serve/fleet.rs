//! The proxies that are connected, and what each made of what it was sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use xds::client::Rejection;
use xds::envoy::config::core::v3::Node;
use xds::envoy::config::core::v3::node::UserAgentVersionType;
use xds::type_url::{ResourceType, Variant};

use super::cache::{Plan, Told};
use super::metrics::Metrics;
use crate::translate::proxy::Proxy;

/// A proxy's stream, as it stands.
#[derive(Debug, Clone)]
pub struct Client {
    /// `Node.id`.
    pub node: String,
    /// What the node tells of it.
    pub proxy: Arc<Proxy>,
    /// The cluster that the node says it is in (metadata `CLUSTER_ID`).
    pub cluster_id: String,
    /// The version of its agent, or else of itself.
    pub version: String,
    /// Where it connects from.
    pub peer: Option<SocketAddr>,
    /// How its stream speaks.
    pub variant: Variant,
    /// Since when.
    pub connected_at: SystemTime,
    /// The last mesh of which it has accepted everything; 0: none yet.
    pub settled: u64,
    /// Kinds of resources that it has asked for.
    pub kinds: BTreeMap<ResourceType, Kind>,
    /// What it is told.
    pub plan: Arc<Plan>,
    /// Which bundle of the mesh's roots it has accepted, 0 before the first; none if it does not ask for them.
    pub bundle: Option<u64>,
}

impl Client {
    /// `NAME.NAMESPACE`, as istioctl shows it.
    pub fn short_name(&self) -> String {
        format!("{}.{}", self.proxy.name, self.proxy.namespace)
    }
}

/// How a stream stands with one kind of resources.
#[derive(Debug, Clone, Default)]
pub struct Kind {
    /// The version that was sent last; empty: none yet.
    pub sent: String,
    /// When.
    pub sent_at: Option<SystemTime>,
    /// The version that was accepted last; empty: none yet.
    pub acked: String,
    /// When.
    pub acked_at: Option<SystemTime>,
    /// Responses sent.
    pub responses: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Responses that were refused.
    pub nacks: u64,
    /// What the last NACK said; none once a response was accepted.
    pub error: Option<String>,
    /// The resources that it named.
    pub rejected: Vec<Rejection>,
    /// Whether it has all that there is for it, sent now or by an earlier stream.
    pub current: bool,
}

/// What a kind's state is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was sent.
    NotSent,
    /// The last response was accepted.
    Synced,
    /// The last response has not been answered.
    Stale,
    /// The last response was refused.
    Error,
}

impl Kind {
    /// How it stands.
    pub fn state(&self) -> State {
        match self {
            Self { error: Some(_), .. } => State::Error,
            Self { current: true, .. } => State::Synced,
            Self { sent, .. } if sent.is_empty() => State::NotSent,
            Self { sent, acked, .. } if sent == acked => State::Synced,
            _ => State::Stale,
        }
    }

    /// Since when.
    pub fn since(&self) -> Option<SystemTime> {
        if self.state() == State::Synced { self.acked_at.or(self.sent_at) } else { self.sent_at }
    }
}

impl State {
    /// In istioctl's words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotSent => "NOT SENT",
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}

/// All streams.
pub struct Fleet {
    streams: Mutex<BTreeMap<u64, Client>>,
    /// Streams of secrets alone that ask for the mesh's roots: whose, and the bundle that it has accepted.
    trusting: Mutex<BTreeMap<u64, (String, u64)>>,
    opened: AtomicU64,
    responses: AtomicU64,
    bytes: AtomicU64,
    /// Changes with every stream that comes, goes or has accepted a mesh.
    news: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

/// Too many streams of one node.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany(pub usize);

impl Fleet {
    /// Nobody is connected.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let (news, _) = watch::channel(());
        Self {
            streams: Mutex::default(),
            trusting: Mutex::default(),
            opened: AtomicU64::default(),
            responses: AtomicU64::default(),
            bytes: AtomicU64::default(),
            news,
            metrics,
        }
    }

    /// Takes a stream in; it goes with what this returns.
    ///
    /// # Errors
    /// There are `most` of its node already.
    pub fn enter(self: &Arc<Self>, client: Client, most: usize) -> Result<Membership, TooMany> {
        let mut streams = self.streams.lock();
        let same = streams.values().filter(|it| it.node == client.node).count();
        if same >= most {
            return Err(TooMany(same));
        }
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        self.metrics.connected(&client.version, 1);
        streams.insert(number, client);
        drop(streams);
        self.news.send_replace(());
        Ok(Membership { fleet: Arc::clone(self), number })
    }

    /// Everyone, in the order of coming.
    pub fn clients(&self) -> Vec<Client> {
        self.streams.lock().values().cloned().collect()
    }

    /// How many are connected, and how many of them have accepted everything of this mesh or a later one.
    pub fn settled(&self, mesh: u64) -> (usize, usize) {
        let streams = self.streams.lock();
        (streams.len(), streams.values().filter(|it| it.settled >= mesh).count())
    }

    /// Those who ask for the mesh's roots and have not accepted this bundle of them or a later one.
    pub fn lacking(&self, bundle: u64) -> Vec<String> {
        let streams = self.streams.lock();
        let late = streams.values().filter(|it| it.bundle.is_some_and(|held| held < bundle));
        let mut late: Vec<String> = late.map(|it| it.node.clone()).collect();
        drop(streams);
        let trusting = self.trusting.lock();
        let others = trusting.values().filter(|(_, held)| *held < bundle);
        late.extend(others.map(|(node, _)| node.clone()));
        late
    }

    /// A place for a stream of secrets alone, which counts among those who trust from the first bundle that it notes.
    pub(super) fn trusting(self: &Arc<Self>) -> Trusting {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        Trusting { fleet: Arc::clone(self), number }
    }

    /// Responses sent so far to all, and their bytes.
    pub fn sent(&self) -> (u64, u64) {
        (self.responses.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Tells of every stream that comes, goes or has accepted a mesh.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }
}

/// A stream's place in the fleet.
pub struct Membership {
    fleet: Arc<Fleet>,
    number: u64,
}

impl Membership {
    /// Changes what is known of the stream.
    pub fn update(&self, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.fleet.streams.lock().get_mut(&self.number) {
            change(client);
        }
    }

    /// It was sent a response of so many bytes.
    pub fn sent(&self, kind: ResourceType, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.fleet.responses.fetch_add(1, Ordering::Relaxed);
        self.fleet.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.update(|client| {
            let known = client.kinds.entry(kind).or_default();
            known.sent_at = Some(SystemTime::now());
            known.responses += 1;
            known.bytes += bytes;
            known.current = false;
        });
    }

    /// It has accepted everything of this.
    pub fn settled(&self, told: &Told) {
        let mut news = false;
        self.update(|client| {
            news = client.settled < told.number;
            client.settled = told.number;
            client.kinds.values_mut().for_each(|kind| kind.current = true);
        });
        if news {
            self.fleet.metrics.converged(Instant::now().duration_since(told.since));
            self.fleet.news.send_replace(());
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(client) = self.fleet.streams.lock().remove(&self.number) {
            self.fleet.metrics.connected(&client.version, -1);
        }
        self.fleet.news.send_replace(());
    }
}

/// The place of a stream of secrets alone.
pub(super) struct Trusting {
    fleet: Arc<Fleet>,
    number: u64,
}

impl Trusting {
    /// The stream of `node` was told this bundle of the mesh's roots; whether it has accepted it.
    pub(super) fn note(&self, node: &str, bundle: u64, accepted: bool) {
        let mut trusting = self.fleet.trusting.lock();
        let (_, held) = trusting.entry(self.number).or_insert_with(|| (node.to_owned(), 0));
        if accepted {
            *held = bundle;
        }
    }
}

impl Drop for Trusting {
    fn drop(&mut self) {
        self.fleet.trusting.lock().remove(&self.number);
    }
}

/// What else a node says of itself.
pub(super) fn described(node: &Node) -> (String, String) {
    let text = |key: &str| {
        let value = node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()?;
        match value {
            prost_types::value::Kind::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    let own = || match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) if !version.is_empty() => {
            format!("{}/{version}", node.user_agent_name)
        }
        _ => node.user_agent_name.clone(),
    };
    let version = text("ISTIO_VERSION").unwrap_or_else(own);
    (text("CLUSTER_ID").unwrap_or_default(), version)
}
