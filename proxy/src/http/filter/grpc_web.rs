//! `grpc_web`: browsers make gRPC calls in a form that they can read, with the trailers in the body (gRPC-Web).

mod body;

use std::rc::Rc;
use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;

use super::Memory;
use super::grpc_stats::method;
use super::passage::{Answering, Passage};
use crate::http::head::is_grpc;
use crate::http::local_reply::mapped;
use crate::telemetry::metrics::GrpcStats;
use body::{Answer, Asked};

const BINARY: [&str; 2] = ["application/grpc-web", "application/grpc-web+proto"];
const TEXT: [&str; 2] = ["application/grpc-web-text", "application/grpc-web-text+proto"];
const ACCEPTED_ENCODINGS: &str = "grpc-accept-encoding";

/// A call of a browser.
#[derive(Debug)]
pub(super) struct WebCall {
    /// Whether its answer is to be in base64.
    text: bool,
    stats: Option<Arc<GrpcStats>>,
}

impl WebCall {
    /// Counts the end of the call, if these headers or trailers are that.
    fn ends(&self, headers: &HeaderMap) {
        if let (Some(stats), Some(status)) = (&self.stats, headers.get("grpc-status")) {
            stats.ended(status.to_str().ok().and_then(|status| status.parse().ok()));
        }
    }
}

/// Makes a gRPC call of the request, if it is one of a browser.
pub(super) fn request(request: &mut Passage<'_>) -> Memory {
    let head = request.head();
    let is_one = |kind: Option<&HeaderValue>, of: [&str; 2]| {
        kind.is_some_and(|kind| of.iter().any(|known| kind == known))
    };
    let kind = head.headers.get(CONTENT_TYPE);
    let is_text = is_one(kind, TEXT);
    if !is_text && !is_one(kind, BINARY) {
        return Memory::Nothing;
    }
    let text = is_one(head.headers.get(ACCEPT), TEXT);
    let stream = request.stream;
    let clusters = &stream.served.snapshot.clusters;
    let cluster = request.cluster().and_then(|name| clusters.get(name));
    let stats = cluster.zip(method(&head.path)).and_then(|(cluster, (service, method))| {
        let key = (Arc::clone(&cluster.config.stat_name), service.into(), method.into());
        stream.connection.worker.filter_stats.grpc_web(&key)
    });
    let headers = &mut request.head_mut().headers;
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.entry(ACCEPTED_ENCODINGS).or_insert(HeaderValue::from_static("identity"));
    if is_text && !request.body.is_end_stream() {
        request.body.wrap(|body| Box::new(Asked::new(body)));
    }
    Memory::WebCall(Rc::new(WebCall { text, stats }))
}

/// Makes an answer of gRPC-Web of one of gRPC. Any other answer becomes an error.
pub(super) fn response(call: &Rc<WebCall>, answer: &mut Answering<'_>) {
    call.ends(answer.headers);
    let is_grpc = match answer.is_bodiless {
        true => answer.headers.contains_key("grpc-status"),
        false => answer.status == StatusCode::OK && is_grpc(answer.headers),
    };
    let kind = answer.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let is_web = answer.status == StatusCode::OK
        && BINARY.iter().any(|known| kind.eq_ignore_ascii_case(known.as_bytes()));
    answer.headers.remove(CONTENT_LENGTH);
    let kind = if call.text { TEXT[1] } else { BINARY[1] };
    answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if answer.is_bodiless {
        return;
    }
    if is_grpc || is_web {
        let call = Rc::clone(call);
        answer.wraps.push(|body| Box::new(Answer::new(body, call)));
    } else {
        let status = HeaderValue::from(mapped(answer.status));
        answer.headers.insert("grpc-status", status);
        answer.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        answer.wraps.push(|body| Box::new(body::Dropped::new(body)));
    }
}
