//! Which services a proxy is told of: those it may see, and of these what its `Sidecar` asks for.

use std::collections::BTreeMap;

use super::proxy::{Proxy, Role};
use super::service::{self, Service};
use crate::model::host;
use crate::model::istio::sidecar::Sidecar;
use crate::model::workloads::selects;
use crate::model::{Found, Mesh};

/// The services that a proxy is told of, by host and port numbers.
pub fn services<'m>(mesh: &'m Mesh, proxy: &Proxy) -> Vec<Service<'m>> {
    let visible = by_host(mesh, proxy).into_values();
    match sidecar(mesh, proxy).filter(|sidecar| !sidecar.egress.is_empty()) {
        None => visible.collect(),
        Some(sidecar) => visible.filter_map(|it| asked_for(sidecar, it, proxy)).collect(),
    }
}

/// The services that a proxy may see, the oldest first, with their aliases.
pub fn visible<'m>(mesh: &'m Mesh, proxy: &Proxy) -> Vec<Service<'m>> {
    let mut by_host = by_host(mesh, proxy);
    let aliases: Vec<_> =
        by_host.values().filter_map(|it| Some((it.alias_of.clone()?, it.host.clone()))).collect();
    for (host, alias) in aliases {
        if let Some(service) = by_host.get_mut(&host) {
            service.aliases.push(alias);
        }
    }
    let mut services: Vec<_> = by_host.into_values().collect();
    services.sort_by_cached_key(|it| {
        let age = it.object.metadata.creation_timestamp.clone().unwrap_or_default();
        (age, it.name.clone(), it.namespace().to_owned())
    });
    services
}

fn by_host<'m>(mesh: &'m Mesh, proxy: &Proxy) -> BTreeMap<String, Service<'m>> {
    let mut by_host: BTreeMap<String, Service<'m>> = BTreeMap::new();
    for service in service::all(mesh) {
        if !service.visibility.sees(&proxy.namespace) {
            continue;
        }
        // A name that several namespaces give belongs to the proxy's own one.
        let known = by_host.get(&service.host);
        if known.is_none_or(|it| {
            it.namespace() != proxy.namespace && service.namespace() == proxy.namespace
        }) {
            by_host.insert(service.host.clone(), service);
        }
    }
    by_host
}

/// The `Sidecar` of a proxy: the one that selects its workload, else its namespace's, else the root namespace's.
pub fn sidecar<'m>(mesh: &'m Mesh, proxy: &Proxy) -> Option<&'m Sidecar> {
    sidecar_object(mesh, proxy).map(|it| it.spec)
}

/// The same, with its name and where it stands.
pub fn sidecar_object<'m>(mesh: &'m Mesh, proxy: &Proxy) -> Option<Found<'m, Sidecar>> {
    if proxy.role != Role::Sidecar {
        return None;
    }
    let own = || of_namespace(mesh, &proxy.namespace);
    let selected = own().find(|it| {
        let selector = it.spec.workload_selector.as_ref();
        selector.is_some_and(|it| selects(&it.labels, &proxy.labels))
    });
    let for_all = |it: &Found<'_, Sidecar>| it.spec.workload_selector.is_none();
    selected
        .or_else(|| own().find(for_all))
        .or_else(|| of_namespace(mesh, &mesh.config.root_namespace).find(for_all))
}

fn of_namespace<'m>(mesh: &'m Mesh, namespace: &str) -> impl Iterator<Item = Found<'m, Sidecar>> {
    mesh.all::<Sidecar>().filter(move |it| it.namespace() == namespace)
}

/// The service with the ports that some egress listener asks for; none if none does.
fn asked_for<'m>(
    sidecar: &Sidecar,
    mut service: Service<'m>,
    proxy: &Proxy,
) -> Option<Service<'m>> {
    let mut listeners = sidecar
        .egress
        .iter()
        .filter(|listener| {
            listener.hosts.iter().any(|it| names(it, service.namespace(), &service.host, proxy))
        })
        .peekable();
    listeners.peek()?;
    let ports: Vec<u32> =
        listeners.map(|it| it.port.as_ref().map_or(0, |port| port.number)).collect();
    if !ports.contains(&0) {
        service.ports.retain(|port| ports.contains(&port.number));
    }
    (!service.ports.is_empty()).then_some(service)
}

/// Whether `NAMESPACE/HOST` names this host of a namespace.
pub(super) fn names(pattern: &str, its_namespace: &str, host: &str, proxy: &Proxy) -> bool {
    let (namespace, name) = pattern.split_once('/').unwrap_or(("*", pattern));
    let namespace_fits = match namespace {
        "*" => true,
        "." => its_namespace == proxy.namespace,
        "~" => false,
        namespace => its_namespace == namespace,
    };
    namespace_fits && host::covers(name, host)
}
