//! Limits that answer at once instead of letting work pile up.

use std::time::Duration;

use harness::client::read;
use harness::{Answer, Backend, Bootstrap, Client, Cluster, Program, Proxy, Route, Value, json};

on_both!(
    requests_beyond_the_limit_are_refused,
    pending_requests_beyond_the_limit_are_refused,
    connections_beyond_the_limit_wait,
    high_priority_has_limits_of_its_own,
    limits_are_free_again_after_use,
    a_budget_limits_retries,
);

/// Answers after a pause that is long against the test's own steps.
async fn slow() -> Backend {
    Backend::scripted("app", |_| Answer::echo().after(Duration::from_millis(700))).await
}

async fn limited(program: Program, app: &Backend, thresholds: Value) -> Proxy {
    let high = Route::prefix("/high").to("app").with("route.priority", "HIGH");
    Bootstrap::routing([high, Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(app).with("circuit_breakers.thresholds", thresholds))
        .start(program)
        .await
}

async fn requests_beyond_the_limit_are_refused(program: Program) {
    let app = slow().await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(
            Cluster::new("app")
                .http2()
                .endpoint(&app)
                .with("circuit_breakers.thresholds", json!([{"max_requests": 2}])),
        )
        .start(program)
        .await;
    let statuses = at_once(&proxy, "/", 5).await;
    assert_eq!(statuses, [200, 200, 503, 503, 503]);
    proxy.until_stat("cluster.app.upstream_rq_active_overflow", |count| count == 3).await;
}

async fn pending_requests_beyond_the_limit_are_refused(program: Program) {
    let app = slow().await;
    let limits = json!([{"max_connections": 1, "max_pending_requests": 1}]);
    let proxy = limited(program, &app, limits).await;
    let client = proxy.client();
    let mut first = client.connect().await.unwrap();
    let first = tokio::spawn({
        let call = client.get("/");
        async move { first.send(call).await.unwrap() }
    });
    proxy.until_stat("cluster.app.upstream_rq_active", |count| count == 1).await;
    let second = tokio::spawn(client.get("/").send());
    proxy.until_stat("cluster.app.upstream_rq_pending_active", |count| count == 1).await;
    let third = client.get("/").send().await;
    assert_eq!(third.status, 503);
    assert_eq!(third.header("x-envoy-overloaded").as_deref(), Some("true"));
    assert!(third.text().contains("overflow"), "{}", third.text());
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200, "it waited for the one connection");
    assert_eq!(app.connections(), 1);
}

async fn connections_beyond_the_limit_wait(program: Program) {
    let app = slow().await;
    let proxy = limited(program, &app, json!([{"max_connections": 1}])).await;
    assert_eq!(at_once(&proxy, "/", 3).await, [200, 200, 200]);
    assert_eq!(app.connections(), 1);
    proxy.until_stat("cluster.app.upstream_cx_overflow", |count| count > 0).await;
}

async fn high_priority_has_limits_of_its_own(program: Program) {
    let app = slow().await;
    let limits = json!([
        {"priority": "DEFAULT", "max_connections": 1, "max_pending_requests": 1},
        {"priority": "HIGH", "max_connections": 10, "max_pending_requests": 10},
    ]);
    let proxy = limited(program, &app, limits).await;
    assert_eq!(at_once(&proxy, "/high", 4).await, [200, 200, 200, 200]);
    let normal = at_once(&proxy, "/", 4).await;
    assert!(normal.contains(&503), "{normal:?}");
}

async fn limits_are_free_again_after_use(program: Program) {
    let app = Backend::echo("app").await;
    let limits = json!([{"max_connections": 1, "max_pending_requests": 1, "max_requests": 1}]);
    let proxy = limited(program, &app, limits).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}

async fn a_budget_limits_retries(program: Program) {
    let app =
        Backend::scripted("app", |_| Answer::status(503).after(Duration::from_millis(700))).await;
    let budget =
        json!([{"retry_budget": {"budget_percent": {"value": 0}, "min_retry_concurrency": 1}}]);
    let retry = json!({"retry_on": "5xx", "num_retries": 1});
    let route = Route::prefix("/").to("app").with("route.retry_policy", retry);
    let proxy = Bootstrap::routing([route])
        .cluster(Cluster::new("app").endpoint(&app).with("circuit_breakers.thresholds", budget))
        .start(program)
        .await;
    // All fail at about the same time, and one of them may try again.
    assert_eq!(at_once(&proxy, "/", 4).await, [503; 4]);
    proxy.until_stats([("cluster.app.upstream_rq_retry", 1)]).await;
    proxy.until_stats([("cluster.app.upstream_rq_retry_overflow", 3)]).await;
}

/// The sorted statuses of `count` requests sent at the same time on connections of their own.
async fn at_once(proxy: &Proxy, path: &str, count: usize) -> Vec<u16> {
    let client = Client::http1(proxy.address("main"));
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(client.connect().await.unwrap());
    }
    let requests = connections.iter_mut().map(|connection| async {
        let head = connection.send_head(client.get(path)).await.unwrap();
        read(head).await.unwrap().status
    });
    let mut statuses = futures_util::future::join_all(requests).await;
    statuses.sort_unstable();
    statuses
}
