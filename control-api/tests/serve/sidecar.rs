//! A client of the control plane: the client half of crate `xds` over a real connection, with no proxy behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;
use xds::client::{Client, Options, Rejection};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds::type_url::{ResourceType, Variant};
use xds::wire::{Request, Response};

/// What a client has, and what it was sent.
#[derive(Default)]
pub(crate) struct Seen {
    /// Resources by kind and name.
    pub(crate) held: BTreeMap<(ResourceType, String), Any>,
    /// Responses, in order.
    pub(crate) responses: Vec<Arrived>,
    /// How the last stream ended.
    pub(crate) ended: Option<Status>,
    /// Names of resources that are refused, whatever is in them.
    pub(crate) refuses: Vec<String>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) kind: ResourceType,
    pub(crate) names: Vec<String>,
    pub(crate) removed: Vec<String>,
    pub(crate) bytes: usize,
}

/// A client with a stream.
pub(crate) struct Sidecar {
    pub(crate) seen: Arc<Mutex<Seen>>,
    client: Arc<Mutex<Client>>,
    stream: JoinHandle<()>,
}

impl Sidecar {
    /// Connects, and asks for clusters, listeners and whatever these need.
    pub(crate) async fn connect(to: SocketAddr, variant: Variant, node: Node) -> Self {
        Self::over(channel(to).await, variant, node)
    }

    /// The same on a connection that there is.
    pub(crate) fn over(channel: Channel, variant: Variant, node: Node) -> Self {
        Self::asking(channel, variant, node, &[])
    }

    /// The same, which asks for secrets, too.
    pub(crate) fn asking(channel: Channel, variant: Variant, node: Node, secrets: &[&str]) -> Self {
        let mut client = Client::new(Options {
            variant,
            node,
            node_on_first_message_only: true,
            fetch_timeout: Duration::ZERO,
        });
        for kind in [ResourceType::Cluster, ResourceType::Listener] {
            client.subscribe(kind, ["*"], Instant::now());
        }
        if !secrets.is_empty() {
            client.subscribe(ResourceType::Secret, secrets, Instant::now());
        }
        let (client, seen) = (Arc::new(Mutex::new(client)), Arc::default());
        let stream =
            tokio::spawn(converse(channel, variant, Arc::clone(&client), Arc::clone(&seen)));
        Self { seen, client, stream }
    }

    /// Ends the stream, and opens another one elsewhere with what it has.
    pub(crate) async fn reconnect(&mut self, to: SocketAddr, variant: Variant) {
        self.stream.abort();
        self.client.lock().disconnected();
        let (client, seen) = (Arc::clone(&self.client), Arc::clone(&self.seen));
        self.stream = tokio::spawn(converse(channel(to).await, variant, client, seen));
    }

    /// A resource that it has.
    pub(crate) fn held<M: Message + Default>(&self, kind: ResourceType, name: &str) -> Option<M> {
        let seen = self.seen.lock();
        let body = seen.held.get(&(kind, name.to_owned()))?;
        Some(M::decode(body.value.as_slice()).unwrap())
    }

    /// What arrived since the last time.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.seen.lock().responses)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stream.abort();
    }
}

/// A connection.
pub(crate) async fn channel(to: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{to}")).unwrap().connect().await.unwrap()
}

async fn converse(
    channel: Channel,
    variant: Variant,
    client: Arc<Mutex<Client>>,
    seen: Arc<Mutex<Seen>>,
) {
    client.lock().connected();
    let (sender, requests) = mpsc::channel(16);
    let ended = talk(channel, variant, &client, &seen, sender, requests).await;
    client.lock().disconnected();
    seen.lock().ended = ended.err();
}

async fn talk(
    channel: Channel,
    variant: Variant,
    client: &Mutex<Client>,
    seen: &Mutex<Seen>,
    sender: mpsc::Sender<Request>,
    mut requests: mpsc::Receiver<Request>,
) -> Result<(), Status> {
    let requests = futures_util::stream::poll_fn(move |context| requests.poll_recv(context));
    let mut service =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let opened = async {
        let responses: std::pin::Pin<Box<dyn Stream<Item = Result<Response, Status>> + Send>> =
            match variant {
                Variant::StateOfTheWorld => {
                    let requests = requests.filter_map(async |request| match request {
                        Request::Sotw(request) => Some(request),
                        Request::Delta(_) => None,
                    });
                    let responses =
                        service.stream_aggregated_resources(requests).await?.into_inner();
                    Box::pin(responses.map(|response| response.map(Response::Sotw)))
                }
                Variant::Incremental => {
                    let requests = requests.filter_map(async |request| match request {
                        Request::Delta(request) => Some(request),
                        Request::Sotw(_) => None,
                    });
                    let responses =
                        service.delta_aggregated_resources(requests).await?.into_inner();
                    Box::pin(responses.map(|response| response.map(Response::Delta)))
                }
            };
        Ok::<_, Status>(responses)
    };
    let mut responses = opened.await?;
    loop {
        loop {
            let request = client.lock().request(Instant::now());
            let Some(request) = request else { break };
            sender.send(request).await.map_err(|_| Status::cancelled("the server has gone"))?;
        }
        let deadline = client.lock().deadline();
        let wait = deadline.map_or(Duration::MAX, |at| at.duration_since(Instant::now()));
        tokio::select! {
            response = responses.next() => {
                let Some(response) = response.transpose()? else { return Ok(()) };
                take(&mut client.lock(), &mut seen.lock(), response);
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn take(client: &mut Client, seen: &mut Seen, response: Response) {
    let bytes = match &response {
        Response::Sotw(response) => response.encoded_len(),
        Response::Delta(response) => response.encoded_len(),
    };
    let Some(update) = client.receive(response) else { return };
    let (kind, now) = (update.kind, Instant::now());
    let names: Vec<String> = update.resources.iter().map(|it| it.name.clone()).collect();
    let (refused, good): (Vec<_>, Vec<_>) =
        update.resources.iter().partition(|it| seen.refuses.contains(&it.name));
    let rejections: Vec<Rejection> = refused
        .iter()
        .map(|it| Rejection { name: it.name.clone(), reason: "not to its taste".into() })
        .collect();
    for resource in good {
        seen.held.insert((kind, resource.name.clone()), resource.body.clone());
        if kind == ResourceType::Cluster {
            let cluster = Cluster::decode(resource.body.value.as_slice()).unwrap();
            if let Some(config) = cluster.eds_cluster_config {
                client.subscribe(ResourceType::Endpoints, [config.service_name], now);
            }
        }
    }
    for name in &update.removed {
        seen.held.remove(&(kind, name.clone()));
    }
    seen.responses.push(Arrived { kind, names, removed: update.removed.clone(), bytes });
    client.settle(update, rejections, now);
}
