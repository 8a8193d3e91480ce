//! One request, from its head to the response that the codec sends: made canonical, routed, answered or forwarded.

use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{CutShort, DownstreamBody};
use super::connection::Connection;
use super::filter::{Stopped, forwarded_proto};
use super::finish::Finish;
use super::local_reply::LocalReply;
use super::request_body::ClientBody;
use super::router::redirect::Followed;
use super::router::{self, Forwarded, Plan};
use super::stream::{Head, Stream};
use super::way::{Destination, Way};
use super::{canonical, filter, respond, trace};
use crate::config::access_log::LogKind;
use crate::config::matcher::RequestHead;
use crate::config::route::{Action, DirectResponse, Redirect, Route};
use crate::route::{Found, redirect};
use crate::telemetry::response_flags::ResponseFlags;

/// Serves one request of `connection`. An error cuts the connection (HTTP/1) or resets the stream (HTTP/2).
pub async fn serve(
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<DownstreamBody>, CutShort> {
    let served = connection.served();
    let stream = Stream::begin(Rc::clone(&connection), Rc::clone(&served));
    let finish = Finish::begin(Rc::clone(&stream), request.version());
    let offence = connection.request_begins(&served);
    if request.body().is_end_stream() {
        stream.request_arrived(stream.start.instant);
    }
    let (mut parts, body) = request.into_parts();
    let body = ClientBody::new(body, Rc::clone(&stream));
    let upgrade = parts.extensions.remove();
    let admitted = canonical::admit(&stream, parts, offence);
    if let Err(reply) = admitted {
        return Ok(respond::local(finish, *reply));
    }
    if let Some(reply) = overloaded(&stream) {
        return Ok(respond::local(finish, reply));
    }
    let mut forwarded = pass(stream, body, upgrade, finish).await?;
    loop {
        match forwarded {
            Forwarded::Answered(response) => return Ok(response),
            Forwarded::Redirected(followed, finish) => {
                let (stream, body, finish) = follow(*followed, finish);
                forwarded = Box::pin(pass(stream, body, None, finish)).await?;
            }
        }
    }
}

/// Takes a request whose head is canonical through the filters, to its answer or to its upstream's.
async fn pass(
    stream: Rc<Stream>,
    mut body: ClientBody,
    upgrade: Option<OnUpgrade>,
    finish: Finish,
) -> Result<Forwarded, CutShort> {
    let answered = |response| Ok(Forwarded::Answered(response));
    let Some(head) = stream.head() else { return answered(respond::local(finish, unreadable())) };
    let mut way = Way::find(&stream, head, forwarded_proto(head));
    stream.set_route(way.map(|way| way.found));
    trace::begin(&stream, head, way);
    note_cluster(&stream, way);
    if stream.served.config().log_options.on_new_request {
        stream.log(LogKind::DownstreamStart);
    }
    let head = stream.head().unwrap_or(head);
    if !stream.served.config().filters.is_empty() {
        let passed = Box::pin(filter::request(&stream, head, &mut body, way)).await;
        if stream.filtered().is_some_and(|filtered| filtered.found_again) {
            let head = stream.head().unwrap_or(head);
            way = Way::find(&stream, head, forwarded_proto(head));
            note_cluster(&stream, way);
        }
        if let Err(stopped) = passed {
            return answered(filter_reply(finish, stopped, way));
        }
    }
    let head = stream.head().unwrap_or(head);
    match decide(&stream, head, way) {
        Verdict::Reply(reply) => answered(respond::local(finish, *reply)),
        Verdict::Routed(reply, found) => answered(respond::routed(finish, *reply, found, None)),
        // In a box: it is large, and the codec moves what this function returns about.
        Verdict::Forward(plan) => Box::pin(router::forward(plan, body, upgrade, finish)).await,
    }
}

/// Notes where the request would go for those who ask before it goes there, and in case it never does.
fn note_cluster(stream: &Stream, way: Option<Way<'_>>) {
    let config = stream.served.config();
    if config.filters.is_empty() && !config.log_options.on_new_request {
        return;
    }
    let to = way.and_then(|way| match way.to {
        Destination::Cluster(_, _, target) => stream.served.snapshot.clusters.get(target.cluster),
        _ => None,
    });
    stream.upstream.borrow_mut().cluster = to.map(|spec| Arc::clone(&spec.config.name));
}

/// The stream that a redirect leads to, in place of the one that `before` ends.
fn follow(followed: Followed, before: Finish) -> (Rc<Stream>, ClientBody, Finish) {
    let Followed { status, head, body, trail } = followed;
    let old = Rc::clone(before.stream());
    old.connection.request_goes_on();
    // As in Envoy, a redirect is logged by what it leads to.
    old.set_outgoing_head(head.clone());
    let version = head.version;
    let stream = old.redirected(head, trail);
    let finish = Finish::begin(Rc::clone(&stream), version);
    before.redirect(status);
    (stream, body, finish)
}

/// The answer of a filter. The route that the request would have been forwarded by may change its headers.
fn filter_reply(
    finish: Finish,
    stopped: Stopped,
    way: Option<Way<'_>>,
) -> Response<DownstreamBody> {
    match (stopped, way.map(|way| (way.found, way.to))) {
        (Stopped::Reply(reply), Some((found, Destination::Cluster(_, _, target)))) => {
            respond::routed(finish, *reply, found, target.weighted)
        }
        (Stopped::Reply(reply) | Stopped::Response(reply), _) => respond::local(finish, *reply),
    }
}

/// What a request without any head to speak of gets.
fn unreadable() -> LocalReply {
    LocalReply::new(StatusCode::BAD_REQUEST, "http1.codec_error")
}

/// The answer of a process that runs out of memory, as short of work as can be.
fn overloaded(stream: &Stream) -> Option<LocalReply> {
    let Connection { worker, .. } = &*stream.connection;
    if !worker.shared.overload.refuses_requests() || stream.connection.bypasses_overload() {
        return None;
    }
    stream.served.stats.downstream_rq_overload_close.inc();
    let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "overload");
    Some(reply.body("envoy overloaded").flag(ResponseFlags::OVERLOAD_MANAGER))
}

