//! `ratelimit`: asks a service whether a request is within its limits, which that service counts for many proxies.

mod answer;

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use xds::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use xds::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use xds::envoy::service::ratelimit::v3::rate_limit_response::Code;
use xds::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use super::passage::Passage;
use super::{Memory, Stopped};
use crate::call::{self, Caller};
use crate::cluster::LocalCluster;
use crate::config::global_rate_limit::{GlobalRateLimit, RequestType, RouteRateLimit};
use crate::config::http_filter::FilterRule;
use crate::config::rate_limit::{RateLimit, VirtualHostLimits};
use crate::config::service::GrpcService;
use crate::http::local_reply::LocalReply;
use crate::route::mutate::change_response;
use crate::route::rate_limit::{Descriptor, Subject, descriptor, limits};
use crate::telemetry::metrics::ClusterRateLimitStats;
use crate::telemetry::response_flags::ResponseFlags;

const METHOD: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The namespace of what services say of requests.
const NAMESPACE: &str = "envoy.filters.http.ratelimit";
/// The filter state with the number of hits that a request is.
const HITS: &str = "envoy.ratelimit.hits_addend";
/// `RESOURCE_EXHAUSTED`
const RESOURCE_EXHAUSTED: u32 = 8;

/// What is kept of a request until it is answered.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Headers that the response gets.
    headers: HeaderMap,
    /// What the service is told when the request is over.
    _at_end: Option<AtEnd>,
}

/// Asks the service about a request.
///
/// # Errors
/// The answer to a request that does not go on.
pub(super) async fn request(
    config: &GlobalRateLimit,
    filter: &str,
    passage: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    let worker = Rc::clone(&passage.stream.connection.worker);
    let internal = passage.stream.internal.get();
    let concerned = match config.requests {
        RequestType::Both => true,
        RequestType::Internal => internal,
        RequestType::External => !internal,
    };
    let spec = passage.cluster();
    let spec = spec.and_then(|name| passage.stream.served.snapshot.clusters.get(name));
    let Some(spec) = spec.filter(|_| concerned && config.enabled.takes(worker.random())) else {
        return Ok(Memory::Nothing);
    };
    let counted = Counted {
        cluster: worker.clusters.get(spec),
        stats: worker.filter_stats.cluster_rate_limit(&spec.config.stat_name, &config.stat_prefix),
    };
    let rule = passage.said().to(filter).find_map(|rule| match rule {
        FilterRule::RateLimit(rule) => Some(&**rule),
        _ => None,
    });
    let Questions { now, at_end } = questions(config, rule, passage);
    let at_end = at_end.map(|question| AtEnd {
        caller: Rc::clone(&worker.caller),
        service: config.service.clone(),
        question,
    });
    let Some(question) = now else { return Ok(kept(HeaderMap::new(), at_end)) };
    let answer =
        call::grpc::unary::<RateLimitResponse>(&worker.caller, &config.service, METHOD, &question);
    match answer.await {
        Ok(response) => heed(config, response, &counted, at_end, passage),
        Err(status) => {
            tracing::debug!(cluster = &*config.service.cluster, %status, "ratelimit");
            counted.stats.error.inc();
            if config.deny_on_error.takes(worker.random()) {
                let reply = LocalReply::new(config.status_on_error, "rate_limiter_error");
                let reply = reply.flag(ResponseFlags::RATE_LIMIT_SERVICE_ERROR);
                return Err(Stopped::Reply(Box::new(reply)));
            }
            counted.stats.failure_mode_allowed.inc();
            Ok(kept(HeaderMap::new(), at_end))
        }
    }
}

fn kept(headers: HeaderMap, at_end: Option<AtEnd>) -> Memory {
    Memory::RateLimit(Box::new(Kept { headers, _at_end: at_end }))
}

/// The cluster that a request is for, and what it counts.
struct Counted {
    cluster: Rc<LocalCluster>,
    stats: Arc<ClusterRateLimitStats>,
}

/// What the service is told, if it is told anything.
struct Questions {
    /// At once.
    now: Option<RateLimitRequest>,
    /// When the request is over.
    at_end: Option<RateLimitRequest>,
}

