//! Rules for the same host, of one namespace and of several.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use crate::model::object::{SourceFile, read_file};

const HOST: &str = "reviews.shop.svc.cluster.local";

/// A mesh of rules: namespace, name, and the rest of the spec beside `host: reviews`.
fn mesh(rules: &[(&str, &str, &str)]) -> Mesh {
    let mut text = String::new();
    for (namespace, name, spec) in rules {
        let host = if spec.contains("host:") { String::new() } else { format!("host: {HOST}, ") };
        writeln!(
            text,
            "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, \
             metadata: {{name: {name}, namespace: {namespace}}}, spec: {{{host}{spec}}}}}"
        )
        .unwrap();
    }
    let file = SourceFile::new(Path::new("x.yaml"), text);
    let objects = read_file(&file, "default").unwrap().into_iter();
    let objects = objects.map(|it| Arc::new(it.unwrap()));
    Mesh::new(objects, MeshConfig::default(), MeshNetworks::default())
}

/// The subsets that a client of this namespace has for the host of namespace `shop`.
fn subsets_for(mesh: &Mesh, namespace: &str, labels: &[(&str, &str)], side: Side) -> Vec<String> {
    let labels: Labels =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let asking = Asking { namespace, labels: &labels, side };
    let rule = mesh.destination_rules().find(&asking, HOST, "shop", "istio-system");
    let found = rule.and_then(Merged::found);
    found.map(|it| it.spec.subsets.iter().map(|it| it.name.clone()).collect()).unwrap_or_default()
}

fn subsets(mesh: &Mesh, namespace: &str) -> Vec<String> {
    subsets_for(mesh, namespace, &[], Side::Client)
}

#[test]
fn rules_of_a_namespace_for_one_host_become_one() {
    let mesh = mesh(&[
        ("shop", "a", "subsets: [{name: v1}]"),
        ("shop", "b", "trafficPolicy: {tls: {mode: DISABLE}}, subsets: [{name: v1}, {name: v2}]"),
        ("shop", "c", "trafficPolicy: {tls: {mode: SIMPLE}}"),
    ]);
    for namespace in ["shop", "other"] {
        assert_eq!(subsets(&mesh, namespace), ["v1", "v2"], "{namespace}");
    }
    let none = Labels::new();
    let asking = Asking { namespace: "shop", labels: &none, side: Side::Client };
    let rule = mesh.destination_rules().find(&asking, HOST, "shop", "istio-system").unwrap();
    let found = rule.found().unwrap();
    assert_eq!(found.name(), "a");
    let tls = found.spec.traffic_policy.as_ref().unwrap().tls.as_ref().unwrap();
    assert_eq!(format!("{:?}", tls.mode), "Disable");
    let left_out: Vec<_> = mesh.destination_rules().left_out().into_iter().collect();
    let shown: Vec<_> =
        left_out.iter().map(|it| (it.object.metadata.name.as_str(), it.path.as_str())).collect();
    assert_eq!(shown, [("b", "spec.subsets[0]"), ("c", "spec.trafficPolicy")]);
}

#[test]
fn a_clients_namespace_goes_before_the_services_and_that_before_the_root() {
    let all = [
        ("client", "a", "subsets: [{name: of-client}]"),
        ("shop", "a", "subsets: [{name: of-service}]"),
        ("istio-system", "a", "subsets: [{name: of-root}]"),
    ];
    assert_eq!(subsets(&mesh(&all), "client"), ["of-client"]);
    assert_eq!(subsets(&mesh(&all), "other"), ["of-service"]);
    assert_eq!(subsets(&mesh(&all), "istio-system"), ["of-service"]);
    assert_eq!(subsets(&mesh(&all[2..]), "other"), ["of-root"]);
    assert_eq!(subsets(&mesh(&all[..1]), "other"), [""; 0]);
}

#[test]
fn what_is_not_exported_counts_at_home_alone() {
    let private = mesh(&[("shop", "a", "exportTo: [\".\"], subsets: [{name: v1}]")]);
    assert_eq!(subsets(&private, "shop"), ["v1"]);
    assert_eq!(subsets(&private, "other"), [""; 0]);
    let to_one = mesh(&[("shop", "a", "exportTo: [one], subsets: [{name: v1}]")]);
    assert_eq!(subsets(&to_one, "one"), ["v1"]);
    assert_eq!(subsets(&to_one, "shop"), [""; 0]);
    let root = mesh(&[("istio-system", "a", "exportTo: [\".\"], subsets: [{name: v1}]")]);
    assert_eq!(subsets(&root, "istio-system"), ["v1"]);
    assert_eq!(subsets(&root, "shop"), [""; 0]);
}

#[test]
fn rules_for_other_namespaces_stay_apart_and_wider_ones_are_added() {
    let apart = mesh(&[
        ("shop", "a", "exportTo: [one], subsets: [{name: v1}]"),
        ("shop", "b", "exportTo: [two], subsets: [{name: v2}]"),
    ]);
    assert_eq!(subsets(&apart, "one"), ["v1"]);
    assert_eq!(subsets(&apart, "two"), ["v2"]);
    let wider = mesh(&[
        ("shop", "a", "exportTo: [one], subsets: [{name: v1}]"),
        ("shop", "b", "exportTo: [one, two], subsets: [{name: v2}]"),
    ]);
    assert_eq!(subsets(&wider, "one"), ["v1", "v2"]);
    assert_eq!(subsets(&wider, "two"), ["v2"]);
}

#[test]
fn a_rule_for_some_workloads_is_theirs_as_clients_alone() {
    let mesh = mesh(&[
        ("shop", "all", "subsets: [{name: v1}]"),
        (
            "shop",
            "some",
            "workloadSelector: {matchLabels: {app: web}}, subsets: [{name: only-web}]",
        ),
    ]);
    let web = [("app", "web")];
    assert_eq!(subsets_for(&mesh, "shop", &web, Side::Client), ["only-web"]);
    assert_eq!(subsets_for(&mesh, "shop", &web, Side::Server), ["v1"]);
    assert_eq!(subsets_for(&mesh, "shop", &[("app", "db")], Side::Client), ["v1"]);
    assert_eq!(subsets_for(&mesh, "other", &web, Side::Client), ["v1"]);
}

#[test]
fn a_name_goes_before_wildcards_and_long_ones_before_short_ones() {
    let rule = |host: &'static str| ("shop", host, host);
    let of = |hosts: &[(&str, &str, &str)]| {
        let specs: Vec<(String, String)> = hosts
            .iter()
            .enumerate()
            .map(|(index, (_, _, host))| {
                (format!("r{index}"), format!("host: '{host}', subsets: [{{name: '{host}'}}]"))
            })
            .collect();
        let rules: Vec<_> =
            specs.iter().map(|(name, spec)| ("shop", name.as_str(), spec.as_str())).collect();
        subsets(&mesh(&rules), "shop")
    };
    let (any, local, shop) = (rule("*"), rule("*.local"), rule("*.shop.svc.cluster.local"));
    assert_eq!(of(&[any, local, shop, rule("reviews")]), ["reviews"]);
    assert_eq!(of(&[any, shop, local]), ["*.shop.svc.cluster.local"]);
    assert_eq!(of(&[local, any]), ["*.local"]);
    assert_eq!(of(&[rule("*.com")]), [""; 0]);
}
