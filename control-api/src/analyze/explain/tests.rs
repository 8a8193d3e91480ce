//! Requests through a small mesh.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};

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

fn mesh() -> Mesh {
    let file = SourceFile::new(Path::new("shop.yaml"), MESH.to_owned());
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
    explain(&mesh(), None, &question)
}

/// The step of this kind, with the places it comes from.
fn step<'r>(report: &'r Report, kind: &str) -> (&'r str, Vec<String>) {
    let found = report.steps.iter().find(|it| it.step == kind);
    let found = found.unwrap_or_else(|| panic!("no {kind} in\n{}", report.text()));
    let line = |text: &str| {
        let at = MESH.lines().position(|line| line == text);
        at.map(|it| it + 1)
    };
    assert!(line("kind: VirtualService").is_some());
    let at = |it: &report::Source| {
        let line: usize = it.at.strip_prefix("shop.yaml:").unwrap().parse().unwrap();
        MESH.lines().nth(line - 1).unwrap().trim().to_owned()
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
    assert!(error.to_string().contains("known there: reviews-v1, reviews-v2, web"), "{error}");
}
