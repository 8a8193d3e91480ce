//! The virtual hosts of a gateway: for each host that a server has in common with a virtual service, its routes.

use std::collections::BTreeMap;

use xds::envoy::config::route::v3::virtual_host::TlsRequirementType;
use xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

use super::servers::{Port, Served};
use crate::model::host;
use crate::translate::egress::View;
use crate::translate::manager;
use crate::translate::routes::route::{self, Context};
use crate::translate::routes::{at_port, configuration, is_for_all};
use crate::translate::virtual_services::Virtual;

/// The route configurations that the servers name.
pub(super) fn configurations(view: &View<'_>, ports: &[Port<'_>]) -> Vec<RouteConfiguration> {
    let mut by_name: BTreeMap<&str, Vec<&Served<'_>>> = BTreeMap::new();
    for server in ports.iter().flat_map(|it| &it.servers).filter(|it| !it.routes.is_empty()) {
        by_name.entry(&server.routes).or_default().push(server);
    }
    by_name.into_iter().map(|(name, servers)| configuration(name, of(view, &servers))).collect()
}

fn of(view: &View<'_>, servers: &[&Served<'_>]) -> Vec<VirtualHost> {
    let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
    // Routes are made once for each gateway and virtual service, for the first port.
    let mut made: BTreeMap<(&str, &str, &str), Vec<Route>> = BTreeMap::new();
    for server in servers {
        let virtual_services = view.virtual_services().filter(|it| it.is_for(&server.gateway));
        for virtual_service in virtual_services {
            let common = in_common(server, virtual_service);
            if common.is_empty() {
                continue;
            }
            let key = (&*server.gateway, virtual_service.namespace(), virtual_service.name());
            let routes = made.entry(key).or_insert_with(|| routes(view, server, virtual_service));
            for name in common.into_iter().filter(|_| !routes.is_empty()) {
                let host =
                    hosts.entry(name.clone()).or_insert_with(|| new(view, &name, server.number));
                host.routes.extend(routes.iter().cloned());
            }
        }
        let redirects = server.tls().is_some_and(|it| it.https_redirect);
        for name in server.server_names().into_iter().filter(|_| redirects) {
            let host = hosts.entry(name.clone()).or_insert_with(|| new(view, &name, server.number));
            host.require_tls = TlsRequirementType::All.into();
        }
    }
    if hosts.is_empty() {
        let number = servers.first().map_or(0, |it| it.number);
        return vec![VirtualHost {
            name: format!("blackhole:{number}"),
            domains: vec!["*".to_owned()],
            ..VirtualHost::default()
        }];
    }
    let mut hosts = collapsed(hosts);
    for host in &mut hosts {
        // What takes everything would hide what comes after it.
        host.routes.sort_by_key(is_for_all);
    }
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    hosts
}

fn new(view: &View<'_>, name: &str, number: u32) -> VirtualHost {
    VirtualHost {
        name: format!("{name}:{number}"),
        domains: vec![name.to_owned()],
        include_request_attempt_count: manager::counts_attempts(&view.settings),
        ..VirtualHost::default()
    }
}

fn routes(view: &View<'_>, server: &Served<'_>, virtual_service: &Virtual) -> Vec<Route> {
    let gateways = [server.gateway.clone()];
    let services = at_port(&view.services, 0);
    let (port, tls) = (server.number, server.tls().is_some());
    let context = Context { view, services: &services, gateways: &gateways, port, tls };
    route::routes(&context, virtual_service)
}

/// The hosts that a server and a virtual service have in common: of a wildcard and a name, the name.
pub(super) fn in_common(server: &Served<'_>, virtual_service: &Virtual) -> Vec<String> {
    let mut common: Vec<String> = Vec::new();
    for served in &server.hosts {
        let served = match served.split_once('/') {
            // Whom a listener takes routes of is settled when they are attached.
            Some((_, name)) if virtual_service.of_gateway_api => name,
            Some((namespace, _)) if namespace != virtual_service.namespace() => continue,
            Some((_, name)) => name,
            None => served,
        };
        for wanted in &virtual_service.spec.hosts {
            let narrower = if host::covers(wanted, served) {
                served
            } else if host::covers(served, wanted) {
                wanted
            } else {
                continue;
            };
            if !common.iter().any(|it| it == narrower) {
                common.push(narrower.to_owned());
            }
        }
    }
    common
}

/// Hosts with the same routes become one, called by the one that is named most closely.
fn collapsed(hosts: BTreeMap<String, VirtualHost>) -> Vec<VirtualHost> {
    let mut all: Vec<_> = hosts.into_iter().collect();
    all.sort_by_key(|(name, _)| {
        (name.starts_with('*'), std::cmp::Reverse(name.len()), name.clone())
    });
    let mut collapsed: Vec<VirtualHost> = Vec::new();
    for (_, host) in all {
        let same =
            |it: &&mut VirtualHost| it.require_tls == host.require_tls && it.routes == host.routes;
        match collapsed.iter_mut().find(same) {
            Some(known) => known.domains.extend(host.domains),
            None => collapsed.push(host),
        }
    }
    collapsed
}
