//! The HTTP filters before the router: a request passes them in the order configured, and what is answered passes
//! them in the reverse order.
//!
//! A chain of the router alone costs a request one look at an empty list. A filter is one file here, and one
//! variant of [`FilterKind`]; what routes say to it is put together when their table is compiled
//! ([`RouteTable::said`](crate::route::RouteTable::said)).

mod buffer;
mod compressor;
mod cors;
mod csrf;
mod decompressor;
pub(crate) mod ext_authz;
mod fault;
mod forward_proxy;
mod grpc_stats;
mod grpc_web;
mod header_mutation;
mod health_check;
mod istio;
mod jwt_authn;
mod local_rate_limit;
mod passage;
mod rate_limit;
mod rbac;
mod recoded;
mod set_filter_state;
mod stateful_session;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::deadline::{Deadlines, Expired};
use super::local_reply::LocalReply;
use super::request_body::ClientBody;
use super::router::failure::Failure;
use super::stream::{Head, Stream};
use super::way::Way;
use crate::config::http_filter::{FilterKind, FilterRule, HttpFilter};
use crate::config::istio::Alpn;
use crate::config::overload::Timer;
use crate::overload::TokenBucket;
use crate::route::Said;
use crate::telemetry::metrics::CompressorShards;
use passage::{Chosen, Passage};

pub use passage::Wraps;
pub(super) use passage::{Answering, forwarded_proto};

/// What the filters made of a request, and have to remember until it is answered.
#[derive(Debug, Default)]
pub struct Filtered {
    /// The route whose words the filters heed.
    route: Option<Chosen>,
    /// One for each filter of the chain; none for those that are disabled.
    memories: Vec<Option<Memory>>,
    /// What they ask of the router.
    pub wishes: Wishes,
    /// Whether a filter had its route found anew.
    pub found_again: bool,
}

/// What filters ask of the router.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The host to forward to in place of the request's own.
    pub authority: Option<Box<str>>,
    /// The endpoint to take, if it can be had: its address, and whether no other one will do.
    pub override_host: Option<(Box<str>, bool)>,
    /// What to offer to the endpoint by ALPN, in place of what its cluster says.
    pub alpn: Option<Alpn>,
}

/// What one filter remembers of a request until it is answered.
#[derive(Debug)]
enum Memory {
    /// Nothing; or the request never got so far.
    Nothing,
    /// Of `stateful_session`, if the request may have a session: the endpoint that it has asked for.
    Session(Option<Box<str>>),
    /// Of `fault`, if the request met one.
    Fault(fault::Injected),
    /// Of `grpc_stats`, if the request is counted.
    GrpcCall(Rc<grpc_stats::Call>),
    /// Of `grpc_web`, if the request is a browser's call.
    WebCall(Rc<grpc_web::WebCall>),
    /// Of `compressor`: the encodings that the client accepts, and where it counts.
    Accepts(Option<HeaderValue>, Arc<CompressorShards>),
    /// Of `local_ratelimit`: the bucket that the client is told of.
    LocalRateLimit(Option<Arc<TokenBucket>>),
    /// Of `cors`: the origin whose pages may see the response.
    Cors(Option<HeaderValue>),
    /// Of `ext_authz`: headers that the response gets.
    Authorized(ext_authz::Promised),
    /// Of `ratelimit`: headers that the response gets, and what its service is told at the end.
    RateLimit(Box<rate_limit::Kept>),
}

/// Why a request goes no further: a filter has answered it.
#[derive(Debug)]
pub enum Stopped {
    /// As the proxy answers for others, with the header changes of the route.
    Reply(Box<LocalReply>),
    /// By a response of the filter's own making.
    Response(Box<LocalReply>),
}

