//! A proxy's own settings: those of the mesh, and over them those of its pod's annotation.

use std::borrow::Cow;

use xds::yaml::tree::parse_all;

use super::Mesh;
use super::istio::mesh_config::DefaultConfig;
use super::workloads::{Labels, Workload, selects};
use crate::yaml::{self, Problem, Reading};

/// The annotation of a pod that holds settings of its proxy, as YAML.
pub const ANNOTATION: &str = "proxy.istio.io/config";

/// The settings that a pod, or a template of pods, asks for.
#[derive(Debug, Clone)]
pub(super) struct Annotated {
    namespace: String,
    /// The pod's name; none for a template, which is told by the labels.
    pod: Option<String>,
    labels: Labels,
    settings: DefaultConfig,
}

impl Mesh {
    /// The settings of the proxy beside this pod, unless it tells of its own.
    pub fn proxy_settings(
        &self,
        namespace: &str,
        pod: &str,
        labels: &Labels,
    ) -> Cow<'_, DefaultConfig> {
        let annotated = self.annotated.get_or_init(|| annotated(self));
        let is_it = |it: &&Annotated| {
            it.namespace == namespace
                && match &it.pod {
                    Some(name) => name == pod,
                    None => !it.labels.is_empty() && selects(&it.labels, labels),
                }
        };
        let default = &self.config.default_config;
        match annotated.iter().find(is_it) {
            None => Cow::Borrowed(default),
            Some(own) => Cow::Owned(over(&own.settings, default)),
        }
    }
}

fn annotated(mesh: &Mesh) -> Vec<Annotated> {
    let of = |workload: Workload<'_>| {
        let settings = reading(&workload)?.value.ok()?;
        let metadata = &workload.object.metadata;
        let is_pod = std::ptr::eq(workload.labels, &raw const metadata.labels);
        Some(Annotated {
            namespace: metadata.namespace.clone(),
            pod: is_pod.then(|| metadata.name.clone()),
            labels: workload.labels.clone(),
            settings,
        })
    };
    mesh.workloads().filter_map(of).collect()
}

/// What a workload's annotation says; none without one.
pub fn reading(workload: &Workload<'_>) -> Option<Reading<DefaultConfig>> {
    let text = workload.annotations.get(ANNOTATION)?;
    let documents = parse_all(text);
    let unreadable = |reason| Reading {
        value: Err(Problem { path: String::new(), reason }),
        unknown: Vec::new(),
    };
    Some(match documents.as_deref() {
        Err(error) => unreadable(error.reason.clone()),
        Ok([]) => unreadable("it is empty".to_owned()),
        Ok([root, ..]) => yaml::read(root, "", &[]),
    })
}

fn over(own: &DefaultConfig, default: &DefaultConfig) -> DefaultConfig {
    let DefaultConfig {
        discovery_address,
        proxy_metadata,
        tracing,
        gateway_topology,
        proxy_headers,
    } = own.clone();
    let mut all = default.proxy_metadata.clone();
    all.extend(proxy_metadata);
    DefaultConfig {
        discovery_address: if discovery_address.is_empty() {
            default.discovery_address.clone()
        } else {
            discovery_address
        },
        proxy_metadata: all,
        tracing: tracing.or_else(|| default.tracing.clone()),
        gateway_topology: gateway_topology.or_else(|| default.gateway_topology.clone()),
        proxy_headers: proxy_headers.or_else(|| default.proxy_headers.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::istio::proxy_headers::GatewayTopology;
    use crate::model::object::{SourceFile, read_file};

    #[test]
    fn a_pods_annotation_goes_before_the_meshs_settings() {
        let text = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: shop}
spec:
  template:
    metadata:
      labels: {app: edge}
      annotations:
        proxy.istio.io/config: |
          gatewayTopology: {numTrustedProxies: 2}
          concurrency: 4
    spec: {containers: [{name: istio-proxy}]}
";
        let file = SourceFile::new(Path::new("x.yaml"), text.to_owned());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let mut config = MeshConfig::default();
        config.default_config.discovery_address = "here:15012".to_owned();
        let objects = objects.map(|it| Arc::new(it.unwrap()));
        let mesh = Mesh::new(objects, config, MeshNetworks::default());
        let labels = Labels::from([("app".to_owned(), "edge".to_owned())]);
        let settings = mesh.proxy_settings("shop", "edge-1", &labels);
        let two = GatewayTopology { num_trusted_proxies: 2, ..GatewayTopology::default() };
        assert_eq!(settings.gateway_topology, Some(two));
        assert_eq!(settings.discovery_address, "here:15012");
        assert_eq!(mesh.proxy_settings("other", "edge-1", &labels).gateway_topology, None);
        let unknown = reading(&mesh.workloads().next().unwrap()).unwrap().unknown;
        assert_eq!(unknown.first().unwrap().path, "concurrency");
    }
}
