//! How upstream connections are made: over Unix sockets, to addresses that requests name.

use harness::eventually::eventually_true;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Route, Value, json,
};

on_both!(
    an_endpoint_may_be_a_unix_socket,
    a_unix_socket_that_is_not_there_is_no_connection,
    a_header_names_the_endpoint,
    the_port_of_a_named_endpoint_can_be_fixed,
    endpoints_nobody_names_are_forgotten,
);

const FACTS: &str = "%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% \
                     %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% (%UPSTREAM_REMOTE_PORT%) \
                     %UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_PORT% %UPSTREAM_HOST_NAME%";

async fn logged(program: Program, cluster: Cluster) -> Proxy {
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let http = Http::routing([Route::prefix("/").to("app")]).text_log(&log, FACTS);
    bootstrap.listener(Listener::new("main", http)).cluster(cluster).start(program).await
}

async fn to_app(program: Program, cluster: Cluster) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster).start(program).await
}

async fn assert_logged(proxy: &Proxy, line: &str) {
    eventually_true(line, async || {
        let log = std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        log.lines().next().is_some_and(|first| {
            assert_eq!(first, line);
            true
        })
    })
    .await;
}

fn pipe(path: &str) -> Value {
    json!({"endpoint": {"address": {"pipe": {"path": path}}}})
}

async fn an_endpoint_may_be_a_unix_socket(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock").display().to_string();
    let name = format!("@outrigger-test-{}-{program:?}", std::process::id());
    for path in [path, name] {
        let app = Backend::echo_on_unix("app", &path).await;
        for (cluster, version) in
            [(Cluster::new("app"), "HTTP/1.1"), (Cluster::new("app").http2(), "HTTP/2.0")]
        {
            let proxy = logged(program, cluster.lb_endpoint(pipe(&path))).await;
            for n in 0..3 {
                let echo = proxy.get("/path").send().await.echo();
                assert_eq!((echo.version(), echo.path()), (version, "/path"), "request {n}");
            }
            assert_logged(&proxy, &format!("{path} {path} {path} () - - {path}")).await;
            let clusters = proxy.admin().get("/clusters").send().await.text();
            assert!(clusters.contains(&format!("app::{path}::cx_total::1\n")), "{clusters}");
        }
        assert_eq!(app.connections(), 2);
    }
}

async fn a_unix_socket_that_is_not_there_is_no_connection(program: Program) {
    let cluster = Cluster::new("app").lb_endpoint(pipe("/nowhere/app.sock"));
    let proxy = to_app(program, cluster).await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 503);
    let reason = "reset reason: remote connection failure";
    assert!(reply.text().contains(reason), "{}", reply.text());
}

const HEADER: &str = "x-envoy-original-dst-host";

async fn a_header_names_the_endpoint(program: Program) {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let named =
        Cluster::original_dst("named").with("original_dst_lb_config.http_header_name", "x-to");
    let add =
        json!([{"header": {"key": "x-envoy-original-dst-host", "value": a.address().to_string()}}]);
    let routes = [
        Route::prefix("/named").to("named"),
        Route::prefix("/added").to("app").with("request_headers_to_add", add),
        Route::prefix("/").to("app"),
    ];
    let proxy = Bootstrap::routing(routes)
        .cluster(Cluster::original_dst("app"))
        .cluster(named)
        .start(program)
        .await;
    for client in [Client::http1(proxy.address("main")), Client::http2(proxy.address("main"))] {
        for (name, backend) in [("a", &a), ("b", &b), ("a", &a)] {
            let address = backend.address().to_string();
            let reply = client.get("/").header(HEADER, &address).send().await;
            assert_eq!(reply.echo().backend(), name);
            let reply = client.get("/named").header("x-to", &address).send().await;
            assert_eq!(reply.echo().backend(), name);
        }
    }
    assert_eq!((a.connections(), b.connections()), (2, 2), "one per cluster, kept");
    assert_eq!(proxy.get("/added").send().await.echo().backend(), "a");

    for bad in ["127.0.0.1", "a.test:80", ""] {
        let reply = proxy.get("/").header(HEADER, bad).send().await;
        assert_eq!((reply.status, reply.text().as_str()), (503, "no healthy upstream"), "{bad:?}");
    }
    assert_eq!(proxy.get("/").send().await.status, 503, "nothing was redirected");
    assert_eq!(proxy.stat("cluster.app.original_dst_host_invalid").await, 3);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_none_healthy").await, 4);
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 2);
    let clusters = proxy.admin().get("/clusters").send().await.text();
    let line = format!("app::{0}::hostname::app{0}\n", b.address());
    assert!(clusters.contains(&line), "{clusters}");
}

async fn the_port_of_a_named_endpoint_can_be_fixed(program: Program) {
    let app = Backend::echo("app").await;
    let port = app.address().port();
    let cluster =
        Cluster::original_dst("app").with("original_dst_lb_config.upstream_port_override", port);
    let proxy = to_app(program, cluster).await;
    let reply = proxy.get("/").header(HEADER, "127.0.0.1:1").send().await;
    assert_eq!(reply.echo().backend(), "app");
}

async fn endpoints_nobody_names_are_forgotten(program: Program) {
    let cluster = Cluster::original_dst("app")
        .with("cleanup_interval", "0.2s")
        .http_option("common_http_protocol_options.idle_timeout", "0.2s");
    let proxy = to_app(program, cluster).await;
    let app = Backend::echo("app").await;
    let named = proxy.get("/").header(HEADER, &app.address().to_string());
    assert_eq!(named.send().await.status, 200);
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 1);
    proxy.until_stat("cluster.app.membership_total", |count| count == 0).await;
    assert_eq!(proxy.stat("cluster.app.membership_change").await, 2);
}
