//! What waits for what: a cluster for its endpoints, a listener for its table, the start for all of them, and nothing
//! for ever.

use harness::eventually::eventually_true;
use harness::management::{ManagementServer, resource};
use harness::{Backend, Bootstrap, Client, Program, Relay, Route};
use xds::envoy::config::listener::v3::Listener;

use super::resources::{
    VARIANTS, ads, cluster, eds_cluster, endpoints, impatient, listener_value, listener_with,
    managed, proxy, routes, table,
};

on_both!(
    a_changed_listener_waits_for_its_table,
    a_changed_cluster_waits_for_its_endpoints,
    a_table_that_does_not_come_is_not_waited_for_for_ever,
    a_server_that_is_not_there_is_not_waited_for_for_ever,
);

async fn a_changed_listener_waits_for_its_table(program: Program) {
    // In the incremental variant, the server says that there is no such table.
    let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
    let proxy = proxy(program, &server, "GRPC", &app).await;
    server.publish([listener_with(proxy.address("main"), "y", "later", &ads())], []);
    proxy.until_stat("listener_manager.total_listeners_warming", |count| count == 1).await;
    let dump = proxy.admin().get("/config_dump").send().await.text();
    assert!(dump.contains("warming_state"), "{dump}");
    assert_eq!(proxy.get("/").send().await.status, 200);
    assert_eq!(proxy.stat("http.x.downstream_rq_2xx").await, 2);
    server.publish([table("later", "one")], []);
    eventually_true("the new listener", async || {
        assert_eq!(proxy.get("/").send().await.status, 200);
        proxy.stat("http.y.downstream_rq_2xx").await > 0
    })
    .await;
    proxy.until_stat("listener_manager.total_listeners_warming", |count| count == 0).await;
    assert_eq!(server.told().nacks(), []);
}

async fn a_changed_cluster_waits_for_its_endpoints(program: Program) {
    let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
    let proxy = proxy(program, &server, "GRPC", &app).await;
    server.publish([cluster("two"), routes("two")], []);
    proxy.until_stat("cluster_manager.warming_clusters", |count| count == 1).await;
    let dump = proxy.admin().get("/config_dump").send().await.text();
    assert!(dump.contains("dynamic_warming_clusters"), "{dump}");
    server.publish([endpoints("two", &app)], []);
    proxy.until_stat("cluster_manager.warming_clusters", |count| count == 0).await;
    eventually_true("the new cluster", async || proxy.get("/").send().await.status == 200).await;
    assert_eq!(server.told().nacks(), []);
}

async fn a_table_that_does_not_come_is_not_waited_for_for_ever(program: Program) {
    let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
    let mut bootstrap = Bootstrap::new();
    let main = bootstrap.reserve("main");
    let first =
        [eds_cluster("one", &impatient(), "5s"), listener_with(main, "x", "routes", &impatient())];
    server.publish(first, []);
    let proxy = managed(bootstrap, &server, "GRPC", &ads()).start(program).await;
    assert_eq!(proxy.get("/").send().await.status, 404);
    proxy
        .until_stats([
            ("http.x.rds.routes.init_fetch_timeout", 1),
            ("cluster.one.init_fetch_timeout", 1),
        ])
        .await;
    // It may still come.
    server.publish([routes("one"), endpoints("one", &app)], []);
    eventually_true("the table", async || proxy.get("/").send().await.status == 200).await;
}

async fn a_server_that_is_not_there_is_not_waited_for_for_ever(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let mut relay = Relay::without(&server);
        let mut bootstrap = Bootstrap::routing([Route::prefix("/").direct(418, "")]);
        let discovered = bootstrap.reserve("discovered");
        let main = listener_value("discovered", discovered, "x", "routes", &ads());
        server.publish(
            [cluster("one"), endpoints("one", &app), routes("one"), resource::<Listener>(&main)],
            [],
        );
        // What is static is served.
        let proxy = managed(bootstrap, &relay, variant, &impatient()).start(program).await;
        assert_eq!(proxy.get("/").send().await.status, 418);
        relay.restart().await;
        let client = Client::http1(discovered);
        eventually_true("the server's listener", async || {
            client.get("/").try_send().await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
    }
}
