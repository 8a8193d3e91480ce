//! Clusters for the proxy's own workload: `inbound|PORT||`, to the port that the workload listens on.

use std::collections::BTreeMap;

use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, LbPolicy};
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::{BindConfig, SocketAddress};

use super::{Draft, passthrough, pool};
use crate::model::istio::destination_rule::TrafficPolicy;
use crate::model::istio::sidecar::{IstioIngressListener, Sidecar};
use crate::model::protocol::Protocol;
use crate::translate::index::Index;
use crate::translate::proxy::{Interception, Proxy};
use crate::translate::service::{Port, Service};
use crate::translate::{endpoints, inbound, policy, scope};

/// Connections from this address are not redirected to the proxy again.
const OWN_ADDRESS: &str = "127.0.0.6";
const OWN_ADDRESS_V6: &str = "::6";

/// The longest time that there is for Istio, so that nothing is ever cleaned up.
const NEVER: prost_types::Duration = prost_types::Duration { seconds: 9_223_372_035, nanos: 0 };

/// One cluster per port, be it of services or of a `Sidecar`, and one for ports that nothing tells of.
pub(super) fn clusters(mesh: &Index, proxy: &Proxy) -> Vec<Cluster> {
    let targets = inbound::targets(mesh, proxy);
    let sidecar = scope::sidecar(mesh, proxy).filter(|it| !it.ingress.is_empty());
    let mut clusters: Vec<_> = match sidecar {
        Some(sidecar) => {
            let ports = sidecar.ingress.iter();
            ports.filter_map(|it| of_ingress(mesh, proxy, sidecar, it, &targets)).collect()
        }
        None if proxy.interception == Interception::None => Vec::new(),
        None => {
            let ports = targets.iter();
            ports.filter_map(|(port, targets)| cluster(mesh, proxy, *port, targets)).collect()
        }
    };
    let mut other = passthrough(mesh, "InboundPassthroughCluster");
    other.upstream_bind_config = Some(from_own_address(proxy));
    clusters.push(other);
    clusters
}

/// The cluster of a port that a `Sidecar` tells of: to its `defaultEndpoint`, else to where the client connected.
fn of_ingress(
    mesh: &Index,
    proxy: &Proxy,
    sidecar: &Sidecar,
    listener: &IstioIngressListener,
    targets: &BTreeMap<u32, Vec<(&Service, &Port)>>,
) -> Option<Cluster> {
    let port = listener.port.as_ref()?;
    let name = format!("inbound|{}||", port.number);
    let (endpoint, is_own) = match listener.default_endpoint.as_str() {
        "" => (None, false),
        path if path.starts_with("unix://") => (Some((path.to_owned(), 0)), false),
        endpoint => {
            let (host, number) = endpoint.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let first = |ipv6: bool| proxy.addresses.iter().find(|it| it.contains(':') == ipv6);
            let address = match host {
                "0.0.0.0" => first(false).map_or("127.0.0.1", String::as_str),
                "::" => first(true).map_or("::1", String::as_str),
                host => host,
            };
            let is_own = address == "127.0.0.1" || address == "::1";
            (Some((address.to_owned(), number.parse().ok()?)), is_own)
        }
    };
    let kind = if endpoint.is_some() { DiscoveryType::Static } else { DiscoveryType::OriginalDst };
    let mut draft = Draft::new(&name, mesh, kind);
    draft.cluster.common_lb_config = Some(CommonLbConfig::default());
    draft.speak(Protocol::named(&port.protocol.to_ascii_lowercase()), proxy.role);
    let service = targets.get(&port.number).and_then(|it| it.first()).map(|(service, _)| *service);
    draft.add_services(service.into_iter());
    let rule = service.and_then(|it| policy::own_rule(mesh, proxy, it));
    let whole = rule.and_then(|it| it.spec.traffic_policy.as_ref());
    if let Some(rule) = rule.filter(|_| whole.is_some()) {
        draft.add_rule(&rule);
    }
    let mut policy = policy::for_port(whole, port.number);
    let own_pool = listener.connection_pool.as_ref().or(sidecar.inbound_connection_pool.as_ref());
    if let Some(pool) = own_pool {
        policy.get_or_insert_default().connection_pool = Some(pool.clone());
    }
    pool::apply(&mut draft, policy.as_ref(), pool::Side::Server);
    match endpoint {
        Some((address, number)) => {
            draft.cluster.load_assignment = Some(endpoints::only(&name, &address, number));
        }
        None => {
            draft.cluster.cleanup_interval = Some(NEVER);
            draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
        }
    }
    if !is_own {
        draft.cluster.upstream_bind_config = Some(from_own_address(proxy));
    }
    Some(draft.finish())
}

fn cluster(
    mesh: &Index,
    proxy: &Proxy,
    port: u32,
    targets: &[(&Service, &Port)],
) -> Option<Cluster> {
    let (service, service_port) = targets.first()?;
    let mut draft = Draft::new(&format!("inbound|{port}||"), mesh, DiscoveryType::OriginalDst);
    draft.cluster.common_lb_config = Some(CommonLbConfig::default());
    draft.cluster.cleanup_interval = Some(NEVER);
    draft.speak(service_port.protocol, proxy.role);
    let same_port = targets.iter().filter(|(_, it)| it.number == service_port.number);
    draft.add_services(same_port.map(|(service, _)| *service));

    let rule = policy::own_rule(mesh, proxy, service);
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
    draft.cluster.upstream_bind_config = Some(from_own_address(proxy));
    Some(draft.finish())
}

fn from_own_address(proxy: &Proxy) -> BindConfig {
    let address = if proxy.is_ipv6_only() { OWN_ADDRESS_V6 } else { OWN_ADDRESS };
    BindConfig {
        source_address: Some(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..SocketAddress::default()
        }),
        ..BindConfig::default()
    }
}
