//! Reports in OTLP: over gRPC, or in protobuf over HTTP.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message;

use crate::call::{CallError, Caller, grpc};
use crate::config::format::{Facts, Operator};
use crate::config::service::{HttpService, OtlpCollector};
use crate::net::body::RequestBody;

/// What this proxy calls itself to collectors.
pub(in crate::server) const NAME: &str =
    concat!("OTel-OTLP-Exporter-Outrigger/", env!("CARGO_PKG_VERSION"));
/// Longest answer of a collector that is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Reports `request` to `collector`, which has `patience` if it was given no time of its own. `method` is for gRPC; over
/// HTTP, the path says it.
///
/// # Errors
/// Why nobody took it, as text.
pub(in crate::server) async fn export<A: Message + Default>(
    caller: &Caller,
    collector: &OtlpCollector,
    method: &'static str,
    request: &impl Message,
    patience: Duration,
) -> Result<A, String> {
    match collector {
        OtlpCollector::Grpc(service) => {
            let mut service = service.clone();
            service.timeout = service.timeout.or(Some(patience));
            service.metadata.push((USER_AGENT, HeaderValue::from_static(NAME)));
            let answer = grpc::unary(caller, &service, method, request).await;
            answer.map_err(|status| status.to_string())
        }
        OtlpCollector::Http(service) => {
            let body = request.encode_to_vec();
            match post(caller, service, "application/x-protobuf", body, Some(NAME)).await {
                Ok((StatusCode::OK, answer)) => Ok(A::decode(answer).unwrap_or_default()),
                Ok((status, _)) => Err(format!("the answer was {status}")),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// Sends `body` to `service`, in the name of `agent`.
///
/// # Errors
/// When no answer came. Any status is an answer.
pub(in crate::server) async fn post(
    caller: &Caller,
    service: &HttpService,
    kind: &'static str,
    body: Vec<u8>,
    agent: Option<&'static str>,
) -> Result<(StatusCode, bytes::Bytes), CallError> {
    let uri = &service.uri;
    let mut request = Request::new(RequestBody::full(body.into()));
    *request.method_mut() = Method::POST;
    // Checked when it was read.
    *request.uri_mut() = Uri::try_from(&*uri.path).unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, uri.host.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.extend(agent.map(|agent| (USER_AGENT, HeaderValue::from_static(agent))));
    add(service, headers);
    let answer = caller.fetch(&uri.cluster, request, uri.timeout, LONGEST_ANSWER).await?;
    Ok((answer.status(), answer.into_body()))
}

/// Adds what is configured to be added; nothing is known of any request here.
fn add(service: &HttpService, headers: &mut HeaderMap) {
    for header in &service.headers {
        if let Some(value) = header.value(&Nothing) {
            headers.insert(header.name.clone(), value);
        }
    }
}

/// What formats read where there is no request.
struct Nothing;

impl Facts for Nothing {
    fn write(&self, _: &Operator, _: &mut Vec<u8>) -> bool {
        false
    }
}
