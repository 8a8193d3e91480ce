//! Who gets which secrets, and what is in them.

use std::path::Path;
use std::time::Duration;

use certs::{Authority, Lifetimes};
use xds::envoy::config::core::v3::Node;

use super::*;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};
use crate::serve::auth::Proof;

const MESH: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: shop-cert, namespace: ingress}
data: {tls.crt: Q0hB SU4=, tls.key: S0VZ, ca.crt: Uk9PVA==}
---
apiVersion: v1
kind: Secret
metadata: {name: old-style, namespace: ingress}
stringData: {cert: c, key: k}
---
apiVersion: v1
kind: Secret
metadata: {name: empty, namespace: ingress}
data: {tls.crt: '', tls.key: '***'}
---
apiVersion: v1
kind: Secret
metadata: {name: granted, namespace: certs}
data: {tls.crt: Qw==, tls.key: Sw==}
---
apiVersion: v1
kind: Secret
metadata: {name: not-granted, namespace: certs}
data: {tls.crt: Qw==, tls.key: Sw==}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: g, namespace: certs}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: ingress}]
  to: [{group: '', kind: Secret, name: granted}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: ingress}
spec:
  gatewayClassName: istio
  listeners:
  - name: a
    port: 443
    protocol: HTTPS
    tls: {certificateRefs: [{name: granted, namespace: certs}, {name: not-granted, namespace: certs}, {name: shop-cert}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec: {selector: {istio: ingressgateway}, servers: []}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: ingress, labels: {istio: ingressgateway}}
spec: {serviceAccountName: gateway}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: ingress, labels: {app: web}}
spec: {serviceAccountName: web}
";

fn mesh() -> Mesh {
    let file = SourceFile::new(Path::new("x.yaml"), MESH.to_owned());
    let objects = read_file(&file, "default").unwrap().into_iter();
    let objects = objects.map(|it| Arc::new(it.unwrap()));
    Mesh::new(objects, MeshConfig::default(), MeshNetworks::default())
}

fn secrets(ca: Option<Arc<MeshCa>>) -> Secrets {
    Secrets::new(ca, &Registry::new()).unwrap()
}

/// The proxy that an account of a namespace has, with the labels of a gateway.
fn proxy(role: &str, namespace: &str, account: &str) -> (Proxy, Caller) {
    let id = format!("{role}~10.0.0.1~p.{namespace}~{namespace}.svc.cluster.local");
    let mut proxy = Proxy::of(&Node { id, ..Node::default() }).unwrap();
    proxy.labels.insert("istio".into(), "ingressgateway".into());
    proxy.service_account = account.to_owned();
    let id = SpiffeId::of_service_account("cluster.local", namespace, account).unwrap();
    (proxy, Caller { id, proof: Proof::Certificate })
}

/// The names of those asked for that it gets.
fn got(who: &(Proxy, Caller), names: &[&str]) -> Vec<String> {
    let (mesh, secrets) = (mesh(), secrets(None));
    let answer = secrets.answer(&mesh, &who.0, &who.1, names.iter().copied(), SystemTime::now());
    let refused = u64::try_from(names.len() - answer.secrets.len()).unwrap();
    assert_eq!(secrets.refused.get(), refused);
    answer.secrets.into_iter().map(|it| it.name).collect()
}

#[test]
fn a_gateway_gets_the_secrets_of_its_namespace() {
    let gateway = proxy("router", "ingress", "gateway");
    let good = [
        "kubernetes://shop-cert",
        "kubernetes://ingress/shop-cert",
        "kubernetes://shop-cert-cacert",
        "kubernetes://old-style",
        "kubernetes-gateway://certs/granted",
        "kubernetes-gateway://ingress/shop-cert",
        "kubernetes-gateway://ingress/shop-cert-cacert",
    ];
    assert_eq!(got(&gateway, &good), good);
    let bad = [
        "kubernetes://certs/granted",
        "kubernetes://absent",
        "kubernetes://empty",
        "kubernetes://old-style-cacert",
        "kubernetes-gateway://certs/not-granted",
        "kubernetes-gateway://ingress/old-style",
        "kubernetes-gateway://shop-cert",
        "file-cert:/etc/passwd~/etc/shadow",
        "kubernetes://",
        "default",
        "ROOTCA",
    ];
    assert_eq!(got(&gateway, &bad), [""; 0]);
}

#[test]
fn whoever_is_no_gateway_gets_no_keys() {
    let names = ["kubernetes://shop-cert", "kubernetes-gateway://ingress/shop-cert"];
    for (role, namespace, account) in
        [("sidecar", "ingress", "gateway"), ("router", "ingress", "web"), ("router", "x", "y")]
    {
        assert_eq!(got(&proxy(role, namespace, account), &names), [""; 0], "{role} {account}");
    }
    let (liar, _) = proxy("router", "ingress", "gateway");
    let (_, caller) = proxy("sidecar", "shop", "cart");
    assert_eq!(got(&(liar, caller), &names), [""; 0]);
    let sidecar = proxy("sidecar", "ingress", "web");
    let public = ["kubernetes://shop-cert-cacert"];
    assert_eq!(got(&sidecar, &public), public);
}

#[test]
fn secrets_hold_what_the_objects_hold() {
    let (proxy, caller) = proxy("router", "ingress", "gateway");
    let names = ["kubernetes://shop-cert", "kubernetes://shop-cert-cacert"];
    let answer = secrets(None).answer(&mesh(), &proxy, &caller, names, SystemTime::now());
    let expected = [
        certificate(names[0], b"CHAIN".to_vec(), b"KEY".to_vec()),
        trusting(names[1], b"ROOT".to_vec(), None),
    ];
    assert_eq!(answer.secrets, expected);
    assert_eq!(answer.due, None);
}

#[test]
fn a_proxy_without_agent_gets_a_certificate_that_is_renewed() {
    let authority = Authority::self_signed("root").unwrap();
    let roots = authority.trust_pem();
    let ca = Arc::new(MeshCa::of(authority, Lifetimes::default(), Vec::new()).unwrap());
    let secrets = secrets(Some(Arc::clone(&ca)));
    let (proxy, caller) = proxy("sidecar", "shop", "cart");
    let now = SystemTime::now();
    let ask = |now| secrets.answer(&mesh(), &proxy, &caller, ["default", "ROOTCA"], now);
    let first = ask(now);
    assert_eq!(first.due, Some(now + Duration::from_secs(12 * 3600)));
    assert_eq!(first.secrets[1], trusting("ROOTCA", roots.into_bytes(), None));
    assert_eq!(ask(now + Duration::from_secs(3600)), first);
    let renewed = ask(now + Duration::from_secs(13 * 3600));
    assert_ne!(renewed.secrets[0], first.secrets[0]);
    assert!(renewed.due > first.due);
}
