//! Extension providers: services of the mesh that policies name.

use std::sync::LazyLock;

use xds::envoy::config::core::v3::GrpcService;
use xds::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};

use super::clusters::outbound_name;
use crate::model::Mesh;
use crate::model::host;
use crate::model::istio::extension_provider::{ExtensionProvider, FileAccessLog};
use crate::model::istio::service_entry::ServiceEntry;
use crate::model::kind::Kind;

/// A service, and the cluster by which proxies reach it.
pub(super) struct Target {
    /// The service's full name.
    pub host: String,
    /// The cluster's name.
    pub cluster: String,
}

/// Providers that every mesh has, unless it gives their names to others.
static BUILT_IN: LazyLock<[ExtensionProvider; 2]> = LazyLock::new(|| {
    let prometheus = ExtensionProvider {
        name: "prometheus".to_owned(),
        prometheus: Some(serde_json::Value::Object(serde_json::Map::new())),
        ..ExtensionProvider::default()
    };
    let envoy = ExtensionProvider {
        name: "envoy".to_owned(),
        envoy_file_access_log: Some(FileAccessLog::default()),
        ..ExtensionProvider::default()
    };
    [prometheus, envoy]
});

impl Target {
    /// The service as one that speaks gRPC.
    pub(super) fn grpc(&self) -> GrpcService {
        let target = EnvoyGrpc {
            cluster_name: self.cluster.clone(),
            authority: self.host.clone(),
            ..EnvoyGrpc::default()
        };
        GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
            ..GrpcService::default()
        }
    }
}

/// The provider of this name.
pub(super) fn named<'m>(mesh: &'m Mesh, name: &str) -> Option<&'m ExtensionProvider> {
    let mut providers = mesh.config.extension_providers.iter().chain(BUILT_IN.iter());
    providers.find(|it| it.name.eq_ignore_ascii_case(name))
}

/// The service that a provider names as `HOST` or `NAMESPACE/HOST`. None if there is no such service, or several
/// namespaces have one.
pub(super) fn cluster(mesh: &Mesh, name: &str, port: u32) -> Option<Target> {
    let (namespace, host) = match name.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, name),
    };
    let lowercase = host.to_ascii_lowercase();
    let service = host::parse_service(&lowercase)
        .and_then(|(name, namespace)| mesh.get(Kind::Service, namespace, name));
    let service = service.map(|it| it.metadata.namespace.as_str());
    let entries = mesh
        .all::<ServiceEntry>()
        .filter(|entry| entry.spec.hosts.iter().any(|it| it.eq_ignore_ascii_case(host)));
    let mut namespaces: Vec<&str> = service
        .into_iter()
        .chain(entries.map(|it| it.namespace()))
        .filter(|it| namespace.is_none_or(|wanted| *it == wanted))
        .collect();
    namespaces.dedup();
    if namespaces.len() != 1 || port == 0 || port > 65_535 {
        return None;
    }
    Some(Target { host: host.to_owned(), cluster: outbound_name(port, "", host) })
}
