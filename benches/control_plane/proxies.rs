//! Proxies that ask as sidecars do, and keep nothing: of what they are sent they read names and nonces, and count bytes.

mod answer;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::uri::PathAndQuery;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use self::answer::{Answer, Counting, DeltaAnswer, SotwAnswer};
use crate::mesh::Mesh;

const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// The routes that the mesh's listeners ask for: those of its only port.
const ROUTE: &str = "80";
/// What a whole mesh may take in one response.
const LONGEST: usize = 1 << 30;
/// So that the network holds up nobody.
const WINDOW: u32 = 8 << 20;

/// All proxies.
pub(crate) struct Fleet {
    proxies: Vec<Arc<Counts>>,
    /// The moment that times are counted from.
    start: Instant,
}

/// What one proxy was sent since the last reset.
#[derive(Debug, Default)]
struct Counts {
    responses: AtomicU64,
    bytes: AtomicU64,
    /// When it acknowledged last: microseconds since the start.
    last: AtomicU64,
    ended: AtomicU64,
}

/// What all proxies were sent since the last reset.
#[derive(Debug)]
pub(crate) struct Totals {
    /// Responses.
    pub(crate) responses: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The bytes of the proxy that was sent most.
    pub(crate) most: u64,
    /// Proxies that were sent something.
    pub(crate) told: u64,
}

impl Fleet {
    /// Connects so many proxies, each over a connection of its own, and does not wait for what they are sent.
    ///
    /// # Errors
    /// A connection fails.
    pub(crate) async fn connect(
        to: SocketAddr,
        mesh: &Mesh,
        proxies: usize,
        sotw: bool,
    ) -> Result<Self> {
        let mut fleet = Self { proxies: Vec::new(), start: Instant::now() };
        for number in 0..proxies {
            let endpoint = Endpoint::from_shared(format!("http://{to}"))?
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW);
            let channel = endpoint.connect().await.context("a proxy cannot connect")?;
            let counts = Arc::new(Counts::default());
            fleet.proxies.push(Arc::clone(&counts));
            let (node, start) = (node(mesh, number), fleet.start);
            tokio::spawn(async move {
                // How many have ended before the end is asked for later.
                let _ = if sotw {
                    converse::<SotwAnswer>(channel, node, &counts, start).await
                } else {
                    converse::<DeltaAnswer>(channel, node, &counts, start).await
                };
                counts.ended.store(1, Ordering::Relaxed);
            });
        }
        Ok(fleet)
    }

    /// Counts from zero again.
    pub(crate) fn reset(&self) {
        for proxy in &self.proxies {
            for count in [&proxy.responses, &proxy.bytes, &proxy.last] {
                count.store(0, Ordering::Relaxed);
            }
        }
    }

    /// What was sent since the last reset.
    pub(crate) fn totals(&self) -> Totals {
        let bytes = || self.proxies.iter().map(|it| it.bytes.load(Ordering::Relaxed));
        Totals {
            responses: self.proxies.iter().map(|it| it.responses.load(Ordering::Relaxed)).sum(),
            bytes: bytes().sum(),
            most: bytes().max().unwrap_or(0),
            told: bytes().map(|it| u64::from(it > 0)).sum(),
        }
    }

    /// From then until the last acknowledgement.
    pub(crate) fn since(&self, begun: Instant) -> Duration {
        let last = self.proxies.iter().map(|it| it.last.load(Ordering::Relaxed)).max();
        (self.start + Duration::from_micros(last.unwrap_or(0))).saturating_duration_since(begun)
    }

    /// Streams that have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.proxies.iter().map(|it| it.ended.load(Ordering::Relaxed)).sum()
    }
}

fn node(mesh: &Mesh, number: usize) -> Node {
    let (namespace, name, address) = mesh.workload(number);
    let service = name.split('-').next().unwrap_or_default();
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let labels = BTreeMap::from([("app".to_owned(), text(service))]);
    let labels = Value { kind: Some(Kind::StructValue(Struct { fields: labels })) };
    let fields = BTreeMap::from([
        ("LABELS".to_owned(), labels),
        ("SERVICE_ACCOUNT".to_owned(), text(service)),
    ]);
    Node {
        id: format!("sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        cluster: format!("{service}.{namespace}"),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}

/// Asks for clusters and listeners, and as they come for their endpoints and routes.
async fn converse<A: Answer>(
    channel: Channel,
    node: Node,
    counts: &Counts,
    start: Instant,
) -> Result<()> {
    let (sender, mut requests) = mpsc::unbounded_channel();
    let first = A::ask(CLUSTERS, Some(node), &["*".to_owned()], "", "");
    sender.send(first)?;
    sender.send(A::ask(LISTENERS, None, &["*".to_owned()], "", ""))?;
    let requests = futures_util::stream::poll_fn(move |context| requests.poll_recv(context));
    let mut service = tonic::client::Grpc::new(channel).max_decoding_message_size(LONGEST);
    service.ready().await?;
    let path = PathAndQuery::from_static(A::PATH);
    let request = tonic::Request::new(requests);
    let mut answers =
        service.streaming(request, path, Counting::<A>::default()).await?.into_inner();
    let mut known = Known::default();
    while let Some((bytes, answer)) = answers.message().await? {
        for request in known.heard(&answer) {
            sender.send(request)?;
        }
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        counts.responses.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(start.elapsed().as_micros())?;
        counts.last.store(now, Ordering::Relaxed);
    }
    Ok(())
}

/// What a proxy has to remember.
#[derive(Debug, Default)]
struct Known {
    /// Clusters whose endpoints it has asked for.
    clusters: BTreeSet<String>,
    has_routes: bool,
    /// The last version and nonce of endpoints.
    endpoints: (String, String),
}

impl Known {
    /// The acknowledgement, and what is to be asked for next.
    fn heard<A: Answer>(&mut self, answer: &A) -> Vec<A::Request> {
        let (url, version, nonce) = (answer.type_url(), answer.version(), answer.nonce());
        let names: Vec<String> = match url {
            _ if !A::REPEATS => Vec::new(),
            ENDPOINTS => self.clusters.iter().cloned().collect(),
            ROUTES => vec![ROUTE.to_owned()],
            _ => Vec::new(),
        };
        let mut requests = vec![A::ask(url, None, &names, version, nonce)];
        match url {
            CLUSTERS => {
                let new: Vec<String> = answer
                    .names()
                    .filter(|it| it.starts_with("outbound|") && !self.clusters.contains(*it))
                    .map(ToOwned::to_owned)
                    .collect();
                if !new.is_empty() {
                    self.clusters.extend(new.iter().cloned());
                    let all = || self.clusters.iter().cloned().collect();
                    let names = if A::REPEATS { all() } else { new };
                    let (version, nonce) = &self.endpoints;
                    requests.push(A::ask(ENDPOINTS, None, &names, version, nonce));
                }
            }
            ENDPOINTS if A::REPEATS => self.endpoints = (version.to_owned(), nonce.to_owned()),
            LISTENERS if !self.has_routes => {
                self.has_routes = true;
                requests.push(A::ask(ROUTES, None, &[ROUTE.to_owned()], "", ""));
            }
            _ => {}
        }
        requests
    }
}
