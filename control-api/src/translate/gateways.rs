//! What a gateway serves: the servers of all `Gateway`s that select its workload, by port, and the routes behind them.

mod chains;
mod hosts;
mod servers;
mod tls;

use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::{Listener, ListenerFilter};
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use super::egress::View;
use super::listeners::{ACCEPTED_AT_ONCE, Content, HELLO, http, inspector};
use super::{manager, telemetry, values};
use servers::Port;

/// The listeners of a gateway, and their routes.
pub fn served(view: &View<'_>) -> (Vec<Listener>, Vec<RouteConfiguration>) {
    let ports = servers::ports(view);
    let routes = hosts::configurations(view, &ports);
    let listeners = ports.iter().filter_map(|port| listener(view, port)).collect();
    (listeners, routes)
}

/// None for a port without anything behind it.
fn listener(view: &View<'_>, port: &Port<'_>) -> Option<Listener> {
    let chains = chains::of(view, port);
    if chains.is_empty() {
        return None;
    }
    let name = format!("{}_{}", port.bind, port.number);
    let by_name = chains
        .iter()
        .any(|(chain, _)| !chain.server_names.is_empty() || chain.transport_socket.is_some());
    let finish = |(mut chain, stat_prefix): (super::listeners::Chain, String)| {
        let filters = match std::mem::take(&mut chain.content) {
            Content::Tcp(filters) => filters,
            Content::Http(routes) => {
                let own = format!("outbound_{name};");
                let prefix = if stat_prefix.is_empty() { own } else { stat_prefix };
                vec![http::gateway(view, &prefix, &routes)]
            }
        };
        chain.finish(filters)
    };
    Some(Listener {
        address: Some(values::address(&port.bind, port.number)),
        listener_filters: manager::proxy_protocol(&view.settings)
            .into_iter()
            .chain(by_name.then(tls_inspector))
            .collect(),
        filter_chains: chains.into_iter().map(finish).collect(),
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: telemetry::listener_access_logs(view.mesh, view.proxy, view.class()),
        max_connections_to_accept_per_socket_event: Some(ACCEPTED_AT_ONCE),
        name: name.clone(),
        ..Listener::default()
    })
}

fn tls_inspector() -> ListenerFilter {
    let config = TlsInspector { initial_read_buffer_size: Some(HELLO) };
    inspector("envoy.filters.listener.tls_inspector", &config)
}

#[cfg(test)]
mod tests;