/// Takes the request of `stream` through the filters of its connection manager.
///
/// # Errors
/// The answer of the filter that lets it go no further.
pub async fn request(
    stream: &Rc<Stream>,
    head: &Head,
    body: &mut ClientBody,
    way: Option<Way<'_>>,
) -> Result<(), Stopped> {
    let mut passage = Passage::new(stream, head, body, way);
    let said = passage.said();
    let filters = &stream.served.config().filters;
    let memory = |filter: &HttpFilter| is_enabled(filter, said).then_some(Memory::Nothing);
    let mut memories: Vec<_> = filters.iter().map(memory).collect();
    let result = {
        let passing = pin!(pass_all(filters, &mut passage, &mut memories));
        match deadlines(stream).within(stream, None, passing).await {
            Ok(result) => result,
            Err(expired) => Err(Stopped::Reply(Box::new(too_late(stream, expired)))),
        }
    };
    let (filtered, changed) = passage.finish(memories);
    if let Some(head) = changed {
        stream.set_head(head);
    }
    stream.set_filtered(filtered);
    result
}

async fn pass_all(
    filters: &[HttpFilter],
    passage: &mut Passage<'_>,
    memories: &mut [Option<Memory>],
) -> Result<(), Stopped> {
    for (filter, memory) in filters.iter().zip(memories) {
        if let Some(memory) = memory {
            *memory = pass(filter, passage).await?;
        }
    }
    Ok(())
}

/// Takes a request through one filter. Those that may ask somebody do so in a box: what they need meanwhile is large, and
/// would be moved about with every request.
async fn pass(filter: &HttpFilter, request: &mut Passage<'_>) -> Result<Memory, Stopped> {
    let name = &filter.name;
    match &filter.kind {
        FilterKind::ForwardProxy(cache) => {
            let result = Box::pin(forward_proxy::request(cache, name, request)).await;
            result.map_err(Stopped::Reply).map(|()| Memory::Nothing)
        }
        FilterKind::HeaderMutation(config) => {
            header_mutation::request(config, name, request);
            Ok(Memory::Nothing)
        }
        FilterKind::Cors => cors::request(name, request),
        FilterKind::Fault(config) => fault::request(config, name, request).await,
        FilterKind::Rbac(filter) => rbac::request(filter, name, request).map(|()| Memory::Nothing),
        FilterKind::JwtAuthn(config) => Box::pin(jwt_authn::request(config, name, request)).await,
        FilterKind::IstioAlpn(overrides) => {
            istio::alpn(overrides, request);
            Ok(Memory::Nothing)
        }
        FilterKind::IstioPeerMetadata(config) => {
            istio::strip_request(*config, request);
            Ok(Memory::Nothing)
        }
        FilterKind::Wasm => Err(unavailable("wasm_fail_stream")),
        FilterKind::Discovered(_) => Err(unavailable("filter_config_not_found")),
        FilterKind::RateLimit(config) => Box::pin(rate_limit::request(config, name, request)).await,
        FilterKind::ExtAuthz(config) => Box::pin(ext_authz::request(config, name, request)).await,
        FilterKind::Buffer(limit) => {
            buffer::request(*limit, name, request).await.map(|()| Memory::Nothing)
        }
        FilterKind::Csrf(policy) => csrf::request(policy, name, request).map(|()| Memory::Nothing),
        FilterKind::Compressor(config) => Ok(compressor::request(config, name, request)),
        FilterKind::Decompressor(config) => {
            decompressor::request(config, request);
            Ok(Memory::Nothing)
        }
        FilterKind::GrpcStats(config) => Ok(grpc_stats::request(config, request)),
        FilterKind::GrpcWeb => Ok(grpc_web::request(request)),
        FilterKind::HealthCheck(config) => {
            health_check::request(config, request).map(|()| Memory::Nothing)
        }
        FilterKind::SetFilterState(state) => {
            set_filter_state::request(state, name, request);
            Ok(Memory::Nothing)
        }
        FilterKind::LocalRateLimit(config) => local_rate_limit::request(config, name, request),
        FilterKind::StatefulSession(config) => Ok(stateful_session::request(config, name, request)),
    }
}

