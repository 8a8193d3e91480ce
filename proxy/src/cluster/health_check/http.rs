//! A check over HTTP: the status, the body and some headers of the response decide.

use std::ops::Range;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::connection::{Connection, Target};
use super::progress::{CheckResult, Failure, FailureKind};
use super::{Counts, find, headers};
use crate::config::health_check::HttpCheck;
use crate::net::body::RequestBody;
use crate::upstream::http::Protocol;

/// By what Envoy's checks are known.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");
/// The response says that the host wants no more requests.
pub const IMMEDIATE_FAIL: &str = "x-envoy-immediate-health-check-fail";
const DEGRADED: &str = "x-envoy-degraded";
const CHECKED_CLUSTER: &str = "x-envoy-upstream-healthchecked-cluster";

/// Checks one host; keeps its connection from one check to the next.
#[derive(Debug)]
pub(super) struct HttpProbe {
    target: Arc<Target>,
    connection: Option<Connection>,
}

impl HttpProbe {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Self { target, connection: None }
    }

    /// Makes one check. To be dropped in the middle if it takes too long: the connection goes with it.
    pub(super) async fn check(&mut self, check: &HttpCheck, counts: &Counts) -> CheckResult {
        let reusable = self.connection.take().filter(Connection::is_usable);
        let protocol = if check.http2 { Protocol::Http2 } else { Protocol::Http1 };
        let opened = match reusable {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.target, protocol).await,
        };
        let Ok(mut connection) = opened else { return CheckResult::NETWORK };
        let request = request(&self.target, check);
        let Some(response) = connection.send(request, self.target.tls.is_some()).await else {
            return CheckResult::NETWORK;
        };
        let closes = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
        let Some((head, body)) = receive(response, check).await else {
            return CheckResult::NETWORK;
        };
        if self.target.check.reuse_connection && !closes {
            self.connection = Some(connection);
        }
        judge(&head, &body, check, counts)
    }
}

fn request(target: &Target, check: &HttpCheck) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::full(check.send.clone().into()));
    *request.method_mut() = check.method.clone();
    // Checked when it was read.
    *request.uri_mut() = check.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_bytes(target.host(&check.host).as_bytes()) {
        headers.insert(HOST, host);
    }
    headers.insert(USER_AGENT, AGENT);
    let protocol = if check.http2 { "HTTP/2" } else { "HTTP/1.1" };
    headers::add(&check.headers.add, target, protocol, headers);
    for name in &check.headers.remove {
        headers.remove(name);
    }
    request
}

/// The response when it is there whole, with as much of its body as is looked at.
async fn receive(
    response: Response<Incoming>,
    check: &HttpCheck,
) -> Option<(Response<()>, Vec<u8>)> {
    let (parts, mut body) = response.into_parts();
    let limit = match check.body_limit {
        _ if check.receive.is_empty() => 0,
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            let room = limit.saturating_sub(seen.len());
            seen.extend(data.iter().take(room));
        }
    }
    Some((Response::from_parts(parts, ()), seen))
}

fn judge(head: &Response<()>, body: &[u8], check: &HttpCheck, counts: &Counts) -> CheckResult {
    let (status, headers) = (head.status().as_u16(), head.headers());
    let failed = |retriable| {
        CheckResult::Failed(Failure {
            kind: FailureKind::Active,
            retriable,
            excluded: headers.contains_key(IMMEDIATE_FAIL),
            status,
        })
    };
    if !find(&check.receive, body) {
        return failed(false);
    }
    let among = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status));
    if !among(&check.expected) {
        return failed(among(&check.retriable));
    }
    if let Some(wanted) = &check.service_name {
        counts.verify_cluster.inc();
        let name = headers.get(CHECKED_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
        if !wanted.matches(name) {
            return CheckResult::Failed(Failure { status, ..Failure::of(FailureKind::Active) });
        }
    }
    CheckResult::Passed { degraded: headers.contains_key(DEGRADED) }
}
