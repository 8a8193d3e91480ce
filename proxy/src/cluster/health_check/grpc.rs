//! A check by `grpc.health.v1.Health/Check`: the host says that it is serving.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use super::connection::{Connection, Target};
use super::headers;
use super::http::AGENT;
use super::progress::{CheckResult, Failure, FailureKind};
use crate::config::health_check::GrpcCheck;
use crate::net::body::RequestBody;
use crate::upstream::http::Protocol;

/// An answer is a few bytes; this many are none.
const LONGEST_ANSWER: usize = 64 << 10;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

/// Checks one host; keeps its connection from one check to the next.
#[derive(Debug)]
pub(super) struct GrpcProbe {
    target: Arc<Target>,
    connection: Option<Connection>,
}

impl GrpcProbe {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, connection: None }
    }

    /// Makes one check. To be dropped in the middle if it takes too long: the connection goes with it.
    pub(super) async fn check(&mut self, check: &GrpcCheck) -> CheckResult {
        let reusable = self.connection.take().filter(Connection::is_usable);
        let opened = match reusable {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.target, Protocol::Http2).await,
        };
        let Ok(mut connection) = opened else { return CheckResult::NETWORK };
        let request = request(&self.target, check);
        let Some(response) = connection.send(request, self.target.tls.is_some()).await else {
            return CheckResult::NETWORK;
        };
        let Some(serving) = is_serving(response).await else { return CheckResult::NETWORK };
        if self.target.check.reuse_connection {
            self.connection = Some(connection);
        }
        if serving {
            CheckResult::Passed { degraded: false }
        } else {
            CheckResult::Failed(Failure::of(FailureKind::Active))
        }
    }
}

fn request(target: &Target, check: &GrpcCheck) -> Request<RequestBody> {
    let message = HealthCheckRequest { service: check.service.clone() };
    let mut request = Request::new(RequestBody::full(frame(&message)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static("/grpc.health.v1.Health/Check");
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_bytes(target.host(&check.authority).as_bytes()) {
        headers.insert(HOST, host);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, AGENT);
    headers::add(&check.metadata, target, "HTTP/2", headers);
    if let Ok(timeout) = HeaderValue::from_str(&grpc_timeout(target.check.timeout)) {
        headers.insert("grpc-timeout", timeout);
    }
    request
}

/// At most eight digits are allowed.
fn grpc_timeout(timeout: Duration) -> String {
    match timeout.as_millis() {
        millis @ 0..100_000_000 => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    }
}

/// One message, uncompressed.
fn frame(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    frame.freeze()
}

/// Whether the answer is "serving"; none if the stream broke.
async fn is_serving(response: Response<Incoming>) -> Option<bool> {
    let (parts, mut body) = response.into_parts();
    let is_grpc = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && matches!(value.get(16), None | Some(b'+' | b';'))
    };
    let content_type = parts.headers.get(CONTENT_TYPE);
    if parts.status != http::StatusCode::OK || !content_type.is_some_and(is_grpc) {
        return Some(false);
    }
    let (mut answer, mut trailers) = (Vec::new(), parts.headers);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => answer.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if answer.len() > LONGEST_ANSWER {
            return Some(false);
        }
    }
    Some(is_ok(&trailers) && says_serving(&answer))
}

fn is_ok(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|status| status == "0")
}

/// Whether `answer` is one frame with a response that says so.
fn says_serving(answer: &[u8]) -> bool {
    let Some(([0, length @ ..], message)) = answer.split_first_chunk::<5>() else { return false };
    usize::try_from(u32::from_be_bytes(*length)) == Ok(message.len())
        && HealthCheckResponse::decode(message).is_ok_and(|it| it.status == SERVING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_that_says_serving_counts() {
        let serving = frame(&HealthCheckResponse { status: SERVING });
        assert_eq!(&serving[..], b"\0\0\0\0\x02\x08\x01");
        assert!(says_serving(&serving));
        assert!(!says_serving(&frame(&HealthCheckResponse { status: 2 })));
        assert!(!says_serving(&serving[..6]));
        assert!(!says_serving(b""));
        assert!(!says_serving(&[&serving[..], &serving[..]].concat()), "one message, not a stream");
        let compressed = [&[1], &serving[1..]].concat();
        assert!(!says_serving(&compressed));
    }

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        assert_eq!(grpc_timeout(Duration::from_millis(1500)), "1500m");
        assert_eq!(grpc_timeout(Duration::from_secs(200_000)), "200000S");
    }
}
