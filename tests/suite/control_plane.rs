//! `outrigger-control run` steers proxies, ours and real Envoys: what it sends is accepted, requests go where the YAML says, and nothing is
//! lost while it changes, breaks or is away.

use std::time::Duration;

use harness::control_plane::service;
use harness::eventually::{eventually, eventually_true};
use harness::load::Load;
use harness::{Backend, Bootstrap, Cluster, ControlPlane, Http, Listener, Program, Route, json};

on_both!(
    a_folder_of_yaml_steers_proxies,
    proxies_serve_on_without_the_control_plane_and_hear_only_the_differences_after_it,
);
on_outrigger_only!(
    a_proxy_that_starts_without_the_control_plane_serves_from_disk because KEPT_ON_DISK,
);

/// The two variants, as `ApiConfigSource.api_type` names them.
const VARIANTS: [&str; 2] = ["GRPC", "DELTA_GRPC"];
/// Without mTLS, which needs identities.
const PLAIN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
     data: {mesh: 'enableAutoMtls: false'}\n";

/// A gateway that routes everything to `reviews`, and has the rest from the control plane.
fn edge(control: &ControlPlane, variant: &str) -> Bootstrap {
    let ads = || json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let route = Route::prefix("/").to("outbound|80||reviews.shop.svc.cluster.local");
    let http = Http::routing([route]).with("route_config.validate_clusters", false);
    Bootstrap::new()
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("xds-grpc").http2().endpoint(control))
        .with("node", json!({"id": "router~10.0.0.9~edge.shop~shop.svc.cluster.local", "cluster": "edge"}))
        .with(
            "dynamic_resources",
            json!({
                "ads_config": {
                    "api_type": variant, "transport_api_version": "V3", "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
                "cds_config": ads(), "lds_config": ads(),
            }),
        )
}

/// For how long the control plane is away: a moment in every run, a minute with `LOAD=full`.
fn absence() -> Duration {
    let full = std::env::var("LOAD").is_ok_and(|load| load == "full");
    Duration::from_secs(if full { 60 } else { 2 })
}

async fn a_folder_of_yaml_steers_proxies(program: Program) {
    for variant in VARIANTS {
        let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
        let files =
            [("mesh.yaml", PLAIN.to_owned()), ("reviews.yaml", service("reviews", &[&one]))];
        let control = ControlPlane::over(files, &[]);
        let proxy = edge(&control, variant).start(program).await;
        control.settled(1, 1).await;
        assert!(proxy.get("/").send().await.text().contains("one"));

        // An edit arrives, and no request fails meanwhile.
        let load = Load::on(proxy.client()).per_second(200).over(4).lasting(Duration::from_secs(1));
        let load = tokio::spawn(load.run(|client| client.get("/")));
        eventually_true("load", async || one.count() > 20).await;
        control.write("reviews.yaml", &service("reviews", &[&two]));
        eventually_true("the edit", async || {
            proxy.get("/").send().await;
            two.count() > 20
        })
        .await;
        load.await.unwrap().assert_flawless();
        control.settled(2, 1).await;

        // What breaks is told and changes nothing; what else changes still comes.
        control.write("reviews.yaml", "kind: [");
        control.write("ratings.yaml", &service("ratings", &[&one]));
        eventually("the other service", async || {
            let clusters = proxy.admin().get("/clusters").send().await.text();
            clusters.contains("outbound|80||ratings.shop.svc.cluster.local::").then_some(())
        })
        .await;
        eventually_true("word of it", async || control.said().contains("Error [OUT0001]")).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        let edge = control.status("/api/v1/proxies/edge.shop").await;
        assert!(edge["xds"].as_object().unwrap().values().all(|kind| kind["nacks"] == 0), "{edge}");
    }
}

async fn proxies_serve_on_without_the_control_plane_and_hear_only_the_differences_after_it(
    program: Program,
) {
    for variant in VARIANTS {
        let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
        let files = [
            ("mesh.yaml", PLAIN.to_owned()),
            ("reviews.yaml", service("reviews", &[&one])),
            ("ratings.yaml", service("ratings", &[&one])),
        ];
        let mut control = ControlPlane::over(files, &[]);
        let proxy = edge(&control, variant).start(program).await;
        control.settled(1, 1).await;
        control.stop();
        let load = Load::on(proxy.client()).per_second(200).over(4).lasting(absence());
        load.run(|client| client.get("/")).await.assert_flawless();
        control.write("reviews.yaml", &service("reviews", &[&one, &two]));
        control.start();
        eventually_true("the new endpoint", async || {
            proxy.get("/").send().await;
            two.count() > 0
        })
        .await;
        control.settled(1, 1).await;
        let edge = control.status("/api/v1/proxies/edge.shop").await;
        if variant == "DELTA_GRPC" {
            assert_eq!(edge["xds"]["CDS"]["responses"], 0, "{edge}");
        }
        assert_eq!(edge["xds"]["CDS"]["status"], "SYNCED", "{edge}");
    }
}

async fn a_proxy_that_starts_without_the_control_plane_serves_from_disk(program: Program) {
    for variant in VARIANTS {
        let one = Backend::echo("one").await;
        let files =
            [("mesh.yaml", PLAIN.to_owned()), ("reviews.yaml", service("reviews", &[&one]))];
        let mut control = ControlPlane::over(files, &[]);
        let bootstrap = edge(&control, variant);
        let directory = bootstrap.dir().join("kept").display().to_string();
        let bootstrap = bootstrap.argument("--config-cache-dir").argument(directory);
        let mut proxy = bootstrap.start(program).await;
        control.settled(1, 1).await;
        proxy.until_stats([("config_cache.write_success", 1)]).await;
        control.stop();
        proxy.kill();
        proxy.start_again().await;
        let load = Load::on(proxy.client()).per_second(200).over(4).lasting(absence() / 2);
        load.run(|client| client.get("/")).await.assert_flawless();
        control.start();
        control.settled(1, 1).await;
        let edge = control.status("/api/v1/proxies/edge.shop").await;
        if variant == "DELTA_GRPC" {
            assert_eq!(edge["xds"]["CDS"]["responses"], 0, "{edge}");
        }
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}
