//! A whole mesh in one command: it serves, tells who talks to whom, follows edits, and ends together.

use harness::eventually::eventually_true;
use harness::port::Port;
use harness::{Backend, Client, Value};

use crate::running::{Mesh, kill, own_yaml};

/// The book shop's own YAML, for a test to edit.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(own_yaml()).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Who calls whom, by mutual TLS, and by which weights.
async fn the_table_is_true(mesh: &Mesh) {
    for (from, to, percent, when) in [
        ("istio-ingressgateway", "productpage-v1", 100.0, Value::Null),
        ("productpage-v1", "details-v1", 100.0, Value::Null),
        ("productpage-v1", "reviews-v1", 80.0, Value::Null),
        ("productpage-v1", "reviews-v2", 20.0, Value::Null),
        ("productpage-v1", "reviews-v3", 100.0, "end-user=jason".into()),
        ("reviews-v2", "ratings-v1", 100.0, Value::Null),
        ("reviews-v3", "ratings-v1", 100.0, Value::Null),
    ] {
        eventually_true(&format!("calls from {from} to {to}"), async || {
            let Some(calls) = mesh.calls(from, to) else { return false };
            assert_eq!(calls["weights"][0]["percent"], percent, "{calls}");
            assert_eq!(calls["weights"][0]["when"], when, "{calls}");
            calls["mtls"] == true && calls["success"] == 1.0 && calls["rate"].as_f64() > Some(0.0)
        })
        .await;
    }
}

/// Sidecars take what is mutual TLS, and no more than policies allow.
async fn nobody_takes_plain_text(mesh: &Mesh) {
    let reply = mesh.client().get("/api/v1/products/0/ratings").send().await;
    assert_eq!(reply.status, 503, "only reviews may read ratings");
    for workload in mesh.places()["workloads"].as_array().unwrap() {
        let Some(address) = workload["pod"].as_str().filter(|_| !workload["service"].is_null())
        else {
            continue;
        };
        let plain = Client::http1(address.parse().unwrap()).get("/health").try_send().await;
        assert!(plain.is_err(), "{workload} takes plain text");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_starts_a_mesh_that_follows_its_yaml() {
    let yaml = copy();
    let mut mesh = Mesh::start(&[yaml.path().to_owned()], 20).await;
    assert!(mesh.page("").await.text().contains("<dd>PublisherA</dd>"));
    assert_eq!(mesh.reviews("jason").await, "reviews-v3");

    the_table_is_true(&mesh).await;
    nobody_takes_plain_text(&mesh).await;

    // An edit is followed; one that breaks the file is not.
    let versions = yaml.path().join("versions.yaml");
    let before = std::fs::read_to_string(&versions).unwrap();
    std::fs::write(&versions, before.replace("weight: 80", "weight: 0").replace("20", "100"))
        .unwrap();
    eventually_true("all reviews to be of v2", async || {
        for _ in 0..5 {
            if mesh.reviews("").await != "reviews-v2" {
                return false;
            }
        }
        true
    })
    .await;
    std::fs::write(&versions, "kind: [").unwrap();
    eventually_true("word of it", async || mesh.has_said("versions.yaml:1:7 cannot be read")).await;
    assert_eq!(mesh.reviews("").await, "reviews-v2");

    // What is applied replaces objects of the same name, wherever they came from.
    let all_v3 = before.replace("subset: v1}", "subset: v3}").replace("subset: v2}", "subset: v3}");
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("v3.yaml"), all_v3).unwrap();
    let said = mesh.apply(&[elsewhere.path().join("v3.yaml")]);
    assert!(said.contains("7 of 7 proxies have it"), "{said}");
    assert_eq!(mesh.reviews("").await, "reviews-v3");

    // A Deployment more is a workload more.
    let details = std::fs::read_to_string(yaml.path().join("details.yaml")).unwrap();
    let another = details.replace("details-v1", "details-v2").replace("version: v1", "version: v2");
    std::fs::write(yaml.path().join("more.yaml"), another).unwrap();
    eventually_true("calls of it", async || mesh.calls("productpage-v1", "details-v2").is_some())
        .await;
    std::fs::remove_file(yaml.path().join("more.yaml")).unwrap();
    eventually_true("its end", async || mesh.has_said("details-v2.default is ended")).await;

    let visits = mesh.last().unwrap()["visits"].clone();
    assert!(visits["good"].as_u64() > Some(0) && visits["bad"] == 0, "{visits}");
    assert_eq!(mesh.end("INT").await.code(), Some(0));
    for port in &mesh.ports {
        eventually_true("all parts having ended", async || {
            Client::http1(port.address()).connect().await.is_err()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_mesh_from_running_is_said() {
    let reserved: [Port; 4] = std::array::from_fn(|_| Port::reserve());
    let ports = reserved.each_ref().map(|it| it.address().port());
    let app = Backend::echo("app").await;
    let taken = app.address().port();
    let said = Mesh::refused([taken, ports[1], ports[2], ports[3]], &own_yaml());
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{taken}")), "{said}");
    assert!(said.contains("choose another with --traffic-port"), "{said}");

    let empty = tempfile::tempdir().unwrap();
    let said = Mesh::refused(ports, empty.path());
    assert!(said.contains("there is no YAML in what was given"), "{said}");
    std::fs::write(empty.path().join("x.yaml"), "kind: [").unwrap();
    let said = Mesh::refused(ports, empty.path());
    assert!(said.contains("x.yaml:1:7 cannot be read"), "{said}");
    let said = Mesh::refused(ports, &own_yaml().join("gateway.yaml"));
    assert!(said.contains("there is no Deployment in what was given"), "{said}");

    let mesh = Mesh::start(&[own_yaml()], 0).await;
    kill("KILL", mesh.child("service ratings-v1"));
    let said = mesh.last_words().await;
    assert!(said.contains("ratings-v1.default ended (signal: 9"), "{said}");
    assert!(said.contains("ratings-v1 listens at 127.0.0.1:"), "{said}");
}
