//! The secret discovery service: streams of secrets alone, for proxies without agent, whose cluster `sds-grpc` leads to
//! the control plane. Who asks has to be known: nobody else's secrets are handed out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use xds::google;
use xds::server::{self, Heard, Session};
use xds::type_url::ResourceType;

use super::ControlPlane;
use super::access::{Access, Held};
use super::cache::Told;
use super::fleet::Trusting;
use super::streams::{self, Answers, From, Requests, Said, Stranger};
use crate::translate::proxy::Proxy;

/// Most names on one stream: a proxy has a stream for each, or one for all.
const MOST_NAMES: usize = 1_000;

/// The service.
pub fn service(plane: &Arc<ControlPlane>) -> SecretDiscoveryServiceServer<SecretStreams> {
    let streams = SecretStreams(Arc::clone(plane));
    SecretDiscoveryServiceServer::new(streams).max_decoding_message_size(plane.limits.request_bytes)
}

/// Serves streams of secrets, of both variants.
pub struct SecretStreams(Arc<ControlPlane>);

#[async_trait]
impl SecretDiscoveryService for SecretStreams {
    type StreamSecretsStream = Answers<DiscoveryResponse>;
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(streams::sotw(&self.0, request, serve))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(streams::delta(&self.0, request, serve))
    }
}

async fn serve(
    plane: Arc<ControlPlane>,
    Stranger { variant, from }: Stranger,
    mut requests: Requests,
    answers: mpsc::Sender<Said>,
) -> Result<(), Status> {
    let (plane, from, answers) = (&*plane, &from, &answers);
    let Some(first) = streams::first(plane, &mut requests).await? else { return Ok(()) };
    let mut session = Session::new(server::Options {
        variant,
        only: Some(ResourceType::Secret),
        control_plane: plane.name.clone(),
        patience: server::PATIENCE,
    });
    streams::receive(&mut session, first)?;
    let (access, held, node) = enter(plane, &session, from)?;
    let mut renewed = Some(access.renewed.subscribe());
    let mut worlds = plane.worlds.subscribe();
    let trusting = plane.fleet.trusting();
    let mut stream = SecretStream { plane, access, session, held, node, trusting, rejecting: None };
    loop {
        let world = Arc::clone(&worlds.borrow_and_update());
        if world.number > 0 {
            let (number, since) = (world.number, world.since);
            let told = Told { number, since, snapshot: Arc::default() };
            let snapshot = stream.held.with(stream.access, &world.mesh, &told, &stream.session);
            while let Some(response) = stream.session.respond(&snapshot, Instant::now()) {
                streams::say(plane, ResourceType::Secret, response, answers).await?;
            }
            if let Some(bundle) = stream.held.bundle() {
                let accepted = stream.session.is_settled(&snapshot);
                stream.trusting.note(&stream.node, bundle, accepted);
            }
        }
        let wait = stream.deadline().map_or(Duration::MAX, |at| at.duration_since(Instant::now()));
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request.transpose()? else { return Ok(()) };
                let heard = streams::receive(&mut stream.session, request)?;
                stream.note(&heard)?;
            }
            changed = worlds.changed() => {
                changed.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
            }
            () = streams::changed(&mut renewed) => stream.held.forget(),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Lets in who is known.
fn enter<'a>(
    plane: &'a ControlPlane,
    session: &Session,
    from: &From,
) -> Result<(&'a Access, Held, String), Status> {
    let Some(node) = session.node() else {
        return Err(Status::invalid_argument(server::Violation::NoNode.to_string()));
    };
    let proxy = Proxy::of(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let nobody = "secrets are for workloads that prove who they are: connect to the port with TLS and the \
                  certificate of the workload, or with a token";
    let (Some(access), Some(peer)) = (&plane.access, &from.peer) else {
        return Err(Status::unauthenticated(nobody));
    };
    let caller = access.caller(peer, &from.metadata, &proxy)?;
    let caller = caller.ok_or_else(|| Status::unauthenticated(nobody))?;
    Ok((access, Held::new(caller, Arc::new(proxy)), node.id.clone()))
}

/// A stream whose client is known.
struct SecretStream<'a> {
    plane: &'a ControlPlane,
    access: &'a Access,
    session: Session,
    held: Held,
    node: String,
    /// What is waited for before a new root signs.
    trusting: Trusting,
    /// The code with which it refuses what it was sent last.
    rejecting: Option<String>,
}

impl SecretStream<'_> {
    /// When there may be something to say without anything happening.
    fn deadline(&self) -> Option<Instant> {
        self.session.deadline(Instant::now()).into_iter().chain(self.held.deadline()).min()
    }

    /// Keeps the books on a request.
    fn note(&mut self, heard: &Heard) -> Result<(), Status> {
        match heard {
            Heard::Asked(kind) if self.session.names(*kind).nth(MOST_NAMES).is_some() => {
                let said = format!("more than {MOST_NAMES} names of {kind}");
                return Err(Status::resource_exhausted(said));
            }
            Heard::Acked(..) => self.no_longer_rejected(),
            Heard::Nacked(_, version, error) => self.refused(version, error),
            Heard::Stale(kind) => self.plane.metrics.stale(*kind),
            Heard::Asked(_) | Heard::Unknown(_) => {}
        }
        Ok(())
    }

    fn refused(&mut self, version: &str, error: &google::rpc::Status) {
        self.no_longer_rejected();
        let code = format!("{:?}", Code::from(error.code));
        self.plane.metrics.rejected(ResourceType::Secret, &self.node, &code);
        self.rejecting = Some(code);
        tracing::warn!(node = self.node, version, "a proxy refuses its secrets: {}", error.message);
    }

    fn no_longer_rejected(&mut self) {
        if let Some(code) = self.rejecting.take() {
            self.plane.metrics.no_longer_rejected(ResourceType::Secret, &self.node, &code);
        }
    }
}

impl Drop for SecretStream<'_> {
    fn drop(&mut self) {
        self.no_longer_rejected();
    }
}
