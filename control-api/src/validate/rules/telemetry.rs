//! Telemetry objects: each for a workload, no workload with two, and logs that go somewhere.

use std::collections::BTreeMap;

use crate::model::istio::telemetry::Telemetry;
use crate::model::workloads::shown;
use crate::model::{Found, Mesh};
use crate::validate::code::{self, Code};
use crate::validate::finding::Findings;

pub(super) fn selectors(mesh: &Mesh, findings: &mut Findings) {
    let mut of_workload: BTreeMap<_, Vec<Found<'_, Telemetry>>> = BTreeMap::new();
    for telemetry in mesh.all::<Telemetry>() {
        let Some(selector) = &telemetry.spec.selector else { continue };
        let mut found = false;
        for workload in mesh.workloads().filter(|it| it.namespace() == telemetry.namespace()) {
            if workload.is_selected_by(&selector.match_labels) {
                found = true;
                of_workload.entry(workload.object.key()).or_default().push(telemetry);
            }
        }
        if !found {
            let message =
                format!("Referenced selector not found: {:?}", shown(&selector.match_labels));
            let code = code::REFERENCED_RESOURCE_NOT_FOUND;
            findings.report(code, telemetry.object, "spec.selector", message);
        }
    }
    for (workload, telemetries) in of_workload {
        let code = code::CONFLICTING_TELEMETRY_SELECTORS;
        several(&telemetries, code, &format!("select the same workload {workload}"), findings);
    }
}

pub(super) fn several_defaults(mesh: &Mesh, findings: &mut Findings) {
    let mut defaults: BTreeMap<&str, Vec<Found<'_, Telemetry>>> = BTreeMap::new();
    for telemetry in mesh.all::<Telemetry>() {
        let Telemetry { selector, target_ref, target_refs, .. } = telemetry.spec;
        if selector.is_none() && target_ref.is_none() && target_refs.is_empty() {
            defaults.entry(&telemetry.object.metadata.namespace).or_default().push(telemetry);
        }
    }
    for (namespace, telemetries) in defaults {
        let reason = format!("are all for the whole namespace {namespace}");
        several(&telemetries, code::MULTIPLE_TELEMETRIES, &reason, findings);
    }
}

fn several(
    telemetries: &[Found<'_, Telemetry>],
    code: Code,
    reason: &str,
    findings: &mut Findings,
) {
    if telemetries.len() < 2 {
        return;
    }
    let names: Vec<_> = telemetries.iter().map(Found::name).collect();
    for telemetry in telemetries {
        let message = format!("The Telemetries {} {reason}", names.join(", "));
        findings.report(code, telemetry.object, "metadata.name", message);
    }
}

pub(super) fn no_providers(mesh: &Mesh, findings: &mut Findings) {
    if !mesh.config.default_providers.access_logging.is_empty() {
        return;
    }
    for telemetry in mesh.all::<Telemetry>() {
        for (index, logging) in telemetry.spec.access_logging.iter().enumerate() {
            if logging.disabled != Some(true) && logging.providers.is_empty() {
                let message = "Access logs without providers go nowhere";
                let path = format!("spec.accessLogging[{index}].providers");
                findings.report(code::EMPTY_PROVIDERS, telemetry.object, path, message);
            }
        }
    }
}
