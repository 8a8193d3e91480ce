//! A scripted HTTP server for both protocols that remembers what it was sent.

pub mod answer;
pub mod body;
pub mod everywhere;
pub mod faulty;
pub mod tcp;
pub mod upgrade;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

use answer::{Answer, Outcome};

/// A running backend; dropping it closes everything.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    name: String,
    script: Box<dyn Fn(&Received) -> Answer + Send + Sync>,
    calls: Mutex<Vec<Received>>,
    connections: AtomicU32,
    deliveries: Mutex<HashMap<String, u32>>,
}

impl Shared {
    fn new(name: &str, script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            name: name.to_owned(),
            script: Box::new(script),
            calls: Mutex::default(),
            connections: AtomicU32::new(0),
            deliveries: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// How many requests came before it, on any connection.
    pub nth: usize,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// `Host` or `:authority`.
    pub host: String,
    /// Protocol it came over.
    pub version: Version,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Trailer fields.
    pub trailers: HeaderMap,
}

impl Received {
    /// The value of header `name`; none if absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The JSON that [`Echo`](crate::reply::Echo) reads.
    fn to_json(&self, backend: &str) -> Value {
        json!({
            "backend": backend,
            "method": self.method.as_str(),
            "path": self.path,
            "host": self.host,
            "version": format!("{:?}", self.version),
            "headers": pairs(&self.headers),
            "body": String::from_utf8_lossy(&self.body),
            "trailers": pairs(&self.trailers),
        })
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}

impl Backend {
    /// Answers everything with 200 and the request as JSON.
    pub async fn echo(name: &str) -> Self {
        Self::scripted(name, |_| Answer::echo()).await
    }

    /// As [`echo`](Self::echo), at a given address.
    pub async fn echo_at(name: &str, address: SocketAddr) -> Self {
        Self::scripted_at(name, address, |_| Answer::echo()).await
    }

    /// Answers as `script` says for each request.
    pub async fn scripted(
        name: &str,
        script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::scripted_at(name, ([127, 0, 0, 1], 0).into(), script).await
    }

    /// As [`scripted`](Self::scripted), at a given address.
    pub async fn scripted_at(
        name: &str,
        address: SocketAddr,
        script: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(name, script));
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, task }
    }

    /// As [`echo`](Self::echo), on a Unix socket: the file `path`, or a name in the abstract namespace
    /// after `@`. Its [`address`](Self::address) means nothing.
    pub async fn echo_on_unix(name: &str, path: &str) -> Self {
        let listener = match path.strip_prefix('@') {
            None => UnixListener::bind(path).unwrap(),
            Some(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
                let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
                listener.set_nonblocking(true).unwrap();
                UnixListener::from_std(listener).unwrap()
            }
        };
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let shared = Arc::new(Shared::new(name, |_| Answer::echo()));
        let task = tokio::spawn(accept_unix(listener, shared.clone()));
        Self { address, shared, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far, in order of arrival.
    pub fn calls(&self) -> Vec<Received> {
        self.shared.calls.lock().clone()
    }

    /// Number of requests so far.
    pub fn count(&self) -> usize {
        self.shared.calls.lock().len()
    }

    /// Number of connections accepted so far.
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Relaxed)
    }

    /// How often a request with this `x-delivery` header arrived.
    pub fn deliveries(&self, id: &str) -> u32 {
        self.shared.deliveries.lock().get(id).copied().unwrap_or(0)
    }
}

impl From<&Backend> for SocketAddr {
    fn from(backend: &Backend) -> Self {
        backend.address
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with this task.
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Relaxed);
        let _ = tcp.set_nodelay(true);
        connections.spawn(serve(tcp, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn accept_unix(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Relaxed);
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| respond(request, shared.clone()));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<http::Response<body::Body>, body::Aborted> {
    let received = match receive(request, &shared).await {
        Ok(received) => received,
        Err(_cut_short) => return Err(body::Aborted),
    };
    let answer = (shared.script)(&received);
    let echo = || received.to_json(&shared.name).to_string();
    match answer.into_outcome(&shared.name, echo).await {
        Outcome::Response(response) => Ok(response),
        Outcome::Abort => Err(body::Aborted),
    }
}

async fn receive(request: Request<Incoming>, shared: &Shared) -> hyper::Result<Received> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let from_header = || head.headers.get("host").map(|host| pairs_text(host.as_bytes()));
    let host = head.uri.authority().map(ToString::to_string).or_else(from_header);
    let path = head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string);
    let mut calls = shared.calls.lock();
    let received = Received {
        nth: calls.len(),
        method: head.method,
        path,
        host: host.unwrap_or_default(),
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    };
    if let Some(id) = received.header("x-delivery") {
        *shared.deliveries.lock().entry(id.to_owned()).or_default() += 1;
    }
    calls.push(received.clone());
    Ok(received)
}

fn pairs_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
