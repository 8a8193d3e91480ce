//! `EnvoyFilter`: patches relative to others, and operations that have no meaning where they are.

use std::sync::Arc;

use crate::model::Mesh;
use crate::model::istio::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch, EnvoyFilter, Operation};
use crate::model::object::Object;
use crate::validate::code::{self, Code};
use crate::validate::finding::Findings;

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    // Filters that some patch before asks for only with certain versions of the proxy.
    let mut versioned: Vec<String> = Vec::new();
    for filter in mesh.all::<EnvoyFilter>() {
        for (index, patch) in filter.spec.config_patches.iter().enumerate() {
            let Some(operation) = patch.patch.as_ref().map(|patch| patch.operation) else { break };
            let name = filter_name(patch);
            let mut report = |code, message| report(filter.object, index, code, message, findings);
            let routes = matches!(patch.apply_to, ApplyTo::RouteConfiguration | ApplyTo::HttpRoute);
            let replaceable = matches!(
                patch.apply_to,
                ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::VirtualHost
            );
            match operation {
                Operation::Add if routes => {
                    report(code::PATCH_ADD, "ADD has no effect on route configurations and routes");
                }
                Operation::Remove if routes => {
                    report(
                        code::PATCH_REMOVE,
                        "REMOVE has no effect on route configurations and routes",
                    );
                }
                Operation::Replace if !replaceable => {
                    let message = "REPLACE has an effect only on filters and virtual hosts";
                    report(code::PATCH_REPLACE, message);
                }
                Operation::Remove
                | Operation::Replace
                | Operation::InsertBefore
                | Operation::InsertAfter
                    if filter.spec.priority == 0 =>
                {
                    if versioned.contains(&name) {
                        let message = "The patch depends on the order of others, with proxyVersion \
                            and without priority: it may be lost in an upgrade";
                        report(code::PATCH_RELATIVE_VERSIONED, message);
                    } else {
                        let message = "The patch depends on the order of others and has no priority: \
                            it may not be applied";
                        report(code::PATCH_RELATIVE, message);
                    }
                }
                _ => {}
            }
            let proxy = patch.r#match.as_ref().and_then(|matched| matched.proxy.as_ref());
            if proxy.is_some_and(|proxy| !proxy.proxy_version.is_empty()) {
                versioned.push(name);
            }
        }
    }
}

fn report(object: &Arc<Object>, index: usize, code: Code, message: &str, findings: &mut Findings) {
    let path = format!("spec.configPatches[{index}].patch");
    let finding = findings.report(code, object, path, message);
    if code == code::PATCH_RELATIVE || code == code::PATCH_RELATIVE_VERSIONED {
        finding.fix("set spec.priority, or use ADD or INSERT_FIRST");
    }
}

/// The filter that a patch adds, or is relative to.
fn filter_name(patch: &EnvoyConfigObjectPatch) -> String {
    let Some(value) = patch.patch.as_ref().and_then(|patch| patch.value.as_ref()) else {
        return String::new();
    };
    if let Some(name) = value.get("name").and_then(serde_json::Value::as_str) {
        return name.to_owned();
    }
    let listener = patch.r#match.as_ref().and_then(|matched| matched.listener.as_ref());
    let chain = listener.and_then(|listener| listener.filter_chain.as_ref());
    let filter = chain.and_then(|chain| chain.filter.as_ref());
    filter.map(|filter| filter.name.clone()).unwrap_or_default()
}
