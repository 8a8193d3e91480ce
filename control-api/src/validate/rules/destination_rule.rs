//! Destination rules: servers that are verified, hosts that exist, subsets with pods.

use crate::model::istio::destination_rule::{ClientTlsSettings, DestinationRule, TlsMode};
use crate::model::kind::Kind;
use crate::model::services::Services;
use crate::model::workloads::{Labels, Workload};
use crate::model::{Found, Mesh};
use crate::validate::code::{self, Code};
use crate::validate::finding::Findings;

pub(super) fn unverified_servers(mesh: &Mesh, findings: &mut Findings) {
    for rule in mesh.all::<DestinationRule>() {
        let Some(policy) = &rule.spec.traffic_policy else { continue };
        let path = "spec.trafficPolicy";
        let tls = policy.tls.as_ref();
        unverified(rule, tls, code::NO_VERIFICATION_DESTINATION, path, findings);
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            let path = format!("{path}.portLevelSettings[{index}]");
            unverified(rule, port.tls.as_ref(), code::NO_VERIFICATION_PORT, &path, findings);
        }
    }
}

fn unverified(
    rule: Found<'_, DestinationRule>,
    tls: Option<&ClientTlsSettings>,
    code: Code,
    path: &str,
    findings: &mut Findings,
) {
    let Some(tls) = tls else { return };
    let speaks = matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual);
    // A secret may hold the authority's certificate too. It is read only by the workloads that are named.
    let from_secret = !tls.credential_name.is_empty() && rule.spec.workload_selector.is_some();
    if speaks && tls.ca_certificates.is_empty() && !from_secret {
        let host = &rule.spec.host;
        let message = format!(
            "TLS to {host} without caCertificates does not verify who answers (mode {:?})",
            tls.mode
        );
        let finding = findings.report(code, rule.object, format!("{path}.tls"), message);
        finding.fix("set caCertificates, for example to a file with the authority's certificate");
    }
}

pub(super) fn subsets_without_pods(mesh: &Mesh, findings: &mut Findings) {
    let services = Services::new(mesh);
    let workloads: Vec<_> =
        mesh.workloads().map(|workload| (workload, topology(workload, mesh))).collect();
    for rule in mesh.all::<DestinationRule>() {
        let host = &rule.spec.host;
        let Some(service) = services.find(host, rule.namespace()) else {
            let message = format!("No service of the mesh has the host {host}");
            findings.report(code::UNKNOWN_DESTINATION_RULE_HOST, rule.object, "spec.host", message);
            continue;
        };
        // The endpoints of these are no pods.
        if service.object.kind() == Kind::ServiceEntry && service.selector.is_none() {
            continue;
        }
        let everything = Labels::new();
        let selector = service.selector.as_ref().unwrap_or(&everything);
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            let found = workloads.iter().any(|(workload, topology)| {
                workload.is_selected_by(selector)
                    && subset.labels.iter().all(|(key, value)| {
                        let label = topology.get(key).or_else(|| workload.labels.get(key));
                        label == Some(value)
                    })
            });
            if !found {
                let name = &subset.name;
                let message = format!("Subset {name} selects no pods: requests to it will fail");
                let path = format!("spec.subsets[{index}]");
                findings.report(code::SUBSET_SELECTS_NO_PODS, rule.object, path, message);
            }
        }
    }
}

/// The labels that endpoints get from the node they are on.
fn topology(workload: Workload<'_>, mesh: &Mesh) -> Labels {
    let name = &workload.pod.node_name;
    let mut labels = Labels::new();
    if name.is_empty() {
        return labels;
    }
    labels.insert("kubernetes.io/hostname".into(), name.clone());
    let Some(node) = mesh.get(Kind::Node, "", name) else { return labels };
    const PLACE: [&str; 3] = [
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.istio.io/subzone",
    ];
    // A zone counts only within its region, and so on.
    for key in PLACE {
        match node.metadata.labels.get(key).filter(|value| !value.is_empty()) {
            Some(value) => labels.insert(key.into(), value.clone()),
            None => break,
        };
    }
    labels
}
