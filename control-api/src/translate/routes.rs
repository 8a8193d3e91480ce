//! Route configurations of sidecars: for each port the services that are reached there by HTTP, each with its names, and
//! what happens to requests for others.

mod action;
mod domains;
mod filters;
mod hash;
mod headers;
mod matching;
mod retry;
pub mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xds::envoy::config::route::v3::route::Action;
use xds::envoy::config::route::v3::route_action::ClusterSpecifier;
use xds::envoy::config::route::v3::{
    Decorator, DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost,
};

use super::clusters::outbound_name;
use super::egress::{Egress, View};
use super::service::{Port, Resolution, Service};
use super::virtual_services::{MESH, Virtual};
use super::{manager, policy};
use crate::model::host;
use crate::model::protocol::Protocol;
pub(super) use domains::shorter;
use route::Context;
pub(super) use route::outbound_cluster;

/// The longest body that a route may answer with.
const MAX_BODY: u32 = 1 << 20;

/// The route configuration of this name, which a listener of the proxy asks for: a port, `HOST:PORT` for a service
/// whose protocol is told from the first bytes, or a path for a Unix socket.
pub fn outbound(view: &View<'_>, name: &str) -> Option<RouteConfiguration> {
    let is_path = name.starts_with("unix://");
    let sniffed = if is_path { None } else { name.rsplit_once(':') };
    let port = match sniffed {
        Some((_, port)) => port.parse().ok()?,
        None if is_path => 0,
        None => name.parse().ok()?,
    };
    let egress = view.egress_of(port, name)?;
    let mut hosts = virtual_hosts(view, egress, port);
    if let Some((host, _)) = sniffed {
        hosts.retain(|it| it.domains.iter().any(|domain| domain == host || domain == name));
        if let [only] = &mut hosts[..] {
            only.domains = vec!["*".to_owned()];
        }
    }
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    if sniffed.is_none() {
        hosts.push(others(view));
    }
    Some(configuration(name, hosts))
}

/// A configuration with Istio's settings.
pub(in crate::translate) fn configuration(
    name: &str,
    virtual_hosts: Vec<VirtualHost>,
) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_BODY),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// Services and other hosts with the same routes at one port.
struct Group {
    port: u32,
    services: Vec<Arc<Service>>,
    hosts: Vec<String>,
    routes: Vec<Route>,
}

fn virtual_hosts(view: &View<'_>, egress: &Egress<'_>, port: u32) -> Vec<VirtualHost> {
    // A proxy for HTTP has all ports.
    let is_http_proxy = egress.protocol() == Some(Protocol::HttpProxy);
    let port = if is_http_proxy { 0 } else { port };
    let services = at_port(&egress.services, port);
    let mut groups = Vec::new();
    for virtual_service in &egress.virtual_services {
        // Hosts that are no services are reached at port 80 alone.
        if port == 80 || names_some(virtual_service, &services) {
            groups.extend(routed(view, egress, virtual_service, &services, port));
        }
    }
    let routed: BTreeSet<String> =
        groups.iter().flat_map(|it| &it.services).map(|it| it.host.clone()).collect();
    for service in services.values().filter(|it| !routed.contains(&it.host)) {
        groups.extend(unrouted(view, service));
    }
    let mut hosts = Hosts::new(view, port, &groups);
    let mut by_port: BTreeMap<u32, Vec<VirtualHost>> = BTreeMap::new();
    for group in groups.into_iter().filter(|group| !group.routes.is_empty()) {
        by_port.entry(group.port).or_default().extend(hosts.of(&group));
    }
    if port != 0 {
        return by_port.remove(&port).unwrap_or_default();
    }
    // Names without port are those of port 80.
    let all = by_port.into_iter().flat_map(|(port, mut hosts)| {
        if port != 80 {
            hosts.iter_mut().for_each(|host| host.domains.retain(|it| it.contains(':')));
            hosts.retain(|host| !host.domains.is_empty());
        }
        hosts
    });
    all.collect()
}

