//! Forward proxying: the host that a request names becomes the endpoint it is sent to.
//!
//! Twice, as in Envoy. The HTTP filter resolves the request's own host before the route's changes, and answers
//! itself if that fails. The cluster then wants the endpoint of the host the request is sent to, which is most
//! often the same and known by now.

use std::sync::Arc;

use http::StatusCode;

use super::local_reply::LocalReply;
use super::router::Plan;
use crate::cluster::{ClusterSpec, DynamicHost};
use crate::config::cluster::Discovery;
use crate::config::route::{FilterOverride, FilterRule, ForwardRewrite};
use crate::dns::cache::{Known, Refusal};
use crate::telemetry::response_flags::ResponseFlags;
use crate::worker::Worker;

/// The filter: resolves the host that `plan`'s request names, if it goes to a cluster of such hosts. The host that
/// the route's configuration puts in its place, if it does.
///
/// # Errors
/// The answer to a request whose host cannot be resolved.
pub async fn filter(plan: &Plan<'_>) -> Result<Option<Box<str>>, Box<LocalReply>> {
    let Some(filter) = &plan.stream.served.config().forward_proxy else { return Ok(None) };
    let Some(spec) = plan.stream.served.snapshot.clusters.get(plan.target.cluster) else {
        return Ok(None);
    };
    if !matches!(spec.config.discovery, Discovery::ForwardProxy(_)) {
        return Ok(None);
    }
    let host = match rule(plan, &filter.filter) {
        Some(FilterRule::Disabled) => return Ok(None),
        Some(FilterRule::ForwardProxy(rewrite)) => rewritten(plan, rewrite),
        None => None,
    };
    let Some(cache) = plan.stream.connection.worker.dns_cache(&filter.cache.name) else {
        let reply = unavailable("dynamic_forward_proxy_cluster_is_gone");
        return Err(Box::new(reply.body("Dynamic forward proxy cluster is gone")));
    };
    let authority = host.as_deref().unwrap_or(&plan.head.authority);
    let result = match cache.admit() {
        Ok(_permit) => cache.resolve(authority, default_port(spec)).await,
        Err(refusal) => Err(refusal),
    };
    result.map(|_known| host).map_err(|refusal| Box::new(refused(&refusal)))
}

/// The most specific thing that the route table says to the filter.
fn rule<'a>(plan: &Plan<'a>, filter: &str) -> Option<&'a FilterRule> {
    let own = |overrides: &'a [FilterOverride]| {
        overrides.iter().find(|it| *it.filter == *filter).map(|it| &it.rule)
    };
    let host = plan.table.virtual_host(plan.found);
    plan.weighted()
        .and_then(|weighted| own(&weighted.filters))
        .or_else(|| own(&plan.route.filters))
        .or_else(|| own(&host?.filters))
        .or_else(|| own(&plan.table.config().filters))
}

fn rewritten(plan: &Plan<'_>, rewrite: &ForwardRewrite) -> Option<Box<str>> {
    match rewrite {
        ForwardRewrite::None => None,
        ForwardRewrite::Literal(host) => (!host.is_empty()).then(|| host.clone()),
        ForwardRewrite::Header(name) => Some(plan.head.headers.get(name)?.to_str().ok()?.into()),
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

fn unresolved(reason: &str) -> String {
    format!("dns_resolution_failure{{{reason}}}")
}

/// The endpoint of `authority` in the cluster of `spec`, if its endpoints are found so.
///
/// # Errors
/// Why there is none, as Envoy puts it.
pub async fn endpoint(
    worker: &Worker,
    spec: &Arc<ClusterSpec>,
    authority: &str,
) -> Option<Result<DynamicHost, String>> {
    let Discovery::ForwardProxy(config) = &spec.config.discovery else { return None };
    let Some(cache) = worker.dns_cache(&config.name) else {
        return Some(Err("no_healthy_upstream".to_owned()));
    };
    let known = match cache.admit() {
        Ok(_permit) => cache.resolve(authority, default_port(spec)).await,
        Err(refusal) => Err(refusal),
    };
    Some(match known {
        Ok(Known { name, address, others }) => Ok(DynamicHost {
            address: address.into(),
            additional_addresses: others,
            hostname: name,
        }),
        Err(Refusal::Overflow) => Err("dns_cache_overflow".to_owned()),
        Err(Refusal::TooManyWaiting) => Err("dns_cache_pending_requests_overflow".to_owned()),
        Err(Refusal::Unresolved(reason)) => Err(unresolved(&reason)),
    })
}

/// The port of a host that names none.
fn default_port(spec: &ClusterSpec) -> u16 {
    if spec.config.tls.is_some() { 443 } else { 80 }
}
