//! Everything that a proxy is told of a mesh: the one way into `translate`.

use std::collections::{BTreeMap, BTreeSet};

use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;

use super::audience::audience;
use super::clusters::{self, outbound_name, outbound_sni};
use super::egress::View;
use super::endpoints::Audience;
use super::index::Index;
use super::proxy::{Proxy, Role};
use super::{gateways, inbound, listeners, policy, routes, scope};
use crate::model::workloads::Labels;

/// What one proxy is told, by kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// Where it may send requests.
    pub clusters: Vec<Cluster>,
    /// What stands behind those of them whose endpoints are discovered.
    pub endpoints: Vec<ClusterLoadAssignment>,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The routes that its listeners name.
    pub routes: Vec<RouteConfiguration>,
}

/// What `proxy` is told of `mesh`.
pub fn resources(mesh: &Index, proxy: &Proxy) -> Resources {
    let Resources { mut clusters, endpoints, mut listeners, mut routes } =
        common(mesh, &audience(mesh, proxy));
    let own = own(mesh, proxy, |name| routes.iter().any(|it| it.name == name));
    clusters.extend(own.resources.clusters);
    listeners.extend(own.resources.listeners);
    routes.retain(|it| own.routes.contains(&it.name));
    routes.extend(own.resources.routes);
    Resources { clusters, endpoints, listeners, routes }
}

/// What all proxies of an audience are told of others ([`audience`]): clusters, endpoints, and the routes of sidecars.
pub fn common(mesh: &Index, audience: &Proxy) -> Resources {
    let clusters = clusters::outbound(mesh, audience);
    let endpoints = assignments(mesh, audience, &clusters);
    let routes = match audience.role {
        Role::Sidecar => {
            let view = View::new(mesh, audience);
            let (_, names) = listeners::outbound(&view);
            names.iter().filter_map(|name| routes::outbound(&view, name)).collect()
        }
        Role::Router => Vec::new(),
    };
    Resources { clusters, endpoints, listeners: Vec::new(), routes }
}

/// What is for one proxy alone.
#[derive(Debug)]
pub struct Own {
    /// Its own clusters, its listeners, and routes that its audience does not have.
    pub resources: Resources,
    /// The names of those that it has with its audience.
    pub routes: BTreeSet<String>,
}

/// What is for one proxy alone, whose audience has routes of certain names.
pub fn own(mesh: &Index, proxy: &Proxy, has_routes: impl Fn(&str) -> bool) -> Own {
    let view = View::new(mesh, proxy);
    let clusters = clusters::own(mesh, proxy);
    let (listeners, shared, routes) = match proxy.role {
        Role::Sidecar => {
            let (mut listeners, names) = listeners::outbound(&view);
            listeners.extend(inbound::listeners(mesh, proxy));
            let (shared, own): (BTreeSet<_>, BTreeSet<_>) =
                names.into_iter().partition(|it| has_routes(it));
            let routes = own.iter().filter_map(|name| routes::outbound(&view, name));
            (listeners, shared, routes.collect())
        }
        Role::Router => {
            let (listeners, routes) = gateways::served(&view);
            (listeners, BTreeSet::new(), routes)
        }
    };
    let resources = Resources { clusters, endpoints: Vec::new(), listeners, routes };
    Own { resources, routes: shared }
}

/// The endpoints of these clusters; none behind a service is an answer too.
fn assignments(mesh: &Index, proxy: &Proxy, clusters: &[Cluster]) -> Vec<ClusterLoadAssignment> {
    let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
    let discovered = clusters.iter().filter(|it| it.cluster_discovery_type == eds);
    let wanted: BTreeSet<&str> = discovered.map(|it| it.name.as_str()).collect();
    let mut found = BTreeMap::new();
    for service in scope::services(mesh, proxy) {
        let rule = policy::rule(mesh, proxy, &service);
        for port in &service.ports {
            let all = mesh.endpoints(&service, port);
            let whole = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
            let whole = policy::for_port(whole, port.number);
            let subsets = rule.iter().flat_map(|rule| &rule.spec.subsets);
            for subset in std::iter::once(None).chain(subsets.map(Some)) {
                let own = subset.and_then(|it| it.traffic_policy.as_ref());
                let policy = policy::for_subset(whole.clone(), own, port.number);
                let none = Labels::new();
                let labels = subset.map_or(&none, |it| &it.labels);
                let audience = Audience { mesh, proxy, service: &service, policy: policy.as_ref() };
                let name = subset.map(|it| it.name.as_str()).unwrap_or_default();
                for name in [
                    outbound_name(port.number, name, &service.host),
                    outbound_sni(port.number, name, &service.host),
                ] {
                    if wanted.contains(name.as_str()) {
                        let assignment = audience.assignment(&name, all, labels);
                        found.insert(name, assignment);
                    }
                }
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use xds::envoy::config::core::v3::Node;

    use super::*;
    use crate::model::Mesh;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::object::{SourceFile, read_file};

    const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: shop}
spec: {hosts: [far.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
";

    #[test]
    fn every_cluster_whose_endpoints_are_discovered_has_some_even_if_none() {
        let file = SourceFile::new(Path::new("x.yaml"), MESH.to_owned());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let objects = objects.map(|it| Arc::new(it.unwrap()));
        let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
        let mesh = Index::new(mesh);
        let id = "sidecar~10.0.0.9~web-1.shop~shop.svc.cluster.local".to_owned();
        let proxy = Proxy::of(&Node { id, ..Node::default() }).unwrap();
        let told = resources(&mesh, &proxy);
        let names: Vec<_> = told.endpoints.iter().map(|it| it.cluster_name.as_str()).collect();
        let host = "reviews.shop.svc.cluster.local";
        assert_eq!(names, [format!("outbound|9080|v1|{host}"), format!("outbound|9080||{host}")]);
        assert!(told.clusters.iter().any(|it| it.name == "outbound|80||far.example.com"));
    }
}
