//! `EnvoyFilter`, `WasmPlugin` and `ProxyConfig`.

use super::check::Check;
use crate::model::istio::envoy_filter::EnvoyFilter;
use crate::model::istio::proxy_config::ProxyConfig;
use crate::model::istio::wasm_plugin::{EnvValueSource, WasmPlugin};

pub(super) fn envoy_filter(spec: &EnvoyFilter, check: &mut Check<'_>) {
    let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
    let path = "spec.workloadSelector.labels";
    check.labels(path, labels, "wildcard is not supported in selector");
    if spec.workload_selector.is_some() && !spec.target_refs.is_empty() {
        let reason = "only one of targetRefs or workloadSelector can be set";
        check.invalid("spec", "\"object\"", reason);
    }
    for (index, patch) in spec.config_patches.iter().enumerate() {
        let path = format!("spec.configPatches[{index}].match");
        let Some(matched) = &patch.r#match else { continue };
        let ports = [
            ("listener", matched.listener.as_ref().map(|it| it.port_number)),
            ("routeConfiguration", matched.route_configuration.as_ref().map(|it| it.port_number)),
            ("cluster", matched.cluster.as_ref().map(|it| it.port_number)),
            ("waypoint", matched.waypoint.as_ref().map(|it| it.port_number)),
        ];
        for (field, number) in ports {
            if let Some(number) = number.filter(|number| *number != 0) {
                check.port(&format!("{path}.{field}.portNumber"), number);
            }
        }
        if ports.iter().filter(|(_, given)| given.is_some()).count() > 1 {
            check.error(
                &path,
                "only one of listener, routeConfiguration, cluster and waypoint can be set",
            );
        }
    }
}

pub(super) fn wasm_plugin(spec: &WasmPlugin, check: &mut Check<'_>) {
    check.targets(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    check.min_length("spec.url", &spec.url);
    let scheme = spec.url.split_once("://").map(|(scheme, _)| scheme);
    if let Some(scheme) = scheme
        && !matches!(scheme, "file" | "http" | "https" | "oci")
    {
        let supported = "\"file\", \"http\", \"https\", \"oci\"";
        check.error(
            "spec.url",
            format!("Unsupported value: {scheme:?}: supported values: {supported}"),
        );
    }
    let digest = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_digest = spec.sha256.len() == 64 && spec.sha256.bytes().all(digest);
    if !spec.sha256.is_empty() && !is_digest {
        let value = format!("{:?}", spec.sha256);
        check.invalid("spec.sha256", value, "must be 64 digits of a hexadecimal number");
    }
    let Some(machine) = &spec.vm_config else { return };
    let path = "spec.vmConfig.env";
    check.unique(path, "name", machine.env.iter().map(|variable| variable.name.as_str()));
    for (at, variable) in machine.env.iter().enumerate() {
        let path = format!("{path}[{at}]");
        check.min_length(&format!("{path}.name"), &variable.name);
        if variable.value_from == EnvValueSource::Host && !variable.value.is_empty() {
            let reason = "value may only be set when valueFrom is INLINE";
            check.invalid(&path, "\"object\"", reason);
        }
    }
}

pub(super) fn proxy_config(spec: &ProxyConfig, check: &mut Check<'_>) {
    check.selector(spec.selector.as_ref());
    if let Some(concurrency) = spec.concurrency {
        check.not_negative("spec.concurrency", concurrency.into());
    }
}
