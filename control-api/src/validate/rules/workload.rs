//! Pods and the services in front of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Mesh;
use crate::model::kind::Kind;
use crate::model::kubernetes::Service;
use crate::model::workloads::{PROXY_CONTAINER, Workload};
use crate::validate::code;
use crate::validate::finding::Findings;

/// The user that sidecars run as; what it sends is not intercepted.
const PROXY_USER: i64 = 1337;

/// Whether an object belongs to Istio's own control plane.
pub(super) fn is_control_plane(object: &crate::model::object::Object) -> bool {
    let labels = &object.metadata.labels;
    labels.contains_key("istio") || labels.get("release").is_some_and(|release| release == "istio")
}

/// Whether a namespace belongs to Kubernetes itself.
pub(super) fn is_platform(namespace: &str) -> bool {
    matches!(namespace, "kube-system" | "kube-public" | "kube-node-lease" | "local-path-storage")
}

pub(super) fn user_of_the_proxy(mesh: &Mesh, findings: &mut Findings) {
    for workload in mesh.workloads().filter(|it| !is_control_plane(it.object)) {
        let prefix =
            if workload.object.kind() == Kind::Pod { "spec" } else { "spec.template.spec" };
        let containers = workload.pod.containers.iter().enumerate();
        let apps = containers
            .filter(|(_, it)| it.name != PROXY_CONTAINER && it.name != "istio-operator")
            .map(|(at, it)| {
                (format!("{prefix}.containers[{at}]"), it.security_context.run_as_user)
            });
        let pod = (prefix.to_owned(), workload.pod.security_context.run_as_user);
        let mut users = std::iter::once(pod).chain(apps);
        if let Some((path, _)) = users.find(|(_, user)| *user == Some(PROXY_USER)) {
            let path = format!("{path}.securityContext.runAsUser");
            let message = "User 1337 is the sidecar's: what it sends is not intercepted";
            let code = code::INVALID_APPLICATION_UID;
            let finding = findings.report(code, workload.object, path, message);
            finding.fix("run the application as another user");
        }
    }
}

pub(super) fn service_association(mesh: &Mesh, findings: &mut Findings) {
    for workload in mesh.workloads().filter(|it| it.object.kind() == Kind::Deployment) {
        let labels = &workload.object.metadata.labels;
        let is_waypoint = labels
            .get("gateway.istio.io/managed")
            .is_some_and(|controller| controller == "istio.io-mesh-controller");
        if !is_waypoint && workload.has_sidecar(mesh) {
            contradictions(workload, mesh, findings);
        }
    }
}

/// Services that give one port two protocols, or lead to one target port from different ports.
fn contradictions(workload: Workload<'_>, mesh: &Mesh, findings: &mut Findings) {
    let mut protocols: BTreeMap<u16, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    let mut targets: BTreeMap<String, BTreeMap<u16, String>> = BTreeMap::new();
    for service in mesh.all::<Service>() {
        let selects = service.namespace() == workload.namespace()
            && !service.spec.selector.is_empty()
            && workload.is_selected_by(&service.spec.selector);
        if !selects {
            continue;
        }
        let name = service.object.full_name();
        for port in &service.spec.ports {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            let of_port = protocols.entry(port.port).or_default();
            of_port.entry(protocol).or_default().push(name.clone());
            let target = port.target_port.as_ref().map(ToString::to_string);
            let target = target.filter(|it| it != "0").unwrap_or_else(|| port.port.to_string());
            targets.entry(target).or_default().insert(port.port, name.clone());
        }
    }
    let deployment = &workload.object.metadata.name;
    for (port, protocols) in protocols.into_iter().filter(|(_, protocols)| protocols.len() > 1) {
        let services: Vec<String> = protocols.into_values().flatten().collect();
        let message = format!(
            "Deployment {deployment} has services that use port {port} with different protocols: {}",
            services.join(", ")
        );
        findings.report(
            code::DEPLOYMENT_MULTIPLE_SERVICES,
            workload.object,
            "metadata.name",
            message,
        );
    }
    for (target, ports) in targets.into_iter().filter(|(_, ports)| ports.len() > 1) {
        let numbers: Vec<String> = ports.keys().map(ToString::to_string).collect();
        let services: BTreeSet<String> = ports.into_values().collect();
        let services: Vec<String> = services.into_iter().collect();
        let message = format!(
            "Deployment {deployment} is reached at target port {target} by different ports ({}) of {}",
            numbers.join(", "),
            services.join(", ")
        );
        findings.report(
            code::DEPLOYMENT_CONFLICTING_PORTS,
            workload.object,
            "metadata.name",
            message,
        );
    }
}
