//! Listeners of sidecars for what their workloads connect to: one per port for HTTP, where requests tell services
//! apart, one per address and port for everything else, and one that all connections come to.

mod chain;
pub(super) mod http;
mod outbound;
pub(super) mod tcp;

use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use super::egress::View;
use super::proxy::{Interception, OUTBOUND_PORT};
use super::{telemetry, values};
pub(super) use chain::{Chain, Content};
use outbound::Entry;
pub(super) use outbound::{HELLO, inspector};

/// What one connection to be accepted costs is little against the harm of a worker that takes all of them.
pub(super) const ACCEPTED_AT_ONCE: u32 = 1;

/// The outbound listeners, and the names of the route configurations that they ask for.
pub fn outbound(view: &View<'_>) -> (Vec<Listener>, Vec<String>) {
    let entries = outbound::entries(view);
    let mut routes: Vec<String> = entries.iter().flat_map(Entry::route_names).collect();
    routes.sort();
    routes.dedup();
    let mut listeners: Vec<_> = entries.into_iter().map(|it| it.finish(view)).collect();
    listeners.extend(virtual_outbound(view));
    (listeners, routes)
}

/// Where all connections come to that the workload makes, to be handed to the listener of the address that was meant.
/// What is meant for no listener goes where the client wanted, or nowhere.
fn virtual_outbound(view: &View<'_>) -> Option<Listener> {
    if view.proxy.interception == Interception::None {
        return None;
    }
    // A connection to this very port would come here again.
    let black_hole = FilterChain {
        name: "virtualOutbound-blackhole".to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(OUTBOUND_PORT),
            ..FilterChainMatch::default()
        }),
        filters: tcp::nowhere(view),
        ..FilterChain::default()
    };
    let other = FilterChain {
        name: "virtualOutbound-catchall-tcp".to_owned(),
        filters: tcp::others(view),
        ..FilterChain::default()
    };
    let tproxy = view.proxy.interception == Interception::Tproxy;
    Some(Listener {
        name: "virtualOutbound".to_owned(),
        address: Some(values::address("0.0.0.0", OUTBOUND_PORT)),
        filter_chains: vec![black_hole, other],
        use_original_dst: Some(true),
        transparent: tproxy.then_some(true),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: telemetry::listener_access_logs(view.mesh, view.proxy, view.class()),
        max_connections_to_accept_per_socket_event: Some(ACCEPTED_AT_ONCE),
        ..Listener::default()
    })
}

#[cfg(test)]
mod tests;
