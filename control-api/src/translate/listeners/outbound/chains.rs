//! Filter chains of services whose connections are forwarded as they are: by the TLS and TCP routes of virtual services,
//! else straight to the service.

use std::collections::{BTreeMap, BTreeSet};

use xds::envoy::config::core::v3::Metadata;

use super::Wanted;
use crate::model::host;
use crate::model::istio::virtual_service::{L4MatchAttributes, RouteDestination};
use crate::model::workloads::{Labels, selects};
use crate::translate::clusters::outbound_name;
use crate::translate::egress::View;
use crate::translate::listeners::chain::{Chain, Content};
use crate::translate::listeners::tcp;
use crate::translate::policy;
use crate::translate::service::{ANY_ADDRESS, Resolution};
use crate::translate::values;
use crate::translate::virtual_services::{MESH, Virtual};

/// The chains of one port of a service.
pub(super) fn tcp(view: &View<'_>, wanted: &Wanted<'_, '_>, bind: &str) -> Vec<Chain> {
    let virtual_services = wanted.egress.virtual_services.iter().map(|it| &**it).filter(|it| {
        let has_routes = !it.spec.tcp.is_empty() || !it.spec.tls.is_empty();
        has_routes && it.spec.hosts.iter().any(|name| host::overlap(name, &wanted.service.host))
    });
    let virtual_services: Vec<_> = virtual_services.collect();
    let is_tls = wanted.port.protocol.is_tls();
    let (mut chains, all) = if is_tls {
        by_server_name(view, wanted, &virtual_services)
    } else {
        by_address(view, wanted, &virtual_services)
    };
    if !all {
        chains.push(straight(view, wanted, bind));
    }
    chains
}

/// The chains of TLS routes, and whether there are some.
fn by_server_name(
    view: &View<'_>,
    wanted: &Wanted<'_, '_>,
    virtual_services: &[&Virtual],
) -> (Vec<Chain>, bool) {
    let mut handled = BTreeSet::new();
    let mut chains = Vec::new();
    for virtual_service in virtual_services {
        for route in &virtual_service.spec.tls {
            for condition in &route.r#match {
                let source = (&condition.source_labels, condition.source_namespace.as_str());
                if !counts(view, wanted.port.number, condition.port, source, &condition.gateways) {
                    continue;
                }
                // Of several with the same conditions only the first is ever reached.
                if !handled.insert((&condition.sni_hosts, &condition.destination_subnets)) {
                    continue;
                }
                let mut destinations = wanted.ranges.clone();
                if !condition.destination_subnets.is_empty() && wanted.port.number > 0 {
                    destinations.clone_from(&condition.destination_subnets);
                }
                let Some(chain) = routed(view, wanted, &route.route, virtual_service) else {
                    continue;
                };
                let server_names = condition.sni_hosts.clone();
                chains.push(Chain { server_names, destinations, ..chain });
            }
        }
    }
    let some = !chains.is_empty();
    (chains, some)
}

/// The chains of TCP routes, and whether one of them takes everything that is meant for the service.
fn by_address(
    view: &View<'_>,
    wanted: &Wanted<'_, '_>,
    virtual_services: &[&Virtual],
) -> (Vec<Chain>, bool) {
    let mut chains = Vec::new();
    let mut all = false;
    for virtual_service in virtual_services {
        for route in &virtual_service.spec.tcp {
            let Some(chain) = routed(view, wanted, &route.route, virtual_service) else { continue };
            let is_for = |it: &&L4MatchAttributes| {
                let source = (&it.source_labels, it.source_namespace.as_str());
                counts(view, wanted.port.number, it.port, source, &it.gateways)
            };
            let conditions: Vec<_> = route.r#match.iter().filter(is_for).collect();
            let unconditional = |it: &&L4MatchAttributes| it.destination_subnets.is_empty();
            let any = conditions.iter().any(unconditional) || wanted.port.number == 0;
            if route.r#match.is_empty() || (any && !conditions.is_empty()) {
                chains.push(Chain { destinations: wanted.ranges.clone(), ..chain });
                return (chains, true);
            }
            let mut destinations: Vec<String> =
                conditions.iter().flat_map(|it| it.destination_subnets.clone()).collect();
            if destinations.is_empty() {
                continue;
            }
            destinations.sort();
            all |= destinations == wanted.ranges;
            chains.push(Chain { destinations, metadata: None, ..chain });
        }
    }
    (chains, all)
}

fn routed(
    view: &View<'_>,
    wanted: &Wanted<'_, '_>,
    routes: &[RouteDestination],
    virtual_service: &Virtual,
) -> Option<Chain> {
    let name = format!("{}.{}", virtual_service.name(), virtual_service.namespace());
    let filters = tcp::routed(view, routes, wanted.port.number, wanted.port.protocol, &name)?;
    let fields = values::fields([("config", values::text(virtual_service.path()))]);
    let metadata = Metadata { filter_metadata: BTreeMap::from([("istio".to_owned(), fields)]) };
    let (metadata, content) = (Some(metadata), Content::Tcp(filters));
    Some(Chain { metadata, content, ..Chain::default() })
}

/// Whether a condition holds as far as it can be settled before any connection.
fn counts(
    view: &View<'_>,
    number: u32,
    port: u32,
    (labels, namespace): (&Labels, &str),
    gateways: &[String],
) -> bool {
    (port == 0 || port == number)
        && selects(labels, &view.proxy.labels)
        && (namespace.is_empty() || namespace == view.proxy.namespace)
        && (gateways.is_empty() || gateways.iter().any(|it| it == MESH))
}

/// Straight to the service.
fn straight(view: &View<'_>, wanted: &Wanted<'_, '_>, bind: &str) -> Chain {
    let service = wanted.service;
    // A port of a `Sidecar` is for the only port of a service, whatever its number.
    let port = match &service.ports[..] {
        [only] => only.number,
        _ => wanted.port.number,
    };
    let cluster = outbound_name(port, "", &service.host);
    let rule = policy::rule(view.mesh, view.proxy, service).map(|it| it.spec);
    let filters = tcp::single(view, &cluster, "", wanted.port.protocol, rule);
    // An address of its own tells a service apart; else TLS does by the name that is asked for.
    let has_own = service.addresses.iter().any(|it| it != ANY_ADDRESS && !it.contains('/'));
    let is_dynamic = service.resolution == Resolution::DynamicDns && service.host.starts_with('*');
    let by_name = !wanted.ranges.is_empty() || (!has_own && bind == ANY_ADDRESS) || is_dynamic;
    let mut server_names = Vec::new();
    if wanted.port.protocol.is_tls() && by_name {
        server_names.push(service.host.clone());
        for alias in &service.aliases {
            server_names.push(alias.clone());
            server_names.extend(crate::translate::routes::shorter(alias, &view.proxy.domain));
        }
    }
    Chain {
        server_names,
        destinations: wanted.ranges.clone(),
        content: Content::Tcp(filters),
        ..Chain::default()
    }
}