/// The services that have this port, with only this port; 0 for all services and ports.
pub(in crate::translate) fn at_port(
    services: &[Arc<Service>],
    port: u32,
) -> BTreeMap<String, Arc<Service>> {
    let mut found = BTreeMap::new();
    for service in services {
        let mut service = Arc::clone(service);
        if port != 0 && !matches!(&service.ports[..], [only] if only.number == port) {
            let service = Arc::make_mut(&mut service);
            service.ports.retain(|it| it.number == port);
            service.ports.truncate(1);
        }
        if !service.ports.is_empty() {
            found.insert(service.host.clone(), service);
        }
    }
    found
}

fn names_some(virtual_service: &Virtual, services: &BTreeMap<String, Arc<Service>>) -> bool {
    let wild =
        services.range("*".to_owned()..).map(|(it, _)| it).take_while(|it| it.starts_with('*'));
    virtual_service.spec.hosts.iter().any(|wanted| {
        let overlaps = |it: &String| host::overlap(wanted, it);
        let is_wild = wanted.starts_with('*');
        services.contains_key(wanted)
            || wild.clone().any(overlaps)
            || (is_wild && services.keys().any(overlaps))
    })
}

/// One group per port of the services that a virtual service routes.
fn routed(
    view: &View<'_>,
    egress: &Egress<'_>,
    virtual_service: &Virtual,
    services: &BTreeMap<String, Arc<Service>>,
    port: u32,
) -> Vec<Group> {
    let gateways = [MESH.to_owned()];
    let context = Context { view, services, gateways: &gateways, port, tls: false };
    let routes = route::routes(&context, virtual_service);
    if routes.is_empty() {
        return Vec::new();
    }
    let (hosts, services) = named(egress, virtual_service, services);
    // The Gateway API's are for whoever asks the namespace's services, or is of it.
    if virtual_service.of_gateway_api
        && view.proxy.namespace != virtual_service.namespace()
        && services.iter().all(|it| it.namespace() != virtual_service.namespace())
    {
        return Vec::new();
    }
    let mut by_port: BTreeMap<u32, Vec<Arc<Service>>> = BTreeMap::new();
    for service in services {
        for port in service.ports.iter().filter(|it| is_http_or_unknown(it)) {
            by_port.entry(port.number).or_default().push(Arc::clone(service));
        }
    }
    if by_port.is_empty() && port == 80 {
        by_port.insert(80, Vec::new());
    }
    let group =
        |(port, services)| Group { port, services, hosts: hosts.clone(), routes: routes.clone() };
    by_port.into_iter().map(group).collect()
}

/// The hosts of a virtual service that are no services, and those that are. A wildcard stands for the services that no
/// other virtual service names more closely.
fn named<'s>(
    egress: &Egress<'_>,
    virtual_service: &Virtual,
    services: &'s BTreeMap<String, Arc<Service>>,
) -> (Vec<String>, Vec<&'s Arc<Service>>) {
    let (mut hosts, mut found) = (Vec::new(), Vec::new());
    let (wild, exact): (Vec<&String>, Vec<&String>) =
        virtual_service.spec.hosts.iter().partition(|it| it.starts_with('*'));
    for name in exact {
        match services.get(name) {
            Some(service) => found.push(service),
            None => hosts.push(name.clone()),
        }
    }
    for name in wild {
        let mut any = false;
        for service in services.values().filter(|it| host::overlap(&it.host, name)) {
            any = true;
            if closest(egress, &service.host).is_some_and(|it| same(it, virtual_service)) {
                found.push(service);
            }
        }
        if !any {
            hosts.push(name.clone());
        }
    }
    (hosts, found)
}

fn same(one: &Virtual, other: &Virtual) -> bool {
    one.name() == other.name() && one.namespace() == other.namespace()
}

/// The virtual service that names a service most closely; of equal ones the first.
fn closest<'e>(egress: &'e Egress<'_>, service: &str) -> Option<&'e Virtual> {
    let fitting = egress.virtual_services.iter().flat_map(|it| {
        let names = it.spec.hosts.iter().filter(|name| host::covers(name, service));
        names.map(move |name| ((!name.starts_with('*'), name.len()), it))
    });
    let best = fitting.reduce(|best, it| if it.0 > best.0 { it } else { best });
    best.map(|(_, it)| &**it)
}

fn is_http_or_unknown(port: &Port) -> bool {
    port.protocol.is_http() || port.protocol == Protocol::Unknown
}

