//! The server half of xDS against a real Envoy, in both variants: all is accepted, nothing is lost while it changes,
//! and what is refused stays alone.

use std::time::Duration;

use harness::eventually::{eventually, eventually_true};
use harness::load::Load;
use harness::management::{ManagementServer, resource};
use harness::{Backend, Bootstrap, Cluster, Program, Proxy, Value, json};
use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::type_url::ResourceType;

/// The two variants, as `ApiConfigSource.api_type` names them.
const VARIANTS: [&str; 2] = ["GRPC", "DELTA_GRPC"];

fn cluster(name: &str) -> Any {
    resource::<ClusterMessage>(&json!({
        "name": name, "type": "EDS", "connect_timeout": "5s",
        "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
    }))
}

fn endpoints(name: &str, backend: &Backend) -> Any {
    let address = harness::bootstrap::socket_address(backend.into());
    let endpoint = json!({"endpoint": {"address": address}});
    let endpoints = json!([{"lb_endpoints": [endpoint]}]);
    resource::<ClusterLoadAssignment>(&json!({"cluster_name": name, "endpoints": endpoints}))
}

fn listener(address: std::net::SocketAddr, prefix: &str) -> Any {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "rds": {"route_config_name": "routes",
            "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    resource::<Listener>(&json!({
        "name": "main", "address": harness::bootstrap::socket_address(address),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }))
}

fn routes(cluster: &str) -> Any {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    resource::<RouteConfiguration>(&json!({
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }))
}

/// An Envoy that has everything but the way to the server from it.
async fn envoy(server: &ManagementServer, variant: &str, backend: &Backend) -> Proxy {
    let mut bootstrap = Bootstrap::new();
    let main = bootstrap.reserve("main");
    let first = [cluster("one"), endpoints("one", backend), listener(main, "x"), routes("one")];
    server.publish(first, []);
    let ads = |extra: Value| json!({"ads": extra, "resource_api_version": "V3"});
    let proxy = bootstrap
        .cluster(Cluster::new("management").http2().endpoint(server))
        .with(
            "dynamic_resources.ads_config",
            json!({
                "api_type": variant, "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "management"}}],
            }),
        )
        .with("dynamic_resources.cds_config", ads(json!({})))
        .with("dynamic_resources.lds_config", ads(json!({})))
        .start(Program::Envoy)
        .await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    proxy
}

/// Runs a scenario with a real Envoy in both variants, if there is one.
async fn in_both_variants(scenario: impl AsyncFn(&'static str)) {
    if Program::Envoy.is_installed() {
        for variant in VARIANTS {
            scenario(variant).await;
        }
    }
}

#[tokio::test]
async fn an_envoy_moves_to_a_new_cluster_without_losing_a_request() {
    in_both_variants(async |variant| {
        let (server, one, two) =
            (ManagementServer::start(), Backend::echo("one").await, Backend::echo("two").await);
        let proxy = envoy(&server, variant, &one).await;
        let load = Load::on(proxy.client()).per_second(200).over(4).lasting(Duration::from_secs(2));
        let load = tokio::spawn(load.run(|client| client.get("/")));
        eventually_true("load", async || one.count() > 50).await;
        server.forget();
        // All in one step: what needs an order gets it on the way.
        server.publish(
            [cluster("two"), endpoints("two", &two), routes("two")],
            [(ResourceType::Cluster, "one"), (ResourceType::Endpoints, "one")],
        );
        let account = load.await.unwrap();
        account.assert_flawless();
        assert!(account.backends["two"] > 0, "{account:?}");
        eventually("the old cluster to go", async || {
            let clusters = proxy.admin().get("/clusters").send().await.text();
            (!clusters.lines().any(|line| line.starts_with("one::"))).then_some(())
        })
        .await;
        let told = server.told();
        assert_eq!(told.nacks(), []);
        let order = [
            ResourceType::Cluster,
            ResourceType::Endpoints,
            ResourceType::Routes,
            ResourceType::Cluster,
        ];
        assert_eq!(told.said_of()[..4], order, "{variant}");
    })
    .await;
}

#[tokio::test]
async fn what_an_envoy_refuses_holds_up_nothing_else_and_is_not_repeated() {
    in_both_variants(async |variant| {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let proxy = envoy(&server, variant, &app).await;
        server.forget();
        let bad = resource::<ClusterMessage>(&json!({"name": "bad", "type": "EDS"}));
        server.publish([bad, cluster("good"), endpoints("good", &app), routes("good")], []);
        eventually_true("the good cluster to be used", async || {
            proxy.get("/").send().await;
            proxy.stat("cluster.good.upstream_rq_total").await > 0
        })
        .await;
        let told = server.told();
        let reason = "Error adding/updating cluster(s) bad: \
            cannot create an EDS cluster without an EDS config";
        assert_eq!(told.nacks(), [(ResourceType::Cluster, reason)]);
        // A change of something else does not bring it up again, and a correction is taken at once.
        let other = Backend::echo("other").await;
        server.publish([endpoints("good", &other)], []);
        eventually_true("the change", async || {
            proxy.get("/").send().await;
            other.count() > 0
        })
        .await;
        assert_eq!(server.told().nacks().len(), 1);
        server.publish([cluster("bad"), endpoints("bad", &app), routes("bad")], []);
        eventually_true("the corrected cluster to be used", async || {
            proxy.get("/").send().await;
            proxy.stat("cluster.bad.upstream_rq_total").await > 0
        })
        .await;
        assert_eq!(server.told().nacks().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_envoy_that_comes_back_is_sent_only_what_it_lacks() {
    in_both_variants(async |variant| {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let proxy = envoy(&server, variant, &app).await;
        eventually_true("all answers", async || {
            proxy.stat("cluster_manager.cds.update_success").await > 0
        })
        .await;
        server.forget();
        server.cut();
        eventually_true("a new stream", async || server.told().heard.len() >= 4).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        let said = server.told().said_of();
        assert!(!said.contains(&ResourceType::Cluster), "{variant}: {said:?}");
        assert!(!said.contains(&ResourceType::Listener), "{variant}: {said:?}");
        assert!(server.told().nacks().is_empty());
    })
    .await;
}
