//! Gateways that get in each other's way.

use crate::model::istio::gateway::{Gateway, ServerTlsSettings};
use crate::model::workloads::{Labels, selects, shown};
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

pub(super) fn same_hosts(mesh: &Mesh, findings: &mut Findings) {
    let gateways: Vec<_> = mesh.all::<Gateway>().collect();
    for gateway in &gateways {
        let together: Vec<_> = gateways
            .iter()
            .filter(|other| other.object.key() != gateway.object.key())
            .filter(|other| same_workload(&gateway.spec.selector, &other.spec.selector, mesh))
            .collect();
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            let conflicts = |other: &Found<'_, Gateway>| {
                other.spec.servers.iter().any(|it| {
                    it.port.as_ref().is_some_and(|it| it.number == port.number)
                        && it.bind == server.bind
                        && it.hosts.iter().any(|host| server.hosts.contains(host))
                })
            };
            let names: Vec<String> = together
                .iter()
                .filter(|other| conflicts(other))
                .map(|other| other.object.full_name())
                .collect();
            if !names.is_empty() {
                let message = format!(
                    "Conflict with gateways {} (workload selector {}, port {}, hosts {})",
                    names.join(","),
                    shown(&gateway.spec.selector),
                    port.number,
                    server.hosts.join(",")
                );
                let path = format!("spec.servers[{index}].hosts");
                let finding =
                    findings.report(code::CONFLICTING_GATEWAYS, gateway.object, path, message);
                finding.fix("keep each host of a port in one gateway");
            }
        }
    }
}

/// Whether some workload serves both: equal selectors, or one part of the other and a pod that has all labels.
fn same_workload(one: &Labels, other: &Labels, mesh: &Mesh) -> bool {
    if one == other {
        return true;
    }
    let nested = selects(one, other) || selects(other, one);
    nested && mesh.workloads().any(|it| it.is_selected_by(one) && it.is_selected_by(other))
}

pub(super) fn duplicate_certificates(mesh: &Mesh, findings: &mut Findings) {
    let gateways: Vec<_> = mesh.all::<Gateway>().collect();
    for gateway in &gateways {
        let certificates: Vec<_> = certificates(gateway.spec).collect();
        for other in &gateways {
            let apart = other.object.key() == gateway.object.key()
                || !selects(&gateway.spec.selector, &other.spec.selector);
            if apart {
                continue;
            }
            let shared = certificates.iter().find(|(_, tls)| {
                self::certificates(other.spec).any(|(_, other)| is_same_certificate(tls, other))
            });
            if let Some((index, _)) = shared {
                let message = format!(
                    "Gateway {} has the same certificate: clients that use one HTTP/2 connection for \
                     both get 404",
                    other.object.full_name()
                );
                let path = format!("spec.servers[{index}].tls");
                findings.report(code::DUPLICATE_CERTIFICATE, gateway.object, path, message);
            }
        }
    }
}

fn certificates(gateway: &Gateway) -> impl Iterator<Item = (usize, &ServerTlsSettings)> {
    let servers = gateway.servers.iter().enumerate();
    servers.filter_map(|(index, server)| Some((index, server.tls.as_ref()?)))
}

fn is_same_certificate(one: &ServerTlsSettings, other: &ServerTlsSettings) -> bool {
    let secret = (!one.credential_name.is_empty()).then_some(&one.credential_name);
    match secret {
        Some(name) => *name == other.credential_name,
        None => {
            other.credential_name.is_empty()
                && !one.server_certificate.is_empty()
                && !one.private_key.is_empty()
                && (&one.server_certificate, &one.private_key)
                    == (&other.server_certificate, &other.private_key)
        }
    }
}
