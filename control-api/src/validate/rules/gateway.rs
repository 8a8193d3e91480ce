//! Istio's gateways, the pods that serve them, the services in front, and the secrets they need.

use std::collections::BTreeSet;

use crate::model::istio::gateway::Gateway;
use crate::model::kind::{Kind, Spec};
use crate::model::kubernetes::{IntOrString, Secret, Service};
use crate::model::workloads::{Labels, Workload, shown};
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

/// Labels of the ingress gateway that Istio is usually installed with, and that a folder seldom shows.
const DEFAULT_LABELS: [(&str, &str); 2] =
    [("app", "istio-ingressgateway"), ("istio", "ingressgateway")];

/// The ports of its service, and those they lead to.
const DEFAULT_PORTS: [u32; 7] = [80, 443, 8080, 8443, 15021, 15443, 31400];

pub(super) fn ports(mesh: &Mesh, findings: &mut Findings) {
    for gateway in mesh.all::<Gateway>() {
        let pods: Vec<_> = selected(gateway, mesh).collect();
        let ports = if !pods.is_empty() {
            service_ports(&pods, mesh)
        } else if is_default(&gateway.spec.selector) {
            DEFAULT_PORTS.into()
        } else {
            no_workload(gateway, findings);
            continue;
        };
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            if !ports.contains(&port.number) {
                let message = format!(
                    "No service in front of the gateway's pods ({}) leads to port {}",
                    shown(&gateway.spec.selector),
                    port.number
                );
                let path = format!("spec.servers[{index}].port.number");
                let code = code::GATEWAY_PORT_NOT_ON_SERVICE;
                findings.report(code, gateway.object, path, message);
            }
        }
    }
}

/// The pods that serve a gateway, in any namespace.
fn selected<'m>(
    gateway: Found<'m, Gateway>,
    mesh: &'m Mesh,
) -> impl Iterator<Item = Workload<'m>> + use<'m> {
    mesh.workloads().filter(move |workload| workload.is_selected_by(&gateway.spec.selector))
}

fn is_default(selector: &Labels) -> bool {
    let default = |key: &str, value: &str| DEFAULT_LABELS.contains(&(key, value));
    !selector.is_empty() && selector.iter().all(|(key, value)| default(key, value))
}

fn no_workload(gateway: Found<'_, Gateway>, findings: &mut Findings) {
    let selector = shown(&gateway.spec.selector);
    let message = format!("Referenced selector not found: {selector:?}");
    let code = code::REFERENCED_RESOURCE_NOT_FOUND;
    let finding = findings.report(code, gateway.object, "spec.selector", message);
    finding.fix("select the labels of a gateway's pods, such as istio: ingressgateway");
}

/// Ports by which a gateway's server can be meant: those of services, and those they lead to.
fn service_ports(pods: &[Workload<'_>], mesh: &Mesh) -> BTreeSet<u32> {
    let mut ports = BTreeSet::new();
    for service in mesh.all::<Service>() {
        let in_front = pods.iter().any(|pod| {
            pod.namespace() == service.namespace() && pod.is_selected_by(&service.spec.selector)
        });
        let tcp = |protocol: &str| matches!(protocol, "" | "TCP");
        for port in service.spec.ports.iter().filter(|port| in_front && tcp(&port.protocol)) {
            ports.insert(u32::from(port.port));
            if let Some(IntOrString::Int(target)) = port.target_port {
                ports.insert(u32::from(target));
            }
        }
    }
    ports
}

pub(super) fn secrets(mesh: &Mesh, findings: &mut Findings) {
    for gateway in mesh.all::<Gateway>() {
        let Some(pod) = selected(gateway, mesh).next() else {
            // `ports` tells of that.
            continue;
        };
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            let single = Some(&tls.credential_name).filter(|name| !name.is_empty());
            for name in single.into_iter().chain(&tls.credential_names) {
                let path = format!("spec.servers[{index}].tls.credentialName");
                let Some(secret) = mesh.get(Kind::Secret, pod.namespace(), name) else {
                    let message = format!("Referenced credentialName not found: {name:?}");
                    let code = code::REFERENCED_RESOURCE_NOT_FOUND;
                    let finding = findings.report(code, gateway.object, path, message);
                    finding.fix(format!("put the secret into the namespace {}", pod.namespace()));
                    continue;
                };
                if let Spec::Secret(secret) = &secret.spec
                    && !has_certificate(secret)
                {
                    let message = format!("Secret {name} has no certificate with its key");
                    let code = code::INVALID_GATEWAY_CREDENTIAL;
                    let finding = findings.report(code, gateway.object, path, message);
                    finding.fix("give it tls.crt and tls.key");
                }
            }
        }
    }
}

fn has_certificate(secret: &Secret) -> bool {
    let has = |key: &str| {
        let values = [secret.data.get(key), secret.string_data.get(key)];
        values.into_iter().flatten().any(|value| !value.is_empty())
    };
    has("tls.crt") && has("tls.key") || has("cert") && has("key")
}
