//! Virtual services: hosts, ports, subsets and gateways that they name exist.

use std::collections::BTreeSet;

use crate::model::host;
use crate::model::istio::destination_rule::DestinationRule;
use crate::model::istio::gateway::Gateway;
use crate::model::istio::virtual_service::{Destination, VirtualService};
use crate::model::kind::{Kind, Spec};
use crate::model::services::{KnownService, Services};
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

/// A destination and where it stands.
struct Named<'v> {
    path: String,
    /// None if the route names none.
    destination: Option<&'v Destination>,
    /// Whether copies of requests go there, not the requests themselves.
    mirror: bool,
}

fn named<'v>(spec: &'v VirtualService) -> Vec<Named<'v>> {
    let mut found = Vec::new();
    let mut add = |path: String, destination: Option<&'v Destination>, mirror| {
        found.push(Named { path, destination, mirror });
    };
    for (rule, route) in spec.http.iter().enumerate() {
        let path = format!("spec.http[{rule}]");
        for (at, it) in route.route.iter().enumerate() {
            add(format!("{path}.route[{at}].destination"), it.destination.as_ref(), false);
        }
        if route.mirror.is_some() {
            add(format!("{path}.mirror"), route.mirror.as_ref(), true);
        }
        for (at, it) in route.mirrors.iter().enumerate() {
            add(format!("{path}.mirrors[{at}].destination"), it.destination.as_ref(), true);
        }
    }
    let tls = spec.tls.iter().map(|route| &route.route).enumerate().map(|it| ("tls", it));
    let tcp = spec.tcp.iter().map(|route| &route.route).enumerate().map(|it| ("tcp", it));
    for (list, (rule, routes)) in tls.chain(tcp) {
        for (at, it) in routes.iter().enumerate() {
            let path = format!("spec.{list}[{rule}].route[{at}].destination");
            add(path, it.destination.as_ref(), false);
        }
    }
    found
}

pub(super) fn destinations(mesh: &Mesh, findings: &mut Findings) {
    let services = Services::new(mesh);
    for service in mesh.all::<VirtualService>() {
        for named in named(service.spec) {
            destination(service, &named, &services, findings);
        }
        bypassed_subsets(service, mesh, findings);
    }
}

fn destination(
    service: Found<'_, VirtualService>,
    named: &Named<'_>,
    services: &Services,
    findings: &mut Findings,
) {
    let host = named.destination.map_or("", |destination| &destination.host);
    let port = named.destination.and_then(|destination| destination.port.as_ref());
    let Some(found) = visible(service, host, services) else {
        let what = if named.mirror { "mirror host" } else { "host" };
        let message = format!("Referenced {what} not found: {host:?}");
        let path = format!("{}.host", named.path);
        let code = code::REFERENCED_RESOURCE_NOT_FOUND;
        let finding = findings.report(code, service.object, path, message);
        if !host.contains('.') {
            let namespace = service.namespace();
            finding
                .fix(format!("a short name means the namespace {namespace}; name others in full"));
        }
        return;
    };
    match port {
        None if found.ports.len() > 1 => {
            let ports: Vec<_> = found.ports.iter().map(ToString::to_string).collect();
            let message =
                format!("{host} has several ports ({}), and none is named", ports.join(", "));
            let code = code::DESTINATION_PORT_REQUIRED;
            let finding = findings.report(code, service.object, named.path.clone(), message);
            finding.fix("set port.number");
        }
        Some(port) if !found.ports.contains(&port.number) => {
            let message = format!("Referenced host:port not found: \"{host}:{}\"", port.number);
            let path = format!("{}.port.number", named.path);
            findings.report(code::REFERENCED_RESOURCE_NOT_FOUND, service.object, path, message);
        }
        _ => {}
    }
}

/// The service that is meant by `host` where the virtual service counts: where it is exported to.
fn visible<'s>(
    service: Found<'_, VirtualService>,
    host: &str,
    services: &'s Services,
) -> Option<&'s KnownService> {
    let namespace = service.namespace();
    let export_to = &service.spec.export_to;
    if export_to.is_empty() || export_to.iter().any(|name| name == "*") {
        return services.find(host, namespace);
    }
    export_to.iter().find_map(|name| {
        let viewer = if name == "." { namespace } else { name };
        services.find_for(host, namespace, viewer)
    })
}

