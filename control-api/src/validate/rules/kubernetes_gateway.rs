//! The Gateway API: how its gateways are named by policies, and whether its definitions are new enough.

use crate::model::Mesh;
use crate::model::istio::selector::WorkloadSelector;
use crate::model::kind::{Kind, Spec};
use crate::model::kubernetes::CustomResourceDefinition;
use crate::validate::code;
use crate::validate::finding::Findings;

/// The label of the pods that serve a gateway.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Definitions and the first version of the Gateway API in which they are usable.
const MINIMUM: [(&str, (u32, u32, u32)); 4] = [
    ("grpcroutes.gateway.networking.k8s.io", (1, 1, 0)),
    ("backendtlspolicies.gateway.networking.k8s.io", (1, 4, 0)),
    ("tlsroutes.gateway.networking.k8s.io", (1, 5, 0)),
    ("tcproutes.gateway.networking.k8s.io", (1, 6, 0)),
];

pub(super) fn selectors(mesh: &Mesh, findings: &mut Findings) {
    let kinds =
        [Kind::AuthorizationPolicy, Kind::RequestAuthentication, Kind::Telemetry, Kind::WasmPlugin];
    for object in kinds.into_iter().flat_map(|kind| mesh.of_kind(kind)) {
        let (selector, target) = match &object.spec {
            Spec::AuthorizationPolicy(it) => (&it.selector, it.target_ref.is_some()),
            Spec::RequestAuthentication(it) => (&it.selector, it.target_ref.is_some()),
            Spec::Telemetry(it) => (&it.selector, it.target_ref.is_some()),
            Spec::WasmPlugin(it) => (&it.selector, it.target_ref.is_some()),
            _ => continue,
        };
        let Some(WorkloadSelector { match_labels }) = selector.as_ref().filter(|_| !target) else {
            continue;
        };
        for pod in mesh.workloads().filter(|pod| pod.namespace() == object.metadata.namespace) {
            let Some(gateway) = pod.labels.get(GATEWAY_NAME) else { continue };
            if pod.is_selected_by(match_labels) {
                let message = format!(
                    "A selector has no effect on the pods of the Kubernetes Gateway {gateway}"
                );
                let finding =
                    findings.report(code::INEFFECTIVE_SELECTOR, object, "spec.selector", message);
                finding.fix("name the gateway in targetRefs");
            }
        }
    }
}

pub(super) fn definitions(mesh: &Mesh, findings: &mut Findings) {
    for definition in mesh.all::<CustomResourceDefinition>() {
        let Some((name, minimum)) = MINIMUM.iter().find(|(name, _)| *name == definition.name())
        else {
            continue;
        };
        const VERSION: &str = "gateway.networking.k8s.io/bundle-version";
        let Some(version) = definition.object.metadata.annotations.get(VERSION) else { continue };
        if parse(version).is_some_and(|version| version < *minimum) {
            let (major, minor, patch) = minimum;
            let message = format!(
                "{name} is of version {version}; its objects are used from {major}.{minor}.{patch} on"
            );
            let path = format!("metadata.annotations[{VERSION}]");
            let code = code::GATEWAY_API_CRD_VERSION;
            let finding = findings.report(code, definition.object, path, message);
            finding.fix("upgrade the Gateway API's definitions");
        }
    }
}

/// `v1.4.0-rc.1` as its three numbers.
fn parse(version: &str) -> Option<(u32, u32, u32)> {
    let numbers = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut numbers = numbers.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}
