//! `outriggerctl` as a process, beside a control plane with a proxy.

use std::fs;
use std::process::Output;

use serde_json::Value;
use tokio::process::Command;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::type_url::{ResourceType, Variant};

use crate::plane::{Plane, cluster, eventually, node, service};
use crate::program::Running;
use crate::sidecar::Sidecar;

async fn ctl(control: std::net::SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outriggerctl"));
    command.args(arguments).env("OUTRIGGER_CONTROL", control.to_string());
    command.output().await.unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn it_shows_who_is_synced_and_who_refuses_what() {
    let plane = Plane::start().await;
    let none = said(&ctl(plane.http, &["proxy-status"]).await);
    assert!(none.contains("no proxy is connected"));
    let bad = Sidecar::connect(plane.xds, Variant::Incremental, node("bad", "10.0.0.8")).await;
    bad.seen.lock().refuses.push(cluster("reviews"));
    let _good = Sidecar::connect(plane.xds, Variant::Incremental, node("good", "10.0.0.9")).await;
    plane.publish(&service("reviews", &["10.0.0.1"]));
    eventually("refusal", || plane.count("pilot_total_xds_rejects{type=\"cds\"}") > 0.0).await;
    eventually("the good one", || plane.shared.fleet().settled(1).1 == 1).await;

    let output = ctl(plane.http, &["ps"]).await;
    let table = said(&output);
    assert_eq!(output.status.code(), Some(1), "somebody refuses: {table}");
    let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("good.shop").contains("SYNCED (") && line("good.shop").contains("IGNORED"));
    assert!(line("bad.shop").contains("ERROR ("));
    assert!(line("bad.shop refuses CDS: ").contains("not to its taste"));
    let output = ctl(plane.http, &["proxy-status", "good.shop", "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(0));
    let json: Value = serde_json::from_str(&said(&output)).unwrap();
    assert_eq!(json[0]["xds"]["CDS"]["status"], "SYNCED");
    let yaml = said(&ctl(plane.http, &["ps", "good.shop", "-o", "yaml"]).await);
    assert!(yaml.contains("name: good.shop\n"), "{yaml}");
    let nobody = ctl(plane.http, &["ps", "nobody.shop"]).await;
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("connected: bad.shop, good.shop"));
}

#[tokio::test]
async fn it_shows_what_a_proxy_is_told() {
    let plane = Plane::start().await;
    plane.publish(&service("reviews", &["10.0.0.1"]));
    let _sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    plane.settled(1, 1).await;
    let clusters = said(&ctl(plane.http, &["proxy-config", "clusters", "web.shop"]).await);
    let head: Vec<&str> = clusters
        .lines()
        .next()
        .unwrap()
        .split("   ")
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect();
    assert_eq!(head, ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"]);
    let of = |name: &str| {
        clusters
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(of("reviews.shop")[1..], ["80", "-", "outbound", "EDS"]);
    let endpoints = said(&ctl(plane.http, &["pc", "ep", "web.shop", "--fqdn", "reviews"]).await);
    assert!(endpoints.contains("10.0.0.1:8080") && endpoints.contains(&cluster("reviews")));
    let all = said(&ctl(plane.http, &["pc", "all", "web.shop", "-o", "json"]).await);
    let all: Value = serde_json::from_str(&all).unwrap();
    assert!(
        all["clusters"].as_array().unwrap().len() > 1
            && all["secrets"].as_array().unwrap().is_empty()
    );
    let unreachable = ctl("127.0.0.1:1".parse().unwrap(), &["ps"]).await;
    assert!(String::from_utf8_lossy(&unreachable.stderr).contains("is it running?"));
}

#[tokio::test]
async fn it_explains_requests_of_proxies_and_of_folders() {
    let plane = Plane::start().await;
    plane.publish(&service("reviews", &["10.0.0.1"]));
    let _sidecar = Sidecar::connect(plane.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    plane.settled(1, 1).await;
    let asked = ["explain", "--from", "web.shop", "GET", "http://reviews/a?b=c", "-H", "x: y z"];
    let text = said(&ctl(plane.http, &asked).await);
    for line in ["client         web.shop, sidecar", "virtual host   reviews.shop", "10.0.0.1:8080"]
    {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(text.ends_with(&format!("goes to {}\n", cluster("reviews"))), "{text}");
    let unknown = ctl(plane.http, &["explain", "--from", "nobody.shop", "http://reviews/"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("connected: web.shop"));

    let folder = tempfile::tempdir().unwrap();
    let pod = "\n---\n{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop}}\n";
    let objects = service("reviews", &["10.0.0.1"]) + pod;
    fs::write(folder.path().join("mesh.yaml"), objects).unwrap();
    let folder = folder.path().to_str().unwrap();
    let asked = ["explain", folder, "--from", "web.shop", "http://reviews/", "-o", "json"];
    let report: Value = serde_json::from_str(&said(&ctl(plane.http, &asked).await)).unwrap();
    assert_eq!(report["result"], format!("goes to {}", cluster("reviews")));
    let steps = report["steps"].as_array().unwrap();
    let of = |kind: &str| steps.iter().find(|it| it["step"] == kind).unwrap();
    let at = of("service")["from"][0]["at"].as_str().unwrap();
    assert!(at.starts_with(folder) && at.contains("mesh.yaml:"), "{at}");
    let asked = ["explain", folder, "--from", "web.shop", "http://reviews:81/", "-o", "yaml"];
    let yaml = said(&ctl(plane.http, &asked).await);
    assert!(yaml.contains("it has no port 81, but 80"), "{yaml}");
}

#[tokio::test]
async fn apply_waits_until_every_proxy_has_it() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("reviews.yaml"), service("reviews", &["10.0.0.1"])).unwrap();
    let control = Running::over(folder.path());
    let sidecar =
        Sidecar::connect(control.xds, Variant::Incremental, node("web", "10.0.0.9")).await;
    control.settled(1, 1).await;
    let file = elsewhere.path().join("reviews.yaml");
    fs::write(&file, service("reviews", &["10.0.0.1", "10.0.0.2"])).unwrap();
    let file = file.to_str().unwrap();
    let applied = said(&ctl(control.http, &["apply", "-f", file, "--wait"]).await);
    assert!(
        applied.starts_with("reviews.yaml configured\n1 of 1 proxies have it after "),
        "{applied}"
    );
    let kind = ResourceType::Endpoints;
    let held = sidecar.held::<ClusterLoadAssignment>(kind, &cluster("reviews")).unwrap();
    assert_eq!(held.endpoints[0].lb_endpoints.len(), 2);
    let again = said(&ctl(control.http, &["apply", "-f", file, "--wait"]).await);
    assert!(again.starts_with("reviews.yaml unchanged\n1 of 1"), "{again}");

    fs::write(file, "kind: [\n").unwrap();
    let broken = ctl(control.http, &["apply", "-f", file]).await;
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("reviews.yaml:"), "{broken:?}");
    assert!(fs::read_to_string(folder.path().join("reviews.yaml")).unwrap().contains("10.0.0.2"));
}
