//! The aggregated discovery service: one task per stream, between a proxy and what it is told.
//!
//! A stream holds up nobody but itself: it has at most one response in hand, and is ended if that is not taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tonic::{Code, Request, Response, Status, Streaming, async_trait};
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::google;
use xds::server::{self, Heard, Session};
use xds::type_url::{ResourceType, Variant};
use xds::wire;

use super::ControlPlane;
use super::access::Held;
use super::cache::Told;
use super::fleet::{self, Client, Membership, TooMany};
use super::streams::{self, Answers, From, Requests, Said, Stranger};
use crate::translate::proxy::Proxy;

/// What a client may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Streams of one node at a time. A proxy has one; another may open before its last is known to be gone.
    pub streams_per_node: usize,
    /// Names that one stream may subscribe to.
    pub names_per_stream: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Until a stream has to say who it is.
    pub first_request: Duration,
    /// Until a response has to be taken.
    pub send: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_per_node: 4,
            names_per_stream: 200_000,
            request_bytes: 16 << 20,
            first_request: Duration::from_secs(10),
            send: Duration::from_secs(30),
        }
    }
}

/// The service.
pub fn service(plane: &Arc<ControlPlane>) -> AggregatedDiscoveryServiceServer<Ads> {
    let limit = plane.limits.request_bytes;
    AggregatedDiscoveryServiceServer::new(Ads(Arc::clone(plane))).max_decoding_message_size(limit)
}

/// Serves aggregated streams, of both variants.
pub struct Ads(Arc<ControlPlane>);

#[async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(streams::sotw(&self.0, request, serve))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
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
        only: None,
        control_plane: plane.name.clone(),
        patience: server::PATIENCE,
    });
    let heard = streams::receive(&mut session, first)?;
    let (member, told, secrets) = enter(plane, &session, variant, from)?;
    let node = session.node().map(|node| node.id.clone()).unwrap_or_default();
    let mut renewed = plane.access.as_ref().map(|access| access.renewed.subscribe());
    let rejecting = BTreeMap::new();
    let mut conversation =
        Conversation { plane, session, member, told, secrets, node, rejecting, answers };
    conversation.note(&heard)?;
    loop {
        conversation.respond().await?;
        let deadline = conversation.deadline();
        let wait = deadline.map_or(Duration::MAX, |at| at.duration_since(Instant::now()));
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request.transpose()? else { return Ok(()) };
                let heard = streams::receive(&mut conversation.session, request)?;
                conversation.note(&heard)?;
            }
            changed = conversation.told.changed() => {
                changed.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
            }
            () = streams::changed(&mut renewed) => conversation.forget_secrets(),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Takes a stream in that has said who it is.
fn enter(
    plane: &ControlPlane,
    session: &Session,
    variant: Variant,
    from: &From,
) -> Result<(Membership, watch::Receiver<Told>, Option<Held>), Status> {
    let Some(node) = session.node() else {
        return Err(Status::invalid_argument(server::Violation::NoNode.to_string()));
    };
    let proxy = Proxy::of(node).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let proxy = Arc::new(proxy);
    let caller = match (&plane.access, &from.peer) {
        (Some(access), Some(peer)) => access.caller(peer, &from.metadata, &proxy)?,
        _ => None,
    };
    let secrets = caller.map(|caller| Held::new(caller, Arc::clone(&proxy)));
    let plan = plane.cache.plan(&proxy);
    let told = plan.told();
    let (cluster_id, version) = fleet::described(node);
    let client = Client {
        node: node.id.clone(),
        proxy,
        cluster_id,
        version,
        peer: from.peer.as_ref().map(|it| it.address),
        variant,
        connected_at: SystemTime::now(),
        settled: 0,
        kinds: BTreeMap::new(),
        plan,
        bundle: None,
    };
    let member = plane.fleet.enter(client, plane.limits.streams_per_node);
    let member = member.map_err(|TooMany(streams)| {
        Status::resource_exhausted(format!(
            "{streams} streams of node {:?} are open: is its id used twice?",
            node.id
        ))
    })?;
    Ok((member, told, secrets))
}