/// A service that no virtual service routes.
fn unrouted(view: &View<'_>, service: &Arc<Service>) -> Vec<Group> {
    if service.resolution == Resolution::Alias {
        return Vec::new();
    }
    let rule = policy::rule(view.mesh, view.proxy, service);
    let ports = service.ports.iter().filter(|it| is_http_or_unknown(it));
    let group = |port: &Port| {
        let cluster = outbound_name(port.number, "", &service.host);
        let mut route = default_route(&cluster, &format!("{}:{}/*", service.host, port.number));
        let hash = rule.and_then(|rule| hash::for_port(rule.spec, port.number));
        if let (Some(Action::Route(action)), Some(hash)) = (&mut route.action, hash) {
            action.hash_policy.extend(hash::policy(hash));
        }
        let services = vec![Arc::clone(service)];
        Group { port: port.number, services, hosts: Vec::new(), routes: vec![route] }
    };
    ports.map(group).collect()
}

/// Everything to one cluster.
pub(in crate::translate) fn default_route(cluster: &str, operation: &str) -> Route {
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        retry_policy: retry::policy(None, false),
        ..RouteAction::default()
    };
    action::set_timeout(&mut action, None);
    Route {
        name: "default".to_owned(),
        r#match: Some(matching::everything()),
        decorator: Some(Decorator { operation: operation.to_owned(), propagate: None }),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

/// Whether a route takes every request that comes to it.
pub(super) fn is_for_all(route: &Route) -> bool {
    route.r#match.as_ref().is_some_and(matching::is_everything)
}

/// What happens to requests for hosts that nobody told of.
fn others(view: &View<'_>) -> VirtualHost {
    let (name, action) = match view.other_hosts() {
        Some(cluster) => {
            let mut action = RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
                ..RouteAction::default()
            };
            action::set_timeout(&mut action, None);
            action.append_x_forwarded_host = manager::tells_host(&view.settings);
            ("allow_any", Action::Route(action))
        }
        None => {
            ("block_all", Action::DirectResponse(DirectResponseAction { status: 502, body: None }))
        }
    };
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            r#match: Some(matching::everything()),
            action: Some(action),
            ..Route::default()
        }],
        include_request_attempt_count: manager::counts_attempts(&view.settings),
        ..VirtualHost::default()
    }
}

/// Makes virtual hosts, each name and each domain once.
struct Hosts<'a, 'm> {
    view: &'a View<'m>,
    port: u32,
    full_names: BTreeSet<String>,
    names: BTreeSet<String>,
    domains: BTreeSet<String>,
}

impl<'a, 'm> Hosts<'a, 'm> {
    fn new(view: &'a View<'m>, port: u32, groups: &[Group]) -> Self {
        let mut full_names = BTreeSet::new();
        for group in groups {
            for service in &group.services {
                full_names.insert(service.host.clone());
                full_names.insert(format!("{}:{}", service.host, group.port));
            }
        }
        let (names, domains) = (BTreeSet::new(), BTreeSet::new());
        Self { view, port, full_names, names, domains }
    }

    fn of(&mut self, group: &Group) -> Vec<VirtualHost> {
        let mut hosts = Vec::new();
        let other = group.hosts.iter().map(|host| (host, None));
        let services = group.services.iter().map(|it| (&it.host, Some(&**it)));
        for (host, service) in other.chain(services) {
            let name = format!("{host}:{}", group.port);
            if !self.names.insert(name.clone()) {
                continue;
            }
            let domains = self.new_domains(host, service, group.port);
            if !domains.is_empty() {
                hosts.push(VirtualHost {
                    name,
                    domains,
                    routes: group.routes.clone(),
                    include_request_attempt_count: manager::counts_attempts(&self.view.settings),
                    ..VirtualHost::default()
                });
            }
        }
        hosts
    }

    fn new_domains(&mut self, host: &str, service: Option<&Service>, port: u32) -> Vec<String> {
        let Some(service) = service else {
            let host = host.to_owned();
            return if self.domains.insert(host.clone()) { vec![host] } else { Vec::new() };
        };
        let with_port = (self.port == 0).then_some(port);
        let mut domains = domains::of(service, self.view.proxy, with_port);
        domains.retain(|it| {
            let taken = it.is_short && self.full_names.contains(&it.name);
            !taken && self.domains.insert(it.name.to_ascii_lowercase())
        });
        domains.into_iter().map(|it| it.name).collect()
    }
}
