//! What a sidecar listens to for its workload: `virtualInbound`, with filter chains for each port of the workload and
//! for all others, and listeners of their own where connections are not redirected.

mod chain;
mod http;

use std::collections::BTreeMap;

use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::{Address, SocketAddress, TrafficDirection};
use xds::envoy::config::listener::v3::listener_filter::ConfigType;
use xds::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use xds::envoy::config::listener::v3::{
    FilterChain, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
};
use xds::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use xds::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use xds::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use xds::envoy::r#type::v3::Int32Range;

use super::index::Index;
use super::proxy::{Interception, Proxy, Role};
use super::service::{Port, Service};
use super::telemetry::{self, Class};
use super::{peer, scope, values};
use crate::model::istio::sidecar::{CaptureMode, IstioIngressListener};
use crate::model::protocol::Protocol;
use chain::{Chain, Context};

/// Where redirected connections to a workload arrive.
const PORT: u32 = 15006;
/// Connections from a workload's own address have this mark, so that they are not redirected again.
const MARK: u32 = 1337;

/// The inbound listeners of a sidecar; none for a gateway.
pub fn listeners(mesh: &Index, proxy: &Proxy) -> Vec<Listener> {
    if proxy.role != Role::Sidecar {
        return Vec::new();
    }
    let context = Context::new(mesh, proxy, peer::Demand::of(mesh, proxy));
    let chains = chains(mesh, proxy);
    let mut virtual_chains = context.of_others(&chains);
    let mut listeners = Vec::new();
    for chain in &chains {
        let filter_chains = context.filter_chains(chain);
        if chain.binds {
            let name = chain.listener_name();
            listeners.push(listener(&context, name, &chain.bind, chain.target, filter_chains));
        } else {
            virtual_chains.extend(filter_chains);
        }
    }
    if proxy.interception != Interception::None {
        let name = "virtualInbound".to_owned();
        let all = any_address(proxy);
        listeners.insert(0, listener(&context, name, all, PORT, virtual_chains));
    }
    listeners
}

/// The address that stands for all of the proxy's addresses.
fn any_address(proxy: &Proxy) -> &'static str {
    if proxy.is_ipv6_only() { "::" } else { "0.0.0.0" }
}

/// A chain for each port of the workload: those of its `Sidecar`, else those of the services it stands behind.
fn chains(mesh: &Index, proxy: &Proxy) -> Vec<Chain> {
    let sidecar = scope::sidecar_object(mesh, proxy);
    if let Some(found) = sidecar.filter(|it| !it.spec.ingress.is_empty()) {
        let mut by_port = BTreeMap::new();
        for listener in &found.spec.ingress {
            let chain = of_ingress(proxy, listener, found.namespace(), found.name());
            if let Some(chain) = chain {
                by_port.entry(chain.target).or_insert(chain);
            }
        }
        return by_port.into_values().collect();
    }
    if proxy.interception == Interception::None {
        // The workload listens on these ports itself.
        return Vec::new();
    }
    targets(mesh, proxy)
        .into_iter()
        .filter_map(|(target, of)| {
            let (service, port) = of.first()?;
            Some(Chain {
                target,
                number: port.number,
                protocol: port.protocol,
                host: service.host.clone(),
                bind: any_address(proxy).to_owned(),
                binds: false,
                tls: None,
                config: None,
            })
        })
        .collect()
}

/// The ports that services know a workload by, by the workload's own port; the oldest service first.
pub(super) fn targets<'m>(
    mesh: &'m Index,
    proxy: &Proxy,
) -> BTreeMap<u32, Vec<(&'m Service, &'m Port)>> {
    let mut by_port = mesh.targets(&proxy.addresses);
    for targets in by_port.values_mut() {
        targets.sort_by_key(|(service, _)| service.object.metadata.creation_timestamp.clone());
    }
    by_port
}

