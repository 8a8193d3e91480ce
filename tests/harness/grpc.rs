//! gRPC servers that decide for the proxy: an authorization service and a rate limit service, each as a script says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use prost::{Message, Name};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};
use xds::envoy::service::auth::v3::attribute_context::HttpRequest;
use xds::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use xds::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use xds::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use xds::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use xds::yaml::Document;

/// A server of one method; dropping it cuts every connection, as if it were killed.
#[derive(Debug)]
pub struct GrpcServer<Q> {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call<Q>>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One call as it arrived.
#[derive(Debug, Clone)]
pub struct Call<Q> {
    /// Its metadata.
    pub headers: http::HeaderMap,
    /// Its message.
    pub message: Q,
}

/// What a script answers: a message, a status, or nothing ever.
pub type Answered<A> = Option<Result<A, Status>>;

type Script<Q, A> = Box<dyn Fn(&Q) -> Answered<A> + Send + Sync>;

/// An authorization service.
pub type AuthzServer = GrpcServer<CheckRequest>;
/// A rate limit service.
pub type RateLimitServer = GrpcServer<RateLimitRequest>;

impl AuthzServer {
    /// Answers every check as `script` says.
    pub async fn authorizing(
        script: impl Fn(&CheckRequest) -> Answered<CheckResponse> + Send + Sync + 'static,
    ) -> Self {
        Self::authorizing_at(([127, 0, 0, 1], 0).into(), script).await
    }

    /// Answers as each request says itself, in its header `x-verdict`: the answer's message in YAML, `fail` or `hang`.
    /// One without it is allowed.
    pub async fn as_asked() -> Self {
        Self::as_asked_at(([127, 0, 0, 1], 0).into()).await
    }

    /// As [`as_asked`](Self::as_asked), at a given address.
    pub async fn as_asked_at(address: SocketAddr) -> Self {
        let verdict = |request: &CheckRequest| http(request)?.headers.get("x-verdict").cloned();
        let answer = move |request: &CheckRequest| wanted(verdict(request).as_deref());
        Self::authorizing_at(address, answer).await
    }

    /// As [`authorizing`](Self::authorizing), at a given address.
    pub async fn authorizing_at(
        address: SocketAddr,
        script: impl Fn(&CheckRequest) -> Answered<CheckResponse> + Send + Sync + 'static,
    ) -> Self {
        let serve = |scripted| Routes::new(AuthorizationServer::new(scripted));
        Self::start(address, Box::new(script), serve).await
    }
}

impl AuthzServer {
    /// What the newest check says.
    pub fn told(&self) -> AttributeContext {
        self.last().message.attributes.unwrap()
    }

    /// What the newest check says of its request.
    pub fn told_of_request(&self) -> HttpRequest {
        http(&self.last().message).cloned().expect("no request in it")
    }
}

/// What a check says of its request; none for one of a connection.
pub fn http(check: &CheckRequest) -> Option<&HttpRequest> {
    check.attributes.as_ref()?.request.as_ref()?.http.as_ref()
}

impl RateLimitServer {
    /// Answers every question as `script` says.
    pub async fn limiting(
        script: impl Fn(&RateLimitRequest) -> Answered<RateLimitResponse> + Send + Sync + 'static,
    ) -> Self {
        Self::limiting_at(([127, 0, 0, 1], 0).into(), script).await
    }

    /// Answers as each request says itself, in the entry `verdict` of its first descriptor: the answer's message in
    /// YAML, `fail` or `hang`. One without it is within its limits.
    pub async fn as_asked() -> Self {
        Self::as_asked_at(([127, 0, 0, 1], 0).into()).await
    }

    /// As [`as_asked`](Self::as_asked), at a given address.
    pub async fn as_asked_at(address: SocketAddr) -> Self {
        let verdict = |request: &RateLimitRequest| {
            let entries = &request.descriptors.first()?.entries;
            Some(entries.iter().find(|entry| entry.key == "verdict")?.value.clone())
        };
        let answer = move |request: &RateLimitRequest| {
            wanted(Some(verdict(request).as_deref().unwrap_or("overall_code: OK")))
        };
        Self::limiting_at(address, answer).await
    }

    /// As [`limiting`](Self::limiting), at a given address.
    pub async fn limiting_at(
        address: SocketAddr,
        script: impl Fn(&RateLimitRequest) -> Answered<RateLimitResponse> + Send + Sync + 'static,
    ) -> Self {
        let serve = |scripted| Routes::new(RateLimitServiceServer::new(scripted));
        Self::start(address, Box::new(script), serve).await
    }
}

impl<Q: Clone + Send + 'static> GrpcServer<Q> {
    async fn start<A: 'static>(
        address: SocketAddr,
        script: Script<Q, A>,
        serve: impl FnOnce(Scripted<Q, A>) -> Routes,
    ) -> Self {
        let calls = Arc::new(Mutex::default());
        let routes = serve(Scripted { script, calls: Arc::clone(&calls) });
        let (stop, stopped) = oneshot::channel();
        let (ready, address_of) = oneshot::channel();
        // A runtime of its own, which takes every connection with it.
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let serving = Server::builder().add_routes(routes).serve_with_incoming(incoming);
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let address = address_of.await.unwrap();
        Self { address, calls, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All calls so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call<Q>> {
        self.calls.lock().clone()
    }

    /// The newest call.
    pub fn last(&self) -> Call<Q> {
        self.calls.lock().last().cloned().expect("no call yet")
    }

    /// Number of calls so far.
    pub fn count(&self) -> usize {
        self.calls.lock().len()
    }
}

impl<Q> From<&GrpcServer<Q>> for SocketAddr {
    fn from(server: &GrpcServer<Q>) -> Self {
        server.address
    }
}

impl<Q> Drop for GrpcServer<Q> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a request asks to be answered with.
fn wanted<A: Message + Name + Default>(verdict: Option<&str>) -> Answered<A> {
    match verdict {
        None => Some(Ok(A::default())),
        Some("hang") => None,
        Some("fail") => Some(Err(Status::unavailable("as asked"))),
        Some(text) => Some(Ok(Document::new("verdict", text).read().unwrap())),
    }
}

struct Scripted<Q, A> {
    script: Script<Q, A>,
    calls: Arc<Mutex<Vec<Call<Q>>>>,
}

impl<Q: Clone, A> Scripted<Q, A> {
    async fn answer(&self, request: Request<Q>) -> Result<Response<A>, Status> {
        let (metadata, _, message) = request.into_parts();
        let answer = (self.script)(&message);
        self.calls.lock().push(Call { headers: metadata.into_headers(), message });
        match answer {
            Some(answer) => answer.map(Response::new),
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Authorization for Scripted<CheckRequest, CheckResponse> {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        self.answer(request).await
    }
}

#[async_trait]
impl RateLimitService for Scripted<RateLimitRequest, RateLimitResponse> {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.answer(request).await
    }
}
