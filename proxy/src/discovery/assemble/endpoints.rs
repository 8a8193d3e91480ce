//! The endpoints of a cluster: as configured, as discovered, or as its names resolve.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::state::State;
use crate::cluster::{ClusterSpec, Clusters};
use crate::config::address::Address;
use crate::config::cluster::{Cluster, Discovery, Names};
use crate::config::dns::Resolver;
use crate::config::endpoint::{Endpoint, LoadAssignment, Locality};
use crate::config::{HashMap, Invalid};
use crate::discovery::dns::{Found, Queries, Query};

/// The endpoints `cluster` has now: every address is a literal one. The names it needs go to `queries`.
pub(super) fn of(
    cluster: &Cluster,
    state: &State,
    found: &Found,
    queries: &mut Queries,
) -> Result<Arc<LoadAssignment>, Invalid> {
    match &cluster.discovery {
        Discovery::Static(assignment) => Ok(Arc::clone(assignment)),
        Discovery::ForwardProxy(_) | Discovery::OriginalDst(_) => Ok(Arc::new(LoadAssignment {
            cluster_name: Arc::clone(&cluster.name),
            ..LoadAssignment::default()
        })),
        Discovery::Eds(source) => match state.endpoints(source) {
            None => Ok(Arc::new(LoadAssignment {
                cluster_name: Arc::clone(&source.name),
                ..LoadAssignment::default()
            })),
            Some(assignment) => match first_name(assignment) {
                None => Ok(Arc::clone(assignment)),
                Some(name) => Err(Invalid::new(
                    "eds_cluster_config",
                    format!("discovered endpoint {name} is no IP address; names need STRICT_DNS"),
                )),
            },
        },
        Discovery::Dns(names) => {
            let default = &state.bootstrap.config.resolver;
            Ok(resolved(cluster, names, default, found, queries))
        }
    }
}

/// `assignment`, and those endpoints of `old` that it does not have but that pass their active checks.
pub(super) fn with_leaving(
    assignment: Arc<LoadAssignment>,
    cluster: &Cluster,
    old: Option<&Arc<ClusterSpec>>,
    live: Option<&Clusters>,
) -> Arc<LoadAssignment> {
    let discovered = match &cluster.discovery {
        Discovery::Eds(_) => true,
        Discovery::Dns(names) => !names.logical,
        Discovery::Static(_) | Discovery::OriginalDst(_) | Discovery::ForwardProxy(_) => false,
    };
    let keeps = cluster.hosts.health_check.is_some() && !cluster.hosts.ignore_health_on_removal;
    let (true, Some(old), Some(live)) = (discovered && keeps, old, live) else {
        return assignment;
    };
    let listed: HashSet<&Address> = assignment.endpoints.iter().map(|it| &it.address).collect();
    let endpoints = &old.assignment.endpoints;
    let unlisted: Vec<&Endpoint> =
        endpoints.iter().filter(|endpoint| !listed.contains(&endpoint.address)).collect();
    if unlisted.is_empty() {
        return assignment;
    }
    let (passing, localities) = (live.passing(&cluster.name), localities(&assignment));
    let may_stay = |endpoint: &&&Endpoint| match &endpoint.address {
        Address::Literal(address) => passing.contains(address),
        Address::Dns { .. } => false,
    };
    let leaving: Vec<Endpoint> = unlisted
        .iter()
        .filter(may_stay)
        .map(|endpoint| Endpoint {
            is_leaving: true,
            locality: locality_now(&localities, &endpoint.locality),
            ..(**endpoint).clone()
        })
        .collect();
    if leaving.is_empty() {
        return assignment;
    }
    let mut all = LoadAssignment::clone(&assignment);
    all.endpoints.extend(leaving);
    Arc::new(all)
}

/// The localities of `assignment`, each by what it is without its weight.
fn localities(assignment: &LoadAssignment) -> HashMap<Locality, &Arc<Locality>> {
    let mut localities = HashMap::default();
    for Endpoint { locality, .. } in &assignment.endpoints {
        localities.entry(Locality { weight: 0, ..(**locality).clone() }).or_insert(locality);
    }
    localities
}

/// A locality as it is listed now; one that is not has no weight.
fn locality_now(listed: &HashMap<Locality, &Arc<Locality>>, old: &Arc<Locality>) -> Arc<Locality> {
    let weightless = Locality { weight: 0, ..(**old).clone() };
    match listed.get(&weightless) {
        Some(now) => Arc::clone(now),
        None => Arc::new(weightless),
    }
}

fn first_name(assignment: &LoadAssignment) -> Option<&Arc<str>> {
    assignment.endpoints.iter().find_map(|endpoint| match &endpoint.address {
        Address::Dns { host, .. } => Some(host),
        Address::Literal(_) => None,
    })
}

fn resolved(
    cluster: &Cluster,
    names: &Names,
    default: &Arc<Resolver>,
    found: &Found,
    queries: &mut Queries,
) -> Arc<LoadAssignment> {
    let assignment = &names.assignment;
    if first_name(assignment).is_none() {
        return Arc::clone(assignment);
    }
    let mut endpoints = Vec::with_capacity(assignment.endpoints.len());
    for endpoint in &assignment.endpoints {
        let Address::Dns { host, port } = &endpoint.address else {
            endpoints.push(endpoint.clone());
            continue;
        };
        let query = Query {
            host: Arc::clone(host),
            family: names.family,
            refresh: names.refresh,
            resolver: Arc::clone(names.resolver.as_ref().unwrap_or(default)),
            logical: names.logical,
        };
        let addresses = found.get(&query).map_or(&[][..], |addresses| addresses);
        let at_port = |address: &IpAddr| SocketAddr::new(*address, *port);
        // Of a logical endpoint, the other addresses are tried when the first does not answer.
        let (addresses, others) = match addresses.split_first() {
            Some((first, others)) if names.logical => (std::slice::from_ref(first), others),
            _ => (addresses, &[][..]),
        };
        endpoints.extend(addresses.iter().map(|address| Endpoint {
            address: at_port(address).into(),
            additional_addresses: others.iter().map(at_port).collect(),
            hostname: Arc::clone(if endpoint.hostname.is_empty() {
                host
            } else {
                &endpoint.hostname
            }),
            ..endpoint.clone()
        }));
        let asking = queries.entry(query).or_default();
        asking.clusters.push(Arc::clone(&cluster.stat_name));
        asking.warming |= names.warming;
    }
    let cluster_name = Arc::clone(&assignment.cluster_name);
    Arc::new(LoadAssignment { cluster_name, endpoints, policy: assignment.policy })
}
