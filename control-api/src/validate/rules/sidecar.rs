//! Sidecar objects: each for a workload, and no workload with two.

use std::collections::BTreeMap;

use crate::model::istio::sidecar::Sidecar;
use crate::model::kind::Kind;
use crate::model::workloads::shown;
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    let mut defaults: BTreeMap<&str, Vec<Found<'_, Sidecar>>> = BTreeMap::new();
    let mut of_workload: BTreeMap<_, Vec<Found<'_, Sidecar>>> = BTreeMap::new();
    for sidecar in mesh.all::<Sidecar>() {
        let selector = sidecar.spec.workload_selector.as_ref().map(|selector| &selector.labels);
        let Some(labels) = selector.filter(|labels| !labels.is_empty()) else {
            defaults.entry(&sidecar.object.metadata.namespace).or_default().push(sidecar);
            continue;
        };
        let mut found = false;
        for workload in mesh.workloads() {
            if workload.namespace() == sidecar.namespace() && workload.is_selected_by(labels) {
                found = true;
                let key = (workload.object.key(), workload.is_ambient());
                of_workload.entry(key).or_insert_with(Vec::new).push(sidecar);
            }
        }
        if !found {
            let message = format!("Referenced selector not found: {:?}", shown(labels));
            let code = code::REFERENCED_RESOURCE_NOT_FOUND;
            findings.report(code, sidecar.object, "spec.workloadSelector", message);
        }
    }
    for ((workload, ambient), sidecars) in of_workload {
        if ambient {
            ineffective(
                &sidecars,
                "the selected workload has no sidecar: it is in ambient mode",
                findings,
            );
        } else if sidecars.len() > 1 {
            for sidecar in &sidecars {
                let message = format!(
                    "The Sidecars {} select the same workload {workload}",
                    names(&sidecars)
                );
                let code = code::CONFLICTING_SIDECAR_SELECTORS;
                findings.report(code, sidecar.object, "metadata.name", message);
            }
        }
    }
    for (namespace, sidecars) in defaults {
        let labels = mesh.get(Kind::Namespace, "", namespace).map(|it| &it.metadata.labels);
        let is = |key: &str, value: &str| {
            labels.is_some_and(|labels| labels.get(key).is_some_and(|it| it == value))
        };
        if is("istio.io/dataplane-mode", "ambient") && !is("istio-injection", "enabled") {
            ineffective(
                &sidecars,
                "the namespace has no sidecars: it is in ambient mode",
                findings,
            );
        } else if sidecars.len() > 1 {
            for sidecar in &sidecars {
                let names = names(&sidecars);
                let message =
                    format!("The Sidecars {names} are all for the whole namespace {namespace}");
                findings.report(code::MULTIPLE_SIDECARS, sidecar.object, "metadata.name", message);
            }
        }
    }
}

fn ineffective(sidecars: &[Found<'_, Sidecar>], reason: &str, findings: &mut Findings) {
    for sidecar in sidecars {
        let message = format!("The object has no effect: {reason}");
        findings.report(code::INEFFECTIVE_POLICY, sidecar.object, "metadata.name", message);
    }
}

fn names(sidecars: &[Found<'_, Sidecar>]) -> String {
    let names: Vec<_> = sidecars.iter().map(Found::name).collect();
    names.join(", ")
}