/// The answer in place of a filter that cannot do its work.
fn unavailable(details: &'static str) -> Stopped {
    Stopped::Response(Box::new(LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, details)))
}

/// How long filters may wait, for whatever it is.
fn deadlines(stream: &Stream) -> Deadlines {
    let limits = &stream.served.config().limits;
    let overload = &stream.connection.worker.shared.overload;
    Deadlines {
        idle: limits.stream_idle_timeout.map(|it| overload.timeout(Timer::StreamIdle, it)),
        request: limits.request_timeout,
        duration: limits.max_stream_duration,
        ..Deadlines::default()
    }
}

fn too_late(stream: &Stream, expired: Expired) -> LocalReply {
    let stats = &stream.served.stats;
    match expired {
        Expired::Request => stats.downstream_rq_timeout.inc(),
        Expired::Duration => stats.downstream_rq_max_duration_reached.inc(),
        _ => stats.downstream_rq_idle_timeout.inc(),
    }
    Failure::Expired(expired, stream.timeline.request_end.get().is_some()).reply(false)
}

/// Takes the answer to `stream`'s request through the filters that it has passed, and those that it would have.
pub(super) fn response(stream: &Stream, answer: &mut Answering<'_>) {
    let Some(filtered) = stream.filtered() else { return };
    let said = Chosen::said(filtered.route.as_ref(), stream);
    let filters = &stream.served.config().filters;
    let memories = &filtered.memories;
    let mut chain = compressor::Chain::new(filters, memories, said);
    for (filter, memory) in filters.iter().zip(memories).rev() {
        let Some(memory) = memory else { continue };
        let name = &filter.name;
        match (&filter.kind, memory) {
            (FilterKind::IstioPeerMetadata(config), _) => {
                istio::strip_response(*config, answer.headers);
            }
            (FilterKind::HeaderMutation(config), _) => {
                header_mutation::response(config, name, said, stream, answer.headers);
            }
            (FilterKind::Compressor(config), memory) => {
                compressor::response(config, name, memory, &mut chain, stream, answer);
            }
            (FilterKind::Decompressor(config), _) => decompressor::response(config, stream, answer),
            (FilterKind::GrpcStats(_), Memory::GrpcCall(call)) => {
                grpc_stats::response(call, answer);
            }
            (FilterKind::GrpcWeb, Memory::WebCall(call)) => grpc_web::response(call, answer),
            (FilterKind::HealthCheck(config), _) => health_check::response(config, stream, answer),
            (FilterKind::LocalRateLimit(_), Memory::LocalRateLimit(Some(bucket))) => {
                local_rate_limit::response(bucket, answer.headers);
            }
            (FilterKind::Fault(_), Memory::Fault(injected)) => fault::response(injected, answer),
            (FilterKind::Cors, Memory::Cors(origin)) => {
                cors::response(name, said, origin.as_ref(), answer.headers);
            }
            (FilterKind::RateLimit(_), Memory::RateLimit(kept)) => {
                rate_limit::response(kept, answer.headers);
            }
            (FilterKind::ExtAuthz(_), Memory::Authorized(promised)) => {
                ext_authz::response(promised, answer.headers);
            }
            (FilterKind::StatefulSession(config), Memory::Session(wanted)) => {
                let config = stateful_session::effective(config, name, said);
                stateful_session::response(config, wanted.as_deref(), stream, answer.headers);
            }
            // Most have nothing to do with answers.
            _ => {}
        }
    }
}

/// Whether requests pass `filter`: the most specific word decides.
fn is_enabled(filter: &HttpFilter, said: Said<'_>) -> bool {
    said.to(&filter.name).next().map_or(!filter.disabled, |rule| *rule != FilterRule::Disabled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that `work` makes, in bytes.
    fn size<F: Future>(
        _: impl FnOnce(&'static HttpFilter, &'static mut Passage<'static>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_that_asks_nobody_moves_little_about() {
        assert!(size(pass) < 600, "{} bytes", size(pass));
    }
}
