//! How long streams may live, and what gRPC clients have to say about that.

use std::time::Duration;

use harness::client::Call;
use harness::{Answer, Backend, Bootstrap, Client, Cluster, Program, Proxy, Route, Value, json};

on_both!(
    a_longest_life_stands_in_for_the_timeout,
    a_grpc_client_says_how_long_its_stream_may_live,
    a_grpc_client_says_how_long_its_request_may_take,
    a_cluster_limits_the_life_of_attempts,
);

async fn slow(delay: u64) -> Backend {
    Backend::scripted("app", move |_| Answer::echo().after(Duration::from_millis(delay))).await
}

async fn proxy(program: Program, route: Route, app: &Backend) -> Proxy {
    Bootstrap::routing([route])
        .cluster(Cluster::new("app").http2().endpoint(app))
        .start(program)
        .await
}

fn lasting(duration: Value) -> Route {
    Route::prefix("/").to("app").with("route.max_stream_duration", duration)
}

fn grpc(proxy: &Proxy, timeout: Option<&str>) -> Call {
    let client = Client::http2(proxy.address("main"));
    let call = client.post("/").header("content-type", "application/grpc").body("x");
    match timeout {
        Some(timeout) => call.header("grpc-timeout", timeout),
        None => call,
    }
}

async fn a_longest_life_stands_in_for_the_timeout(program: Program) {
    let app = slow(400).await;
    let route = lasting(json!({"max_stream_duration": "20s"})).with("route.timeout", "0.1s");
    let proxy = proxy(program, route, &app).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.echo().header("x-envoy-expected-rq-timeout-ms")), (200, None));
}

async fn a_grpc_client_says_how_long_its_stream_may_live(program: Program) {
    let app = slow(0).await;
    for (duration, timeout, told) in [
        (json!({"grpc_timeout_header_max": "10s"}), Some("5S"), Some("5000m")),
        (json!({"grpc_timeout_header_max": "10s"}), Some("1M"), Some("10000m")),
        (json!({"grpc_timeout_header_max": "0s"}), Some("1M"), Some("60000m")),
        (
            json!({"grpc_timeout_header_max": "10s", "grpc_timeout_header_offset": "1s"}),
            Some("5S"),
            Some("4000m"),
        ),
        (json!({"grpc_timeout_header_max": "10s"}), None, None),
        (json!({"max_stream_duration": "7s"}), Some("5S"), Some("7000m")),
    ] {
        let proxy = proxy(program, lasting(duration.clone()), &app).await;
        let before = app.count();
        grpc(&proxy, timeout).send().await;
        let call = app.calls().remove(before);
        assert_eq!(call.header("grpc-timeout"), told, "{duration} {timeout:?}");
    }
    let app = slow(60_000).await;
    let route = lasting(json!({"grpc_timeout_header_max": "10s"}));
    let proxy = proxy(program, route, &app).await;
    let reply = grpc(&proxy, Some("200m")).send().await;
    assert_eq!((reply.status, reply.header("grpc-status").as_deref()), (200, Some("4")));
    proxy.until_stat("http.main.downstream_rq_max_duration_reached", |count| count == 1).await;
}

async fn a_grpc_client_says_how_long_its_request_may_take(program: Program) {
    let app = slow(0).await;
    for (max, offset, timeout, told) in [
        ("10s", "0s", Some("5S"), Some("5000m")),
        ("10s", "0s", Some("1M"), Some("10000m")),
        ("10s", "1s", Some("5S"), Some("4000m")),
        ("10s", "0s", None, Some("10000m")),
        ("0s", "0s", None, None),
    ] {
        let route = Route::prefix("/")
            .to("app")
            .with("route.max_grpc_timeout", max)
            .with("route.grpc_timeout_offset", offset);
        let proxy = proxy(program, route, &app).await;
        let before = app.count();
        grpc(&proxy, timeout).send().await;
        let call = app.calls().remove(before);
        assert_eq!(call.header("grpc-timeout"), told, "{max} {offset} {timeout:?}");
        let expected = told.map(|told| told.trim_end_matches('m'));
        assert_eq!(call.header("x-envoy-expected-rq-timeout-ms"), expected);
    }
    let app = slow(60_000).await;
    let route = Route::prefix("/").to("app").with("route.max_grpc_timeout", "10s");
    let proxy = proxy(program, route, &app).await;
    let reply = grpc(&proxy, Some("200m")).send().await;
    assert_eq!((reply.status, reply.header("grpc-status").as_deref()), (200, Some("14")));
    proxy.until_stat("cluster.app.upstream_rq_timeout", |count| count == 1).await;
}

async fn a_cluster_limits_the_life_of_attempts(program: Program) {
    let app = Backend::scripted("app", |call| match call.nth {
        0 => Answer::echo().after(Duration::from_secs(60)),
        1 => Answer::status(200).body("begun").body_after(Duration::from_secs(60), "never"),
        2 => Answer::echo().after(Duration::from_secs(60)),
        _ => Answer::echo(),
    })
    .await;
    let again = Route::prefix("/again").to("app").retry(json!({"retry_on": "reset"}));
    let cluster = Cluster::new("app").endpoint(&app);
    let proxy = Bootstrap::routing([again, Route::prefix("/").to("app")])
        .cluster(cluster.http_option("common_http_protocol_options.max_stream_duration", "0.3s"))
        .start(program)
        .await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.text(), "upstream max stream duration reached");
    let mut connection = proxy.client().connect().await.unwrap();
    assert!(connection.send(proxy.get("/")).await.is_err(), "it is cut");
    assert_eq!(proxy.get("/again").send().await.status, 200);
    proxy
        .until_stats([
            ("cluster.app.upstream_rq_max_duration_reached", 3),
            ("cluster.app.upstream_rq_retry", 1),
            ("http.main.downstream_rq_max_duration_reached", 0),
        ])
        .await;
}
