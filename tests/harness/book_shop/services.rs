//! The services of the shop, as far as meshes can tell: who asks whom, with which headers, and what comes of it if one
//! does not answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::Client;

/// What services hand on of what they were asked with.
const HANDED_ON: [&str; 2] = ["end-user", "x-request-id"];

/// A running service; dropping it closes everything.
#[derive(Debug)]
pub(super) struct Service {
    address: SocketAddr,
    callers: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Service {
    /// The service of `workload`, which meets the others at `outbound`.
    pub(super) async fn start(workload: &'static str, outbound: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let callers = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, workload, outbound, Arc::clone(&callers)));
        Self { address, callers, task }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who called, as the sidecar says.
    pub(super) fn callers(&self) -> Vec<String> {
        self.callers.lock().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    workload: &'static str,
    outbound: SocketAddr,
    callers: Arc<Mutex<Vec<String>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let callers = Arc::clone(&callers);
        let service = service_fn(move |request: Request<Incoming>| {
            let caller = request.headers().get("x-forwarded-client-cert");
            let caller = caller.and_then(|it| it.to_str().ok()).unwrap_or("nobody");
            callers.lock().push(caller.to_owned());
            async move {
                let what = answer(workload, outbound, request.headers()).await;
                let response = Response::builder().header("x-backend", what);
                Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).expect("a response"))
            }
        });
        connections.spawn(async move {
            let io = TokioIo::new(tcp);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

/// What is on the page: the reviews, and whether anything is missing.
async fn answer(workload: &str, outbound: SocketAddr, headers: &HeaderMap) -> String {
    match workload {
        "productpage-v1" => {
            let (details, reviews) =
                tokio::join!(ask(outbound, "details", headers), ask(outbound, "reviews", headers));
            match (details, reviews) {
                (None, _) => "no details".to_owned(),
                (_, None) => "no reviews".to_owned(),
                (_, Some(reviews)) => reviews,
            }
        }
        "reviews-v2" | "reviews-v3" => {
            let version = workload.trim_start_matches("reviews-");
            match ask(outbound, "ratings", headers).await {
                Some(_) => version.to_owned(),
                None => format!("{version} without ratings"),
            }
        }
        _ => workload.rsplit('-').next().unwrap_or_default().to_owned(),
    }
}

/// What another service says; none if it fails.
async fn ask(outbound: SocketAddr, service: &str, headers: &HeaderMap) -> Option<String> {
    let mut call = Client::http1(outbound).get(&format!("/{service}/0"));
    call = call.host(&format!("{service}:{}", outbound.port()));
    for name in HANDED_ON {
        if let Some(value) = headers.get(name).and_then(|it| it.to_str().ok()) {
            call = call.header(name, value);
        }
    }
    let reply = call.try_send().await.ok()?;
    (reply.status == 200).then(|| reply.header("x-backend")).flatten()
}
