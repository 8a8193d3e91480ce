//! Kubernetes services: names of ports that tell the protocol.

use super::workload::{is_control_plane, is_platform};
use crate::model::Mesh;
use crate::model::kubernetes::Service;
use crate::model::protocol::Protocol;
use crate::validate::code;
use crate::validate::finding::Findings;

/// Controllers whose services Istio makes itself.
const MANAGED: [&str; 3] =
    ["istio.io-gateway-controller", "istio.io-mesh-controller", "istio.io-eastwest-controller"];

pub(super) fn port_names(mesh: &Mesh, findings: &mut Findings) {
    for service in mesh.all::<Service>() {
        let managed = service.object.metadata.labels.get("gateway.istio.io/managed");
        let own = managed.is_some_and(|controller| MANAGED.contains(&controller.as_str()));
        if own || is_control_plane(service.object) || is_platform(service.namespace()) {
            continue;
        }
        let external = service.spec.r#type == "ExternalName";
        for (index, port) in service.spec.ports.iter().enumerate() {
            let path = format!("spec.ports[{index}]");
            let unknown = Protocol::of(port) == Protocol::Unknown;
            if external && (unknown || port.name == "tcp") {
                let message = "A service of type ExternalName needs the name of a protocol other than \
                    TCP: it would catch traffic of other hosts";
                let code = code::EXTERNAL_NAME_PORT;
                let finding = findings.report(code, service.object, path, message);
                finding.fix("name the port after its protocol, such as http or tls");
            } else if unknown {
                let message = format!(
                    "Port {} ({}) does not tell its protocol, so each connection is inspected",
                    port.name, port.port
                );
                let code = code::PORT_NAME_CONVENTION;
                let finding = findings.report(code, service.object, path, message);
                finding.fix("begin its name with a protocol, such as http-web, or set appProtocol");
            }
        }
    }
}
