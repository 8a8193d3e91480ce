//! Clusters of small meshes.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};
use xds::envoy::config::core::v3::Node;

const WEB: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{name: http, port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, labels: {app: web, version: v1, security.istio.io/tlsMode: istio}}, spec: {serviceAccountName: web-account}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: web-1, namespace: default}}]
";

fn mesh(text: &str) -> Mesh {
    let file = SourceFile::new(Path::new("x.yaml"), text.to_owned());
    let objects = read_file(&file, "default").unwrap().into_iter().map(|it| Arc::new(it.unwrap()));
    Mesh::new(objects, MeshConfig::default(), MeshNetworks::default())
}

fn told(text: &str) -> Vec<Cluster> {
    let node = Node { id: "sidecar~10.0.0.1~web-1.default~d".to_owned(), ..Node::default() };
    clusters(&Index::new(mesh(text)), &Proxy::of(&node).unwrap())
}

fn names(clusters: &[Cluster]) -> Vec<&str> {
    clusters.iter().map(|it| it.name.as_str()).collect()
}

fn find<'a>(clusters: &'a [Cluster], name: &str) -> &'a Cluster {
    clusters.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("{:?}", names(clusters)))
}

fn with_rule(spec: &str) -> Vec<Cluster> {
    let kind = "apiVersion: networking.istio.io/v1\nkind: DestinationRule";
    told(&format!("{WEB}---\n{kind}\nmetadata: {{name: r}}\nspec: {{host: web, {spec}}}\n"))
}

#[test]
fn a_service_has_a_cluster_per_port_and_the_workload_one_for_its_own() {
    let clusters = told(WEB);
    let host = "web.default.svc.cluster.local";
    assert_eq!(
        names(&clusters),
        [
            &format!("outbound|80||{host}"),
            "BlackHoleCluster",
            "PassthroughCluster",
            "inbound|8080||",
            "InboundPassthroughCluster"
        ]
    );
    let web = find(&clusters, &format!("outbound|80||{host}"));
    let matches: Vec<_> = web.transport_socket_matches.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(matches, ["tlsMode-istio", "tlsMode-disabled"]);
}

#[test]
fn a_port_has_its_own_settings_alone_and_a_subset_those_of_both() {
    let clusters = with_rule(
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}, \
           portLevelSettings: [{port: {number: 80}, connectionPool: {http: {maxRetries: 7}}}]}, \
         subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]",
    );
    for (subset, balancer) in [("", LbPolicy::LeastRequest), ("v1", LbPolicy::Random)] {
        let cluster = find(&clusters, &outbound_name(80, subset, "web.default.svc.cluster.local"));
        let limits = &cluster.circuit_breakers.as_ref().unwrap().thresholds[0];
        assert_eq!(limits.max_connections, Some(u32::MAX));
        assert_eq!(limits.max_retries, Some(7));
        assert_eq!(cluster.lb_policy, i32::from(balancer));
    }
}

#[test]
fn no_tls_where_a_rule_or_the_mesh_forbids_it() {
    let cluster_of = |clusters: Vec<Cluster>| {
        find(&clusters, "outbound|80||web.default.svc.cluster.local").clone()
    };
    let by_rule = cluster_of(with_rule("trafficPolicy: {tls: {mode: DISABLE}}"));
    let peers = "---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
                 metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: DISABLE}}}\n";
    let by_mesh = cluster_of(told(&format!("{WEB}{peers}")));
    for cluster in [by_rule, by_mesh] {
        assert!(cluster.transport_socket_matches.is_empty() && cluster.transport_socket.is_none());
    }
}

#[test]
fn a_rule_of_the_clients_namespace_goes_before_the_services() {
    let rule = |namespace: &str, size: u32| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: r, \
             namespace: {namespace}}}, spec: {{host: api.other.svc.cluster.local, trafficPolicy: \
             {{connectionPool: {{tcp: {{maxConnections: {size}}}}}}}}}}}\n"
        )
    };
    let service = "{apiVersion: v1, kind: Service, metadata: {name: api, namespace: other}, \
                   spec: {ports: [{name: tcp, port: 90}]}}\n";
    let limit = |text: String| {
        let clusters = told(&text);
        let cluster = find(&clusters, "outbound|90||api.other.svc.cluster.local");
        cluster.circuit_breakers.as_ref().unwrap().thresholds[0].max_connections
    };
    assert_eq!(limit([service, &rule("other", 2)].concat()), Some(2));
    assert_eq!(limit([service, &rule("other", 2), &rule("default", 3)].concat()), Some(3));
    assert_eq!(limit([service, &rule("elsewhere", 4)].concat()), Some(u32::MAX));
}
