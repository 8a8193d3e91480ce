//! The clusters of every recorded proxy, and what stands behind them.

use std::collections::BTreeMap;

use control_api::translate::proxy::Proxy;
use control_api::translate::resources::resources;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};

use crate::recording::{Explained, mesh, node, recorded, recordings};

const NODES: [&str; 6] = [
    "router-ingressgateway",
    "sidecar-dbclient",
    "sidecar-mysqldb",
    "sidecar-productpage",
    "sidecar-reviews-v2",
    "sidecar-scoped-web",
];

/// Where ours differs, by proxy (`*` for all), beginning of the resource's name and a part of the field's path, and why.
const CLUSTERS: [(&str, &str, &str, &str); 3] = [
    ("*", "outbound|", "match_subject_alt_names", NO_ACCOUNT),
    ("*", "outbound|", "load_assignment.endpoints[0].lb_endpoints[0].metadata", PEERS),
    (
        "*",
        "outbound|80||web.scoped",
        "override_host_status",
        "the label of persistent sessions alone does nothing: no filter of such sessions is told of",
    ),
];

const ENDPOINTS: [(&str, &str, &str, &str); 0] = [];

const NO_ACCOUNT: &str =
    "the recorded pods had no admission: a pod that names no account has `default`";
const PEERS: &str = "what a workload is called, which only Istio's metrics ask of endpoints";

/// Leaves out what a workload is called: only Istio's metrics ask for it, and ours does not tell.
fn without_peers(endpoint: &mut LbEndpoint) {
    if let Some(metadata) = &mut endpoint.metadata {
        metadata.filter_metadata.remove("istio");
    }
    endpoint.metadata = endpoint.metadata.take().filter(|it| !it.filter_metadata.is_empty());
}

#[test]
fn clusters_are_those_of_a_real_istiod() {
    let Some(folder) = recordings() else { return };
    let mesh = mesh(&folder);
    let mut explained = Explained::new(&CLUSTERS);
    for name in NODES {
        let proxy = Proxy::of(&node(&folder, name)).unwrap();
        let by_name = |clusters: Vec<Cluster>| -> BTreeMap<_, _> {
            clusters.into_iter().map(|it| (it.name.clone(), xds::json::to_json(&it))).collect()
        };
        let ours = by_name(resources(&mesh, &proxy).clusters);
        explained.compare(name, &ours, &by_name(recorded(&folder, name, "002-cds.pb")));
    }
    println!("{} clusters are the same", explained.same);
    explained.settle();
    assert!(explained.same >= 300, "{}", explained.same);
}

#[test]
fn endpoints_are_those_of_a_real_istiod() {
    let Some(folder) = recordings() else { return };
    let mesh = mesh(&folder);
    let mut explained = Explained::new(&ENDPOINTS);
    for name in NODES {
        let proxy = Proxy::of(&node(&folder, name)).unwrap();
        let by_name = |assignments: Vec<ClusterLoadAssignment>| -> BTreeMap<_, _> {
            let named = |mut it: ClusterLoadAssignment| {
                for locality in &mut it.endpoints {
                    for endpoint in &mut locality.lb_endpoints {
                        without_peers(endpoint);
                    }
                    // Their order means nothing.
                    locality.lb_endpoints.sort_by_key(|it| format!("{:?}", it.host_identifier));
                }
                (it.cluster_name.clone(), xds::json::to_json(&it))
            };
            assignments.into_iter().map(named).collect()
        };
        let ours = by_name(resources(&mesh, &proxy).endpoints);
        explained.compare(name, &ours, &by_name(recorded(&folder, name, "003-eds.pb")));
    }
    println!("{} assignments are the same", explained.same);
    explained.settle();
}
