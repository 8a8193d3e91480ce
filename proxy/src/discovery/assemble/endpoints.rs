//! The endpoints of a cluster: as configured, as discovered, or as its names resolve.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::state::State;
use crate::config::Invalid;
use crate::config::address::Address;
use crate::config::cluster::{Cluster, Discovery};
use crate::config::endpoint::{Endpoint, LoadAssignment};
use crate::discovery::dns::{Found, Query};

/// The endpoints `cluster` has now: every address is a literal one. The names it needs go to `queries`.
pub(super) fn of(
    cluster: &Cluster,
    state: &State,
    found: &Found,
    queries: &mut BTreeSet<Query>,
) -> Result<Arc<LoadAssignment>, Invalid> {
    match &cluster.discovery {
        Discovery::Static(assignment) => Ok(Arc::clone(assignment)),
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
        Discovery::StrictDns { assignment, refresh, respect_ttl, family } => {
            let query = |host: &Arc<str>| Query {
                host: Arc::clone(host),
                family: *family,
                refresh: *refresh,
                respect_ttl: *respect_ttl,
            };
            Ok(resolved(assignment, query, found, queries))
        }
    }
}

fn first_name(assignment: &LoadAssignment) -> Option<&Arc<str>> {
    assignment.endpoints.iter().find_map(|endpoint| match &endpoint.address {
        Address::Dns { host, .. } => Some(host),
        Address::Literal(_) => None,
    })
}

fn resolved(
    assignment: &Arc<LoadAssignment>,
    query: impl Fn(&Arc<str>) -> Query,
    found: &Found,
    queries: &mut BTreeSet<Query>,
) -> Arc<LoadAssignment> {
    if first_name(assignment).is_none() {
        return Arc::clone(assignment);
    }
    let mut endpoints = Vec::with_capacity(assignment.endpoints.len());
    for endpoint in &assignment.endpoints {
        let Address::Dns { host, port } = &endpoint.address else {
            endpoints.push(endpoint.clone());
            continue;
        };
        let query = query(host);
        endpoints.extend(found.get(&query).iter().flat_map(|addresses| addresses.iter()).map(
            |address| Endpoint {
                address: SocketAddr::new(*address, *port).into(),
                hostname: Arc::clone(if endpoint.hostname.is_empty() {
                    host
                } else {
                    &endpoint.hostname
                }),
                ..endpoint.clone()
            },
        ));
        queries.insert(query);
    }
    let cluster_name = Arc::clone(&assignment.cluster_name);
    Arc::new(LoadAssignment { cluster_name, endpoints, policy: assignment.policy })
}
