//! What little is kept for clients that are silent and for clusters that are not used, and that nobody notices it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use harness::{Backend, Bootstrap, Cluster, Http, Program, Proxy, RawConnection, Route};

on_both!(
    a_client_may_be_silent_between_requests,
    a_request_after_a_silence_may_come_in_pieces,
    requests_after_a_silence_may_come_together,
    a_silent_connection_is_closed_in_time,
    a_silent_connection_has_a_longest_life,
);

on_outrigger_only!(
    a_silent_connection_ends_with_its_proxy because GRACEFUL_SIGTERM,
    silent_connections_cost_little because LEAN_SILENCE,
    unused_clusters_cost_little because LEAN_CLUSTERS,
);

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Long enough that a connection's codec is put away. A scenario whose connections were quicker, or whose
/// proxy was slower, would not fail: nobody may see the difference.
async fn silence() {
    tokio::time::sleep(Duration::from_millis(1300)).await;
}

async fn answering(program: Program, http: Http) -> Proxy {
    Bootstrap::http(http).start(program).await
}

fn directly() -> Http {
    Http::routing([Route::prefix("/").direct(200, "here")])
}

async fn asked(proxy: &Proxy) -> RawConnection {
    let mut connection = RawConnection::open(proxy.address("main")).await;
    ask(&mut connection).await;
    connection
}

async fn ask(connection: &mut RawConnection) {
    connection.write(REQUEST).await;
    assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
}

async fn a_client_may_be_silent_between_requests(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    for _ in 0..3 {
        ask(&mut connection).await;
        connection.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
        assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
        silence().await;
    }
    proxy.until_stat("http.main.downstream_cx_total", |count| count == 1).await;
    proxy.until_stat("http.main.downstream_cx_active", |count| count == 1).await;
    assert_eq!(app.count(), 6);
}

async fn a_request_after_a_silence_may_come_in_pieces(program: Program) {
    let http = directly().with("request_headers_timeout", "2s");
    let proxy = answering(program, http).await;
    let mut connection = asked(&proxy).await;
    silence().await;
    for piece in ["G", "ET / HT", "TP/1.1\r\nHo", "st: a\r\n", "\r", "\n"] {
        connection.write(piece).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
    silence().await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert!(connection.read_to_end().await.starts_with("HTTP/1.1 408"));
}

async fn requests_after_a_silence_may_come_together(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = asked(&proxy).await;
    for _ in 0..2 {
        silence().await;
        let (begin, rest) = REQUEST.split_at(10);
        connection.write([REQUEST, REQUEST, begin].concat()).await;
        for _ in 0..2 {
            assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
        }
        silence().await;
        connection.write(rest).await;
        assert!(connection.read_response().await.starts_with("HTTP/1.1 200"));
    }
}

async fn a_silent_connection_is_closed_in_time(program: Program) {
    let http = directly().with("common_http_protocol_options.idle_timeout", "2s");
    let proxy = answering(program, http).await;
    let never_spoke = RawConnection::open(proxy.address("main")).await;
    for mut connection in [asked(&proxy).await, never_spoke] {
        assert_eq!(connection.read_to_end().await, "");
    }
    proxy.until_stat("http.main.downstream_cx_idle_timeout", |count| count == 2).await;
    proxy.until_stat("http.main.downstream_cx_active", |count| count == 0).await;
}

async fn a_silent_connection_has_a_longest_life(program: Program) {
    let http = directly().with("common_http_protocol_options.max_connection_duration", "2s");
    let proxy = answering(program, http).await;
    let never_spoke = RawConnection::open(proxy.address("main")).await;
    for mut connection in [asked(&proxy).await, never_spoke] {
        assert_eq!(connection.read_to_end().await, "");
    }
    proxy.until_stat("http.main.downstream_cx_max_duration_reached", |count| count == 2).await;
}

async fn a_silent_connection_ends_with_its_proxy(program: Program) {
    let mut proxy = answering(program, directly()).await;
    let mut never_spoke = RawConnection::open(proxy.address("main")).await;
    let mut connection = asked(&proxy).await;
    silence().await;
    proxy.signal("TERM");
    assert_eq!(connection.read_to_end().await, "");
    assert_eq!(never_spoke.read_to_end().await, "");
    assert_eq!(proxy.exit_status().await.code(), Some(0));
}

async fn silent_connections_cost_little(program: Program) {
    const CONNECTIONS: u64 = 1000;
    let proxy = answering(program, directly()).await;
    asked(&proxy).await;
    let before = proxy.private_memory();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(asked(&proxy).await);
    }
    harness::eventually::eventually_true("little memory for silent connections", async || {
        proxy.private_memory().saturating_sub(before) / CONNECTIONS < 8 * 1024
    })
    .await;
    let mut last = connections.pop().unwrap();
    ask(&mut last).await;
}

async fn unused_clusters_cost_little(program: Program) {
    // The allocator keeps some MiB of what a large file needed for a moment: it does so in both.
    const FEW: u32 = 1000;
    const MANY: u32 = 5000;
    let with = async |clusters: u32| {
        let mut bootstrap = Bootstrap::http(directly());
        for number in 0..clusters {
            let endpoint = (Ipv4Addr::from_bits(0x0a00_0000 + number), 9000);
            let cluster = Cluster::new(&format!("service-{number:05}"));
            bootstrap = bootstrap.cluster(cluster.endpoint(SocketAddr::from(endpoint)));
        }
        bootstrap.start(program).await
    };
    let (few, many) = (with(FEW).await, with(MANY).await);
    harness::eventually::eventually_true("little memory for unused clusters", async || {
        let added = many.private_memory().saturating_sub(few.private_memory());
        added / u64::from(MANY - FEW) < 3 * 1024
    })
    .await;
    let stats = many.admin().get("/stats?filter=service-04999.upstream_rq").send().await.text();
    assert!(stats.contains("cluster.service-04999.upstream_rq_total: 0"), "{stats}");
}
