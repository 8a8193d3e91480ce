//! A check by `grpc.health.v1.Health/Check`: the host says that it is serving.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use super::connection::{Connection, Target};
use super::headers;
use super::http::AGENT;
use super::progress::{CheckResult, Failure, FailureKind};
use crate::config::health_check::GrpcCheck;
use crate::net::body::RequestBody;
use crate::net::grpc::{self, Frames, frame};
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
    headers.insert("grpc-timeout", grpc::timeout(target.check.timeout));
    request
}

/// Whether the answer is "serving"; none if the stream broke.
async fn is_serving(response: Response<Incoming>) -> Option<bool> {
    let (parts, mut body) = response.into_parts();
    if parts.status != http::StatusCode::OK || !grpc::is_grpc(parts.headers.get(CONTENT_TYPE)) {
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
    Some(grpc::Status::of(&trailers) == Some(Ok(())) && says_serving(&answer))
}

/// Whether `answer` is one frame with a response that says so.
fn says_serving(answer: &[u8]) -> bool {
    let mut frames = Frames::new(LONGEST_ANSWER);
    frames.push(answer);
    let message: Result<Option<HealthCheckResponse>, _> = frames.message();
    message.is_ok_and(|it| it.is_some_and(|it| it.status == SERVING)) && !frames.is_partial()
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
}
