//! The last filter: a routed request goes to its cluster, as often as its retry policy allows, and the answer comes back.

pub mod attempt;
mod drop_overload;
pub mod exchange;
pub mod failure;
mod hash;
pub mod mirror;
pub mod redirect;
pub mod request;
mod tally;

use std::rc::Rc;
use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use self::attempt::Answer;
pub use self::attempt::InFlight;
use self::exchange::{Exchange, Source};
use self::mirror::Mirrors;
use self::redirect::Followed;
use self::tally::Tally;
use super::bad_body::BadBody;
use super::body::{CutShort, DownstreamBody, Limits};
use super::filter::Wraps;
use super::finish::Finish;
use super::local_reply::LocalReply;
use super::overrides::Overrides;
use super::request_body::ClientBody;
use super::stream::{Head, Stream};
use super::{hop_by_hop, names, respond, upgrade};
use crate::cluster::LocalCluster;
use crate::config::format::millis;
use crate::config::route::{Route, RouteAction};
use crate::net::copy::Until;
use crate::route::weighted::Target;
use crate::route::{Found, RouteTable};
use crate::telemetry::response_flags::ResponseFlags;

/// What routing decided about a request that goes upstream.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The request's stream.
    pub stream: &'a Rc<Stream>,
    /// Its head.
    pub head: &'a Head,
    /// The host it is for: that of its head, unless a filter put another one in its place.
    pub authority: &'a str,
    /// The table it was routed by.
    pub table: &'a RouteTable,
    /// Where in the table its route is.
    pub found: Found,
    /// Its route.
    pub route: &'a Route,
    /// What the route says.
    pub action: &'a RouteAction,
    /// The cluster chosen.
    pub target: Target<'a>,
}

/// What became of a request that was forwarded.
#[derive(Debug)]
pub enum Forwarded {
    /// It is answered.
    Answered(Response<DownstreamBody>),
    /// It goes on as another one. With the end of the stream that was redirected.
    Redirected(Box<Followed>, Finish),
}

/// Forwards the request that `plan` is for; `client` switches protocols if the upstream agrees to.
///
/// # Errors
/// Nothing can be answered any more: the client's stream is cut.
pub async fn forward(
    plan: Plan<'_>,
    body: ClientBody,
    client: Option<OnUpgrade>,
    finish: Finish,
) -> Result<Forwarded, CutShort> {
    let stream = plan.stream;
    let Some(cluster) = cluster(&plan) else {
        return Ok(Forwarded::Answered(plan.answer(finish, no_cluster(&plan))));
    };
    let tally = Tally::new(&plan);
    if let Some(reply) = drop_overload::dropped(&plan, &cluster) {
        tally.answered(reply.status.as_u16());
        return Ok(Forwarded::Answered(plan.answer(finish, reply)));
    }
    let protocol = match wanted_upgrade(&plan) {
        Ok(protocol) => protocol,
        Err(reply) => return Ok(Forwarded::Answered(plan.answer(finish, *reply))),
    };
    let upgrading = protocol.is_some();
    let mut overrides = Overrides::default();
    let Some(outgoing) = request::Outgoing::new(&plan, &mut overrides) else {
        let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "path_rewrite_failed");
        return Ok(Forwarded::Answered(plan.answer(finish, reply)));
    };
    if upgrading {
        stream.request_arrived(stream.start.instant);
    }
    let mut mirrors = Mirrors::new(&plan, upgrading);
    let source = Source::new(&plan, &cluster, body, upgrading, &mut mirrors);
    let mut exchange = Exchange::new(plan, (cluster, tally), outgoing, source, overrides, mirrors);
    let result = exchange.run().await;
    let attempts = exchange.attempts();
    let response = match result {
        Ok(answer) if upgrading && agrees(&plan, answer.response.status()) => {
            switch(&exchange, answer, client, attempts, finish)
        }
        Ok(answer) => match (!upgrading).then(|| exchange.follow(&answer)).flatten() {
            Some(followed) => return Ok(Forwarded::Redirected(followed, finish)),
            None => pass_on(&exchange, answer, attempts, finish),
        },
        Err(failure) => {
            if let Some(reason) = failure.transport() {
                stream.upstream.borrow_mut().failure = Some(reason);
            }
            let bad_body = stream.bad_body().map(BadBody::reply);
            let is_charged = bad_body.is_none() && failure.is_charged();
            let reply = bad_body.unwrap_or_else(|| failure.reply(attempts > 1));
            let mut reply = exchange.with_alternative_status(reply);
            if is_charged {
                exchange.charge_reply(reply.status);
            }
            if plan.shows_attempts() {
                reply.headers.insert(names::X_ENVOY_ATTEMPT_COUNT, attempts.into());
            }
            plan.answer(finish, reply)
        }
    };
    Ok(Forwarded::Answered(response))
}

/// The cluster that routing named, as this worker knows it.
fn cluster(plan: &Plan<'_>) -> Option<Rc<LocalCluster>> {
    let spec = plan.stream.served.snapshot.clusters.get(plan.target.cluster)?;
    let name = Arc::clone(&spec.config.name);
    plan.stream.upstream.borrow_mut().cluster = Some(name);
    Some(plan.stream.connection.worker.clusters.get(spec))
}

