//! xDS resources in files, moved into place the way Envoy watches for.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bootstrap::typed;
use crate::yaml::to_yaml;

/// A watched file of xDS resources.
#[derive(Debug, Clone)]
pub struct DiscoveryFile {
    path: PathBuf,
    type_name: &'static str,
}

impl DiscoveryFile {
    /// Listeners (LDS) at `dir/lds.yaml`.
    pub fn listeners(dir: &Path) -> Self {
        Self { path: dir.join("lds.yaml"), type_name: "envoy.config.listener.v3.Listener" }
    }

    /// Route tables (RDS) at `dir/rds.yaml`.
    pub fn routes(dir: &Path) -> Self {
        Self { path: dir.join("rds.yaml"), type_name: "envoy.config.route.v3.RouteConfiguration" }
    }

    /// Clusters (CDS) at `dir/cds.yaml`.
    pub fn clusters(dir: &Path) -> Self {
        Self { path: dir.join("cds.yaml"), type_name: "envoy.config.cluster.v3.Cluster" }
    }

    /// Endpoints (EDS) at `dir/eds.yaml`.
    pub fn endpoints(dir: &Path) -> Self {
        let type_name = "envoy.config.endpoint.v3.ClusterLoadAssignment";
        Self { path: dir.join("eds.yaml"), type_name }
    }

    /// One secret (SDS) at `dir/{name}.sds.yaml`; Envoy takes one per file.
    pub fn secret(dir: &Path, name: &str) -> Self {
        let type_name = "envoy.extensions.transport_sockets.tls.v3.Secret";
        Self { path: dir.join(format!("{name}.sds.yaml")), type_name }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Envoy's `ConfigSource` of this file.
    pub fn source(&self) -> Value {
        json!({"path_config_source": {"path": self.path}, "resource_api_version": "V3"})
    }

    /// Replaces the file by these resources in one move.
    pub fn publish(&self, resources: impl IntoIterator<Item = Value>) {
        let resources: Vec<Value> =
            resources.into_iter().map(|resource| typed(self.type_name, resource)).collect();
        self.publish_text(&to_yaml(&json!({"resources": resources})));
    }

    /// Replaces the file by `text` in one move.
    pub fn publish_text(&self, text: &str) {
        replace(&self.path, text);
    }
}

/// Replaces the file at `path` in one move, so that a reader never sees half of it.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let next = path.with_extension("next");
    std::fs::write(&next, content).unwrap();
    std::fs::rename(&next, path).unwrap();
}