/// A stream whose client is known.
struct Conversation<'a> {
    plane: &'a ControlPlane,
    session: Session,
    member: Membership,
    told: watch::Receiver<Told>,
    /// Of a client that is known.
    secrets: Option<Held>,
    node: String,
    /// What it refuses, with the code that it gave.
    rejecting: BTreeMap<ResourceType, String>,
    answers: &'a mpsc::Sender<Said>,
}

impl Conversation<'_> {
    /// Keeps the books on a request.
    fn note(&mut self, heard: &Heard) -> Result<(), Status> {
        let metrics = &self.plane.metrics;
        match heard {
            Heard::Asked(kind) => {
                let limit = self.plane.limits.names_per_stream;
                if self.session.names(*kind).take(limit + 1).count() > limit {
                    let said = format!("more than {limit} names of {kind}");
                    return Err(Status::resource_exhausted(said));
                }
                self.stand(*kind);
            }
            Heard::Acked(kind, _) => {
                if let Some(code) = self.rejecting.remove(kind) {
                    metrics.no_longer_rejected(*kind, &self.node, &code);
                }
                self.stand(*kind);
                self.member.update(|client| {
                    client.kinds.entry(*kind).or_default().acked_at = Some(SystemTime::now());
                });
            }
            Heard::Nacked(kind, version, error) => self.refused(*kind, version, error),
            Heard::Stale(kind) => metrics.stale(*kind),
            Heard::Unknown(url) => {
                tracing::debug!(node = self.node, "no resources of type {url} are served here");
            }
        }
        Ok(())
    }

    fn refused(&mut self, kind: ResourceType, version: &str, error: &google::rpc::Status) {
        let code = format!("{:?}", Code::from(error.code));
        let metrics = &self.plane.metrics;
        if let Some(code) = self.rejecting.insert(kind, code.clone()) {
            metrics.no_longer_rejected(kind, &self.node, &code);
        }
        metrics.rejected(kind, &self.node, &code);
        self.stand(kind);
        tracing::warn!(node = self.node, %kind, version, "a proxy refuses its configuration: {}", error.message);
    }

    /// When there may be something to say without anything happening.
    fn deadline(&self) -> Option<Instant> {
        let secrets = self.secrets.as_ref().and_then(Held::deadline);
        self.session.deadline(Instant::now()).into_iter().chain(secrets).min()
    }

    fn forget_secrets(&mut self) {
        if let Some(held) = &mut self.secrets {
            held.forget();
        }
    }

    /// Sends what there is to be said.
    async fn respond(&mut self) -> Result<(), Status> {
        let told = self.told.borrow_and_update().clone();
        if told.number == 0 {
            return Ok(());
        }
        let snapshot = match (&mut self.secrets, &self.plane.access) {
            (Some(held), Some(access)) => {
                held.with(access, &self.plane.world().mesh, &told, &self.session)
            }
            _ => Arc::clone(&told.snapshot),
        };
        while let Some(response) = self.session.respond(&snapshot, Instant::now()) {
            self.say(response).await?;
        }
        let settled = self.session.is_settled(&snapshot);
        if let Some(bundle) = self.secrets.as_ref().and_then(Held::bundle) {
            self.member.update(|client| {
                let before = client.bundle.unwrap_or_default();
                client.bundle = Some(if settled { bundle } else { before });
            });
        }
        if settled {
            self.member.settled(&told);
        }
        Ok(())
    }

    async fn say(&mut self, response: wire::Response) -> Result<(), Status> {
        let Some(kind) = ResourceType::of(response.type_url()) else { return Ok(()) };
        let bytes = streams::say(self.plane, kind, response, self.answers).await?;
        self.member.sent(kind, bytes);
        self.stand(kind);
        Ok(())
    }

    /// Writes down how a kind stands.
    fn stand(&self, kind: ResourceType) {
        let Some(standing) = self.session.standing(kind) else { return };
        self.member.update(|client| {
            let known = client.kinds.entry(kind).or_default();
            standing.sent.clone_into(&mut known.sent);
            standing.acked.clone_into(&mut known.acked);
            known.nacks = standing.nacks;
            known.error = standing.error.map(ToOwned::to_owned);
            known.rejected = standing.rejected.to_vec();
        });
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        for (kind, code) in &self.rejecting {
            self.plane.metrics.no_longer_rejected(*kind, &self.node, code);
        }
    }
}
