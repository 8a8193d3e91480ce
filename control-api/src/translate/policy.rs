//! Which `DestinationRule` is for a service, and what of it is for one port and one subset.

use super::proxy::Proxy;
use super::service::Service;
use crate::model::destination_rules::{Asking, Side};
use crate::model::istio::destination_rule::{DestinationRule, PortTrafficPolicy, TrafficPolicy};
use crate::model::{Found, Mesh};

/// The rule for a service, as this proxy has it when it connects.
pub fn rule<'m>(
    mesh: &'m Mesh,
    proxy: &Proxy,
    service: &Service,
) -> Option<Found<'m, DestinationRule>> {
    of_side(mesh, proxy, service, Side::Client)
}

/// The same where the proxy's own workload is the service.
pub fn own_rule<'m>(
    mesh: &'m Mesh,
    proxy: &Proxy,
    service: &Service,
) -> Option<Found<'m, DestinationRule>> {
    of_side(mesh, proxy, service, Side::Server)
}

fn of_side<'m>(
    mesh: &'m Mesh,
    proxy: &Proxy,
    service: &Service,
    side: Side,
) -> Option<Found<'m, DestinationRule>> {
    let asking = Asking { namespace: &proxy.namespace, labels: &proxy.labels, side };
    let root = &mesh.config.root_namespace;
    mesh.destination_rules().find(&asking, &service.host, service.namespace(), root)?.found()
}

/// What holds for one port: its own settings alone if it has some, nothing of the others.
pub fn for_port(policy: Option<&TrafficPolicy>, port: u32) -> Option<TrafficPolicy> {
    let policy = policy?;
    Some(own_settings(policy, port).map_or_else(|| policy.clone(), port_policy))
}

/// What holds for one port of a subset: the subset's settings, and the rule's where the subset has none.
pub fn for_subset(
    rule: Option<TrafficPolicy>,
    subset: Option<&TrafficPolicy>,
    port: u32,
) -> Option<TrafficPolicy> {
    let Some(over) = for_port(subset, port) else { return rule };
    let Some(mut under) = rule else { return Some(over) };
    if subset.is_some_and(|it| own_settings(it, port).is_some()) {
        under.load_balancer = None;
        under.connection_pool = None;
        under.outlier_detection = None;
        under.tls = None;
    }
    Some(TrafficPolicy {
        load_balancer: over.load_balancer.or(under.load_balancer),
        connection_pool: over.connection_pool.or(under.connection_pool),
        outlier_detection: over.outlier_detection.or(under.outlier_detection),
        tls: over.tls.or(under.tls),
        port_level_settings: Vec::new(),
        tunnel: over.tunnel.or(under.tunnel),
        proxy_protocol: over.proxy_protocol.or(under.proxy_protocol),
        retry_budget: over.retry_budget.or(under.retry_budget),
    })
}

fn own_settings(policy: &TrafficPolicy, port: u32) -> Option<&PortTrafficPolicy> {
    policy
        .port_level_settings
        .iter()
        .find(|settings| settings.port.as_ref().is_some_and(|it| it.number == port))
}

fn port_policy(settings: &PortTrafficPolicy) -> TrafficPolicy {
    TrafficPolicy {
        load_balancer: settings.load_balancer.clone(),
        connection_pool: settings.connection_pool.clone(),
        outlier_detection: settings.outlier_detection.clone(),
        tls: settings.tls.clone(),
        ..TrafficPolicy::default()
    }
}
