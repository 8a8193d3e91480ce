//! A management server: it serves what a scenario puts into it over aggregated streams, by the server half of crate
//! `xds`, and tells what its clients made of that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use parking_lot::Mutex;
use prost::{Message, Name};
use prost_types::Any;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::server::{self, Heard, Session};
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::{ResourceType, Variant};
use xds::wire;
use xds::yaml::Document;

/// A management server, which goes away when dropped.
#[derive(Debug)]
pub struct ManagementServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Of its own, so that its connections end with it.
    runtime: Option<Runtime>,
}

type Resources = BTreeMap<(ResourceType, Arc<str>), Arc<Entry>>;

#[derive(Debug)]
struct Shared {
    resources: Mutex<Resources>,
    snapshot: watch::Sender<Snapshot>,
    /// How often all streams were ended.
    cuts: watch::Sender<u64>,
    told: Mutex<Told>,
}

/// What went over all streams so far.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// What the requests meant, in order.
    pub heard: Vec<Heard>,
    /// The responses.
    pub said: Vec<wire::Response>,
    /// Streams that were opened.
    pub streams: u64,
}

impl Told {
    /// The refusals: of what, and why.
    pub fn nacks(&self) -> Vec<(ResourceType, &str)> {
        let nack = |heard| match heard {
            &Heard::Nacked(kind, _, ref error) => Some((kind, &*error.message)),
            _ => None,
        };
        self.heard.iter().filter_map(nack).collect()
    }

    /// The kinds of the responses, in order.
    pub fn said_of(&self) -> Vec<ResourceType> {
        self.said.iter().filter_map(|response| ResourceType::of(response.type_url())).collect()
    }
}

/// A message of type `M`, packed.
pub fn resource<M: Message + Name + Default>(fields: &Value) -> Any {
    let message: M = Document::new("resource", fields.to_string()).read().unwrap();
    Any::from_msg(&message).unwrap()
}

impl ManagementServer {
    /// Starts one that has nothing.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            resources: Mutex::default(),
            snapshot: watch::Sender::default(),
            cuts: watch::Sender::default(),
            told: Mutex::default(),
        });
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&shared)));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Adds and replaces resources, takes others away by kind and name, and publishes all of that in one step.
    pub fn publish<'a>(
        &self,
        put: impl IntoIterator<Item = Any>,
        take: impl IntoIterator<Item = (ResourceType, &'a str)>,
    ) {
        let mut resources = self.shared.resources.lock();
        for (kind, name) in take {
            resources.remove(&(kind, name.into())).expect("something to take away");
        }
        for body in put {
            let entry = Entry::new(body).unwrap();
            resources.insert((entry.kind(), Arc::clone(entry.name())), Arc::new(entry));
        }
        self.shared.snapshot.send_replace(resources.values().cloned().collect());
    }

    /// Ends all streams.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What was said so far.
    pub fn told(&self) -> Told {
        self.shared.told.lock().clone()
    }

    /// Forgets what was said so far.
    pub fn forget(&self) {
        *self.shared.told.lock() = Told::default();
    }
}

impl Drop for ManagementServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl From<&ManagementServer> for SocketAddr {
    fn from(server: &ManagementServer) -> Self {
        server.address
    }
}

struct Service(Arc<Shared>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let requests = requests.into_inner().map(|request| request.map(wire::Request::Sotw));
        let answers = converse(Arc::clone(&self.0), Variant::StateOfTheWorld, requests);
        Ok(Response::new(Box::pin(answers.filter_map(async |answer| match answer {
            Ok(wire::Response::Sotw(response)) => Some(Ok(response)),
            Ok(wire::Response::Delta(_)) => None,
            Err(status) => Some(Err(status)),
        }))))
    }

    async fn delta_aggregated_resources(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let requests = requests.into_inner().map(|request| request.map(wire::Request::Delta));
        let answers = converse(Arc::clone(&self.0), Variant::Incremental, requests);
        Ok(Response::new(Box::pin(answers.filter_map(async |answer| match answer {
            Ok(wire::Response::Delta(response)) => Some(Ok(response)),
            Ok(wire::Response::Sotw(_)) => None,
            Err(status) => Some(Err(status)),
        }))))
    }
}

/// Serves one stream.
fn converse(
    shared: Arc<Shared>,
    variant: Variant,
    requests: impl Stream<Item = Result<wire::Request, Status>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<wire::Response, Status>> {
    let (sender, mut answers) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut cuts = shared.cuts.subscribe();
        tokio::select! {
            ended = serve(&shared, variant, requests, &sender) => if let Err(status) = ended {
                let _ = sender.send(Err(status)).await;
            },
            _ = cuts.changed() => {}
        }
    });
    futures_util::stream::poll_fn(move |context| answers.poll_recv(context))
}

async fn serve(
    shared: &Shared,
    variant: Variant,
    mut requests: impl Stream<Item = Result<wire::Request, Status>> + Unpin,
    answers: &mpsc::Sender<Result<wire::Response, Status>>,
) -> Result<(), Status> {
    let mut session = Session::new(server::Options {
        variant,
        only: None,
        control_plane: "scenario".into(),
        patience: server::PATIENCE,
    });
    let mut snapshots = shared.snapshot.subscribe();
    shared.told.lock().streams += 1;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        while let Some(response) = session.respond(&snapshot, Instant::now()) {
            shared.told.lock().said.push(response.clone());
            let sent = answers.send(Ok(response)).await;
            sent.map_err(|_| Status::cancelled("the client has gone"))?;
        }
        let deadline = session.deadline(Instant::now());
        let wait = deadline.map_or(Duration::MAX, |at| at.duration_since(Instant::now()));
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request.transpose()? else { return Ok(()) };
                let heard = session.receive(request, Instant::now());
                let heard = heard.map_err(|it| Status::invalid_argument(it.to_string()))?;
                shared.told.lock().heard.push(heard);
            }
            _ = snapshots.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
