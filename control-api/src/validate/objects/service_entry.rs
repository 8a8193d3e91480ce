//! `ServiceEntry`: hosts, ports, and endpoints that go with the resolution.

use std::collections::BTreeSet;

use super::check::Check;
use super::host;
use super::workload;
use crate::model::istio::service_entry::{Resolution, ServiceEntry};

pub(super) fn check(spec: &ServiceEntry, check: &mut Check<'_>) {
    let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
    let path = "spec.workloadSelector.labels";
    check.labels(path, labels, "wildcard is not supported in selector");
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        check.invalid("spec", "\"object\"", "only one of WorkloadSelector or Endpoints can be set");
    }
    if spec.hosts.is_empty() {
        check.error("spec.hosts", "service entry must have at least one host");
    }
    for (at, name) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{at}]");
        if name == "*" {
            check.invalid(&path, "\"*\"", "invalid host *");
        } else {
            check.wildcard_host(&path, name);
        }
    }
    for (at, address) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{at}]");
        check.subnet(&path, address);
        if address.contains('/')
            && !matches!(spec.resolution, Resolution::None | Resolution::Static)
        {
            check.error(&path, "CIDR addresses are allowed only for NONE/STATIC resolution types");
        }
    }
    ports(spec, check);
    endpoints(spec, check);
    check.export_to(&spec.export_to, true);
}

fn ports(spec: &ServiceEntry, check: &mut Check<'_>) {
    check.unique("spec.ports", "name", spec.ports.iter().map(|port| port.name.as_str()));
    let mut numbers = BTreeSet::new();
    for (at, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        check.port(&format!("{path}.number"), port.number);
        check.required(&format!("{path}.name"), &port.name);
        check.protocol(&format!("{path}.protocol"), &port.protocol);
        if port.target_port != 0 {
            check.port(&format!("{path}.targetPort"), port.target_port);
        }
        if !numbers.insert(port.number) {
            check.error(&format!("{path}.number"), format!("Duplicate value: {}", port.number));
        }
        let shared = host::is_http(&port.protocol) || host::is_tls(&port.protocol);
        if spec.resolution != Resolution::None && spec.hosts.len() > 1 && !shared {
            let reason = "multiple hosts provided with non-HTTP, non-TLS ports";
            check.error(&path, reason).fix("make a service entry for each host");
        }
    }
}

fn endpoints(spec: &ServiceEntry, check: &mut Check<'_>) {
    let names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    let by_name = matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => {
            let reason = "no endpoints should be provided for resolution type NONE";
            check.error("spec.endpoints", reason).fix("set resolution: STATIC");
        }
        Resolution::None if spec.workload_selector.is_some() => {
            let reason = "workloadSelector should not be set when resolution mode is NONE";
            check.warn("spec.workloadSelector", reason).fix("set resolution: STATIC");
        }
        Resolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
            let reason = "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN";
            check.error("spec.endpoints", reason);
        }
        Resolution::DynamicDns => dynamic(spec, check),
        _ => {}
    }
    if by_name && spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        for (at, name) in spec.hosts.iter().enumerate().filter(|(_, name)| !host::is_fqdn(name)) {
            let reason =
                "cannot be resolved: without endpoints, hosts must be names without wildcards";
            check.invalid(&format!("spec.hosts[{at}]"), format!("{name:?}"), reason);
        }
    }
    for (at, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{at}]");
        workload::address(&path, endpoint, by_name, check);
        for name in endpoint.ports.keys().filter(|name| !names.contains(name.as_str())) {
            let reason = "is no port of this service entry";
            check.invalid(&format!("{path}.ports[{name}]"), format!("{name:?}"), reason);
        }
    }
}

fn dynamic(spec: &ServiceEntry, check: &mut Check<'_>) {
    for (at, name) in spec.hosts.iter().enumerate().filter(|(_, name)| !name.starts_with('*')) {
        let reason = "host must be wildcarded for resolution mode DYNAMIC_DNS";
        check.invalid(&format!("spec.hosts[{at}]"), format!("{name:?}"), reason);
    }
    let fields =
        [(!spec.addresses.is_empty(), "addresses"), (!spec.endpoints.is_empty(), "endpoints")];
    for (_, field) in fields.iter().filter(|(given, _)| *given) {
        check.error(&format!("spec.{field}"), "cannot be set for resolution type DYNAMIC_DNS");
    }
}
