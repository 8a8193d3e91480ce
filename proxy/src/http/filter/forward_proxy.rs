//! `dynamic_forward_proxy`: the host that a request names is resolved before the request goes on.

use std::sync::Arc;

use http::StatusCode;

use super::passage::Passage;
use crate::config::cluster::Discovery;
use crate::config::dns::Cache;
use crate::config::http_filter::{FilterRule, ForwardRewrite};
use crate::dns::cache::Refusal;
use crate::http::forward_proxy::{default_port, unresolved};
use crate::http::local_reply::LocalReply;
use crate::telemetry::response_flags::ResponseFlags;

/// Resolves the host that `request` names, if it goes to a cluster of such hosts; or the one that its route puts in
/// its place, which becomes the host to forward to.
///
/// # Errors
/// The answer to a request whose host cannot be resolved.
pub(super) async fn request(
    cache: &Arc<Cache>,
    filter: &str,
    request: &mut Passage<'_>,
) -> Result<(), Box<LocalReply>> {
    let clusters = &request.stream.served.snapshot.clusters;
    let Some(spec) = request.cluster().and_then(|name| clusters.get(name)) else { return Ok(()) };
    if !matches!(spec.config.discovery, Discovery::ForwardProxy(_)) {
        return Ok(());
    }
    let rewrite = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::ForwardProxy(rewrite) => Some(rewrite),
        _ => None,
    });
    if let Some(host) = rewrite.and_then(|rewrite| rewritten(request, rewrite)) {
        request.wishes.authority = Some(host);
    }
    let Some(cache) = request.stream.connection.worker.dns_cache(&cache.name) else {
        let reply = unavailable("dynamic_forward_proxy_cluster_is_gone");
        return Err(Box::new(reply.body("Dynamic forward proxy cluster is gone")));
    };
    let authority = request.wishes.authority.as_deref().unwrap_or(&request.head().authority);
    let result = match cache.admit() {
        Ok(_permit) => cache.resolve(authority, default_port(spec)).await,
        Err(refusal) => Err(refusal),
    };
    result.map(drop).map_err(|refusal| Box::new(refused(&refusal)))
}

fn rewritten(request: &Passage<'_>, rewrite: &ForwardRewrite) -> Option<Box<str>> {
    match rewrite {
        ForwardRewrite::None => None,
        ForwardRewrite::Literal(host) => (!host.is_empty()).then(|| host.clone()),
        ForwardRewrite::Header(name) => {
            Some(request.head().headers.get(name)?.to_str().ok()?.into())
        }
    }
}

fn refused(refusal: &Refusal) -> LocalReply {
    match refusal {
        Refusal::Overflow => unavailable("dns_cache_overflow").body("DNS cache overflow"),
        Refusal::TooManyWaiting => unavailable("dynamic_forward_proxy_pending_request_overflow")
            .body("Dynamic forward proxy pending request overflow"),
        Refusal::Unresolved(reason) => unavailable(&unresolved(reason))
            .body("DNS resolution failure")
            .flag(ResponseFlags::DNS_RESOLUTION_FAILED),
    }
}

fn unavailable(details: &str) -> LocalReply {
    LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, details.to_owned())
}
