//! How long the proxy waits, for what, and what it says when the time is over.

use std::time::Duration;

use harness::{
    Answer, Backend, Bootstrap, Cluster, FaultyBackend, Http, Program, Proxy, RawConnection, Route,
    json,
};

on_both!(
    a_route_timeout_answers_504,
    the_timeout_header_of_an_internal_caller_counts,
    a_route_timeout_of_zero_waits,
    a_response_cut_by_its_timeout_is_cut_for_the_client,
    request_headers_must_arrive_in_time,
    a_request_must_arrive_in_time,
    an_idle_stream_is_ended,
    an_idle_connection_is_closed,
    a_connection_may_have_a_longest_life,
    a_stream_may_have_a_longest_life,
    a_hanging_handshake_counts_as_connect_timeout,
);

async fn slow_app(delay: Duration) -> Backend {
    Backend::scripted("app", move |_| Answer::echo().after(delay)).await
}

async fn proxy_to(program: Program, app: &Backend, http: Http) -> Proxy {
    Bootstrap::http(http).cluster(Cluster::new("app").endpoint(app)).start(program).await
}

async fn a_route_timeout_answers_504(program: Program) {
    let app = slow_app(Duration::from_secs(60)).await;
    let http = Http::routing([Route::prefix("/").to("app").with("route.timeout", "0.2s")]);
    let proxy = proxy_to(program, &app, http).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (504, "upstream request timeout"));
    proxy.until_stat("cluster.app.upstream_rq_timeout", |count| count == 1).await;
}

async fn the_timeout_header_of_an_internal_caller_counts(program: Program) {
    let app = slow_app(Duration::from_secs(60)).await;
    let loopback = json!([{"address_prefix": "127.0.0.0", "prefix_len": 8}]);
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("use_remote_address", true)
        .with("internal_address_config.cidr_ranges", loopback);
    let proxy = proxy_to(program, &app, http).await;
    let call = proxy.get("/").header("x-envoy-upstream-rq-timeout-ms", "200");
    assert_eq!(call.send().await.status, 504);
    let seen = app.calls();
    assert_eq!(seen[0].header("x-envoy-expected-rq-timeout-ms"), Some("200"));
}

async fn a_route_timeout_of_zero_waits(program: Program) {
    let app = slow_app(Duration::from_millis(300)).await;
    let http = Http::routing([Route::prefix("/").to("app").with("route.timeout", "0s")]);
    let proxy = proxy_to(program, &app, http).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    assert_eq!(app.calls()[0].header("x-envoy-expected-rq-timeout-ms"), None);
}

async fn a_response_cut_by_its_timeout_is_cut_for_the_client(program: Program) {
    let app = Backend::scripted("app", |_| {
        Answer::status(200).body("begin").body_after(Duration::from_secs(60), "end")
    })
    .await;
    let http = Http::routing([Route::prefix("/").to("app").with("route.timeout", "0.3s")]);
    let proxy = proxy_to(program, &app, http).await;
    let error = proxy.get("/").try_send().await.expect_err("half a response");
    assert!(format!("{error:#}").contains("cut short"), "{error:#}");
}

async fn request_headers_must_arrive_in_time(program: Program) {
    let app = Backend::echo("app").await;
    let http =
        Http::routing([Route::prefix("/").to("app")]).with("request_headers_timeout", "0.2s");
    let proxy = proxy_to(program, &app, http).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(app.count(), 0);
}

async fn a_request_must_arrive_in_time(program: Program) {
    let app = Backend::echo("app").await;
    let http = Http::routing([Route::prefix("/").to("app")]).with("request_timeout", "0.2s");
    let proxy = proxy_to(program, &app, http).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = connection.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    proxy.until_stat("http.main.downstream_rq_timeout", |count| count == 1).await;
}

async fn an_idle_stream_is_ended(program: Program) {
    let app = slow_app(Duration::from_secs(60)).await;
    let route = Route::prefix("/").to("app").with("route.timeout", "0s");
    let http = Http::routing([route]).with("stream_idle_timeout", "0.3s");
    let proxy = proxy_to(program, &app, http).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (504, "stream timeout"));
    proxy.until_stat("http.main.downstream_rq_idle_timeout", |count| count == 1).await;
}

async fn an_idle_connection_is_closed(program: Program) {
    let app = Backend::echo("app").await;
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("common_http_protocol_options.idle_timeout", "0.3s");
    let proxy = proxy_to(program, &app, http).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
    assert_eq!(connection.read_to_end().await, "");
    proxy.until_stat("http.main.downstream_cx_idle_timeout", |count| count == 1).await;
}

async fn a_connection_may_have_a_longest_life(program: Program) {
    let app = Backend::echo("app").await;
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("common_http_protocol_options.max_connection_duration", "0.3s");
    let proxy = proxy_to(program, &app, http).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
    assert_eq!(connection.read_to_end().await, "");
}

async fn a_stream_may_have_a_longest_life(program: Program) {
    let app = slow_app(Duration::from_secs(60)).await;
    let route = Route::prefix("/")
        .to("app")
        .with("route.timeout", "0s")
        .with("route.max_stream_duration.max_stream_duration", "0.3s");
    let proxy = proxy_to(program, &app, Http::routing([route])).await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 504, "{}", reply.text());
}

async fn a_hanging_handshake_counts_as_connect_timeout(program: Program) {
    let silent = FaultyBackend::hanging().await;
    let tls = json!({"sni": "silent.test"});
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&silent).tls(tls).with("connect_timeout", "0.3s"))
        .start(program)
        .await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("connection timeout"), "{}", reply.text());
    proxy.until_stat("cluster.app.upstream_cx_connect_timeout", |count| count == 1).await;
}
