//! Requests of the proxy's own: to services that decide, count, hold keys or collect reports. They are clusters like
//! any other, reached over the pools of whoever asks.

pub mod grpc;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use http::{Request, Response, Version};
use http_body_util::BodyExt as _;

use crate::cluster::{LocalCluster, LocalClusters, LocalHost, Outcome, PickContext};
use crate::config::route::Priority;
use crate::net::body::RequestBody;
use crate::pool::{Cause, Need, ResponseBody, Reuse, SendError, Stage};
use crate::snapshot::{Reader, SnapshotCell};
use crate::telemetry::response_flags::ResponseFlags;
use crate::upstream::client::{Client, Presence};
use crate::upstream::failure::ConnectError;
use crate::upstream::http::Protocol;

/// Sends requests to clusters, from the thread that it lives on.
#[derive(Debug)]
pub struct Caller {
    clusters: Rc<LocalClusters>,
    snapshot: RefCell<Reader>,
    random: RefCell<Rng>,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The configuration has no cluster of this name.
    #[error("there is no cluster `{0}`")]
    NoCluster(Box<str>),
    /// No endpoint may be used.
    #[error("cluster `{0}` has no healthy endpoint")]
    NoHost(Box<str>),
    /// No connection could be had.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection brought no answer.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// The answer is longer than it may be, in bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl CallError {
    /// The flag that a request would have which ends so.
    pub fn flag(&self) -> ResponseFlags {
        match self {
            Self::NoCluster(_) => ResponseFlags::NO_CLUSTER_FOUND,
            Self::NoHost(_) => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Self::Connect(ConnectError::Overflow(_)) => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::Connect(_) => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Self::Timeout(_) => ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
            Self::Send(_) | Self::Broken(_) | Self::TooLong(_) => {
                ResponseFlags::UPSTREAM_CONNECTION_TERMINATION
            }
        }
    }
}

impl Caller {
    /// Calls clusters of the newest snapshot that `snapshots` holds.
    pub fn new(clusters: Rc<LocalClusters>, snapshots: &SnapshotCell) -> Self {
        Self {
            clusters,
            snapshot: RefCell::new(snapshots.reader()),
            random: RefCell::new(Rng::new()),
        }
    }

    /// Lets connections to what is gone from the configuration, or not used any more, close. To be polled for as
    /// long as it is used, unless somebody else does it for the same clusters.
    pub async fn keep_following(&self, snapshots: &SnapshotCell) {
        let mut changes = snapshots.changes();
        let following = async {
            while changes.changed().await.is_ok() {
                let snapshot = Arc::clone(self.snapshot.borrow_mut().load());
                self.clusters.follow(&snapshot.clusters);
            }
        };
        tokio::join!(following, self.clusters.keep_forgetting());
    }

    /// Sends `request` to `cluster` and waits for the whole answer, of up to `longest` bytes, for up to `timeout`.
    ///
    /// # Errors
    /// When no whole answer came. Any status is an answer.
    pub async fn fetch(
        &self,
        cluster: &str,
        request: Request<RequestBody>,
        timeout: Duration,
        longest: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let answered = Cell::new(false);
        let fetching = async {
            let answer = self.call_one(cluster, request, |_| {}).await?;
            let (parts, body) = answer.into_parts();
            answered.set(true);
            Ok(Response::from_parts(parts, whole(body, longest).await?))
        };
        self.within(cluster, timeout, &answered, fetching).await
    }

    /// Sends `request` to `cluster` and waits for the head of the answer, for up to `timeout`.
    ///
    /// # Errors
    /// When none came. Any status is an answer.
    pub async fn call(
        &self,
        cluster: &str,
        request: Request<RequestBody>,
        timeout: Option<Duration>,
    ) -> Result<Response<ResponseBody>, CallError> {
        let sending = self.call_one(cluster, request, |_| {});
        let Some(timeout) = timeout else { return sending.await };
        self.within(cluster, timeout, &Cell::new(false), sending).await
    }