fn of_ingress(
    proxy: &Proxy,
    listener: &IstioIngressListener,
    namespace: &str,
    name: &str,
) -> Option<Chain> {
    let port = listener.port.as_ref()?;
    let bind = if listener.bind.is_empty() { proxy.addresses.first()? } else { &listener.bind };
    let binds = match listener.capture_mode {
        CaptureMode::Default => proxy.interception == Interception::None,
        CaptureMode::Iptables => false,
        CaptureMode::None => true,
    };
    Some(Chain {
        target: port.number,
        number: port.number,
        protocol: Protocol::named(&port.protocol.to_ascii_lowercase()),
        host: format!("{name}.{namespace}"),
        bind: bind.clone(),
        binds,
        tls: listener.tls.clone(),
        config: Some(format!("/apis/networking.istio.io/v1/namespaces/{namespace}/sidecar/{name}")),
    })
}

fn listener(
    context: &Context<'_>,
    name: String,
    bind: &str,
    port: u32,
    filter_chains: Vec<FilterChain>,
) -> Listener {
    let (mesh, proxy) = (context.mesh, context.proxy);
    let redirected = port == PORT && name == "virtualInbound";
    let transparent = redirected && proxy.interception == Interception::Tproxy;
    let address = SocketAddress {
        address: bind.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Listener {
        name,
        address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
        listener_filters: inspectors(&filter_chains, redirected, transparent),
        filter_chains,
        listener_filters_timeout: Some(values::duration(mesh.config.protocol_detection_timeout)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Inbound.into(),
        transparent: transparent.then_some(true),
        access_log: telemetry::listener_access_logs(mesh, proxy, Class::Inbound),
        max_connections_to_accept_per_socket_event: Some(1),
        ..Listener::default()
    }
}

/// The listener filters: where a connection was going, and what its first bytes tell, on ports whose chains ask for it.
fn inspectors(chains: &[FilterChain], redirected: bool, transparent: bool) -> Vec<ListenerFilter> {
    let mut filters = Vec::new();
    if redirected {
        filters.push(filter("envoy.filters.listener.original_dst", &OriginalDst {}));
    }
    if transparent {
        let original_src = OriginalSrc { mark: MARK, ..OriginalSrc::default() };
        filters.push(filter("envoy.filters.listener.original_src", &original_src));
    }
    // By port, 0 for all others: whether TLS and HTTP are looked for.
    let mut wanted: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for matched in chains.iter().filter_map(|it| it.filter_chain_match.as_ref()) {
        let http = |it: &String| it == "http/1.1" || it == "h2c";
        let of_port = wanted.entry(matched.destination_port.unwrap_or(0)).or_default();
        of_port.0 |= matched.transport_protocol == "tls";
        of_port.1 |= matched.application_protocols.iter().any(http);
    }
    if wanted.values().any(|(tls, _)| *tls) {
        let inspector = TlsInspector { initial_read_buffer_size: Some(512) };
        let mut filter = filter("envoy.filters.listener.tls_inspector", &inspector);
        let by_default = wanted.get(&0).is_some_and(|(tls, _)| *tls);
        let others = wanted.iter().filter(|(port, (tls, _))| **port != 0 && *tls != by_default);
        let others = ports(others.map(|(port, _)| *port));
        filter.filter_disabled = others.map(|it| if by_default { it } else { not(it) });
        filters.push(filter);
    }
    if wanted.values().any(|(_, http)| *http) {
        let mut filter = filter("envoy.filters.listener.http_inspector", &HttpInspector {});
        let without = wanted.iter().filter(|(_, (_, http))| !*http).map(|(port, _)| *port);
        filter.filter_disabled = ports(without);
        filters.push(filter);
    }
    filters
}

fn filter<M: prost::Message + prost::Name>(name: &str, message: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(values::any(message))),
        ..ListenerFilter::default()
    }
}

/// A connection to one of the ports; none if there are none.
fn ports(ports: impl Iterator<Item = u32>) -> Option<ListenerFilterChainMatchPredicate> {
    let predicate = |rule| ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let range = |port: u32| {
        let start = port.cast_signed();
        predicate(Rule::DestinationPortRange(Int32Range { start, end: start.saturating_add(1) }))
    };
    let mut rules: Vec<_> = ports.map(range).collect();
    match rules.len() {
        0 | 1 => rules.pop(),
        _ => Some(predicate(Rule::OrMatch(MatchSet { rules }))),
    }
}

fn not(predicate: ListenerFilterChainMatchPredicate) -> ListenerFilterChainMatchPredicate {
    ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(predicate))) }
}
