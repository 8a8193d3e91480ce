//! `WorkloadEntry` and `WorkloadGroup`: an address, ports and how its health is seen.

use super::check::Check;
use super::host;
use crate::model::istio::workload_entry::WorkloadEntry;
use crate::model::istio::workload_group::{ReadinessProbe, WorkloadGroup};

pub(super) fn entry(spec: &WorkloadEntry, check: &mut Check<'_>) {
    if spec.address.is_empty() && spec.network.is_empty() {
        check.error(
            "spec.address",
            "Required value: or a network, if the address is behind its gateway",
        );
    }
    address("spec", spec, true, check);
}

/// An endpoint that stands at `path`; whether its address may be a name.
pub(super) fn address(path: &str, entry: &WorkloadEntry, may_be_name: bool, check: &mut Check<'_>) {
    let field = format!("{path}.address");
    if let Some(socket) = entry.address.strip_prefix("unix://") {
        if !socket.starts_with(['/', '@']) {
            check.invalid(&field, format!("{:?}", entry.address), "must be an absolute path");
        }
        if !entry.ports.is_empty() {
            check.error(&format!("{path}.ports"), "a Unix socket has no ports");
        }
    } else if entry.address.is_empty() {
        if path != "spec" && entry.network.is_empty() {
            check.required(&field, &entry.address);
        }
    } else if may_be_name {
        check.plain_host(&field, &entry.address);
    } else if !host::is_ip(&entry.address) {
        let reason = "must be an IP address, unless the resolution is DNS";
        check.invalid(&field, format!("{:?}", entry.address), reason);
    }
    let ports = format!("{path}.ports");
    for (name, number) in &entry.ports {
        let usual = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || !name.bytes().all(usual) {
            let reason = format!("{name:?} is no name of a port: letters, digits and '-'");
            check.invalid(&ports, "\"object\"", reason);
        }
        check.port(&format!("{ports}[{name}]"), *number);
    }
    check.labels(&format!("{path}.labels"), Some(&entry.labels), "wildcard not allowed in label");
}

pub(super) fn group(spec: &WorkloadGroup, check: &mut Check<'_>) {
    match &spec.template {
        None => {
            check.error("spec.template", "Required value");
        }
        Some(template) => {
            if !template.address.is_empty() {
                let reason = "each workload of the group has its own";
                check.error("spec.template.address", reason).fix("remove it");
            }
            for (name, number) in &template.ports {
                check.port(&format!("spec.template.ports[{name}]"), *number);
            }
        }
    }
    if let Some(probe) = &spec.probe {
        readiness("spec.probe", probe, check);
    }
}

fn readiness(path: &str, probe: &ReadinessProbe, check: &mut Check<'_>) {
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        check.not_negative(&format!("{path}.{field}"), number.into());
    }
    let mut methods = 0;
    if let Some(http) = &probe.http_get {
        methods += 1;
        check.port(&format!("{path}.httpGet.port"), http.port);
        for (at, header) in http.http_headers.iter().enumerate() {
            check.header_name(&format!("{path}.httpGet.httpHeaders[{at}].name"), &header.name);
        }
    }
    if let Some(tcp) = &probe.tcp_socket {
        methods += 1;
        check.port(&format!("{path}.tcpSocket.port"), tcp.port);
    }
    if let Some(grpc) = &probe.grpc {
        methods += 1;
        check.port(&format!("{path}.grpc.port"), grpc.port);
    }
    if let Some(exec) = &probe.exec {
        methods += 1;
        if exec.command.is_empty() {
            check.error(&format!("{path}.exec.command"), "Required value");
        }
    }
    if methods != 1 {
        check.error(path, "exactly one of httpGet, tcpSocket, exec and grpc must be set");
    }
}