/// At a gateway, a destination without a subset goes past the rules that another virtual service has for its host
/// inside the mesh.
fn bypassed_subsets(service: Found<'_, VirtualService>, mesh: &Mesh, findings: &mut Findings) {
    if service.spec.gateways.is_empty() {
        return;
    }
    for (rule, route) in service.spec.http.iter().enumerate() {
        for (at, it) in route.route.iter().enumerate() {
            let Some(plain) = it.destination.as_ref().filter(|it| it.subset.is_empty()) else {
                continue;
            };
            for other in mesh.all::<VirtualService>() {
                let routes = other.spec.http.iter().flat_map(|route| &route.route);
                let split = routes.filter_map(|route| route.destination.as_ref()).filter(|split| {
                    !split.subset.is_empty()
                        && split.host == plain.host
                        && other.spec.hosts.contains(&split.host)
                });
                for _ in split {
                    let message = format!(
                        "Requests through the gateway do not follow the subsets that {} has for {}",
                        other.object.full_name(),
                        plain.host
                    );
                    let path = format!("spec.http[{rule}].route[{at}].destination.host");
                    let code = code::INGRESS_ROUTE_NOT_AFFECTED;
                    let finding = findings.report(code, service.object, path, message);
                    finding.fix("name the subset here too");
                }
            }
        }
    }
}

pub(super) fn subsets(mesh: &Mesh, findings: &mut Findings) {
    let mut known = BTreeSet::new();
    for rule in mesh.all::<DestinationRule>() {
        let host = host::qualified(&rule.spec.host, rule.namespace());
        known.extend(rule.spec.subsets.iter().map(|subset| (host.clone(), subset.name.as_str())));
    }
    for service in mesh.all::<VirtualService>() {
        for named in named(service.spec) {
            let Some(Destination { host, subset, .. }) = named.destination else { continue };
            let full = host::qualified(host, service.namespace());
            if subset.is_empty() || known.contains(&(full, subset.as_str())) {
                continue;
            }
            let what = if named.mirror { "mirror" } else { "host" };
            let message = format!(
                "Referenced {what}+subset in destinationrule not found: \"{host}+{subset}\""
            );
            let path = format!("{}.subset", named.path);
            let code = code::REFERENCED_RESOURCE_NOT_FOUND;
            let finding = findings.report(code, service.object, path, message);
            finding.fix(format!("add the subset {subset} to a DestinationRule of the host"));
        }
    }
}

pub(super) fn gateways(mesh: &Mesh, findings: &mut Findings) {
    for service in mesh.all::<VirtualService>() {
        for (index, name) in service.spec.gateways.iter().enumerate() {
            if name == "mesh" {
                continue;
            }
            let path = format!("spec.gateways[{index}]");
            let (namespace, short) = name.split_once('/').unwrap_or((service.namespace(), name));
            // Istio makes these of the Gateway API's.
            if short.contains("istio-autogenerated-k8s-gateway") {
                let message = format!("Gateway {name} is made by Istio, and may change its name");
                findings.report(code::REFERENCED_INTERNAL_GATEWAY, service.object, path, message);
                continue;
            }
            let Some(hosts) = hosts(mesh, namespace, short, service.namespace()) else {
                let message = format!("Referenced gateway not found: {name:?}");
                let code = code::REFERENCED_RESOURCE_NOT_FOUND;
                findings.report(code, service.object, path, message);
                continue;
            };
            let serves = |host: &String| hosts.iter().any(|served| host::overlap(served, host));
            if !service.spec.hosts.iter().any(serves) {
                let message = format!(
                    "None of the hosts {} is served by the gateway {namespace}/{short}",
                    service.spec.hosts.join(", ")
                );
                let code = code::HOST_NOT_FOUND_IN_GATEWAY;
                findings.report(code, service.object, path, message);
            }
        }
    }
}

/// The hosts that a gateway serves for virtual services of `viewer`; none if there is no such gateway.
fn hosts(mesh: &Mesh, namespace: &str, name: &str, viewer: &str) -> Option<Vec<String>> {
    if let Some(gateway) = mesh.get(Kind::Gateway, namespace, name) {
        let Spec::Gateway(gateway) = &gateway.spec else { return None };
        return Some(served(gateway, namespace, viewer));
    }
    let gateway = mesh.get(Kind::KubernetesGateway, namespace, name)?;
    let Spec::KubernetesGateway(gateway) = &gateway.spec else { return None };
    let hostnames = gateway.listeners.iter().map(|listener| listener.hostname.clone());
    Some(hostnames.map(|hostname| hostname.unwrap_or_else(|| "*".into())).collect())
}

fn served(gateway: &Gateway, namespace: &str, viewer: &str) -> Vec<String> {
    let hosts = gateway.servers.iter().flat_map(|server| &server.hosts);
    hosts
        .filter_map(|host| match host.split_once('/') {
            None | Some(("*", _)) => Some(host.rsplit('/').next().unwrap_or(host)),
            Some((".", host)) => (namespace == viewer).then_some(host),
            Some((only, host)) => (only == viewer).then_some(host),
        })
        .map(ToOwned::to_owned)
        .collect()
}
