//! Fields that are deprecated, and kinds that are gone.

use crate::model::Mesh;
use crate::model::istio::sidecar::Sidecar;
use crate::model::istio::virtual_service::VirtualService;
use crate::model::kubernetes::CustomResourceDefinition;
use crate::validate::code;
use crate::validate::finding::Findings;

const REMOVED_GROUP: &str = "rbac.istio.io";
const REMOVED: [&str; 4] = ["ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"];

pub(super) fn check(mesh: &Mesh, findings: &mut Findings) {
    for service in mesh.all::<VirtualService>() {
        for (index, route) in service.spec.http.iter().enumerate() {
            let delay = route.fault.as_ref().and_then(|fault| fault.delay.as_ref());
            if delay.is_some_and(|delay| delay.percent > 0) {
                let path = format!("spec.http[{index}].fault.delay.percent");
                let message = "Deprecated: fault.delay.percent";
                let finding = findings.report(code::DEPRECATED, service.object, path, message);
                finding.fix("use fault.delay.percentage.value");
            }
        }
    }
    for sidecar in mesh.all::<Sidecar>() {
        let policy = sidecar.spec.outbound_traffic_policy.as_ref();
        if policy.is_some_and(|policy| policy.egress_proxy.is_some()) {
            let path = "spec.outboundTrafficPolicy.egressProxy";
            let message = "Deprecated: outboundTrafficPolicy.egressProxy is ignored";
            findings.report(code::DEPRECATED, sidecar.object, path, message);
        }
    }
    for definition in mesh.all::<CustomResourceDefinition>() {
        let kind = definition.spec.names.kind.as_str();
        if definition.spec.group == REMOVED_GROUP && REMOVED.contains(&kind) {
            let message =
                format!("Deprecated: Istio no longer has the kind {REMOVED_GROUP} {kind}");
            let finding = findings.report(code::DEPRECATED, definition.object, "spec", message);
            finding.fix("use AuthorizationPolicy");
        }
    }
}
