//! The span of a request, put together when it has ended.

use std::time::SystemTime;

use http::HeaderValue;

use super::tags::{self, Outcome};
use super::{Tracer, asked_operation, operation, trace_state};
use crate::config::address::HostAddress;
use crate::config::tracing::Provider;
use crate::http::ends;
use crate::http::names::{
    GRPC_MESSAGE, GRPC_STATUS, GRPC_TIMEOUT, X_CLIENT_TRACE_ID, X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
    X_ENVOY_ORIGINAL_PATH, X_FORWARDED_PROTO, X_REQUEST_ID,
};
use crate::http::stream::{Head, Stream};
use crate::telemetry::trace::Reporter;
use crate::telemetry::trace::span::{Span, Tags, tag};

/// Reports the span of the request of `stream`, which has ended, if it is recorded.
pub fn finish(stream: &Stream) {
    let Some(tracer) = &stream.served.tracer else { return };
    let (Some(reporter), Some((context, _))) =
        (&tracer.reporter, stream.traced().and_then(|traced| traced.span))
    else {
        return;
    };
    if !context.sampled {
        return;
    }
    reporter.report(Span {
        name: name(stream, tracer, reporter),
        kind: tracer.kind(),
        context,
        trace_state: trace_state(stream).to_owned(),
        start: stream.start.wall,
        end: SystemTime::now(),
        tags: all_tags(stream, tracer, reporter),
        events: if tracer.config.verbose { tags::events(stream, true) } else { Vec::new() },
    });
}

/// What the span is called: as configured, else as the other side wants, else as the route is decorated.
fn name(stream: &Stream, tracer: &Tracer, reporter: &Reporter) -> String {
    let route = stream.taken_route();
    if let Some(format) = operation(tracer, route) {
        if let Some(name) = tags::formatted(stream, format) {
            return name;
        }
    } else {
        let decorator = route.and_then(|route| route.decorator.as_deref());
        let wanted = if tracer.egress {
            stream.operation().filter(|operation| !operation.is_empty())
        } else {
            asked_operation(stream).cloned()
        };
        let decorated = wanted.or_else(|| Some(decorator?.operation.clone()));
        if let Some(operation) = decorated {
            return tags::text(operation.as_bytes());
        }
    }
    let host = stream.head().map_or("", |head| &head.authority);
    match (&*reporter.provider, tracer.egress) {
        (Provider::Zipkin(_), _) => host.to_owned(),
        (Provider::OpenTelemetry(_), true) => format!("egress {host}"),
        (Provider::OpenTelemetry(_), false) => "ingress".to_owned(),
    }
}

fn all_tags(stream: &Stream, tracer: &Tracer, reporter: &Reporter) -> Tags {
    let mut tags = Tags::default();
    tags.set(tag::NODE_ID, reporter.identity.node.to_string());
    tags.set(tag::ZONE, reporter.identity.zone.to_string());
    if let Some(head) = stream.outgoing_head() {
        of_request(stream, tracer, head, &mut tags);
    }
    tags.set(tag::REQUEST_SIZE, stream.bytes_received().to_string());
    tags.set(tag::RESPONSE_SIZE, stream.bytes_sent().to_string());
    let status = stream.status().map_or(0, |status| status.as_u16());
    tags::common(stream, &Outcome { status, flags: stream.flags() }, &mut tags);
    let read = |value: &HeaderValue| tags::text(value.as_bytes());
    let said =
        |name| stream.with_trailer(name, read).or_else(|| stream.with_response_header(name, read));
    tags::grpc(said(&GRPC_STATUS).as_deref(), said(&GRPC_MESSAGE).as_deref(), &mut tags);
    tags::custom(stream, tracer, &mut tags);
    tags
}

fn of_request(stream: &Stream, tracer: &Tracer, head: &Head, tags: &mut Tags) {
    let header =
        |name| head.headers.get(name).map(|value: &HeaderValue| tags::text(value.as_bytes()));
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    if let Some(id) = header(X_REQUEST_ID) {
        tags.set(tag::REQUEST_ID, id);
    }
    let scheme = header(X_FORWARDED_PROTO).unwrap_or_else(|| head.scheme.to_owned());
    let original = head.headers.get(X_ENVOY_ORIGINAL_PATH).and_then(|path| path.to_str().ok());
    let path = original.unwrap_or(&head.path);
    let end = path.floor_char_boundary(tracer.config.max_path_tag_length.min(path.len()));
    tags.set(tag::URL, format!("{scheme}://{}{}", head.authority, &path[..end]));
    tags.set(tag::METHOD, head.method.as_str().to_owned());
    tags.set(tag::DOWNSTREAM_CLUSTER, or_none(header(X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER)));
    tags.set(tag::USER_AGENT, or_none(header(http::header::USER_AGENT)));
    tags.set(tag::PROTOCOL, ends::version(head.version));
    let downstream = &stream.connection.downstream;
    let peer = match downstream.shown(downstream.direct_remote) {
        HostAddress::Ip(address) => address.ip().to_string(),
        HostAddress::Pipe(path) => path.to_string(),
    };
    tags.set(tag::PEER_ADDRESS, peer);
    if let Some(id) = header(X_CLIENT_TRACE_ID) {
        tags.set(tag::CLIENT_TRACE_ID, id);
    }
    if head.is_grpc() {
        tags.set(tag::GRPC_PATH, head.path.to_string());
        tags.set(tag::GRPC_AUTHORITY, head.authority.to_string());
        tags.set(tag::GRPC_CONTENT_TYPE, or_none(header(http::header::CONTENT_TYPE)));
        if let Some(timeout) = header(GRPC_TIMEOUT) {
            tags.set(tag::GRPC_TIMEOUT, timeout);
        }
    }
}
