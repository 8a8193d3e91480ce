//! Service entries: addresses for TCP, and one protocol for each host and port.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::istio::service_entry::ServiceEntry;
use crate::model::visibility::Visibility;
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

pub(super) fn missing_addresses(mesh: &Mesh, findings: &mut Findings) {
    let metadata = &mesh.config.default_config.proxy_metadata;
    let is_true = |name: &str| metadata.get(name).is_some_and(|value| value == "true");
    let allocated = is_true("ISTIO_META_DNS_CAPTURE")
        && (is_true("ISTIO_META_DNS_AUTO_ALLOCATE") || is_true("PILOT_ENABLE_IP_AUTOALLOCATE"));
    if allocated {
        return;
    }
    for entry in mesh.all::<ServiceEntry>().filter(|entry| entry.spec.addresses.is_empty()) {
        for (index, port) in entry.spec.ports.iter().enumerate() {
            if port.protocol.is_empty() || port.protocol.eq_ignore_ascii_case("TCP") {
                let message = "Without addresses, TCP to this host is not told apart from other \
                    traffic to the same port";
                let path = format!("spec.ports[{index}].name");
                let finding =
                    findings.report(code::ADDRESSES_REQUIRED, entry.object, path, message);
                finding.fix("set spec.addresses, or another protocol");
            }
        }
    }
}

/// An entry and the protocol it gives a port.
type Entry<'m> = (Found<'m, ServiceEntry>, String);

pub(super) fn conflicting_protocols(mesh: &Mesh, findings: &mut Findings) {
    let default = &mesh.config.default_service_export_to;
    let mut by_port: BTreeMap<(&str, u32), Vec<Entry<'_>>> = BTreeMap::new();
    for entry in mesh.all::<ServiceEntry>() {
        for host in &entry.spec.hosts {
            for port in &entry.spec.ports {
                let protocol = port.protocol.to_ascii_uppercase();
                by_port.entry((host, port.number)).or_default().push((entry, protocol));
            }
        }
    }
    let mut reported = BTreeSet::new();
    for ((host, port), entries) in by_port {
        let visibility = |entry: &Found<'_, ServiceEntry>| {
            Visibility::of(&entry.spec.export_to, entry.namespace(), default)
        };
        for (entry, protocol) in &entries {
            let others: Vec<_> = entries
                .iter()
                .filter(|(other, theirs)| {
                    theirs != protocol && visibility(other).overlaps(&visibility(entry))
                })
                .collect();
            if others.is_empty() || !reported.insert(entry.object.key()) {
                continue;
            }
            let names: Vec<_> = others
                .iter()
                .map(|(other, protocol)| format!("{} ({protocol})", other.object.full_name()))
                .collect();
            let message = format!(
                "{host}:{port} is {protocol} here, and something else in {}",
                names.join(", ")
            );
            let code = code::CONFLICTING_SERVICE_ENTRY_PROTOCOL;
            findings.report(code, entry.object, "spec.ports", message);
        }
    }
}
