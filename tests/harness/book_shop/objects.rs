//! The objects that a cluster adds to what people write: pods, the endpoints of services, and the gateway's service; and a
//! `Sidecar` for each workload, since on one machine every one needs addresses of its own.

use serde_json::{Value, json};

use super::services::Service;
use super::{GATEWAY, PORT, Workload};

/// Pods, endpoints, the gateway's service, and the policy that nothing but mutual TLS is taken.
pub(super) fn cluster(workloads: &[Workload]) -> String {
    let (gateways, others): (Vec<_>, Vec<_>) =
        workloads.iter().partition(|it| it.outbound.is_none());
    let mut all: Vec<Value> = workloads.iter().map(pod).collect();
    for gateway in gateways {
        let ports = json!([{"name": "http2", "port": 8080, "targetPort": gateway.pod.port()}]);
        let named = json!({"name": GATEWAY, "namespace": gateway.namespace});
        let spec = json!({"selector": gateway.labels, "ports": ports});
        all.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": spec}));
        all.push(slice(GATEWAY, "http2", &[gateway]));
    }
    for app in ["productpage", "details", "ratings", "reviews"] {
        let behind: Vec<_> = others.iter().copied().filter(|it| it.labels["app"] == app).collect();
        all.push(slice(app, "http", &behind));
    }
    all.push(json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }));
    documents(all)
}

/// Where each workload is met, and where it meets the others.
pub(super) fn sidecars(workloads: &[Workload], services: &[Service]) -> String {
    let behind = workloads.iter().zip(services);
    documents(behind.filter_map(|(workload, service)| {
        let egress = json!([{
            "port": {"number": PORT, "protocol": "HTTP", "name": "http"},
            "bind": workload.outbound?.ip(), "captureMode": "NONE", "hosts": ["*/*"],
        }]);
        let ingress = json!([{
            "port": {"number": PORT, "protocol": "HTTP", "name": "http"},
            "bind": workload.pod.ip(), "captureMode": "NONE",
            "defaultEndpoint": service.address().to_string(),
        }]);
        Some(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"name": workload.name, "namespace": workload.namespace},
            "spec": {
                "workloadSelector": {"labels": workload.labels},
                "ingress": ingress, "egress": egress,
            },
        }))
    }))
}

fn pod(workload: &Workload) -> Value {
    let mut labels = workload.labels.clone();
    labels["security.istio.io/tlsMode"] = "istio".into();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": workload.name, "namespace": workload.namespace, "labels": labels},
        "spec": {
            "serviceAccountName": workload.account,
            "containers": [{"name": "service", "ports": [{"containerPort": workload.pod.port()}]}],
        },
        "status": {
            "podIP": workload.pod.ip(), "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn slice(service: &str, port: &str, behind: &[&Workload]) -> Value {
    let first = behind.first().expect("somebody behind every service");
    let endpoints = behind.iter().map(|it| {
        json!({
            "addresses": [it.pod.ip()], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": it.name, "namespace": it.namespace},
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": service, "namespace": first.namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [{"name": port, "port": first.pod.port()}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// As documents of one file of YAML.
fn documents(all: impl IntoIterator<Item = Value>) -> String {
    all.into_iter().map(|document| format!("---\n{document}\n")).collect()
}