fn questions(
    config: &GlobalRateLimit,
    rule: Option<&RouteRateLimit>,
    passage: &Passage<'_>,
) -> Questions {
    let stream = passage.stream;
    let dynamic = stream.dynamic();
    let view = passage.head().view();
    let subject = Subject {
        head: &view,
        client: stream.client.get().ip(),
        source_cluster: &stream.connection.worker.shared.service_cluster,
        destination_cluster: passage.cluster(),
        metadata: dynamic.metadata(),
        route_metadata: passage.route().and_then(|route| route.metadata.as_deref()),
        facts: &**stream,
    };
    let own = rule.map(|rule| &*rule.rate_limits).filter(|limits| !limits.is_empty());
    let own = own.unwrap_or(&config.rate_limits);
    let (mut now, mut at_end) = (Vec::new(), Vec::new());
    let mut describe = |limit: &RateLimit, heeds_hits: bool| {
        if let Some(descriptor) = descriptor(limit, subject) {
            let list = if limit.apply_on_stream_done { &mut at_end } else { &mut now };
            list.push(message(&descriptor, heeds_hits));
        }
    };
    if own.is_empty() {
        let host = stream.route().and_then(|found| stream.table()?.virtual_host(found));
        let hosts = rule.map_or(VirtualHostLimits::default(), |rule| rule.hosts);
        let route = passage.route().map(|route| &**route);
        // As in Envoy, hits count only where the filter is told of limits.
        limits(host, route, hosts, config.stage).for_each(|limit| describe(limit, false));
    } else {
        own.iter().for_each(|limit| describe(limit, true));
    }
    let domain = rule.and_then(|rule| rule.domain.as_deref()).unwrap_or(&config.domain);
    let hits = dynamic.state(HITS).and_then(|hits| match hits.as_str() {
        Some(text) => text.parse().ok(),
        None => u32::try_from(hits.as_u64()?).ok(),
    });
    let question = |descriptors: Vec<_>| {
        (!descriptors.is_empty()).then(|| RateLimitRequest {
            domain: domain.to_owned(),
            descriptors,
            hits_addend: hits.unwrap_or_default(),
        })
    };
    Questions { now: question(now), at_end: question(at_end) }
}

fn message(descriptor: &Descriptor<'_>, heeds_hits: bool) -> RateLimitDescriptor {
    let entry = |entry: &crate::route::rate_limit::Entry<'_>| Entry {
        key: entry.key.to_owned(),
        value: entry.value.clone().into_owned(),
    };
    RateLimitDescriptor {
        entries: descriptor.entries.iter().map(entry).collect(),
        limit: descriptor.limit.map(|limit| RateLimitOverride {
            requests_per_unit: limit.requests,
            unit: limit.unit as i32,
        }),
        hits_addend: descriptor.hits.filter(|_| heeds_hits),
    }
}

/// Does what the service says.
fn heed(
    config: &GlobalRateLimit,
    response: RateLimitResponse,
    counted: &Counted,
    at_end: Option<AtEnd>,
    passage: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    let stream = passage.stream;
    let is_over = response.overall_code() == Code::OverLimit;
    let RateLimitResponse {
        overall_code: _,
        statuses,
        response_headers_to_add,
        request_headers_to_add,
        raw_body,
        dynamic_metadata,
    } = response;
    if let Some(metadata) = dynamic_metadata.filter(|it| !it.fields.is_empty()) {
        stream.dynamic_mut().merge(NAMESPACE, crate::net::structure::json(&metadata));
    }
    let mut headers = HeaderMap::new();
    answer::add(response_headers_to_add, &mut headers);
    if is_over {
        counted.stats.over_limit.inc();
        if config.marks_responses {
            headers.insert("x-envoy-ratelimited", HeaderValue::from_static("true"));
        }
    } else {
        counted.stats.ok.inc();
    }
    if config.tells_clients {
        answer::tell(&statuses, &mut headers);
    }
    if is_over && config.enforced.takes(stream.connection.worker.random()) {
        // As Envoy has it, whoever asked.
        counted.cluster.stats.response(config.limited_status.as_u16(), true);
        let mut reply = LocalReply::new(config.limited_status, "request_rate_limited")
            .body(raw_body)
            .flag(ResponseFlags::RATE_LIMITED);
        reply.headers = headers;
        change_response(&config.response_headers, &mut reply.headers, &**stream);
        if config.resource_exhausted {
            reply = reply.grpc_status(RESOURCE_EXHAUSTED);
        }
        return Err(Stopped::Reply(Box::new(reply)));
    }
    if !request_headers_to_add.is_empty() {
        answer::add(request_headers_to_add, &mut passage.head_mut().headers);
    }
    Ok(kept(headers, at_end))
}

/// Adds to the headers of the response.
pub(super) fn response(kept: &Kept, headers: &mut HeaderMap) {
    for (name, value) in &kept.headers {
        headers.append(name, value.clone());
    }
}

/// Tells the service once a request is over; nobody waits for an answer.
struct AtEnd {
    caller: Rc<Caller>,
    service: GrpcService,
    question: RateLimitRequest,
}

impl std::fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtEnd").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        let (caller, service) = (Rc::clone(&self.caller), self.service.clone());
        let question = std::mem::take(&mut self.question);
        tokio::task::spawn_local(async move {
            let answer =
                call::grpc::unary::<RateLimitResponse>(&caller, &service, METHOD, &question);
            if let Err(status) = answer.await {
                tracing::debug!(cluster = &*service.cluster, %status, "ratelimit");
            }
        });
    }
}
