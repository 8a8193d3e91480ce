//! What would run: a folder of YAML usually has no pods, only what pods are made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Mesh;
use crate::model::istio::gateway::Gateway;
use crate::model::kind::{Kind, Spec};
use crate::model::kubernetes::{
    EndpointPort, EndpointSlice, IntOrString, Pod, Service, ServicePort, SliceEndpoint, TargetRef,
};
use crate::model::object::{Key, Metadata, Object, TypeMeta};
use crate::model::workloads::{Workload, selects};

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label of pods that say whether they want a sidecar.
const INJECT: &str = "sidecar.istio.io/inject";
/// The label of pods with a sidecar.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// The mesh with a pod for each template that has none, the endpoints that services then have, and the label that
/// sidecars would give pods.
pub(super) fn with_pods(mesh: &Mesh) -> Mesh {
    // A gateway is a proxy itself, and tells nothing of others.
    let is_gateway = |it: &Workload<'_>| {
        let mut selectors = mesh.all::<Gateway>().map(|it| &it.spec.selector);
        selectors.any(|selector| !selector.is_empty() && it.is_selected_by(selector))
    };
    let tells = |it: &Workload<'_>| it.has_sidecar(mesh) || it.labels.contains_key(TLS_MODE);
    let injects = mesh.workloads().any(|it| tells(&it) && !is_gateway(&it));
    let is_out = |it: &Workload<'_>| it.labels.get(INJECT).is_some_and(|wanted| wanted != "true");
    let known = mesh.of_kind(Kind::Pod);
    let made: Vec<Arc<Object>> = mesh
        .workloads()
        .filter(|it| match it.object.kind() {
            Kind::Pod => !it.labels.contains_key(TLS_MODE),
            _ => !has_pods(it, known),
        })
        // Where nothing says who gets a sidecar, everybody has one.
        .map(|it| pod(&it, (!injects && !is_out(&it)) || it.has_sidecar(mesh)))
        .collect();
    // The last one of a name counts.
    let pods: BTreeMap<Key, &Arc<Object>> =
        known.iter().chain(&made).map(|it| (it.key(), it)).collect();
    let homeless: Vec<_> = pods.into_values().filter(|it| !has_address(mesh, it)).collect();
    let mut slices = Vec::new();
    for service in mesh.all::<Service>().filter(|it| !it.spec.selector.is_empty()) {
        let selected = |it: &Object| {
            it.metadata.namespace == service.namespace()
                && selects(&service.spec.selector, &it.metadata.labels)
        };
        for (index, pod) in homeless.iter().enumerate().filter(|(_, it)| selected(it)) {
            slices.push(slice(service.object, service.spec, pod, &address(index)));
        }
    }
    let objects =
        mesh.objects().cloned().chain(made.clone()).chain(slices.into_iter().map(Arc::new));
    Mesh::new(objects, mesh.config.clone(), mesh.networks.clone())
}

fn has_pods(template: &Workload<'_>, pods: &[Arc<Object>]) -> bool {
    pods.iter().any(|it| {
        it.metadata.namespace == template.namespace()
            && !template.labels.is_empty()
            && selects(template.labels, &it.metadata.labels)
    })
}

/// Whether some service's endpoints tell a pod's address.
fn has_address(mesh: &Mesh, pod: &Object) -> bool {
    let namespace = &pod.metadata.namespace;
    let slices = mesh.all::<EndpointSlice>().filter(|it| it.namespace() == namespace);
    let mut targets =
        slices.flat_map(|it| &it.spec.endpoints).filter_map(|it| it.target_ref.as_ref());
    targets.any(|it| it.kind == "Pod" && it.name == pod.metadata.name)
}

/// An address that nobody has: it stands for the pod's.
fn address(index: usize) -> String {
    format!("240.0.{}.{}", (index / 250) % 250, index % 250 + 1)
}

fn pod(template: &Workload<'_>, sidecar: bool) -> Arc<Object> {
    let mut labels = template.labels.clone();
    if sidecar {
        labels.entry(TLS_MODE.to_owned()).or_insert_with(|| "istio".to_owned());
    }
    let metadata = Metadata {
        name: template.object.metadata.name.clone(),
        namespace: template.namespace().to_owned(),
        labels,
        annotations: template.annotations.clone(),
        ..Metadata::default()
    };
    Arc::new(object(
        "",
        "Pod",
        metadata,
        Spec::Pod(Box::new(template.pod.clone())),
        template.object,
    ))
}

/// An object that stands where another one does.
fn object(group: &str, kind: &str, metadata: Metadata, spec: Spec, of: &Object) -> Object {
    Object {
        type_meta: TypeMeta { group: group.into(), version: "v1".into(), kind: kind.into() },
        metadata,
        spec,
        origin: of.origin.clone(),
        unknown: Vec::new(),
    }
}

fn slice(service: &Object, spec: &Service, pod: &Object, address: &str) -> Object {
    let name = &pod.metadata.name;
    let ports = spec.ports.iter().filter_map(|it| {
        let Spec::Pod(content) = &pod.spec else { return None };
        let port = Some(number(it, content)?);
        Some(EndpointPort { name: it.name.clone(), port, ..EndpointPort::default() })
    });
    let endpoint = SliceEndpoint {
        addresses: vec![address.to_owned()],
        target_ref: Some(TargetRef {
            kind: "Pod".into(),
            name: name.clone(),
            ..TargetRef::default()
        }),
        ..SliceEndpoint::default()
    };
    let content = EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: vec![endpoint],
        ports: ports.collect(),
    };
    let metadata = Metadata {
        name: format!("{}-{name}", service.metadata.name),
        namespace: service.metadata.namespace.clone(),
        labels: BTreeMap::from([(SERVICE_NAME.to_owned(), service.metadata.name.clone())]),
        ..Metadata::default()
    };
    let spec = Spec::EndpointSlice(Box::new(content));
    object("discovery.k8s.io", "EndpointSlice", metadata, spec, pod)
}

/// The port that a pod has for a service's.
fn number(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let ports = pod.containers.iter().flat_map(|it| &it.ports);
            ports.into_iter().find(|it| it.name == *name).map(|it| it.container_port)
        }
    }
}
