//! Which `DestinationRule` is for a service, and what of it is for one port and one subset.

use super::proxy::Proxy;
use super::service::Service;
use crate::model::host;
use crate::model::istio::destination_rule::{DestinationRule, PortTrafficPolicy, TrafficPolicy};
use crate::model::visibility::Visibility;
use crate::model::workloads::selects;
use crate::model::{Found, Mesh};

/// The rule for a service, as this proxy has it: one of the proxy's namespace, else of the service's, else of the root
/// namespace; in a namespace the one with the most specific host, and one that selects the proxy before others.
pub fn rule<'m>(
    mesh: &'m Mesh,
    proxy: &Proxy,
    service: &Service<'_>,
) -> Option<Found<'m, DestinationRule>> {
    let root = mesh.config.root_namespace.as_str();
    let own = (proxy.namespace != root).then_some(proxy.namespace.as_str());
    let namespaces = own.into_iter().chain([service.namespace(), root]);
    namespaces.into_iter().find_map(|namespace| in_namespace(mesh, proxy, &service.host, namespace))
}

fn in_namespace<'m>(
    mesh: &'m Mesh,
    proxy: &Proxy,
    name: &str,
    namespace: &str,
) -> Option<Found<'m, DestinationRule>> {
    let default = &mesh.config.default_destination_rule_export_to;
    mesh.all::<DestinationRule>()
        .filter(|rule| rule.namespace() == namespace)
        .filter(|rule| host::covers(&host::qualified(&rule.spec.host, namespace), name))
        .filter(|rule| match &rule.spec.workload_selector {
            None => true,
            Some(selector) => {
                namespace == proxy.namespace && selects(&selector.match_labels, &proxy.labels)
            }
        })
        .filter(|rule| {
            Visibility::of(&rule.spec.export_to, namespace, default).sees(&proxy.namespace)
        })
        // Of equal ones the first counts.
        .reduce(|best, rule| if precedence(&rule) > precedence(&best) { rule } else { best })
}

/// A name goes before a wildcard, a long wildcard before a short one.
fn precedence(rule: &Found<'_, DestinationRule>) -> (bool, usize, bool) {
    let host = host::qualified(&rule.spec.host, rule.namespace());
    (!host.starts_with('*'), host.len(), rule.spec.workload_selector.is_some())
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
