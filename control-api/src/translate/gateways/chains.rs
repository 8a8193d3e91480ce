//! The filter chains of a gateway's port: one for all requests without TLS, one for each server with it, and one for each
//! route of connections that are forwarded as they are.

use std::collections::BTreeSet;

use super::hosts::in_common;
use super::servers::{Port, Served};
use super::tls;
use crate::model::host;
use crate::model::istio::gateway::TlsMode;
use crate::model::istio::virtual_service::RouteDestination;
use crate::model::protocol::Protocol;
use crate::translate::clusters::outbound_sni;
use crate::translate::egress::View;
use crate::translate::listeners::{Chain, Content, tcp};
use crate::translate::service::Resolution;
use crate::translate::virtual_services::Virtual;
use crate::translate::{policy, security};

/// What clients of the mesh offer: whoever comes by these is let in by a sidecar's own TLS alone.
const MESH_PROTOCOLS: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// The chains, each with the prefix of its statistics; empty for the listener's.
pub(super) fn of(view: &View<'_>, port: &Port<'_>) -> Vec<(Chain, String)> {
    let Some(first) = port.servers.first() else { return Vec::new() };
    if first.protocol.is_http() {
        let content = Content::Http(first.routes.clone());
        return vec![(Chain { content, ..Chain::default() }, String::new())];
    }
    let mut names = BTreeSet::new();
    let mut chains = Vec::new();
    for server in &port.servers {
        if !server.routes.is_empty() {
            let content = Content::Http(server.routes.clone());
            chains.push((terminated(server, content), server.spec.name.clone()));
        } else if server.is_passthrough() {
            let forwarded = forwarded(view, server, &mut names);
            chains.extend(forwarded.into_iter().map(|chain| (chain, String::new())));
        } else if let Some(content) = connections(view, server) {
            chains.push((terminated(server, content), String::new()));
        }
    }
    chains
}

/// A chain whose TLS, if there is some, ends here.
fn terminated(server: &Served<'_>, content: Content) -> Chain {
    let server_names = if server.tls().is_some() { server.server_names() } else { Vec::new() };
    let transport_socket = server.tls().map(tls::socket);
    Chain { server_names, transport_socket, content, ..Chain::default() }
}

/// Where the connections of a server go by the first TCP route for it.
fn connections(view: &View<'_>, server: &Served<'_>) -> Option<Content> {
    let virtual_services = view.virtual_services().filter(|it| it.is_for(&server.gateway));
    let fitting = virtual_services.filter(|it| !in_common(server, it).is_empty());
    for virtual_service in fitting {
        let route = virtual_service.spec.tcp.iter().find(|route| {
            let counts = |(port, gateways): (u32, &[String])| counts(server, port, gateways);
            let mut conditions = route.r#match.iter();
            !route.route.is_empty()
                && (route.r#match.is_empty()
                    || conditions.any(|it| counts((it.port, &it.gateways))))
        });
        if let Some(route) = route {
            return filters(view, server, virtual_service, &route.route);
        }
    }
    None
}

fn counts(server: &Served<'_>, port: u32, gateways: &[String]) -> bool {
    (port == 0 || port == server.number)
        && (gateways.is_empty() || gateways.contains(&server.gateway))
}

fn filters(
    view: &View<'_>,
    server: &Served<'_>,
    virtual_service: &Virtual,
    routes: &[RouteDestination],
) -> Option<Content> {
    let name = format!("{}.{}", virtual_service.name(), virtual_service.namespace());
    let mut filters = security::network_filters(view.mesh, view.proxy);
    filters.extend(tcp::routed(view, routes, server.number, server.protocol, &name)?);
    Some(Content::Tcp(filters))
}

/// Connections by the name that their TLS asks for, each name once.
fn forwarded(view: &View<'_>, server: &Served<'_>, taken: &mut BTreeSet<String>) -> Vec<Chain> {
    if server.tls().is_some_and(|it| it.mode == TlsMode::AutoPassthrough) {
        return by_cluster(view, server);
    }
    let mut chains = Vec::new();
    let virtual_services = view.virtual_services().filter(|it| it.is_for(&server.gateway));
    for virtual_service in virtual_services.filter(|it| !in_common(server, it).is_empty()) {
        for route in &virtual_service.spec.tls {
            for condition in &route.r#match {
                if !counts(server, condition.port, &condition.gateways)
                    || condition.sni_hosts.iter().any(|it| taken.contains(it))
                {
                    continue;
                }
                taken.extend(condition.sni_hosts.iter().cloned());
                let content = filters(view, server, virtual_service, &route.route);
                let server_names = condition.sni_hosts.clone();
                chains.extend(content.map(|content| Chain {
                    server_names,
                    content,
                    ..Chain::default()
                }));
            }
        }
    }
    chains
}

/// To the cluster that TLS asks for by its name, for the mesh's own TLS only: it ends at the workload.
fn by_cluster(view: &View<'_>, server: &Served<'_>) -> Vec<Chain> {
    let names = server.server_names();
    let covered = |it: &str| names.iter().any(|name| host::covers(name, it));
    let mut chains = Vec::new();
    for service in view.services.iter().filter(|it| !it.external && covered(&it.host)) {
        if service.resolution == Resolution::Alias {
            continue;
        }
        let rule = policy::rule(view.mesh, view.proxy, service).map(|it| it.spec);
        let subsets = rule.iter().flat_map(|it| &it.subsets).map(|it| it.name.as_str());
        let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
        for port in service.ports.iter().filter(|it| it.protocol != Protocol::Udp) {
            for subset in &subsets {
                let name = outbound_sni(port.number, subset, &service.host);
                let filters = tcp::forwarded(view, &name, subset, port.protocol, rule);
                chains.push(Chain {
                    server_names: vec![name],
                    application_protocols: MESH_PROTOCOLS.to_vec(),
                    content: Content::Tcp(filters),
                    ..Chain::default()
                });
            }
        }
    }
    chains
}
