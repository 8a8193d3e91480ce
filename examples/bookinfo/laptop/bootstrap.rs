//! What a proxy of the mesh is started with: who it is, and where the control plane is.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::workloads::Workload;

/// A bootstrap for the proxy of `workload`, which asks the control plane at `xds`. Secrets come from the agent in the
/// process, so nobody listens at the socket of `sds-grpc`.
pub(super) fn of(workload: &Workload, xds: SocketAddr) -> Value {
    let Workload { name, namespace, account, labels, pod, admin, service } = workload;
    let role = if service.is_some() { "sidecar" } else { "router" };
    let ip = pod.ip();
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {
            "id": format!("{role}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{name}.{namespace}"),
            "metadata": {
                "NAMESPACE": namespace, "LABELS": labels, "SERVICE_ACCOUNT": account,
                "INTERCEPTION_MODE": "NONE", "INSTANCE_IPS": ip, "CLUSTER_ID": "Kubernetes",
            },
        },
        "admin": {"address": socket(*admin)},
        "dynamic_resources": {
            "lds_config": ads, "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": [
            grpc_cluster("xds-grpc", &socket(xds)),
            grpc_cluster("sds-grpc", &json!({"pipe": {"path": "./sds"}})),
        ]},
    })
}

fn grpc_cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}
