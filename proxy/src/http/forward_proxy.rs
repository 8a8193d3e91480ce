//! Forward proxying: the host that a request names becomes the endpoint it is sent to.
//!
//! Twice, as in Envoy. The HTTP filter ([`filter`](super::filter)) resolves the request's own host before the route's changes, and answers
//! itself if that fails. The cluster then wants the endpoint of the host the request is sent to, which is most
//! often the same and known by now.

use std::sync::Arc;

use crate::cluster::{ClusterSpec, DynamicHost};
use crate::config::cluster::Discovery;
use crate::dns::cache::{Known, Refusal};
use crate::worker::Worker;

/// The details of an answer for a host that does not resolve.
pub(super) fn unresolved(reason: &str) -> String {
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
pub(super) fn default_port(spec: &ClusterSpec) -> u16 {
    if spec.config.tls.is_some() { 443 } else { 80 }
}