    /// Waits for `work` of a call to `cluster`, in the course of which it is `answered`, for up to `timeout`.
    async fn within<T>(
        &self,
        cluster: &str,
        timeout: Duration,
        answered: &Cell<bool>,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => {
                self.expired(cluster, answered.get());
                Err(CallError::Timeout(timeout))
            }
        }
    }

    /// Counts a call that took too long. As Envoy has it, a router answers in place of who did not.
    fn expired(&self, cluster: &str, answered: bool) {
        let Some(cluster) = self.cluster(cluster) else { return };
        cluster.stats.upstream_rq_timeout.inc();
        if !answered {
            cluster.stats.response(504, true);
        }
    }

    fn cluster(&self, name: &str) -> Option<Rc<LocalCluster>> {
        let snapshot = Arc::clone(self.snapshot.borrow_mut().load());
        snapshot.clusters.get(name).map(|spec| self.clusters.get(spec))
    }

    /// The same without a limit; `sent_to` hears which endpoint it goes to.
    ///
    /// # Errors
    /// When none came. Any status is an answer.
    pub async fn call_one(
        &self,
        name: &str,
        request: Request<RequestBody>,
        sent_to: impl FnOnce(&LocalHost),
    ) -> Result<Response<ResponseBody>, CallError> {
        let cluster = self.cluster(name).ok_or_else(|| CallError::NoCluster(name.into()))?;
        let Some(host) = self.pick(&cluster).await else {
            cluster.stats.upstream_cx_none_healthy.inc();
            cluster.stats.response(503, true);
            return Err(CallError::NoHost(name.into()));
        };
        sent_to(&host);
        let begin = Instant::now();
        // In a box: what it needs is large, and whoever waits for it would be moved about with it.
        let result = Box::pin(exchange(&host, request)).await;
        match &result {
            Ok(response) => {
                let status = response.status().as_u16();
                cluster.stats.response(status, true);
                cluster.report(&host, Outcome::Response(status));
                cluster.measure(&host, begin.elapsed());
            }
            Err(error) => {
                cluster.stats.response(503, true);
                if !matches!(error, CallError::Connect(ConnectError::Overflow(_))) {
                    cluster.report(&host, Outcome::Failed);
                }
            }
        }
        result
    }

    async fn pick(&self, cluster: &LocalCluster) -> Option<Rc<LocalHost>> {
        loop {
            let picked = cluster.pick(&PickContext::default(), &mut self.random.borrow_mut());
            match picked {
                Ok(picked) => return picked,
                Err(unready) => unready.ready().await,
            }
        }
    }
}

/// Sends a request to one endpoint; once more, on a fresh connection, if the first one was dying.
async fn exchange(
    host: &LocalHost,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, CallError> {
    let downstream = match request.version() {
        Version::HTTP_2 => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let authority = request.headers().get(http::header::HOST).cloned();
    let authority = authority.as_ref().and_then(|host| host.to_str().ok());
    let (client, presence) = (Client::default(), Presence::default());
    let mut need = Need {
        priority: Priority::Default,
        downstream,
        host: authority,
        client: &client,
        presence: &presence,
        alpn: None,
        reuse: Reuse::Any,
    };
    let spare = duplicate(&request);
    let lease = host.acquire(need).await?;
    let error = match lease.send(request).await {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    let dying = error.reused
        && error.stage != Stage::Partial
        && matches!(error.cause, Cause::Closed | Cause::GoAway);
    let Some(spare) = spare.filter(|_| dying) else { return Err(error.into()) };
    need.reuse = Reuse::Never;
    Ok(host.acquire(need).await?.send(spare).await?)
}

/// The same request once more, if its body is there.
fn duplicate(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let body = match request.body() {
        RequestBody::Empty => RequestBody::Empty,
        RequestBody::Full(bytes) => RequestBody::Full(bytes.clone()),
        RequestBody::Stream(_) => return None,
    };
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

async fn whole(mut body: ResponseBody, longest: usize) -> Result<Bytes, CallError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(CallError::Broken)?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > longest {
                return Err(CallError::TooLong(longest));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}
