//! Requests through a small mesh.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};

/// What is not asked for its lines.
const EDGE: &str = "\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: istio-system}
spec: {template: {metadata: {labels: {istio: edge}}, spec: {containers: [{name: istio-proxy, image: x}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: istio-system}
spec: {selector: {istio: edge}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example.com]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: [shop.example.com]
  gateways: [edge]
  http:
  - match: [{uri: {exact: /old}}]
    redirect: {uri: /new}
  - fault: {abort: {httpStatus: 500, percentage: {value: 10}}}
    route: [{destination: {host: reviews, subset: v2}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bare, namespace: shop}
spec:
  template:
    metadata: {labels: {app: bare, sidecar.istio.io/inject: 'false'}}
    spec: {containers: [{name: it}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.5, selector: {app: db}, ports: [{name: tcp, port: 3306}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec: {template: {metadata: {labels: {app: db}}, spec: {containers: [{name: it}]}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {ports: ['3306']}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: members, namespace: shop}
spec: {selector: {app: members}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: members, namespace: shop}
spec: {template: {metadata: {labels: {app: members}}, spec: {containers: [{name: it}]}}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: members, namespace: shop}
spec: {selector: {matchLabels: {app: members}}, jwtRules: [{issuer: a, jwks: '{\"keys\": []}'}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: members, namespace: shop}
spec: {selector: {matchLabels: {app: members}}, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}
";

const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080, targetPort: web}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1, namespace: shop}
spec:
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec: {containers: [{name: it, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v2, namespace: shop}
spec:
  template:
    metadata: {labels: {app: reviews, version: v2}}
    spec: {containers: [{name: it, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: it}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews-v1, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews, version: v1}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [GET]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews-v2, namespace: shop}
spec:
  selector: {matchLabels: {app: reviews, version: v2}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/private*]}}]
";

fn mesh_of(text: &str) -> Mesh {
    let file = SourceFile::new(Path::new("shop.yaml"), text.to_owned());
    let objects = read_file(&file, "default").unwrap().into_iter();
    let objects = objects.map(|it| Arc::new(it.unwrap()));
    Mesh::new(objects, MeshConfig::default(), MeshNetworks::default())
}

fn ask(from: &str, method: &str, url: &str, headers: &[&str]) -> Result<Report> {
    let question = Question {
        from: from.to_owned(),
        method: method.to_owned(),
        url: url.to_owned(),
        headers: headers.iter().map(ToString::to_string).collect(),
    };
    offline(&mesh_of(&[MESH, EDGE].concat()), &question)
}

/// The step of this kind, with the places it comes from.
fn step<'r>(report: &'r Report, kind: &str) -> (&'r str, Vec<String>) {
    let found = report.steps.iter().find(|it| it.step == kind);
    let found = found.unwrap_or_else(|| panic!("no {kind} in\n{}", report.text()));
    let text = [MESH, EDGE].concat();
    let at = |it: &report::Source| {
        let line: usize = it.at.strip_prefix("shop.yaml:").unwrap().parse().unwrap();
        text.lines().nth(line - 1).unwrap_or_default().trim().to_owned()
    };
    (&found.is, found.from.iter().map(at).collect())
}

#[test]
fn every_choice_names_the_line_that_says_it() {
    let report = ask("web.shop", "GET", "http://reviews:9080/", &[]).unwrap();
    assert!(report.served, "{}", report.text());
    let host = "reviews.shop.svc.cluster.local";
    assert_eq!(step(&report, "service").0, host);
    assert_eq!(step(&report, "virtual host").0, format!("{host}:9080"));
    assert_eq!(step(&report, "route").1, ["- route: [{destination: {host: reviews, subset: v1}}]"]);
    let (cluster, at) = step(&report, "cluster");
    assert_eq!(cluster, format!("outbound|9080|v1|{host}"));
    assert_eq!(at, ["- {name: v1, labels: {version: v1}}"]);
    assert_eq!(step(&report, "server").0, "reviews-v1.shop at port 8080");
    let server = report.steps.iter().find(|it| it.step == "server").unwrap();
    assert_eq!(server.from[0].kind, "Deployment");
    assert_eq!(
        step(&report, "mTLS"),
        ("STRICT: mTLS is spoken", vec!["spec: {mtls: {mode: STRICT}}".into()])
    );
    let (allowed, at) = step(&report, "policies");
    assert_eq!(allowed, "ALLOW: allowed");
    assert_eq!(at, ["- from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]"]);
}

#[test]
fn headers_and_policies_decide() {
    let jason = ["end-user: jason"];
    let report = ask("web.shop", "GET", "http://reviews:9080/", &jason).unwrap();
    assert_eq!(step(&report, "server").0, "reviews-v2.shop at port 8080");
    assert_eq!(step(&report, "route").1, ["- headers: {end-user: {exact: jason}}"]);
    assert!(report.served, "{}", report.text());
    for (method, path, headers) in [("POST", "", &[][..]), ("GET", "private/x", &jason[..])] {
        let url = format!("http://reviews:9080/{path}");
        let report = ask("web.shop", method, &url, headers).unwrap();
        assert!(!report.served && report.result.starts_with("denied"), "{}", report.text());
    }
    // Another account than the one that the policy names.
    let report = ask("reviews-v1.shop", "GET", "http://reviews:9080/", &[]).unwrap();
    assert_eq!(step(&report, "policies").0, "ALLOW: denied: 403, as no rule allows it");
}

#[test]
fn what_no_service_is_called_is_passed_on_and_who_is_unknown_is_said() {
    let report = ask("web.shop", "GET", "http://example.com/", &[]).unwrap();
    assert_eq!(step(&report, "cluster").0, "PassthroughCluster");
    let error = ask("nobody.shop", "GET", "http://reviews:9080/", &[]).unwrap_err();
    assert!(
        error.to_string().contains("known there: bare, db, members, reviews-v1, reviews-v2, web"),
        "{error}"
    );
}

#[test]
fn a_gateway_serves_hosts_and_its_clients_are_nobody_yet() {
    let report = ask("edge.istio-system", "GET", "http://shop.example.com/", &[]).unwrap();
    assert!(report.served, "{}", report.text());
    assert_eq!(step(&report, "listener").0, "0.0.0.0_8080");
    let route = report.steps.iter().find(|it| it.step == "route").unwrap();
    assert_eq!(route.from[0].path, "spec.http[1]");
    assert!(route.notes.iter().any(|it| it.ends_with("are answered with status 500")));
    assert_eq!(step(&report, "server").0, "reviews-v2.shop at port 8080");
    let old = ask("edge.istio-system", "GET", "http://shop.example.com/old", &[]).unwrap();
    assert_eq!(old.result, "redirected to the same host");
    let other = ask("edge.istio-system", "GET", "http://other.example.com/", &[]).unwrap();
    assert!(other.result.starts_with("404") && !other.served, "{}", other.text());
}

#[test]
fn without_a_sidecar_there_is_no_mtls_and_strict_servers_close() {
    let report = ask("bare.shop", "GET", "http://reviews:9080/", &[]).unwrap();
    assert_eq!(step(&report, "mTLS").0, "STRICT: no mTLS is spoken");
    assert_eq!(step(&report, "filter chain").0, "none takes the connection: it is closed");
    assert!(!report.served && report.result.starts_with("denied"), "{}", report.text());
}

#[test]
fn connections_have_policies_too() {
    let url = "http://db:3306/";
    let report = ask("web.shop", "GET", url, &[]).unwrap();
    assert_eq!(step(&report, "listener").0, "10.0.0.5_3306");
    assert_eq!(step(&report, "policies").0, "ALLOW: allowed");
    let report = ask("members.shop", "GET", url, &[]).unwrap();
    assert_eq!(
        step(&report, "policies").0,
        "ALLOW: denied: the connection is closed, as no rule allows it"
    );
    assert!(!report.served, "{}", report.text());
}

#[test]
fn a_token_decides_that_nobody_showed() {
    let ask = |headers: &[&str]| self::ask("web.shop", "GET", "http://members/", headers).unwrap();
    let without = ask(&[]);
    assert!(!without.served, "{}", without.text());
    assert_eq!(step(&without, "tokens").0, "one that is sent must be good");
    let with = ask(&["authorization: Bearer x"]);
    assert!(with.served && with.result.contains(", if policies"), "{}", with.text());
}

#[test]
fn pods_of_a_file_are_reached_though_nobody_tells_their_address() {
    let text = "\
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a-1, labels: {app: a}}, spec: {containers: [{name: it}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b-1}, spec: {containers: [{name: it}]}}
";
    let question = Question {
        from: "b".to_owned(),
        method: "GET".to_owned(),
        url: "http://a/".to_owned(),
        ..Question::default()
    };
    let report = offline(&mesh_of(text), &question).unwrap();
    assert_eq!(step(&report, "server").0, "a-1.default at port 80");
    assert_eq!(step(&report, "mTLS").0, "PERMISSIVE: mTLS is spoken");
    assert!(report.served, "{}", report.text());
}
