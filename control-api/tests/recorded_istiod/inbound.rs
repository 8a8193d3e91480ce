//! The inbound listeners of every recorded sidecar.

use std::collections::BTreeMap;

use control_api::translate::inbound;
use control_api::translate::proxy::Proxy;
use xds::envoy::config::core::v3::TrafficDirection;
use xds::envoy::config::listener::v3::Listener;

use crate::recording::{Explained, mesh, node, recorded, recordings};

const NODES: [&str; 5] = [
    "sidecar-dbclient",
    "sidecar-mysqldb",
    "sidecar-productpage",
    "sidecar-reviews-v2",
    "sidecar-scoped-web",
];

/// Where ours differs, by proxy (`*` for all), beginning of the listener's name and a part of the field's path, and why.
const EXPLAINED: [(&str, &str, &str, &str); 1] = [(
    "sidecar-reviews-v2",
    "virtualInbound",
    "http_filters",
    "filters of EnvoyFilter (a rate limit) and WasmPlugin: neither is applied, and analyze says so",
)];

#[test]
fn inbound_listeners_are_those_of_a_real_istiod() {
    let Some(folder) = recordings() else { return };
    let mesh = mesh(&folder);
    let mut explained = Explained::new(&EXPLAINED);
    for name in NODES {
        let proxy = Proxy::of(&node(&folder, name)).unwrap();
        let by_name = |listeners: Vec<Listener>| -> BTreeMap<_, _> {
            let inbound = listeners
                .into_iter()
                .filter(|it| it.traffic_direction() == TrafficDirection::Inbound);
            inbound.map(|it| (it.name.clone(), xds::json::to_json(&it))).collect()
        };
        let ours = by_name(inbound::listeners(&mesh, &proxy));
        let theirs = by_name(recorded(&folder, name, "004-lds.pb"));
        explained.compare(name, &ours, &theirs);
    }
    assert!(explained.same >= 4, "{}", explained.same);
    explained.settle();
}
