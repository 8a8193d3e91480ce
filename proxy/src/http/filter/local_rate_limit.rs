//! `local_ratelimit`: refuses requests beyond a limit that this process counts by itself, over all its workers.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue};

use super::passage::Passage;
use super::{Memory, Stopped};
use crate::config::http_filter::FilterRule;
use crate::config::local_rate_limit::LocalRateLimit;
use crate::config::rate_limit::RateLimit;
use crate::http::local_reply::LocalReply;
use crate::overload::TokenBucket;
use crate::route::mutate::{change_request, change_response};
use crate::route::rate_limit::{Descriptor, Subject, descriptor, limits};
use crate::telemetry::response_flags::ResponseFlags;

/// `RESOURCE_EXHAUSTED`
const RESOURCE_EXHAUSTED: u32 = 8;

/// Takes a token for the request.
///
/// # Errors
/// The answer to a request for which there is none.
pub(super) fn request(
    own: &Arc<LocalRateLimit>,
    filter: &str,
    request: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    let rule = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::LocalRateLimit(rule) => Some(rule),
        _ => None,
    });
    let config = rule.unwrap_or(own);
    let stream = request.stream;
    let worker = &stream.connection.worker;
    if !config.enabled.takes(worker.random()) {
        return Ok(Memory::Nothing);
    }
    let stats = worker.filter_stats.local_rate_limit(&config.stat_prefix);
    stats.enabled.inc();
    let now = Instant::now();
    let limiter = match config.per_connection {
        true => stream.connection.local_limiter(config, now),
        false => worker.local_limiter(config, now),
    };
    let verdict = {
        let dynamic = stream.dynamic();
        let view = request.head().view();
        let subject = Subject {
            head: &view,
            client: stream.client.get().ip(),
            source_cluster: &worker.shared.service_cluster,
            destination_cluster: request.cluster(),
            metadata: dynamic.metadata(),
            route_metadata: request.route().and_then(|route| route.metadata.as_deref()),
            facts: &**stream,
        };
        limiter.take(&descriptors(config, request, subject), now)
    };
    if verdict.allowed {
        stats.ok.inc();
        return Ok(Memory::LocalRateLimit(verdict.bucket.filter(|_| config.tells_clients)));
    }
    stats.rate_limited.inc();
    if !config.enforced.takes(worker.random()) {
        change_request(&config.request_headers, &mut request.head_mut().headers, &**stream);
        return Ok(Memory::LocalRateLimit(verdict.bucket.filter(|_| config.tells_clients)));
    }
    stats.enforced.inc();
    let reply = LocalReply::new(config.status, "local_rate_limited").body("local_rate_limited");
    let mut reply = reply.flag(ResponseFlags::RATE_LIMITED);
    if config.resource_exhausted {
        reply = reply.grpc_status(RESOURCE_EXHAUSTED);
    }
    change_response(&config.response_headers, &mut reply.headers, &**stream);
    if let Some(bucket) = verdict.bucket.filter(|_| config.tells_clients) {
        response(&bucket, &mut reply.headers);
    }
    Err(Stopped::Reply(Box::new(reply)))
}

/// Tells the client what is left for it.
pub(super) fn response(bucket: &TokenBucket, headers: &mut HeaderMap) {
    let now = Instant::now();
    let reset = bucket.until_next(now).as_secs_f64().ceil() as u64;
    headers.append("x-ratelimit-limit", HeaderValue::from(bucket.config().max_tokens));
    headers.append("x-ratelimit-remaining", HeaderValue::from(bucket.remaining(now)));
    headers.append("x-ratelimit-reset", HeaderValue::from(reset));
}

/// How the request is described: by the filter's own words, or by those of its route and virtual host.
fn descriptors<'a>(
    config: &'a LocalRateLimit,
    request: &Passage<'a>,
    subject: Subject<'a>,
) -> Vec<Descriptor<'a>> {
    if config.descriptors.is_empty() {
        return Vec::new();
    }
    let describe = |limit: &'a RateLimit| descriptor(limit, subject);
    if !config.rate_limits.is_empty() {
        return config.rate_limits.iter().filter_map(describe).collect();
    }
    let stream = request.stream;
    let host = stream.route().and_then(|found| stream.table()?.virtual_host(found));
    let route = request.route().map(|route| &**route);
    let said = limits(host, route, config.host_limits, config.stage);
    // One that the runtime could disable is not heeded, as in Envoy.
    said.filter(|limit| limit.disable_key.is_empty()).filter_map(describe).collect()
}