fn no_cluster(plan: &Plan<'_>) -> LocalReply {
    plan.stream.served.stats.no_cluster.inc();
    LocalReply::new(plan.action.cluster_not_found_status, "cluster_not_found")
        .flag(ResponseFlags::NO_CLUSTER_FOUND)
}

/// Whether `status` agrees to the upgrade, or to the tunnel of a CONNECT.
fn agrees(plan: &Plan<'_>, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
        || (plan.head.method == Method::CONNECT && status.is_success())
}

/// The protocol the client wants to switch to, if it may; `CONNECT` counts as one.
fn wanted_upgrade<'a>(plan: &Plan<'a>) -> Result<Option<&'a str>, Box<LocalReply>> {
    let protocol = match upgrade::requested(&plan.head.headers) {
        Some(protocol) => protocol,
        None if plan.head.method == Method::CONNECT => "connect",
        None => return Ok(None),
    };
    let served = &plan.stream.served;
    if upgrade::allowed(protocol, &plan.action.upgrades, &served.config().upgrades) {
        return Ok(Some(protocol));
    }
    served.stats.downstream_rq_ws_on_non_ws_route.inc();
    Err(Box::new(LocalReply::new(StatusCode::FORBIDDEN, "upgrade_failed")))
}

impl Plan<'_> {
    /// Answers in place of the upstream.
    fn answer(&self, finish: Finish, reply: LocalReply) -> Response<DownstreamBody> {
        respond::routed(finish, reply, self.found, self.target.weighted)
    }

    /// Whether the client sees how many attempts it took.
    fn shows_attempts(&self) -> bool {
        let host = self.table.virtual_host(self.found);
        host.is_some_and(|host| host.include_attempt_count_in_response)
    }

    /// Turns the upstream's head into the one the client gets; what filters make of its body is the result.
    fn dress(
        &self,
        answer: &mut Answer,
        attempts: u32,
        cookies: &[HeaderValue],
        switching: bool,
    ) -> Wraps {
        let stream = self.stream;
        let status = answer.response.status();
        let is_bodiless = answer.response.body().is_end_stream();
        let headers = answer.response.headers_mut();
        // The answer to a CONNECT is an ordinary 200.
        let upgrade = switching && status == StatusCode::SWITCHING_PROTOCOLS;
        hop_by_hop::strip_response(headers, upgrade);
        if !self.suppresses_envoy_headers() {
            hop_by_hop::set_service_time(headers, millis(answer.service_time));
        }
        if self.shows_attempts() {
            headers.insert(names::X_ENVOY_ATTEMPT_COUNT, attempts.into());
        }
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie.clone());
        }
        self.table.mutate_response(self.found, self.target.weighted, headers, &**stream);
        let wraps = respond::dress(stream, status, headers, is_bodiless);
        stream.set_details("via_upstream");
        wraps
    }
}

/// Passes the upstream's response on.
fn pass_on(
    exchange: &Exchange<'_>,
    mut answer: Answer,
    attempts: u32,
    finish: Finish,
) -> Response<DownstreamBody> {
    let plan = &exchange.plan;
    exchange.charge(&answer.response);
    let wraps = plan.dress(&mut answer, attempts, exchange.cookies(), false);
    let limits = Limits::new(exchange.deadlines().after_headers(plan.stream), exchange.idle());
    // HTTP/1 clients get trailers only if the operator says that they can take them.
    let trailers =
        plan.head.version == Version::HTTP_2 || plan.stream.served.config().http1.enable_trailers;
    let Answer { response, in_flight, .. } = answer;
    let (mut parts, body) = response.into_parts();
    parts.version = Version::default();
    parts.extensions.clear();
    Response::from_parts(
        parts,
        DownstreamBody::upstream(body, wraps, limits, trailers, in_flight, finish),
    )
}

/// Lets both sides switch protocols.
fn switch(
    exchange: &Exchange<'_>,
    mut answer: Answer,
    client: Option<OnUpgrade>,
    attempts: u32,
    finish: Finish,
) -> Response<DownstreamBody> {
    let plan = &exchange.plan;
    let Some(client) = client else {
        // The upstream switched unasked: whatever follows is no HTTP.
        let reply = LocalReply::new(
            StatusCode::BAD_GATEWAY,
            "upstream_reset_before_response_started{protocol_error}",
        );
        return plan.answer(finish, reply.flag(ResponseFlags::UPSTREAM_PROTOCOL_ERROR));
    };
    exchange.charge(&answer.response);
    // A tunnel is no body.
    let _ = plan.dress(&mut answer, attempts, exchange.cookies(), true);
    let Answer { mut response, in_flight, .. } = answer;
    let server = hyper::upgrade::on(&mut response);
    if plan.stream.is_extended_connect() {
        upgrade::to_extended_connect(&mut response);
        plan.stream.set_status(response.status());
    }
    let idle = plan.action.idle_timeout.flatten();
    let (mut parts, body) = response.into_parts();
    parts.extensions.clear();
    // As in Envoy: only HTTP/2 lets a client end its own half.
    let until = if plan.head.version == Version::HTTP_2 { Until::BothEnd } else { Until::OneEnds };
    let tunnel = upgrade::tunnel(client, server, until, idle, body, in_flight, finish);
    tokio::task::spawn_local(tunnel);
    Response::from_parts(parts, DownstreamBody::detached())
}
