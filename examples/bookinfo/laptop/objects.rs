//! The objects that a cluster adds to what people write: pods, the endpoints of services, and the gateway's service; and a
//! `Sidecar` for each workload, since on one machine every one needs addresses of its own.

use std::collections::{BTreeMap, BTreeSet};

use control_api::model::kind::Spec;
use control_api::model::kubernetes::{IntOrString, Service, ServicePort};
use control_api::model::object::Object;
use serde_json::{Value, json};

use super::workloads::{GATEWAY, GATEWAY_NAMESPACE, Workload};

/// The ports of gateways that lead to the one port that the gateway has here.
const GATEWAY_PORTS: [(&str, u16); 2] = [("http2", 80), ("http-8080", 8080)];

/// All of them, as documents of YAML.
pub(super) fn documents(objects: &[impl AsRef<Object>], workloads: &[Workload]) -> String {
    let services: Vec<_> = objects.iter().filter_map(|it| service(it.as_ref())).collect();
    let mut documents = vec![gateway_service(workloads), gateway_account()];
    documents.extend(workloads.iter().map(pod));
    documents.extend(services.iter().filter_map(|(object, it)| endpoints(object, it, workloads)));
    documents.extend(gateway_endpoints(workloads));
    let ports: BTreeSet<u16> =
        services.iter().flat_map(|(_, it)| &it.ports).map(|port| port.port).collect();
    documents.extend(workloads.iter().filter_map(|it| sidecar(it, &ports)));
    documents.iter().map(|document| format!("---\n{document}\n")).collect()
}

fn service(object: &Object) -> Option<(&Object, &Service)> {
    match &object.spec {
        Spec::Service(service) => Some((object, service)),
        _ => None,
    }
}

fn pod(workload: &Workload) -> Value {
    let Workload { name, namespace, labels, account, pod, .. } = workload;
    let mut labels = labels.clone();
    labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "serviceAccountName": account,
            "containers": [
                {"name": "service", "ports": [{"containerPort": pod.port()}]},
                {"name": "istio-proxy"},
            ],
        },
        "status": {
            "podIP": pod.ip(), "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn endpoints(object: &Object, service: &Service, workloads: &[Workload]) -> Option<Value> {
    let namespace = &object.metadata.namespace;
    let selected: Vec<_> = workloads
        .iter()
        .filter(|it| it.namespace == *namespace && selects(&service.selector, &it.labels))
        .collect();
    let port = |port: &ServicePort| json!({"name": port.name, "port": target(port)});
    let ports: Vec<_> = service.ports.iter().map(port).collect();
    (!selected.is_empty()).then(|| slice(&object.metadata.name, namespace, &ports, &selected))
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The port of pods; named ones are the service's own, as containers say no more here.
fn target(port: &ServicePort) -> u16 {
    match &port.target_port {
        Some(IntOrString::Int(number)) => *number,
        _ => port.port,
    }
}

fn slice(service: &str, namespace: &str, ports: &[Value], workloads: &[&Workload]) -> Value {
    let endpoint = |it: &&Workload| {
        json!({
            "addresses": [it.pod.ip()], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": it.name, "namespace": it.namespace},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-on-this-machine"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": ports,
        "endpoints": workloads.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn gateway_service(workloads: &[Workload]) -> Value {
    let gateway = workloads.iter().find(|it| it.service.is_none());
    let (labels, target) = (gateway.map(|it| &it.labels), gateway.map(|it| it.pod.port()));
    let ports =
        GATEWAY_PORTS.map(|(name, port)| json!({"name": name, "port": port, "targetPort": target}));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": GATEWAY, "namespace": GATEWAY_NAMESPACE},
        "spec": {"selector": labels, "ports": ports},
    })
}

fn gateway_account() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": GATEWAY, "namespace": GATEWAY_NAMESPACE},
    })
}

fn gateway_endpoints(workloads: &[Workload]) -> Option<Value> {
    let gateway = workloads.iter().find(|it| it.service.is_none())?;
    let ports = GATEWAY_PORTS.map(|(name, _)| json!({"name": name, "port": gateway.pod.port()}));
    Some(slice(GATEWAY, GATEWAY_NAMESPACE, &ports, &[gateway]))
}

/// Where a workload is met, and where it meets the ports of all services.
fn sidecar(workload: &Workload, ports: &BTreeSet<u16>) -> Option<Value> {
    let behind = workload.service.as_ref()?;
    let egress = ports.iter().map(|port| {
        json!({
            "port": {"number": port, "protocol": "HTTP", "name": format!("http-{port}")},
            "bind": behind.outbound, "captureMode": "NONE", "hosts": ["*/*"],
        })
    });
    Some(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
        "metadata": {"name": format!("{}-on-this-machine", workload.name), "namespace": workload.namespace},
        "spec": {
            "workloadSelector": {"labels": workload.labels},
            "ingress": [{
                "port": {"number": workload.pod.port(), "protocol": "HTTP", "name": "http"},
                "bind": workload.pod.ip(), "captureMode": "NONE",
                "defaultEndpoint": behind.address.to_string(),
            }],
            "egress": egress.collect::<Vec<_>>(),
        },
    }))
}