/// What is done with a request.
enum Verdict<'a> {
    /// Answered before any route.
    Reply(Box<LocalReply>),
    /// Answered by its route.
    Routed(Box<LocalReply>, Found),
    /// Forwarded.
    Forward(Plan<'a>),
}

fn decide<'a>(stream: &'a Rc<Stream>, head: &'a Head, way: Option<Way<'a>>) -> Verdict<'a> {
    stream.served.stats.rq_total.inc();
    let Some(Way { table, found, to }) = way else { return no_route(stream) };
    match to {
        Destination::Nowhere => no_route(stream),
        Destination::Https => {
            stream.served.stats.rq_direct_response.inc();
            let location = redirect::to_https(&head.view());
            let reply = LocalReply::redirect(StatusCode::MOVED_PERMANENTLY, &location);
            Verdict::Reply(Box::new(reply))
        }
        Destination::Cluster(route, action, target) => {
            let wishes = stream.filtered().map(|filtered| &filtered.wishes);
            let authority = wishes.and_then(|wishes| wishes.authority.as_deref());
            let authority = authority.unwrap_or(&head.authority);
            Verdict::Forward(Plan { stream, head, authority, table, found, route, action, target })
        }
        Destination::Answer(route) => {
            stream.served.stats.rq_direct_response.inc();
            let reply = match &route.action {
                Action::Redirect(redirect) => redirected(redirect, route, head),
                Action::DirectResponse(response) => direct(response, &head.view()),
                Action::Forward(_) => return no_route(stream),
            };
            Verdict::Routed(Box::new(reply), found)
        }
    }
}

fn no_route(stream: &Stream) -> Verdict<'static> {
    stream.served.stats.no_route.inc();
    let reply = LocalReply::new(StatusCode::NOT_FOUND, "route_not_found");
    Verdict::Reply(Box::new(reply.flag(ResponseFlags::NO_ROUTE_FOUND)))
}

fn redirected(redirect: &Redirect, route: &Route, head: &Head) -> LocalReply {
    let location =
        redirect::location(redirect, &route.matcher, &head.view(), forwarded_proto(head));
    LocalReply::redirect(redirect.status, &location)
}

fn direct(response: &DirectResponse, view: &RequestHead<'_>) -> LocalReply {
    let reply = if response.status == StatusCode::CREATED || response.status.is_redirection() {
        LocalReply::redirect(response.status, &redirect::to_itself(view))
    } else {
        LocalReply::new(response.status, "direct_response")
    };
    reply.body(response.body.clone())
}
