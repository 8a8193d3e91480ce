//! What makes a difference to what proxies are told of others: those that agree in it are told the same, and it is
//! found out once for all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::index::Index;
use super::locality::preferred_labels;
use super::proxy::{Proxy, Role};
use super::service::Service;
use super::virtual_services::Virtual;
use crate::model::Mesh;
use crate::model::istio::destination_rule::{
    DestinationRule, LoadBalancerSettings, LocalityLoadBalancerSetting, TrafficPolicy,
};
use crate::model::istio::sidecar::Sidecar;
use crate::model::workloads::Labels;

/// The labels by which a mesh tells clients apart.
#[derive(Debug)]
pub(super) enum Telling {
    /// Those that selectors name, with these values.
    Selected(BTreeSet<(String, String)>),
    /// Any, as they are compared with those of endpoints.
    All,
}

impl Telling {
    pub(super) fn of(
        mesh: &Mesh,
        services: &[Arc<Service>],
        virtual_services: &[Arc<Virtual>],
    ) -> Self {
        let compares = |it: &LocalityLoadBalancerSetting| !it.failover_priority.is_empty();
        let rules = || mesh.all::<DestinationRule>().map(|it| it.spec);
        let in_rules =
            || rules().flat_map(balancers).filter_map(|it| it.locality_lb_setting.as_ref());
        if in_rules().chain(&mesh.config.locality_lb_setting).any(compares)
            || services.iter().any(|it| preferred_labels(it).is_some())
        {
            return Self::All;
        }
        let of_rules =
            rules().filter_map(|it| it.workload_selector.as_ref()).map(|it| &it.match_labels);
        let of_sidecars = mesh.all::<Sidecar>().filter_map(|it| it.spec.workload_selector.as_ref());
        let routes = virtual_services.iter().flat_map(|it| &it.spec.http);
        let of_routes = routes.flat_map(|it| &it.r#match).map(|it| &it.source_labels);
        let selectors = of_rules.chain(of_sidecars.map(|it| &it.labels)).chain(of_routes);
        Self::Selected(
            selectors.flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        )
    }

    fn told_apart(&self, labels: &Labels) -> Labels {
        match self {
            Self::All => labels.clone(),
            Self::Selected(pairs) => {
                let pair = |(key, value): &(&String, &String)| {
                    pairs.contains(&((*key).clone(), (*value).clone()))
                };
                let kept = labels.iter().filter(pair);
                kept.map(|(key, value)| (key.clone(), value.clone())).collect()
            }
        }
    }
}

fn balancers(rule: &DestinationRule) -> impl Iterator<Item = &LoadBalancerSettings> {
    let of_subsets = rule.subsets.iter().filter_map(|it| it.traffic_policy.as_ref());
    let policies = rule.traffic_policy.iter().chain(of_subsets);
    policies.flat_map(|it: &TrafficPolicy| {
        let of_ports = it.port_level_settings.iter().filter_map(|it| it.load_balancer.as_ref());
        it.load_balancer.iter().chain(of_ports)
    })
}

/// A sidecar as those that it connects to may know it: without what tells it from others to which the mesh looks the
/// same. Gateways are few, and stay as they are.
pub fn audience(mesh: &Index, proxy: &Proxy) -> Proxy {
    if proxy.role != Role::Sidecar {
        return proxy.clone();
    }
    Proxy {
        name: String::new(),
        addresses: Vec::new(),
        labels: mesh.telling().told_apart(&proxy.labels),
        service_account: String::new(),
        cluster: String::new(),
        reserved_ports: Vec::new(),
        // Those of its pod are found by its name.
        proxy_config: Some(proxy.settings(mesh).into_owned()),
        ..proxy.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use xds::envoy::config::core::v3::Node;

    use super::*;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::object::{SourceFile, read_file};

    fn audience_of(text: &str, app: &str) -> Proxy {
        let file = SourceFile::new(Path::new("x.yaml"), text.to_owned());
        let objects = read_file(&file, "shop").unwrap().into_iter();
        let objects = objects.map(|it| Arc::new(it.unwrap()));
        let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
        let id = format!("sidecar~10.0.0.9~{app}-1.shop~shop.svc.cluster.local");
        let proxy = Proxy::of(&Node { id, ..Node::default() }).unwrap();
        let labels = Labels::from([("app".to_owned(), app.to_owned())]);
        audience(&Index::new(mesh), &Proxy { labels, ..proxy })
    }

    fn same(text: &str) -> bool {
        audience_of(text, "web") == audience_of(text, "api")
    }

    #[test]
    fn proxies_are_told_apart_by_what_selectors_name() {
        assert!(same(""));
        let object = |kind: &str, spec: &str| {
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: x}}, spec: {spec}}}"
            )
        };
        let sidecar = |app: &str| {
            object("Sidecar", &format!("{{workloadSelector: {{labels: {{app: {app}}}}}}}"))
        };
        assert!(!same(&sidecar("web")));
        assert!(same(&sidecar("other")));
        assert!(!same(&object(
            "DestinationRule",
            "{host: x, workloadSelector: {matchLabels: {app: api}}}"
        )));
        assert!(!same(&object(
            "VirtualService",
            "{hosts: [x], http: [{match: [{sourceLabels: {app: web}}], route: [{destination: {host: x}}]}]}"
        )));
    }

    #[test]
    fn all_labels_count_where_they_are_compared_with_endpoints() {
        let priority = "loadBalancer: {localityLbSetting: {failoverPriority: [x]}}";
        let rule = |policy: &str| {
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: x}}, spec: {{host: x, {policy}}}}}"
            )
        };
        assert!(same(&rule("trafficPolicy: {}")));
        assert!(!same(&rule(&format!("trafficPolicy: {{{priority}}}"))));
        assert!(!same(&rule(&format!(
            "trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, {priority}}}]}}"
        ))));
        assert!(!same(&rule(&format!("subsets: [{{name: v1, trafficPolicy: {{{priority}}}}}]"))));
        let near = "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {trafficDistribution: PreferClose}}";
        assert!(!same(near));
    }
}
