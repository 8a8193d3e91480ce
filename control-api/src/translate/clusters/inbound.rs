//! Clusters for the proxy's own workload: `inbound|PORT||`, to the port that the workload listens on.

use std::collections::BTreeMap;

use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, LbPolicy};
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::{BindConfig, SocketAddress};

use super::{Draft, passthrough, pool};
use crate::model::Mesh;
use crate::model::istio::destination_rule::TrafficPolicy;
use crate::translate::proxy::Proxy;
use crate::translate::service::{self, Port, Service};
use crate::translate::{endpoints, policy, scope};

/// Connections from this address are not redirected to the proxy again.
const OWN_ADDRESS: &str = "127.0.0.6";

/// The longest time that there is for Istio, so that nothing is ever cleaned up.
const NEVER: prost_types::Duration = prost_types::Duration { seconds: 9_223_372_035, nanos: 0 };

/// One cluster per port, and one for ports that no service tells of. The ports of a `Sidecar`'s `ingress` are not
/// translated yet.
pub(super) fn clusters(mesh: &Mesh, proxy: &Proxy) -> Vec<Cluster> {
    let services = service::all(mesh);
    let mut by_port: BTreeMap<u32, Vec<(&Service<'_>, &Port)>> = BTreeMap::new();
    for service in &services {
        for port in &service.ports {
            for endpoint in endpoints::of(mesh, service, port) {
                if proxy.addresses.contains(&endpoint.address) {
                    by_port.entry(endpoint.port).or_default().push((service, port));
                }
            }
        }
    }
    let ports = by_port.iter().filter_map(|(port, targets)| cluster(mesh, proxy, *port, targets));
    let mut clusters: Vec<_> = ports.collect();
    let mut other = passthrough(mesh, "InboundPassthroughCluster");
    other.upstream_bind_config = Some(from_own_address());
    clusters.push(other);
    clusters
}

fn cluster(
    mesh: &Mesh,
    proxy: &Proxy,
    port: u32,
    targets: &[(&Service<'_>, &Port)],
) -> Option<Cluster> {
    let (service, service_port) = targets.first()?;
    let mut draft = Draft::new(&format!("inbound|{port}||"), mesh, DiscoveryType::OriginalDst);
    draft.cluster.common_lb_config = Some(CommonLbConfig::default());
    draft.cluster.cleanup_interval = Some(NEVER);
    draft.speak(service_port.protocol, proxy.role);
    let same_port = targets.iter().filter(|(_, it)| it.number == service_port.number);
    draft.add_services(same_port.map(|(service, _)| *service));

    let rule = policy::rule(mesh, proxy, service);
    let whole = rule.and_then(|it| it.spec.traffic_policy.as_ref());
    if let Some(rule) = rule.filter(|_| whole.is_some()) {
        draft.add_rule(&rule);
    }
    let mut effective = policy::for_port(whole, service_port.number);
    let own_pool = scope::sidecar(mesh, proxy).and_then(|it| it.inbound_connection_pool.clone());
    if own_pool.is_some() {
        effective.get_or_insert_with(TrafficPolicy::default).connection_pool = own_pool;
    }
    pool::apply(&mut draft, effective.as_ref(), pool::Side::Server);
    draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
    draft.cluster.upstream_bind_config = Some(from_own_address());
    Some(draft.finish())
}

fn from_own_address() -> BindConfig {
    BindConfig {
        source_address: Some(SocketAddress {
            address: OWN_ADDRESS.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        }),
        ..BindConfig::default()
    }
}
