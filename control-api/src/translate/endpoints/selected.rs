//! Endpoints that selectors find across kinds: workload entries behind a Kubernetes service, and pods behind a
//! `ServiceEntry`.

use super::{Endpoint, of_entry, of_pod};
use crate::model::Mesh;
use crate::model::istio::sidecar::WorkloadSelector;
use crate::model::istio::workload_entry::WorkloadEntry;
use crate::model::kind::{Kind, Spec};
use crate::model::kubernetes::{
    EndpointSlice, IntOrString, Pod, Service, SliceEndpoint, TargetRef,
};
use crate::model::workloads::selects;
use crate::translate::service::{self, Port, Resolution};

/// The workload entries that a Kubernetes service selects; none for a headless one, whose clients choose addresses.
pub(super) fn entries(
    mesh: &Mesh,
    service: &service::Service,
    spec: &Service,
    port: &Port,
) -> Vec<Endpoint> {
    if spec.selector.is_empty() || service.resolution != Resolution::Endpoints {
        return Vec::new();
    }
    let namespace = service.namespace();
    let all = mesh.of_namespace::<WorkloadEntry>(namespace);
    let selected = all.filter(|it| selects(&spec.selector, &it.spec.labels));
    selected
        .filter_map(|it| {
            let port = at_entry(it.spec, spec, port)?;
            Some(of_entry(mesh, it.spec, &port, namespace))
        })
        .collect()
}

/// The port of a workload entry for a service's: by the name that the service gives as its target, which the entry must
/// then have, or else by the port's own name.
fn at_entry(entry: &WorkloadEntry, spec: &Service, port: &Port) -> Option<Port> {
    let own = spec.ports.iter().find(|it| u32::from(it.port) == port.number)?;
    let target = match &own.target_port {
        Some(IntOrString::String(name)) => *entry.ports.get(name)?,
        Some(IntOrString::Int(number)) if *number != 0 => (*number).into(),
        _ => port.number,
    };
    let name = match &own.target_port {
        Some(IntOrString::String(name)) => name.clone(),
        _ => port.name.clone(),
    };
    Some(Port { name, target, ..port.clone() })
}

/// The pods that a `ServiceEntry` selects.
pub(super) fn pods(
    mesh: &Mesh,
    namespace: &str,
    selector: &WorkloadSelector,
    port: &Port,
) -> Vec<Endpoint> {
    let pods = mesh.of_kind(Kind::Pod).iter().filter(|it| it.metadata.namespace == namespace);
    let selected = pods.filter(|it| selects(&selector.labels, &it.metadata.labels));
    selected
        .filter_map(|it| {
            let Spec::Pod(pod) = &it.spec else { return None };
            let name = it.metadata.name.clone();
            let address = address(mesh, namespace, &name)?;
            let target = TargetRef { kind: "Pod".to_owned(), name, ..TargetRef::default() };
            let number = named(pod, &port.name).unwrap_or(port.target);
            Some(of_pod(mesh, address, number, Some(&target), namespace))
        })
        .collect()
}

fn named(pod: &Pod, name: &str) -> Option<u32> {
    let ports = pod.containers.iter().flat_map(|it| &it.ports);
    ports.into_iter().find(|it| it.name == name).map(|it| it.container_port.into())
}

/// The address of a pod, as far as any service's endpoints tell it.
pub(in crate::translate) fn address<'m>(
    mesh: &'m Mesh,
    namespace: &str,
    pod: &str,
) -> Option<&'m str> {
    let endpoints = mesh.of_namespace::<EndpointSlice>(namespace).flat_map(|it| &it.spec.endpoints);
    let of_pod = |it: &&SliceEndpoint| {
        it.target_ref.as_ref().is_some_and(|it| it.kind == "Pod" && it.name == pod)
    };
    endpoints.into_iter().find(of_pod)?.addresses.first().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
    use crate::model::object::{SourceFile, read_file};
    use crate::translate::index::Index;

    const MESH: &str = "\
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {selector: {app: db}, ports: \
[{name: tcp, port: 3306, targetPort: 3307}, {name: web, port: 80, targetPort: http}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: shop}, spec: {address: \
10.9.0.1, labels: {app: db}, ports: {http: 8080}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: plain, namespace: shop}, spec: {address: \
10.9.0.2, labels: {app: db}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: other, namespace: shop}, spec: {address: \
10.9.0.3, labels: {app: web}}}
---
{apiVersion: v1, kind: Service, metadata: {name: shop, namespace: shop}, spec: {selector: {app: pod}, ports: [{port: 1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pod-1, namespace: shop, labels: {app: pod}}, spec: {containers: [{name: \
it, ports: [{name: web, containerPort: 8081}]}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: shop-1, namespace: shop, labels: \
{kubernetes.io/service-name: shop}}, ports: [{port: 1}], endpoints: [{addresses: [10.0.0.7], targetRef: {kind: Pod, \
name: pod-1}}]}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: legacy, namespace: shop}, spec: {hosts: \
[legacy.example.com], location: MESH_INTERNAL, resolution: STATIC, workloadSelector: {labels: {app: pod}}, ports: \
[{number: 80, name: web, protocol: HTTP}, {number: 90, name: raw, protocol: TCP, targetPort: 91}]}}
";

    fn behind(host: &str, port: u32) -> Vec<String> {
        let file = SourceFile::new(Path::new("x.yaml"), MESH.to_owned());
        let objects = read_file(&file, "default").unwrap().into_iter();
        let objects = objects.map(|it| Arc::new(it.unwrap()));
        let mesh = Mesh::new(objects, MeshConfig::default(), MeshNetworks::default());
        let index = Index::new(mesh);
        let service = index.services_by_age().iter().find(|it| it.host.starts_with(host)).unwrap();
        let port = service.ports.iter().find(|it| it.number == port).unwrap();
        let endpoints = index.endpoints(service, port);
        endpoints.iter().map(|it| format!("{}:{}", it.address, it.port)).collect()
    }

    #[test]
    fn a_service_selects_workload_entries_that_have_its_port() {
        assert_eq!(behind("db.", 3306), ["10.9.0.2:3307", "10.9.0.1:3307"]);
        assert_eq!(behind("db.", 80), ["10.9.0.1:8080"]);
    }

    #[test]
    fn a_service_entry_selects_pods_whose_address_is_known() {
        assert_eq!(behind("legacy.", 80), ["10.0.0.7:8081"]);
        assert_eq!(behind("legacy.", 90), ["10.0.0.7:91"]);
    }
}
