//! Networks of a mesh over several clusters.

use std::collections::BTreeSet;

use crate::model::Mesh;
use crate::model::istio::mesh_config::NetworkEndpoints;
use crate::model::kubernetes::Secret;
use crate::validate::code;
use crate::validate::finding::{Finding, Findings, Place, Subject};

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    let mut registries: BTreeSet<&str> = ["Mock", "Kubernetes", "External"].into();
    for secret in mesh.all::<Secret>() {
        let remote = secret.object.metadata.labels.get("istio/multiCluster");
        if remote.is_some_and(|remote| remote == "true") {
            registries.extend(secret.spec.data.keys().map(String::as_str));
        }
    }
    for (name, network) in &mesh.networks.networks {
        for (index, endpoints) in network.endpoints.iter().enumerate() {
            let NetworkEndpoints::FromRegistry(registry) = endpoints else { continue };
            if registries.contains(registry.as_str()) {
                continue;
            }
            findings.add(Finding {
                code: code::UNKNOWN_SERVICE_REGISTRY,
                subject: Subject {
                    kind: "MeshNetworks".into(),
                    name: format!("{}/meshnetworks", mesh.config.root_namespace),
                    place: Place::Nowhere,
                },
                path: format!("networks.{name}.endpoints[{index}].fromRegistry"),
                message: format!("Unknown service registry {registry} in network {name}"),
                fix: None,
            });
        }
    }
}
