//! Configuration from a management server, in both variants of the protocol: all is accepted, nothing is lost while it
//! changes, and what is refused stays alone.

mod hostile;
mod kept;
mod resources;
mod waiting;
mod ways;

use std::time::Duration;

use harness::eventually::{eventually, eventually_true};
use harness::load::Load;
use harness::management::{ManagementServer, resource};
use harness::{Backend, Bootstrap, Program, Relay, json};
use xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use xds::envoy::config::listener::v3::Listener;
use xds::type_url::ResourceType;

use self::resources::{
    VARIANTS, ads, cluster, endpoints, listener, listener_value, managed, proxy, routes,
};

on_both!(
    a_new_cluster_is_moved_to_without_losing_a_request,
    what_is_refused_holds_up_nothing_else_and_is_not_repeated,
    who_comes_back_is_sent_only_what_it_lacks,
    what_the_server_takes_away_is_gone,
    the_dump_says_which_version_is_in_use_and_what_was_refused,
    updates_are_counted,
    a_server_that_is_gone_changes_nothing,
);

async fn a_new_cluster_is_moved_to_without_losing_a_request(program: Program) {
    for variant in VARIANTS {
        let (server, one, two) =
            (ManagementServer::start(), Backend::echo("one").await, Backend::echo("two").await);
        let proxy = proxy(program, &server, variant, &one).await;
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
    }
}

async fn what_is_refused_holds_up_nothing_else_and_is_not_repeated(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let proxy = proxy(program, &server, variant, &app).await;
        server.forget();
        let bad = resource::<ClusterMessage>(&json!({"name": "bad", "type": "EDS"}));
        server.publish([bad, cluster("good"), endpoints("good", &app), routes("good")], []);
        eventually_true("the good cluster to be used", async || {
            proxy.get("/").send().await;
            proxy.stat("cluster.good.upstream_rq_total").await > 0
        })
        .await;
        let told = server.told();
        let reason = match program {
            Program::Envoy => {
                "Error adding/updating cluster(s) bad: \
                 cannot create an EDS cluster without an EDS config"
            }
            Program::Outrigger => "bad: eds_cluster_config: required by a cluster of type EDS",
        };
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
    }
}

async fn who_comes_back_is_sent_only_what_it_lacks(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let proxy = proxy(program, &server, variant, &app).await;
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
    }
}

async fn what_the_server_takes_away_is_gone(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let proxy = proxy(program, &server, variant, &app).await;
        server.publish([], [(ResourceType::Listener, "main")]);
        eventually_true("the listener to be closed", async || {
            proxy.get("/").try_send().await.is_err()
        })
        .await;
        server.publish([], [(ResourceType::Cluster, "one"), (ResourceType::Endpoints, "one")]);
        proxy.until_stat("cluster_manager.cluster_removed", |removed| removed == 1).await;
        // It is as good as new when it comes again.
        server.publish(
            [cluster("one"), endpoints("one", &app), listener(proxy.address("main"), "y")],
            [],
        );
        eventually_true("the listener to come again", async || {
            proxy.get("/").try_send().await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        assert_eq!(server.told().nacks(), []);
    }
}

async fn the_dump_says_which_version_is_in_use_and_what_was_refused(program: Program) {
    let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
    let proxy = proxy(program, &server, "DELTA_GRPC", &app).await;
    let address = proxy.address("main");
    let mut bad = listener_value("main", address, "x", "routes", &ads());
    bad["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"] = json!({});
    server.publish([resource::<Listener>(&bad)], []);
    proxy.until_stat("listener_manager.lds.update_rejected", |count| count == 1).await;
    let dump = proxy.admin().get("/config_dump").send().await.json();
    let of = |kind: &str| {
        let ends = |it: &&harness::Value| it["@type"].as_str().unwrap().ends_with(kind);
        dump["configs"].as_array().unwrap().iter().find(ends).unwrap().clone()
    };
    let clusters = of("ClustersConfigDump");
    let one = &clusters["dynamic_active_clusters"][0];
    assert_eq!(one["cluster"]["name"], "one");
    assert!(one["version_info"].as_str().is_some_and(|version| !version.is_empty()), "{one}");
    assert!(one["last_updated"].is_string(), "{one}");
    let listeners = of("ListenersConfigDump");
    let main = &listeners["dynamic_listeners"][0];
    assert_eq!(main["name"], "main");
    assert!(main["active_state"]["version_info"].is_string(), "{main}");
    let error = &main["error_state"];
    assert!(error["details"].as_str().is_some_and(|text| text.contains("onfig")), "{error}");
    assert_eq!(error["failed_configuration"]["name"], "main");
    assert_eq!(proxy.get("/").send().await.status, 200);
}

async fn updates_are_counted(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let proxy = proxy(program, &server, variant, &app).await;
        proxy
            .until_stats([
                ("cluster_manager.cds.update_rejected", 0),
                ("cluster.one.update_success", 1),
                ("http.x.rds.routes.update_success", 1),
                ("http.x.rds.routes.update_rejected", 0),
                ("control_plane.connected_state", 1),
                ("cluster_manager.warming_clusters", 0),
                ("listener_manager.total_listeners_active", 1),
            ])
            .await;
        let bad = resource::<ClusterMessage>(&json!({"name": "bad", "type": "EDS"}));
        server.publish([bad], []);
        proxy.until_stat("cluster_manager.cds.update_rejected", |count| count == 1).await;
    }
}

async fn a_server_that_is_gone_changes_nothing(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let mut relay = Relay::to(&server).await;
        let mut bootstrap = Bootstrap::new();
        let main = bootstrap.reserve("main");
        let first = [cluster("one"), endpoints("one", &app), listener(main, "x"), routes("one")];
        server.publish(first, []);
        let proxy = managed(bootstrap, &relay, variant, &ads()).start(program).await;
        relay.kill().await;
        proxy.until_stat("control_plane.connected_state", |connected| connected == 0).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        let other = Backend::echo("other").await;
        server.publish([endpoints("one", &other)], []);
        relay.restart().await;
        eventually_true("what has changed meanwhile", async || {
            assert_eq!(proxy.get("/").send().await.status, 200);
            other.count() > 0
        })
        .await;
        assert_eq!(server.told().nacks(), []);
    }
}
