//! Objects that are left out as they are in each other's way, do not fit together, or find nobody.

use std::collections::BTreeMap;

use crate::model::istio::destination_rule::DestinationRule;
use crate::model::istio::gateway::{Gateway, Server};
use crate::model::istio::service_entry::{Resolution, ServiceEntry};
use crate::model::kind::Kind;
use crate::model::kubernetes::EndpointSlice;
use crate::model::protocol::Protocol;
use crate::model::workloads::{Labels, selects};
use crate::model::{Found, Mesh, host};
use crate::translate::endpoints::address_of_pod;
use crate::translate::virtual_services::misfits;
use crate::validate::code;
use crate::validate::finding::Findings;

/// Labels of services whose requests ought to be kept at one endpoint.
const SESSIONS: [&str; 2] = ["istio.io/persistent-session", "istio.io/persistent-session-header"];

/// Adds a finding for each of them.
pub(super) fn report(mesh: &Mesh, findings: &mut Findings) {
    for (object, path, why) in misfits(mesh) {
        findings.report(code::NOT_APPLIED, object, path, why);
    }
    servers(mesh, findings);
    subsets(mesh, findings);
    pods_without_address(mesh, findings);
    for service in mesh.of_kind(Kind::Service).iter().chain(mesh.of_kind(Kind::ServiceEntry)) {
        for label in SESSIONS.iter().filter(|it| service.metadata.labels.contains_key(**it)) {
            let why = "requests are not kept at one endpoint by this label, as with istiod's \
                default settings";
            let path = format!("metadata.labels.{label}");
            findings
                .report(code::NOT_APPLIED, service, path, why)
                .fix("let a DestinationRule balance by a cookie: loadBalancer.consistentHash");
        }
    }
    for slice in mesh.all::<EndpointSlice>().filter(|it| it.spec.address_type == "FQDN") {
        let why = "endpoints of services are addresses, not names";
        findings.report(code::NOT_APPLIED, slice.object, "addressType", why);
    }
}

/// Servers whose port speaks something else already, by an older gateway of the same workloads.
fn servers(mesh: &Mesh, findings: &mut Findings) {
    let mut gateways: Vec<Found<'_, Gateway>> = mesh.all::<Gateway>().collect();
    gateways.sort_by_cached_key(|it| {
        let age = it.object.metadata.creation_timestamp.clone().unwrap_or_default();
        (age, it.name().to_owned(), it.namespace().to_owned())
    });
    let mut first: BTreeMap<(&Labels, &str, u32), (Found<'_, Gateway>, bool)> = BTreeMap::new();
    for gateway in gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            let key = (&gateway.spec.selector, server.bind.as_str(), port.number);
            let (holder, plain) = *first.entry(key).or_insert((gateway, is_http(server)));
            // HTTP shares a port with HTTP, and TLS with TLS.
            if plain != is_http(server) || (!plain && (server.tls.is_none() && index > 0)) {
                let why = format!(
                    "port {} is {} by Gateway {}, which goes before",
                    port.number,
                    if plain { "HTTP" } else { "not HTTP" },
                    holder.object.full_name()
                );
                let path = format!("spec.servers[{index}].port");
                findings.report(code::NOT_APPLIED, gateway.object, path, why);
            }
        }
    }
}

fn is_http(server: &Server) -> bool {
    let protocol = server.port.as_ref().map(|it| it.protocol.to_ascii_lowercase());
    protocol.is_some_and(|it| Protocol::named(&it).is_http())
}

/// Subsets of hosts that only requests name: there is nothing to select from.
fn subsets(mesh: &Mesh, findings: &mut Findings) {
    let dynamic =
        mesh.all::<ServiceEntry>().filter(|it| it.spec.resolution == Resolution::DynamicDns);
    let hosts: Vec<&String> = dynamic.flat_map(|it| &it.spec.hosts).collect();
    for rule in mesh.all::<DestinationRule>().filter(|it| !it.spec.subsets.is_empty()) {
        let own = host::qualified(&rule.spec.host, rule.namespace());
        if hosts.iter().any(|it| host::covers(&own, it)) {
            let why = "hosts of resolution DYNAMIC_DNS have no endpoints to select from";
            findings.report(code::NOT_APPLIED, rule.object, "spec.subsets", why);
        }
    }
}

