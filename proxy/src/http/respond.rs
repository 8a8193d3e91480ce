//! The last changes to a response before the codec sends it: the headers that every response of this proxy has.

use std::time::Instant;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use super::body::DownstreamBody;
use super::filter::{Answering, Wraps};
use super::finish::Finish;
use super::local_reply::LocalReply;
use super::stream::Stream;
use super::{filter, hop_by_hop, request_id, trace};
use crate::route::Found;

/// A response of the proxy itself, before or without a route.
pub fn local(finish: Finish, reply: LocalReply) -> Response<DownstreamBody> {
    answer(finish, reply, None)
}

/// A response of the proxy itself on the route `found`, whose header changes apply; `weighted` is the
/// weighted cluster chosen, if any.
pub fn routed(
    finish: Finish,
    reply: LocalReply,
    found: Found,
    weighted: Option<usize>,
) -> Response<DownstreamBody> {
    answer(finish, reply, Some((found, weighted)))
}

fn answer(
    finish: Finish,
    mut reply: LocalReply,
    routed: Option<(Found, Option<usize>)>,
) -> Response<DownstreamBody> {
    let stream = finish.stream();
    stream.timeline.own_answer.set(Some(Instant::now()));
    stream.flag(reply.flags);
    stream.set_details(reply.details.clone());
    let head = stream.client_head();
    let grpc = head.is_some_and(super::stream::Head::is_grpc);
    let bodiless = head.is_some_and(|head| head.method == Method::HEAD);
    if let (Some((found, weighted)), Some(table)) = (routed, stream.table()) {
        table.mutate_response(found, weighted, &mut reply.headers, &**stream);
    }
    let mut response = reply.into_response(grpc, bodiless);
    let status = response.status();
    let is_bodiless = response.body().is_empty();
    let wraps = dress(stream, status, response.headers_mut(), is_bodiless);
    response.map(|body: Bytes| DownstreamBody::full(body, wraps, finish))
}

/// Adds what every response has, and notes what the logs want to know of it. What filters make of its body is the
/// result.
pub fn dress(
    stream: &Stream,
    status: StatusCode,
    headers: &mut HeaderMap,
    is_bodiless: bool,
) -> Wraps {
    stream.set_status(status);
    trace::decorate_response(stream, headers);
    let mut answer = Answering { status, headers, is_bodiless, wraps: Wraps::default() };
    filter::response(stream, &mut answer);
    let wraps = answer.wraps;
    let served = &stream.served;
    let config = served.config();
    let fixed = &served.http.fixed;
    if let Some(server) = &fixed.server {
        hop_by_hop::set_server(headers, config.server_header, server);
    }
    if let Some(via) = &fixed.via {
        hop_by_hop::append_via(headers, via);
    }
    hop_by_hop::set_date(headers, &stream.connection.worker.date(stream.start.wall));
    if let Some(head) = stream.head() {
        request_id::copy_to_response(headers, &head.headers, config.request_id);
        if head.version != Version::HTTP_2 && stream.connection.is_draining() {
            stream.served.stats.downstream_cx_drain_close.inc();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    stream.keep_response_headers(&fixed.logged, headers);
    wraps
}
