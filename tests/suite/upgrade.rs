//! WebSocket and other upgrades: a handshake by HTTP, then bytes both ways.

use std::time::Duration;

use harness::backend::upgrade::{SAMPLE_ACCEPT, SAMPLE_KEY, UpgradeBackend};
use harness::{
    Backend, Bootstrap, Cluster, Http, Program, Proxy, RawConnection, Route, TcpBackend, json,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

on_both!(
    a_websocket_carries_bytes_both_ways,
    a_websocket_outlives_the_route_timeout,
    an_upgrade_that_is_not_allowed_is_refused,
    a_route_may_forbid_an_upgrade,
    an_upgrade_to_h2c_is_ignored,
    a_connect_tunnels_where_the_route_allows_it,
    a_backend_may_refuse_the_upgrade,
    upgrades_are_counted_while_they_live,
    an_upgraded_connection_counts_against_limits,
    an_upgraded_stream_ends_with_its_client,
);

async fn upgrading(program: Program, app: impl Into<std::net::SocketAddr>, route: Route) -> Proxy {
    let http =
        Http::routing([route]).with("upgrade_configs", json!([{"upgrade_type": "websocket"}]));
    Bootstrap::http(http).cluster(Cluster::new("app").endpoint(app)).start(program).await
}

/// Sends a WebSocket handshake for `path` and returns the connection and the response's head.
async fn handshake(proxy: &Proxy, path: &str) -> (RawConnection, String) {
    let mut connection = RawConnection::open(proxy.address("main")).await;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {SAMPLE_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    connection.write(request).await;
    let head = connection.read_head().await;
    (connection, head.to_ascii_lowercase())
}

async fn a_websocket_carries_bytes_both_ways(program: Program) {
    let app = UpgradeBackend::start().await;
    let proxy = upgrading(program, &app, Route::prefix("/").to("app")).await;
    let (mut connection, head) = handshake(&proxy, "/chat").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n"), "{head}");
    let accept = format!("sec-websocket-accept: {}\r\n", SAMPLE_ACCEPT.to_ascii_lowercase());
    assert!(head.contains(&accept), "{head}");
    for size in [1, 1000, 100_000] {
        let message = vec![0x81; size];
        connection.write(&message).await;
        assert_eq!(connection.read_exactly(size).await, message);
    }
}

async fn a_websocket_outlives_the_route_timeout(program: Program) {
    let app = UpgradeBackend::start().await;
    let route = Route::prefix("/").to("app").with("route.timeout", "0.2s");
    let proxy = upgrading(program, &app, route).await;
    let (mut connection, head) = handshake(&proxy, "/").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The subject of the test is that this time passes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    connection.write("still there").await;
    assert_eq!(connection.read_exactly(11).await, b"still there");
}

async fn an_upgrade_that_is_not_allowed_is_refused(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let (_connection, head) = handshake(&proxy, "/").await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
    assert_eq!(app.count(), 0);
    proxy.until_stat("http.main.downstream_rq_ws_on_non_ws_route", |count| count == 1).await;
}

async fn a_route_may_forbid_an_upgrade(program: Program) {
    let app = UpgradeBackend::start().await;
    let off = json!([{"upgrade_type": "websocket", "enabled": false}]);
    let route = Route::prefix("/").to("app").with("route.upgrade_configs", off);
    let proxy = upgrading(program, &app, route).await;
    let (_connection, head) = handshake(&proxy, "/").await;
    assert!(head.starts_with("http/1.1 403 "), "{head}");
}

async fn an_upgrade_to_h2c_is_ignored(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = upgrading(program, &app, Route::prefix("/").to("app")).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection
        .write(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        .await;
    let head = connection.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let calls = app.calls();
    for name in ["upgrade", "http2-settings"] {
        assert_eq!(calls[0].header(name), None, "{name}");
    }
}

async fn a_connect_tunnels_where_the_route_allows_it(program: Program) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        assert!(head[..read].starts_with(b"CONNECT a.test:443 HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let (mut input, mut output) = stream.split();
        tokio::io::copy(&mut input, &mut output).await.unwrap();
    });
    let allowed = json!([{"upgrade_type": "CONNECT"}]);
    let route = Route::matching(json!({"connect_matcher": {}})).to("app");
    let http = Http::routing([route.with("route.upgrade_configs", allowed.clone())])
        .with("upgrade_configs", allowed);
    let proxy =
        Bootstrap::http(http).cluster(Cluster::new("app").endpoint(address)).start(program).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n").await;
    let head = connection.read_head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(!head.contains("upgrade"), "{head}");
    connection.write("there and back").await;
    assert_eq!(connection.read_exactly(14).await, b"there and back");
}

async fn a_backend_may_refuse_the_upgrade(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = upgrading(program, &app, Route::prefix("/").to("app")).await;
    let (_connection, head) = handshake(&proxy, "/").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let calls = app.calls();
    assert_eq!(calls[0].header("upgrade"), Some("websocket"));
    assert_eq!(calls[0].header("sec-websocket-key"), Some(SAMPLE_KEY));
}

async fn upgrades_are_counted_while_they_live(program: Program) {
    let app = UpgradeBackend::start().await;
    let proxy = upgrading(program, &app, Route::prefix("/").to("app")).await;
    let (connection, _head) = handshake(&proxy, "/").await;
    proxy.until_stat("http.main.downstream_cx_upgrades_active", |count| count == 1).await;
    drop(connection);
    proxy.until_stat("http.main.downstream_cx_upgrades_active", |count| count == 0).await;
}

async fn an_upgraded_connection_counts_against_limits(program: Program) {
    let app = UpgradeBackend::start().await;
    let limit = "envoy.resource_limits.listener.main.connection_limit";
    let layer = json!({"name": "s", "static_layer": {limit: 2}});
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("upgrade_configs", json!([{"upgrade_type": "websocket"}]));
    let proxy = Bootstrap::http(http)
        .cluster(Cluster::new("app").endpoint(&app))
        .with("layered_runtime", json!({"layers": [layer]}))
        .start(program)
        .await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (mut connection, _head) = handshake(&proxy, "/").await;
        connection.write("ping").await;
        assert_eq!(connection.read_exactly(4).await, b"ping");
        open.push(connection);
    }
    let mut third = RawConnection::open(proxy.address("main")).await;
    assert_eq!(third.read_to_end().await, "", "closed at once");
    assert_eq!(proxy.stat("http.main.downstream_cx_active").await, 2);
    drop(open);
    proxy.until_stat("http.main.downstream_cx_active", |count| count == 0).await;
    let (_connection, head) = handshake(&proxy, "/").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
}

/// The application does not care that its client has gone.
async fn an_upgraded_stream_ends_with_its_client(program: Program) {
    let app = TcpBackend::scripted(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        let agreed =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(agreed.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = upgrading(program, &app, Route::prefix("/").to("app")).await;
    let (connection, _head) = handshake(&proxy, "/").await;
    proxy.until_stat("http.main.downstream_cx_upgrades_active", |count| count == 1).await;
    drop(connection);
    proxy.until_stat("http.main.downstream_cx_upgrades_active", |count| count == 0).await;
    proxy.until_stat("cluster.app.upstream_cx_active", |count| count == 0).await;
}
