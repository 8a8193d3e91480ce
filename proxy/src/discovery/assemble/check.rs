//! Checks that need more than one resource: addresses used twice, clusters and servers that do not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xds::yaml::Error as Located;

use super::state::{State, chains};
use crate::config::bootstrap::Bootstrap;
use crate::config::cluster::Discovery;
use crate::config::dns::Cache;
use crate::config::listener::ListenAddress;
use crate::config::mirror::MirrorPolicy;
use crate::config::route::{Action, ClusterSpecifier, ClusterTarget, RouteConfig};
use crate::config::source::{GrpcSource, Server};
use crate::config::{Invalid, Name};

/// Listeners that claim the address of another one.
pub(super) fn addresses(state: &State) -> Vec<Located> {
    let mut errors = Vec::new();
    let mut taken = BTreeMap::new();
    for listener in state.listeners() {
        let name = &listener.value.name;
        for (index, ListenAddress { address, .. }) in listener.value.addresses.iter().enumerate() {
            // Port 0 asks for any free port.
            if !address.asks_for_any_port()
                && let Some(other) = taken.insert(address, name)
            {
                let reason = format!("{address} is the address of listener {other:?} already");
                let field = match index.checked_sub(1) {
                    None => "address".to_owned(),
                    Some(index) => format!("additional_addresses[{index}].address"),
                };
                errors.push(listener.origin.locate(Invalid::new(field, reason)));
            }
        }
    }
    errors
}

/// Resources that ask for others from management servers which cannot be reached: there is no `ads_config`, or no such
/// cluster. It has to be a static one, as in Envoy: nothing that servers send is needed to reach them.
pub(super) fn servers(state: &State) -> Vec<Located> {
    let bootstrap = &state.bootstrap;
    let config = &bootstrap.config;
    let unreachable = |server: &Server| match server {
        Server::Ads if config.ads.is_none() => {
            Some("needs dynamic_resources.ads_config in the bootstrap".to_owned())
        }
        // Told of once, at `ads_config` itself.
        Server::Ads => None,
        Server::Grpc(source) => not_static(config, source),
    };
    let mut errors = Vec::new();
    if let Some(reason) = config.ads.as_deref().and_then(|source| not_static(config, source)) {
        let error = Invalid::new("dynamic_resources.ads_config.grpc_services", reason);
        errors.push(bootstrap.locate(error));
    }
    for (name, source) in [("lds_config", &config.lds), ("cds_config", &config.cds)] {
        let server = source.as_ref().and_then(|source| source.server());
        if let Some(reason) = server.and_then(|source| unreachable(&source.server)) {
            let path = format!("dynamic_resources.{name}");
            errors.push(bootstrap.locate(Invalid::new(path, reason)));
        }
    }
    for (origin, asked) in state.asked().into_iter().filter(|(_, asked)| !state.is_own(asked)) {
        let server = asked.source.source.server();
        if let Some(reason) = server.and_then(|source| unreachable(&source.server)) {
            errors.push(origin.locate(Invalid::new(asked.path(), reason)));
        }
    }
    errors
}

/// Why one of the services of `source` cannot be reached.
fn not_static(config: &Bootstrap, source: &GrpcSource) -> Option<String> {
    let is_known = |name: &Name| {
        let cluster = config.clusters.iter().find(|cluster| cluster.name == *name);
        cluster.is_some_and(|cluster| !matches!(cluster.discovery, Discovery::Eds(_)))
    };
    let unknown = source.services.iter().find(|service| !is_known(&service.cluster))?;
    Some(format!(
        "{:?} must be a cluster of static_resources, and not of type EDS",
        unknown.cluster
    ))
}

/// Caches of names that are called as another one is, and are not the same.
pub(super) fn dns_caches(state: &State) -> Vec<Located> {
    let mut all = Vec::new();
    for cluster in state.clusters() {
        if let Discovery::ForwardProxy(cache) = &cluster.value.discovery {
            let path = "cluster_type.typed_config.dns_cache_config".to_owned();
            all.push((cache, cluster.origin, path));
        }
    }
    for listener in state.listeners() {
        for (path, chain) in chains(listener.value) {
            for cache in chain.dns_caches() {
                all.push((cache, listener.origin.clone(), path.clone()));
            }
        }
    }
    let mut known: BTreeMap<&Name, &Arc<Cache>> = BTreeMap::new();
    let mut errors = Vec::new();
    for (cache, origin, path) in all {
        if *known.entry(&cache.name).or_insert(cache) != cache {
            let reason =
                format!("config specified DNS cache '{}' with different settings", cache.name);
            errors.push(origin.locate(Invalid::new(path, reason)));
        }
    }
    errors
}

/// Routes to clusters that are not in `known`.
pub(super) fn clusters(table: &RouteConfig, known: &BTreeSet<Name>) -> Vec<Invalid> {
    let mut errors = mirrors(&table.mirrors, known, "");
    for (host_index, host) in table.virtual_hosts.iter().enumerate() {
        errors.extend(mirrors(&host.mirrors, known, &format!("virtual_hosts[{host_index}].")));
        for (route_index, route) in host.routes.iter().enumerate() {
            let Action::Forward(action) = &route.action else { continue };
            let path = format!("virtual_hosts[{host_index}].routes[{route_index}].route");
            errors.extend(mirrors(&action.mirrors, known, &format!("{path}.")));
            match &action.cluster {
                ClusterSpecifier::Name(name) => {
                    errors.extend(unknown(name, known, format!("{path}.cluster")));
                }
                ClusterSpecifier::Weighted(weighted) => {
                    for (index, choice) in weighted.clusters.iter().enumerate() {
                        if let ClusterTarget::Name(name) = &choice.target {
                            let path = format!("{path}.weighted_clusters.clusters[{index}].name");
                            errors.extend(unknown(name, known, path));
                        }
                    }
                }
                ClusterSpecifier::Header(_) => {}
            }
        }
    }
    errors
}

/// Those of `policies`, which stand at `path`, whose clusters are not in `known`.
fn mirrors(policies: &[MirrorPolicy], known: &BTreeSet<Name>, path: &str) -> Vec<Invalid> {
    let unknown = |(index, policy): (usize, &MirrorPolicy)| match &policy.cluster {
        ClusterTarget::Name(name) => {
            unknown(name, known, format!("{path}request_mirror_policies[{index}].cluster"))
        }
        ClusterTarget::Header(_) => None,
    };
    policies.iter().enumerate().filter_map(unknown).collect()
}

fn unknown(name: &Name, known: &BTreeSet<Name>, path: String) -> Option<Invalid> {
    let reason =
        || format!("there is no cluster {name:?}; add it, or set validate_clusters: false");
    (!known.contains(name)).then(|| Invalid::new(path, reason()))
}
