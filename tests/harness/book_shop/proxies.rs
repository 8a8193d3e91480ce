//! What the proxies of the shop are started with: who they are, where the control plane is, and how they prove themselves
//! to it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Trust, Workload};
use crate::bootstrap::{Bootstrap, Cluster};
use crate::control_plane::ControlPlane;

/// The name in the control plane's certificate.
const CONTROL_PLANE: &str = "istiod.istio-system.svc";

/// A bootstrap that says who its proxy is, and asks cluster `xds-grpc` for everything.
pub(super) fn identified(bootstrap: Bootstrap, workload: &Workload, variant: &str) -> Bootstrap {
    let Workload { name, namespace, account, labels, pod, outbound } = workload;
    let role = if outbound.is_some() { "sidecar" } else { "router" };
    let ip = pod.ip();
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let node = json!({
        "id": format!("{role}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        "cluster": format!("{name}.{namespace}"),
        "metadata": {
            "NAMESPACE": namespace, "LABELS": labels, "SERVICE_ACCOUNT": account,
            "INTERCEPTION_MODE": "NONE", "INSTANCE_IPS": ip, "CLUSTER_ID": "Kubernetes",
        },
    });
    bootstrap.with("node", node).with(
        "dynamic_resources",
        json!({
            "lds_config": ads, "cds_config": ads,
            "ads_config": {
                "api_type": variant, "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        }),
    )
}

/// It has a certificate in files, with which it asks the control plane for everything: also for the one that it shows to
/// others.
pub(super) fn by_certificate(
    bootstrap: Bootstrap,
    workload: &Workload,
    trust: &Trust,
    control: &ControlPlane,
) -> Bootstrap {
    let file = |suffix: &str| trust.file(&format!("{}.{suffix}", workload.name));
    let certificate = json!({
        "certificate_chain": {"filename": file("pem")}, "private_key": {"filename": file("key")},
    });
    let mut context = server(trust);
    context["common_tls_context"]["tls_certificates"] = json!([certificate]);
    ["xds-grpc", "sds-grpc"].into_iter().fold(bootstrap, |bootstrap, name| {
        bootstrap.cluster(to_control(name, control.tls()).tls(context.clone()))
    })
}

/// It has a token, with which its own agent asks for its certificate.
pub(super) fn by_token(
    bootstrap: Bootstrap,
    workload: &Workload,
    trust: &Trust,
    control: &ControlPlane,
) -> Bootstrap {
    let token = trust.file(&format!("{}.token", workload.name));
    let header = json!({"key": "authorization", "value": format!("Bearer {}", workload.token())});
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let options = [
        ("--ca-address", control.tls().to_string()),
        ("--ca-root", trust.file("root.pem").display().to_string()),
        ("--ca-server-name", CONTROL_PLANE.to_owned()),
        ("--ca-token", token.display().to_string()),
        ("--workload-namespace", workload.namespace.to_owned()),
        ("--service-account", workload.account.clone()),
    ];
    let bootstrap = bootstrap
        .cluster(to_control("xds-grpc", control.tls()).tls(server(trust)))
        .cluster(to_control("sds-grpc", nobody))
        .with("dynamic_resources.ads_config.grpc_services.0.initial_metadata", json!([header]));
    options
        .into_iter()
        .fold(bootstrap, |bootstrap, (name, value)| bootstrap.argument(name).argument(value))
}

fn to_control(name: &str, address: SocketAddr) -> Cluster {
    Cluster::new(name).http2().endpoint(address)
}

/// TLS to the control plane.
fn server(trust: &Trust) -> Value {
    let name = json!({"san_type": "DNS", "matcher": {"exact": CONTROL_PLANE}});
    json!({
        "sni": CONTROL_PLANE,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "validation_context": {
                "trusted_ca": {"filename": trust.file("root.pem")},
                "match_typed_subject_alt_names": [name],
            },
        },
    })
}
