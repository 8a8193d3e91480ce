//! The filters of a chain that look at a connection after its handshake, before it is served: whether it may go on.
//!
//! Envoy asks them when the client's first byte is there, and lets a server that speaks first have its say until then. Here
//! nothing is said to a client, and no endpoint is reached for it, before it is known to be welcome.

use std::sync::Arc;

use super::network_authz;
use crate::config::listener::NetworkFilter;
use crate::config::rbac::{NetworkRbac, Rules};
use crate::http::connection::Downstream;
use crate::rbac::{Facts, SHARED_NAMESPACE, Verdict};
use crate::snapshot::FilterChain;
use crate::tcp::Refusal;
use crate::worker::Worker;

/// What verdicts are noted under in dynamic metadata.
const NAMESPACE: &str = "envoy.filters.network.rbac";

/// Takes a connection through the filters of `chain`, in their order.
///
/// # Errors
/// When one of them lets it go no further, after its delay.
pub(super) async fn pass(
    worker: &Worker,
    chain: &FilterChain,
    downstream: &Downstream,
) -> Result<(), Refusal> {
    for filter in &chain.config.filters {
        match filter {
            NetworkFilter::Rbac(config) => rbac(worker, config, downstream).await?,
            NetworkFilter::ExtAuthz(config) => {
                let checked = network_authz::check(worker, config, downstream).await;
                checked.map_err(Refusal::Service)?;
            }
            // Its place is taken before the handshake, and the others say where to go.
            NetworkFilter::ConnectionLimit(_)
            | NetworkFilter::ConnectionRate(_)
            | NetworkFilter::SniCluster
            | NetworkFilter::SniForwardProxy { .. } => {}
        }
    }
    Ok(())
}

/// Whether the filters of `chain` would let a connection pass of which no more than this is known yet; not, if somebody else
/// decides.
pub(super) fn would_pass(chain: &FilterChain, downstream: impl FnOnce() -> Downstream) -> bool {
    let asks = |filter: &NetworkFilter| matches!(filter, NetworkFilter::ExtAuthz(_));
    if chain.config.filters.iter().any(asks) {
        return false;
    }
    let mut rules = chain.config.filters.iter().filter_map(|filter| match filter {
        NetworkFilter::Rbac(config) => config.filter.rbac.rules.as_ref(),
        _ => None,
    });
    let Some(first) = rules.next() else { return true };
    let downstream = downstream();
    std::iter::once(first).chain(rules).all(|rules| judge(rules, &downstream).is_allowed)
}

async fn rbac(
    worker: &Worker,
    config: &Arc<NetworkRbac>,
    downstream: &Downstream,
) -> Result<(), Refusal> {
    let filter = &config.filter;
    if let Some(rules) = &filter.rbac.shadow_rules {
        let verdict = judge(rules, downstream);
        let counters = worker.filter_stats.shadow_rbac(&filter.shadow_scope);
        if verdict.is_allowed { &counters.allowed } else { &counters.denied }.inc();
        downstream.dynamic.borrow_mut().note(NAMESPACE, verdict.note);
    }
    let Some(rules) = &filter.rbac.rules else { return Ok(()) };
    let verdict = judge(rules, downstream);
    let counters = worker.filter_stats.rbac(&filter.rules_scope);
    if verdict.is_allowed { &counters.allowed } else { &counters.denied }.inc();
    if let Some(hint) = verdict.log_hint(rules) {
        downstream.dynamic.borrow_mut().merge(SHARED_NAMESPACE, hint);
    }
    if verdict.is_allowed {
        return Ok(());
    }
    if let Some(delay) = config.delay {
        tokio::time::sleep(delay).await;
    }
    Err(Refusal::Policy(verdict.details()))
}

fn judge<'a>(rules: &'a Rules, downstream: &Downstream) -> Verdict<'a> {
    let dynamic = downstream.dynamic.borrow();
    rules.judge(&Facts {
        request: None,
        tls: downstream.tls.as_ref(),
        server_name: downstream.server_name.as_deref(),
        destination: downstream.local,
        source: downstream.remote,
        direct_remote: downstream.direct_remote,
        remote: downstream.remote,
        metadata: dynamic.metadata(),
        filter_state: &|key| dynamic.text(key),
        attributes: None,
    })
}
