//! Gateways of small meshes.

use std::path::Path;
use std::sync::Arc;

use xds::envoy::config::core::v3::Node;

use super::*;
use crate::model::Mesh;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};
use crate::translate::index::Index;
use crate::translate::proxy::Proxy;

const BOOKINFO: &str = "
{apiVersion: v1, kind: Service, metadata: {name: productpage, namespace: shop}, spec: {ports: [{name: http, port: 9080}]}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge, namespace: shop}, spec: {servers: [{port: \
{number: 8080, name: http, protocol: HTTP}, hosts: ['*']}, {port: {number: 8443, name: tls, protocol: HTTPS}, hosts: \
['./a.example.com'], tls: {mode: SIMPLE, credentialName: cert}}, {port: {number: 8080, name: tcp, protocol: TCP}, hosts: ['*']}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: bookinfo, namespace: shop}, spec: {hosts: ['*'], \
gateways: [edge], http: [{route: [{destination: {host: productpage, port: {number: 9080}}}]}]}}
";

#[test]
fn hosts_are_those_in_common_and_ports_are_shared_by_the_same_only() {
    let file = SourceFile::new(Path::new("x.yaml"), BOOKINFO.to_owned());
    let objects = read_file(&file, "default").unwrap().into_iter();
    let objects = objects.map(|it| Arc::new(it.unwrap()));
    let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
    let mesh = Index::new(mesh);
    let id = "router~10.0.0.9~edge-1.shop~shop.svc.cluster.local".to_owned();
    let proxy = Proxy::of(&Node { id, ..Node::default() }).unwrap();
    let (listeners, routes) = served(&View::new(&mesh, &proxy));
    let names: Vec<_> = listeners.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["0.0.0.0_8080", "0.0.0.0_8443"]);
    assert_eq!(listeners[0].filter_chains.len(), 1);
    let hosts: Vec<_> = routes
        .iter()
        .map(|it| (it.name.as_str(), it.virtual_hosts[0].domains[0].as_str()))
        .collect();
    assert_eq!(hosts, [("http.8080", "*"), ("https.8443.tls.edge.shop", "a.example.com")]);
}
