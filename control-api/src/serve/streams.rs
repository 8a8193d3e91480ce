//! What streams of all kinds have in common: where they come from, how they begin and end, and how something is said.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::server::{Heard, Session};
use xds::type_url::{ResourceType, Variant};
use xds::wire;

use super::ControlPlane;
use super::connection::Peer;

/// A response, or why there are no more.
pub(super) type Said = Result<wire::Response, Status>;
/// The responses of one variant.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Where a stream comes from.
pub(super) struct From {
    pub(super) peer: Option<Peer>,
    pub(super) metadata: MetadataMap,
}

impl From {
    fn of<T>(request: &Request<T>) -> Self {
        let plain = |address| Peer { address, encrypted: false, certificate: None };
        let known = request.extensions().get::<Peer>().cloned();
        let peer = known.or_else(|| request.remote_addr().map(plain));
        Self { peer, metadata: request.metadata().clone() }
    }

    fn address(&self) -> Option<SocketAddr> {
        self.peer.as_ref().map(|it| it.address)
    }
}

/// Who opens a stream, of which nothing else is known yet.
pub(super) struct Stranger {
    pub(super) variant: Variant,
    pub(super) from: From,
}

/// What a client says.
pub(super) type Requests = Pin<Box<dyn Stream<Item = Result<wire::Request, Status>> + Send>>;

/// Serves a stream that speaks of the state of the world.
pub(super) fn sotw<F: Future<Output = Result<(), Status>> + Send + 'static>(
    plane: &Arc<ControlPlane>,
    request: Request<Streaming<DiscoveryRequest>>,
    serve: impl FnOnce(Arc<ControlPlane>, Stranger, Requests, mpsc::Sender<Said>) -> F,
) -> Response<Answers<DiscoveryResponse>> {
    let stranger = Stranger { variant: Variant::StateOfTheWorld, from: From::of(&request) };
    let requests = request.into_inner().map(|request| request.map(wire::Request::Sotw));
    let said = open(plane, stranger, Box::pin(requests), serve);
    Response::new(Box::pin(said.filter_map(async |said| match said {
        Ok(wire::Response::Sotw(response)) => Some(Ok(response)),
        Ok(wire::Response::Delta(_)) => None,
        Err(status) => Some(Err(status)),
    })))
}

/// Serves an incremental stream.
pub(super) fn delta<F: Future<Output = Result<(), Status>> + Send + 'static>(
    plane: &Arc<ControlPlane>,
    request: Request<Streaming<DeltaDiscoveryRequest>>,
    serve: impl FnOnce(Arc<ControlPlane>, Stranger, Requests, mpsc::Sender<Said>) -> F,
) -> Response<Answers<DeltaDiscoveryResponse>> {
    let stranger = Stranger { variant: Variant::Incremental, from: From::of(&request) };
    let requests = request.into_inner().map(|request| request.map(wire::Request::Delta));
    let said = open(plane, stranger, Box::pin(requests), serve);
    Response::new(Box::pin(said.filter_map(async |said| match said {
        Ok(wire::Response::Delta(response)) => Some(Ok(response)),
        Ok(wire::Response::Sotw(_)) => None,
        Err(status) => Some(Err(status)),
    })))
}

/// Runs what serves a stream in a task of its own, until either side has enough.
fn open<F: Future<Output = Result<(), Status>> + Send + 'static>(
    plane: &Arc<ControlPlane>,
    stranger: Stranger,
    requests: Requests,
    serve: impl FnOnce(Arc<ControlPlane>, Stranger, Requests, mpsc::Sender<Said>) -> F,
) -> Answers<wire::Response> {
    let peer = stranger.from.address();
    let (sender, mut answers) = mpsc::channel(1);
    let plane = Arc::clone(plane);
    let serving = serve(Arc::clone(&plane), stranger, requests, sender.clone());
    tokio::spawn(async move {
        let mut draining = plane.draining.subscribe();
        let ended = tokio::select! {
            ended = serving => ended,
            _ = draining.wait_for(|it| *it) => Err(Status::unavailable("the control plane is shutting down")),
            () = sender.closed() => Ok(()),
        };
        if let Err(status) = ended {
            tracing::debug!(?peer, "stream ends: {}", status.message());
            let _ = timeout(plane.limits.send, sender.send(Err(status))).await;
        }
    });
    Box::pin(futures_util::stream::poll_fn(move |context| answers.poll_recv(context)))
}

/// The first request, which says who asks; none if the client has gone.
pub(super) async fn first(
    plane: &ControlPlane,
    requests: &mut (impl Stream<Item = Result<wire::Request, Status>> + Unpin),
) -> Result<Option<wire::Request>, Status> {
    let late = |_| Status::deadline_exceeded("no request came: the first one says who asks");
    timeout(plane.limits.first_request, requests.next()).await.map_err(late)?.transpose()
}

/// Takes a request in.
pub(super) fn receive(session: &mut Session, request: wire::Request) -> Result<Heard, Status> {
    let heard = session.receive(request, Instant::now());
    heard.map_err(|violation| Status::invalid_argument(violation.to_string()))
}

/// Until something changes that may be.
pub(super) async fn changed(of: &mut Option<watch::Receiver<()>>) {
    let ended = match of {
        Some(news) => news.changed().await.is_err(),
        None => true,
    };
    if ended {
        std::future::pending::<()>().await;
    }
}

/// Sends a response, and says how many bytes it has.
pub(super) async fn say(
    plane: &ControlPlane,
    kind: ResourceType,
    response: wire::Response,
    answers: &mpsc::Sender<Said>,
) -> Result<usize, Status> {
    let bytes = match &response {
        wire::Response::Sotw(response) => response.encoded_len(),
        wire::Response::Delta(response) => response.encoded_len(),
    };
    let begun = Instant::now();
    let sent = match timeout(plane.limits.send, answers.send(Ok(response))).await {
        Ok(sent) => sent.map_err(|_| Status::cancelled("the client has gone")),
        Err(_) => Err(Status::deadline_exceeded("the client takes no responses")),
    };
    if let Err(status) = sent {
        plane.metrics.not_sent(kind);
        return Err(status);
    }
    plane.metrics.pushed(kind, bytes, begun.elapsed());
    Ok(bytes)
}
