//! Which services a proxy is told of: those it may see, and of these what its `Sidecar` asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::Index;
use super::proxy::{Proxy, Role};
use super::service::Service;
use crate::model::host;
use crate::model::istio::sidecar::Sidecar;
use crate::model::workloads::selects;
use crate::model::{Found, Mesh};

/// The services that a proxy is told of, by host and port numbers.
pub fn services(index: &Index, proxy: &Proxy) -> Vec<Arc<Service>> {
    let visible = index.services_by_host().filter_map(|same| chosen(same, proxy)).cloned();
    match sidecar(index, proxy).filter(|sidecar| !sidecar.egress.is_empty()) {
        None => visible.collect(),
        Some(sidecar) => visible.filter_map(|it| asked_for(sidecar, it, proxy)).collect(),
    }
}

/// The services that a proxy may see, the oldest first, with their aliases.
pub fn visible(index: &Index, proxy: &Proxy) -> Vec<Arc<Service>> {
    let mut aliases: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for service in index.services_by_host().filter_map(|same| chosen(same, proxy)) {
        if let Some(of) = &service.alias_of {
            aliases.entry(of).or_default().push(&service.host);
        }
    }
    let is_chosen = |service: &&Arc<Service>| {
        let chosen = chosen(index.services_of_host(&service.host), proxy);
        chosen.is_some_and(|it| Arc::ptr_eq(it, service))
    };
    let with_aliases = |service: &Arc<Service>| {
        let mut service = Arc::clone(service);
        if let Some(aliases) = aliases.get(service.host.as_str()) {
            Arc::make_mut(&mut service).aliases.extend(aliases.iter().copied().cloned());
        }
        service
    };
    index.services_by_age().iter().filter(is_chosen).map(with_aliases).collect()
}

/// Which of the services of one name a proxy sees: that of its own namespace before others.
fn chosen<'a>(same: &'a [Arc<Service>], proxy: &Proxy) -> Option<&'a Arc<Service>> {
    let mut visible = same.iter().filter(|it| it.visibility.sees(&proxy.namespace)).peekable();
    let first = visible.peek().copied();
    visible.find(|it| it.namespace() == proxy.namespace).or(first)
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
    mesh.of_namespace::<Sidecar>(namespace)
}

/// The service with the ports that some egress listener asks for; none if none does.
fn asked_for(sidecar: &Sidecar, mut service: Arc<Service>, proxy: &Proxy) -> Option<Arc<Service>> {
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
        Arc::make_mut(&mut service).ports.retain(|port| ports.contains(&port.number));
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
