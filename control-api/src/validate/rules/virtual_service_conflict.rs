//! Virtual services for the same host inside the mesh: only one can count.

use crate::model::host;
use crate::model::istio::virtual_service::VirtualService;
use crate::model::visibility::Visibility;
use crate::model::{Found, Mesh};
use crate::validate::code;
use crate::validate::finding::Findings;

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    let default = &mesh.config.default_virtual_service_export_to;
    let services: Vec<_> = mesh
        .all::<VirtualService>()
        .filter(|it| it.spec.gateways.is_empty() || it.spec.gateways.iter().any(|it| it == "mesh"))
        .map(|it| (it, Visibility::of(&it.spec.export_to, it.namespace(), default), hosts(it)))
        .collect();
    for (service, visibility, hosts) in &services {
        let mut conflicts = Vec::new();
        let mut host = None;
        for (other, theirs, their_hosts) in &services {
            if other.object.key() == service.object.key() || !visibility.overlaps(theirs) {
                continue;
            }
            // A wildcard and a name may both be there: the name counts.
            if let Some(shared) = hosts.iter().find(|host| their_hosts.contains(host)) {
                conflicts.push(other.object.full_name());
                host.get_or_insert(shared);
            }
        }
        if let Some(host) = host {
            let message =
                format!("VirtualServices {} are for the same host {host}", conflicts.join(", "));
            let code = code::CONFLICTING_MESH_GATEWAY_HOSTS;
            let finding = findings.report(code, service.object, "spec.hosts", message);
            finding.fix("merge them into one, or export them to different namespaces");
        }
    }
}

fn hosts(service: Found<'_, VirtualService>) -> Vec<String> {
    let hosts = service.spec.hosts.iter();
    hosts.map(|host| host::qualified(host, service.namespace())).collect()
}
