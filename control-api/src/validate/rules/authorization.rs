//! Authorization policies and the workloads, namespaces and keys they depend on.

use std::collections::BTreeSet;

use crate::model::istio::authorization_policy::AuthorizationPolicy;
use crate::model::istio::request_authentication::RequestAuthentication;
use crate::model::kind::{Kind, Spec};
use crate::model::workloads::{Workload, shown};
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

/// Networks that istiod does not fetch keys from.
const BLOCKED: &str = "BLOCKED_CIDRS_IN_JWKS_URIS";

pub(super) fn policies(mesh: &Mesh, findings: &mut Findings) {
    let in_mesh: Vec<_> =
        mesh.workloads().filter(|it| it.has_sidecar(mesh) || it.is_ambient()).collect();
    for policy in mesh.all::<AuthorizationPolicy>() {
        workloads(policy, mesh, &in_mesh, findings);
        namespaces(policy, mesh, findings);
    }
}

fn workloads(
    policy: Found<'_, AuthorizationPolicy>,
    mesh: &Mesh,
    in_mesh: &[Workload<'_>],
    findings: &mut Findings,
) {
    let selector = policy.spec.selector.as_ref().map(|selector| &selector.match_labels);
    let mesh_wide = policy.namespace() == mesh.config.root_namespace;
    let elsewhere = policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty();
    if elsewhere || mesh_wide && selector.is_none() {
        return;
    }
    let found = in_mesh.iter().any(|workload| {
        (mesh_wide || workload.namespace() == policy.namespace())
            && selector.is_none_or(|selector| workload.is_selected_by(selector))
    });
    if !found {
        let labels = selector.map(shown).unwrap_or_default();
        let message = match labels.as_str() {
            "" => {
                "No workload of this namespace is in the mesh, so the policy has no effect".into()
            }
            labels => format!("No workload in the mesh has the labels {labels}"),
        };
        let path = if selector.is_some() { "spec.selector" } else { "" };
        findings.report(code::NO_MATCHING_WORKLOADS, policy.object, path, message);
    }
}

fn namespaces(policy: Found<'_, AuthorizationPolicy>, mesh: &Mesh, findings: &mut Findings) {
    let known = known_namespaces(mesh);
    for (rule, from) in policy.spec.rules.iter().enumerate() {
        for (at, source) in from.from.iter().enumerate() {
            let Some(source) = &source.source else { continue };
            let lists =
                [("namespaces", &source.namespaces), ("notNamespaces", &source.not_namespaces)];
            for (field, names) in lists {
                for (index, name) in names.iter().enumerate() {
                    if known.iter().any(|namespace| is_meant(namespace, name)) {
                        continue;
                    }
                    let path = format!("spec.rules[{rule}].from[{at}].source.{field}[{index}]");
                    let message = format!("Referenced namespace not found: {name:?}");
                    findings.report(
                        code::REFERENCED_RESOURCE_NOT_FOUND,
                        policy.object,
                        path,
                        message,
                    );
                }
            }
        }
    }
}

/// Namespaces that are there: those that are given, that objects are in, and those of every cluster.
fn known_namespaces(mesh: &Mesh) -> BTreeSet<&str> {
    let given = mesh.of_kind(Kind::Namespace).iter().map(|it| it.metadata.name.as_str());
    let used = mesh.objects().map(|it| it.metadata.namespace.as_str());
    let always = ["default", "kube-system", mesh.config.root_namespace.as_str()];
    given.chain(used).chain(always).filter(|name| !name.is_empty()).collect()
}

fn is_meant(namespace: &str, name: &str) -> bool {
    if let Some(suffix) = name.strip_prefix('*') {
        namespace.ends_with(suffix)
    } else if let Some(prefix) = name.strip_suffix('*') {
        namespace.starts_with(prefix)
    } else {
        namespace.eq_ignore_ascii_case(name)
    }
}

pub(super) fn unrestricted_key_fetches(mesh: &Mesh, findings: &mut Findings) {
    let count = mesh.all::<RequestAuthentication>().count();
    if count == 0 {
        return;
    }
    for object in mesh.of_kind(Kind::Deployment) {
        let Spec::Deployment(deployment) = &object.spec else { continue };
        let is_istiod = object.metadata.labels.get("app").is_some_and(|app| app == "istiod");
        let containers = &deployment.template.spec.containers;
        let mut variables = containers.iter().flat_map(|container| &container.env);
        if is_istiod && !variables.any(|it| it.name == BLOCKED && !it.value.is_empty()) {
            let message = format!(
                "{count} RequestAuthentication objects may let istiod fetch keys from any address"
            );
            let finding =
                findings.report(code::JWKS_FETCH_UNRESTRICTED, object, "spec.template", message);
            finding.fix(format!("set {BLOCKED} to the networks it must not reach"));
        }
    }
}
