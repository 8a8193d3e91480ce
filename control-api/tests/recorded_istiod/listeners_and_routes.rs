//! Listeners for what workloads connect to, and the routes that they name.

use std::collections::BTreeMap;

use control_api::translate::egress::View;
use control_api::translate::proxy::Proxy;
use control_api::translate::{gateways, listeners, routes};
use serde_json::Value;
use xds::envoy::config::listener::v3::{FilterChain, Listener};
use xds::envoy::config::route::v3::RouteConfiguration;

use crate::recording::{Explained, mesh, node, recorded, recorded_in, recordings};

const SIDECARS: [&str; 5] = [
    "sidecar-dbclient",
    "sidecar-mysqldb",
    "sidecar-productpage",
    "sidecar-reviews-v2",
    "sidecar-scoped-web",
];

/// Where ours differs: proxy, beginning of the name, a part of the field's path, and why.
const EXPLAINED: &[(&str, &str, &str, &str)] = &[
    (
        "sidecar-reviews-v2",
        "",
        ".http_filters",
        "an EnvoyFilter and a WasmPlugin: neither is applied",
    ),
    ("*", "0.0.0.0_8085", ".http_filters", DYNAMIC_DNS),
    ("*", "0.0.0.0_8447", ".filters", DYNAMIC_DNS),
    ("sidecar-dbclient", "240.240.", ".missing", AUTO_ALLOCATED),
    ("sidecar-dbclient", "0.0.0.0_5432", ".surplus", AUTO_ALLOCATED),
    ("sidecar-dbclient", "0.0.0.0_844", ".surplus", AUTO_ALLOCATED),
    ("sidecar-dbclient", "0.0.0.0_443", ".filter_chains", AUTO_ALLOCATED),
    ("sidecar-dbclient", "8", ".domains", AUTO_ALLOCATED),
    ("sidecar-dbclient", "9080", ".domains", AUTO_ALLOCATED),
];
const DYNAMIC_DNS: &str = "filters of resolution DYNAMIC_DNS";
/// Its DNS proxy answers with addresses that istiod makes up and keeps in the objects' status.
const AUTO_ALLOCATED: &str = "addresses that istiod makes up";

fn named<M: prost::Message + prost::Name>(
    all: &[M],
    name: fn(&M) -> &str,
) -> BTreeMap<String, Value> {
    all.iter().map(|it| (name(it).to_owned(), xds::json::to_json(it))).collect()
}

/// Chains for different names in any order: that of a cluster's services is by their age.
fn sorted(mut listeners: Vec<Listener>) -> Vec<Listener> {
    for listener in &mut listeners {
        let names = |it: &FilterChain| it.filter_chain_match.clone().map(|it| it.server_names);
        listener.filter_chains.sort_by_cached_key(names);
    }
    listeners
}

#[test]
fn a_gateway_serves_what_a_real_istiod_tells_it() {
    let Some(folder) = recordings() else { return };
    let mesh = mesh(&folder);
    let mut explained = Explained::new(&[]);
    let name = "router-ingressgateway";
    let proxy = Proxy::of(&node(&folder, "router-ingressgateway-topology")).unwrap();
    let proxy = Proxy { proxy_config: None, ..proxy };
    let (listeners, routes) = gateways::served(&View::new(&mesh, &proxy));
    let theirs: Vec<Listener> = recorded(&folder, name, "004-lds.pb");
    let of: fn(&Listener) -> &str = |it| &it.name;
    explained.compare(name, &named(&sorted(listeners), of), &named(&sorted(theirs), of));
    let theirs: Vec<RouteConfiguration> = recorded(&folder, name, "006-rds.pb");
    let of: fn(&RouteConfiguration) -> &str = |it| &it.name;
    explained.compare(name, &named(&routes, of), &named(&theirs, of));
    explained.settle();
    assert!(explained.same >= 9, "{}", explained.same);
}

/// Istio's private exchange of metadata, which only the recordings with it have.
fn without_exchange(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|it| it["name"] != "istio.metadata_exchange");
            items.iter_mut().for_each(without_exchange);
        }
        Value::Object(fields) => fields.values_mut().for_each(without_exchange),
        _ => {}
    }
}

#[test]
fn a_gateway_behind_other_proxies_is_told_so_as_a_real_istiod_does() {
    let Some(folder) = recordings() else { return };
    let mesh = mesh(&folder);
    let mut explained = Explained::new(&[]);
    let name = "router-ingressgateway-topology";
    let proxy = Proxy::of(&node(&folder, name)).unwrap();
    let (listeners, _) = gateways::served(&View::new(&mesh, &proxy));
    let theirs: Vec<Listener> = recorded_in("default", &folder, name, "004-lds.pb");
    let of: fn(&Listener) -> &str = |it| &it.name;
    let mut theirs = named(&sorted(theirs), of);
    theirs.values_mut().for_each(without_exchange);
    explained.compare(name, &named(&sorted(listeners), of), &theirs);
    explained.settle();
    assert!(explained.same >= 3, "{}", explained.same);
}

#[test]
fn sidecars_listen_and_route_as_a_real_istiod_tells_them() {
    let Some(folder) = recordings() else { return };
    let mesh = mesh(&folder);
    let mut explained = Explained::new(EXPLAINED);
    for name in SIDECARS {
        let proxy = Proxy::of(&node(&folder, name)).unwrap();
        let view = View::new(&mesh, &proxy);
        let (ours, names) = listeners::outbound(&view);
        let theirs: Vec<Listener> = recorded(&folder, name, "004-lds.pb");
        let theirs: Vec<_> = theirs.into_iter().filter(|it| it.name != "virtualInbound").collect();
        let of: fn(&Listener) -> &str = |it| &it.name;
        explained.compare(name, &named(&ours, of), &named(&theirs, of));
        let ours: Vec<_> = names.iter().filter_map(|it| routes::outbound(&view, it)).collect();
        let theirs: Vec<RouteConfiguration> = recorded(&folder, name, "005-rds.pb");
        let of: fn(&RouteConfiguration) -> &str = |it| &it.name;
        explained.compare(name, &named(&ours, of), &named(&theirs, of));
    }
    explained.settle();
    assert!(explained.same > 80, "{}", explained.same);
}
