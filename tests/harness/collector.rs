//! Collectors of traces: one that speaks OTLP over gRPC and HTTP, and Zipkin's JSON, and remembers every span.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use xds::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use xds::opentelemetry::proto::common::v1::{KeyValue, any_value};
use xds::opentelemetry::proto::trace::v1::Span;

/// A running collector; dropping it closes it.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<Reported>,
    requests: Vec<Report>,
}

/// One span, whichever protocol it came by.
#[derive(Debug, Clone)]
pub struct Reported {
    /// What it is called.
    pub name: String,
    /// `SERVER` or `CLIENT`.
    pub kind: String,
    /// The trace's id in hexadecimal digits.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's id; empty if it has none.
    pub parent: String,
    /// What it says.
    pub tags: BTreeMap<String, String>,
    /// What happened, in its order.
    pub events: Vec<String>,
    /// Whether it says that it failed; Zipkin has no word for it.
    pub failed: bool,
    /// Whether it shares its id with its client's (Zipkin).
    pub shared: bool,
    /// What is said of the process it comes from.
    pub resource: BTreeMap<String, String>,
}

/// One request that brought spans.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its path.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// How many spans it brought.
    pub spans: usize,
}

impl Reported {
    /// The value of a tag; empty if there is none.
    pub fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }
}

impl Collector {
    /// A collector that takes everything.
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// The same at a given address.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&seen)));
        Self { address, seen, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Reported> {
        self.seen.lock().spans.clone()
    }

    /// The requests that brought them.
    pub fn reports(&self) -> Vec<Report> {
        self.seen.lock().requests.clone()
    }

    /// Waits until there are at least `count` spans.
    pub async fn until(&self, count: usize) -> Vec<Reported> {
        crate::eventually("spans at the collector", async || {
            let spans = self.spans();
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Seen>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&seen)));
            let server = auto::Builder::new(TokioExecutor::new());
            // A client may go away as it likes.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

type Frames =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, hyper::Error>>>>;

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Seen>>,
) -> Result<Response<Frames>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let kind = parts.headers.get("content-type").map_or("", |it| it.to_str().unwrap()).to_owned();
    let (spans, status, frames) = match kind.as_str() {
        // After the flag and the length of the only message.
        "application/grpc" => (otlp(&body[5..]), StatusCode::OK, grpc_answer()),
        "application/x-protobuf" => (otlp(&body), StatusCode::OK, Vec::new()),
        "application/json" => (zipkin(&body), StatusCode::ACCEPTED, Vec::new()),
        other => panic!("no report of spans: {other}"),
    };
    let report = Report {
        path: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers,
        spans: spans.len(),
    };
    let mut seen = seen.lock();
    seen.requests.push(report);
    seen.spans.extend(spans);
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_str(&kind).unwrap());
    Ok(response)
}

/// A message and the status `OK`.
fn grpc_answer() -> Vec<Result<Frame<Bytes>, hyper::Error>> {
    let message = ExportTraceServiceResponse {}.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    vec![Ok(Frame::data(frame.freeze())), Ok(Frame::trailers(trailers))]
}

fn otlp(message: &[u8]) -> Vec<Reported> {
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = pairs(&of_resource.resource.unwrap().attributes);
        let all = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(all.map(|span| otlp_span(span, resource.clone())));
    }
    spans
}

fn otlp_span(span: Span, resource: BTreeMap<String, String>) -> Reported {
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:?}");
    Reported {
        kind: if span.kind == 2 { "SERVER" } else { "CLIENT" }.to_owned(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        tags: pairs(&span.attributes),
        events: span.events.into_iter().map(|event| event.name).collect(),
        failed: span.status.is_some_and(|status| status.code == 2),
        shared: false,
        resource,
    }
}

fn pairs(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |it: &KeyValue| match it.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        other => panic!("not a text: {other:?}"),
    };
    attributes.iter().map(|it| (it.key.clone(), text(it))).collect()
}

fn zipkin(message: &[u8]) -> Vec<Reported> {
    let spans: Vec<Value> = serde_json::from_slice(message).unwrap();
    spans.iter().map(zipkin_span).collect()
}

fn zipkin_span(span: &Value) -> Reported {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tags = span["tags"].as_object().unwrap();
    let endpoint = span["localEndpoint"].as_object().unwrap();
    assert!(span["timestamp"].is_u64() && span["duration"].is_u64(), "{span}");
    Reported {
        kind: text(&span["kind"]),
        name: text(&span["name"]),
        trace: text(&span["traceId"]),
        id: text(&span["id"]),
        parent: text(&span["parentId"]),
        tags: tags.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        events: span["annotations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| text(&it["value"]))
            .collect(),
        failed: false,
        shared: span["shared"] == true,
        resource: endpoint
            .iter()
            .map(|(name, value)| {
                (name.clone(), value.as_str().map_or(value.to_string(), str::to_owned))
            })
            .collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