/// Pods that a `ServiceEntry` selects, and that no service's endpoints tell the address of.
fn pods_without_address(mesh: &Mesh, findings: &mut Findings) {
    for entry in mesh.all::<ServiceEntry>() {
        let Some(selector) = &entry.spec.workload_selector else { continue };
        let namespace = entry.namespace();
        let pods = mesh.of_kind(Kind::Pod).iter().filter(|it| {
            it.metadata.namespace == namespace && selects(&selector.labels, &it.metadata.labels)
        });
        let unknown = pods.map(|it| &it.metadata.name);
        let unknown: Vec<&str> = unknown
            .filter(|it| address_of_pod(mesh, namespace, it).is_none())
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            let why = format!("no EndpointSlice tells the address of {}", unknown.join(", "));
            findings.report(code::NOT_APPLIED, entry.object, "spec.workloadSelector", why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::object::{SourceFile, read_file};

    /// Name and path of each finding.
    fn found(text: &str) -> Vec<String> {
        let file = SourceFile::new(Path::new("mesh.yaml"), text.to_owned());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let objects: Vec<_> = objects.map(|it| Arc::new(it.unwrap())).collect();
        let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
        let mut findings = Findings::default();
        report(&mesh, &mut findings);
        findings.iter().map(|it| format!("{} {}", it.subject.name, it.path)).collect()
    }

    fn istio(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: {name}}}, \
             spec: {{{spec}}}}}\n"
        )
    }

    #[test]
    fn servers_in_the_way_of_older_ones_are_told_of() {
        let gateway = |name: &str, protocol: &str, tls: &str| {
            let server = format!(
                "{{port: {{number: 80, name: a, protocol: {protocol}}}, hosts: ['*']{tls}}}"
            );
            istio("Gateway", name, &format!("selector: {{istio: edge}}, servers: [{server}]"))
        };
        let http = gateway("a", "HTTP", "");
        let also = gateway("b", "HTTP", "");
        let tls = gateway("c", "TLS", ", tls: {mode: PASSTHROUGH}");
        assert_eq!(found(&(http.clone() + &also)), [""; 0]);
        assert_eq!(found(&(http + &also + &tls)), ["default/c spec.servers[0].port"]);
    }

    #[test]
    fn delegates_that_do_not_fit_are_told_of() {
        let root = |matched: &str| {
            istio(
                "VirtualService",
                "root",
                &format!(
                    "hosts: [a.com], http: [{{match: [{{uri: {{prefix: {matched}}}}}], \
                     delegate: {{name: leaf}}}}]"
                ),
            )
        };
        let leaf = |hosts: &str| {
            let http =
                "http: [{match: [{uri: {prefix: /a/b}}], route: [{destination: {host: a}}]}]";
            istio("VirtualService", "leaf", &format!("{hosts}{http}"))
        };
        assert_eq!(found(&(root("/a") + &leaf(""))), [""; 0]);
        assert_eq!(found(&(root("/x") + &leaf(""))), ["default/root spec.http[0].delegate"]);
        assert_eq!(
            found(&(root("/a") + &leaf("hosts: [b.com], "))),
            ["default/root spec.http[0].delegate"]
        );
    }

    #[test]
    fn pods_whose_address_nobody_tells_are_told_of() {
        let pod =
            "---\n{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: a}}, spec: {}}\n";
        let entry = istio(
            "ServiceEntry",
            "e",
            "hosts: [a.com], resolution: STATIC, workloadSelector: {labels: {app: a}}, \
             ports: [{number: 80, name: a}]",
        );
        assert_eq!(found(&(entry + pod)), ["default/e spec.workloadSelector"]);
    }

    #[test]
    fn labels_and_subsets_without_effect_are_told_of() {
        let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: a, labels: \
             {istio.io/persistent-session: x}}, spec: {ports: [{port: 80}]}}\n";
        assert_eq!(found(service), ["default/a metadata.labels.istio.io/persistent-session"]);
        let entry = istio(
            "ServiceEntry",
            "e",
            "hosts: ['*.com'], resolution: DYNAMIC_DNS, ports: [{number: 80, name: a}]",
        );
        let rule = istio("DestinationRule", "r", "host: '*.com', subsets: [{name: v1}]");
        assert_eq!(found(&(entry + &rule)), ["default/r spec.subsets"]);
    }
}
