//! Listeners and routes of small meshes.

use std::path::Path;
use std::sync::Arc;

use xds::envoy::config::core::v3::Node;
use xds::envoy::config::route::v3::RouteConfiguration;

use super::*;
use crate::model::Mesh;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};
use crate::translate::index::Index;
use crate::translate::proxy::Proxy;
use crate::translate::routes;

const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{name: http, port: 9080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 10.0.0.2, ports: [{name: tcp, port: 5432}]}}
---
";

fn mesh(more: &str) -> Index {
    let file = SourceFile::new(Path::new("x.yaml"), format!("{SERVICES}{more}"));
    let objects = read_file(&file, "default").unwrap().into_iter();
    let objects = objects.map(|it| Arc::new(it.unwrap()));
    Index::new(Mesh::new(objects, MeshConfig::default(), MeshNetworks::default()))
}

fn proxy() -> Proxy {
    let id = "sidecar~10.0.0.9~web-1.shop~shop.svc.cluster.local".to_owned();
    Proxy::of(&Node { id, ..Node::default() }).unwrap()
}

fn names(mesh: &Index, proxy: &Proxy) -> Vec<String> {
    let mut names: Vec<_> =
        outbound(&View::new(mesh, proxy)).0.into_iter().map(|it| it.name).collect();
    names.sort();
    names
}

fn route(mesh: &Index, proxy: &Proxy, name: &str) -> RouteConfiguration {
    routes::outbound(&View::new(mesh, proxy), name).unwrap()
}

#[test]
fn http_shares_ports_and_tcp_has_addresses() {
    let mesh = mesh("");
    assert_eq!(names(&mesh, &proxy()), ["0.0.0.0_9080", "10.0.0.2_5432", "virtualOutbound"]);
    let (_, asked_for) = outbound(&View::new(&mesh, &proxy()));
    assert_eq!(asked_for, ["9080"]);
}

#[test]
fn without_redirection_everything_is_bound_to_loopback() {
    let mesh = mesh("");
    let proxy = Proxy { interception: Interception::None, ..proxy() };
    assert_eq!(names(&mesh, &proxy), ["127.0.0.1_5432", "127.0.0.1_9080"]);
    let listeners = outbound(&View::new(&mesh, &proxy)).0;
    assert!(listeners.iter().all(|it| it.bind_to_port.is_none()));
    let hosts = route(&mesh, &proxy, "9080").virtual_hosts;
    assert_eq!(hosts[0].name, "web.shop.svc.cluster.local:9080");
}

#[test]
fn a_sidecar_says_where_its_workload_connects_to() {
    let mesh = mesh(
        "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: x, namespace: shop}, spec: \
         {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{bind: 127.0.0.7, captureMode: NONE, \
         hosts: ['./web.shop.svc.cluster.local']}]}}",
    );
    assert_eq!(names(&mesh, &proxy()), ["127.0.0.7_9080", "virtualOutbound"]);
    let hosts = route(&mesh, &proxy(), "9080").virtual_hosts;
    assert_eq!(hosts.last().unwrap().name, "block_all");
}

#[test]
fn only_proxies_of_istio_get_its_filters() {
    let mesh = mesh("");
    let told = |proxy: &Proxy| {
        let listeners = outbound(&View::new(&mesh, proxy)).0;
        let all: Vec<_> = listeners.iter().map(|it| xds::json::to_json(it).to_string()).collect();
        all.concat()
    };
    assert!(!told(&proxy()).contains("istio."));
    assert!(told(&Proxy { knows_istio_filters: true, ..proxy() }).contains("istio.alpn"));
}

#[test]
fn a_virtual_service_routes_where_it_may_be_seen() {
    let rule = |export: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: web, \
             namespace: other}}, spec: {{hosts: [web.shop.svc.cluster.local], exportTo: [{export}], http: \
             [{{match: [{{headers: {{end-user: {{exact: jason}}}}}}], route: [{{destination: \
             {{host: web.shop.svc.cluster.local, subset: v2}}}}]}}, {{route: [{{destination: \
             {{host: web.shop.svc.cluster.local, subset: v1}}}}]}}]}}}}"
        )
    };
    let routes = |export| {
        let hosts = route(&mesh(&rule(export)), &proxy(), "9080").virtual_hosts;
        hosts[0].routes.len()
    };
    assert_eq!((routes("'*'"), routes("shop"), routes("'.'")), (2, 2, 1));
}
