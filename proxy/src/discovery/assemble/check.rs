//! Checks that need more than one resource: addresses used twice, clusters that do not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xds::yaml::Error as Located;

use super::state::{Asked, State, chains};
use crate::config::cluster::Discovery;
use crate::config::dns::Cache;
use crate::config::http_filter::{FilterKind, HttpFilter};
use crate::config::listener::ListenAddress;
use crate::config::mirror::MirrorPolicy;
use crate::config::route::{Action, ClusterSpecifier, ClusterTarget, RouteConfig};
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

/// Resources that ask for others from management servers.
pub(super) fn servers(state: &State) -> Vec<Located> {
    let refused = |asked: Asked| {
        let reason = "management servers are not supported by this version; use path_config_source";
        asked.origin.locate(Invalid::new(asked.path(), reason))
    };
    let mut errors: Vec<_> = state.asked_of_servers().map(refused).collect();
    for listener in state.listeners() {
        for (path, chain) in chains(listener.value) {
            let filters = chain.http().map_or(&[][..], |http| &http.filters);
            let discovered = |it: &&HttpFilter| matches!(it.kind, FilterKind::Discovered(_));
            if let Some(filter) = filters.iter().find(discovered) {
                let reason = format!(
                    "the configuration of filter {:?} is discovered, which is not supported by this version",
                    filter.name
                );
                errors.push(listener.origin.locate(Invalid::new(path, reason)));
            }
        }
    }
    errors
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
