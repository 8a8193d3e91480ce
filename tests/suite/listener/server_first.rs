//! Protocols in which the server speaks first: nothing in between may wait for the client.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use harness::bootstrap::socket_address;
use harness::{Bootstrap, Cluster, Listener, Program, RawConnection, Tcp, TcpBackend, json};
use tokio::io::AsyncWriteExt as _;

use super::{answering, of_listener};

on_both!(a_greeting_arrives_at_once,);

on_outrigger_only!(
    a_server_may_speak_first_behind_inspectors because SERVERS_MAY_SPEAK_FIRST,
    a_silent_client_does_not_keep_others_from_being_inspected because SERVERS_MAY_SPEAK_FIRST,
    an_endpoint_is_dialed_once because SERVERS_MAY_SPEAK_FIRST,
);

const GREETING: &str = "8.0-db\r\n";

/// Greets every client, then sends back what it receives.
async fn database() -> TcpBackend {
    TcpBackend::scripted(|mut stream| async move {
        stream.write_all(GREETING.as_bytes()).await.unwrap();
        let (mut reads, mut writes) = stream.split();
        let _ = tokio::io::copy(&mut reads, &mut writes).await;
    })
    .await
}

/// A chain for HTTP, and one to the cluster `db` for everything else.
fn inspecting(name: &str) -> Listener {
    let http = json!({"application_protocols": ["http/1.0", "http/1.1", "h2c"]});
    Listener::new(name, Tcp::to("db"))
        .chain(http, None, answering("http"))
        .tls_inspector()
        .listener_filter("http_inspector", "HttpInspector", json!({}))
}

/// The time until the first bytes of the server.
async fn greeted_after(address: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut connection = RawConnection::open(address).await;
    assert_eq!(connection.read_exactly(GREETING.len()).await, GREETING.as_bytes());
    let after = start.elapsed();
    connection.write("ping").await;
    assert_eq!(connection.read_exactly(4).await, b"ping");
    after
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How many connections are measured, each after one without a proxy: enough for a median in full length.
fn rounds() -> u8 {
    if std::env::var_os("LOAD").is_some_and(|load| load == "full") { 200 } else { 15 }
}

/// Medians of the time to the greeting: through the proxy to each of these addresses, and without it.
async fn compared(
    database: &TcpBackend,
    address: impl Fn(u8) -> SocketAddr,
) -> (Duration, Duration) {
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for round in 1..=rounds() {
        through.push(greeted_after(address(round)).await);
        direct.push(greeted_after(database.address()).await);
    }
    (median(through), median(direct))
}

/// What is measured must not depend on how busy the machine is, so it is told, and only the full length, which
/// runs alone, is held to the limit.
fn tell(program: Program, what: &str, (through, direct): (Duration, Duration)) {
    let added = through.saturating_sub(direct);
    eprintln!("{program:?}, {what}: {through:?}, without a proxy {direct:?}: {added:?} more");
    if rounds() == 200 {
        assert!(added < Duration::from_millis(1), "{what}: {added:?} more");
    }
}

async fn a_greeting_arrives_at_once(program: Program) {
    let db = database().await;
    let proxy = Bootstrap::tcp(Tcp::to("db"))
        .cluster(Cluster::new("db").endpoint(&db))
        .start(program)
        .await;
    let main = proxy.address("main");
    tell(program, "declared as TCP", compared(&db, |_| main).await);
}

async fn a_server_may_speak_first_behind_inspectors(program: Program) {
    let db = database().await;
    let mut bootstrap = Bootstrap::new();
    let port = bootstrap.reserve("everywhere").port();
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let proxy = bootstrap
        .listener(inspecting("main"))
        .listener(inspecting("everywhere").with("address", socket_address(everywhere)))
        .cluster(Cluster::new("db").endpoint(&db))
        .start(program)
        .await;
    let main = proxy.address("main");
    tell(program, "found out", compared(&db, |round| ([127, 0, 77, round], port).into()).await);
    tell(program, "known", compared(&db, |_| main).await);
    let other = format!("listener.0.0.0.0_{port}.downstream_pre_cx_timeout");
    for name in [of_listener(&proxy, "downstream_pre_cx_timeout"), other] {
        assert_eq!(proxy.stat(&name).await, 0, "{name}");
    }

    // A client that speaks first is inspected, and the endpoint soon left alone.
    let silent = TcpBackend::echo().await;
    let proxy = Bootstrap::new()
        .listener(inspecting("main"))
        .cluster(Cluster::new("db").endpoint(&silent))
        .start(program)
        .await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/").send().await.text(), "http");
    }
    assert!(silent.connections() <= 1, "{}", silent.connections());
    assert_eq!(proxy.stat("http_inspector.http11_found").await, 10);
}

async fn a_silent_client_does_not_keep_others_from_being_inspected(program: Program) {
    // Slow enough for a client to be the first.
    let db = TcpBackend::scripted(|mut stream| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let _ = stream.write_all(GREETING.as_bytes()).await;
    })
    .await;
    let proxy = Bootstrap::new()
        .listener(inspecting("main"))
        .cluster(Cluster::new("db").endpoint(&db))
        .start(program)
        .await;
    for _ in 0..3 {
        let mut silent = RawConnection::open(proxy.address("main")).await;
        assert_eq!(silent.read_exactly(GREETING.len()).await, GREETING.as_bytes());
        assert_eq!(proxy.get("/").send().await.text(), "http");
    }
    assert_eq!(proxy.stat("http_inspector.http11_found").await, 3);
}

/// By a client that speaks what no inspector knows, before and after the endpoint is reached or found missing.
async fn an_endpoint_is_dialed_once(program: Program) {
    let echo = TcpBackend::echo().await;
    let proxy = Bootstrap::new()
        .listener(inspecting("main"))
        .cluster(Cluster::new("db").endpoint(&echo))
        .start(program)
        .await;
    for round in 0..10 {
        let mut connection = RawConnection::open(proxy.address("main")).await;
        tokio::time::sleep(Duration::from_millis(round / 2)).await;
        connection.write("*1 ping\r\n").await;
        assert_eq!(connection.read_exactly(9).await, b"*1 ping\r\n");
    }
    assert_eq!(proxy.stat("cluster.db.upstream_cx_total").await, 10);
    assert_eq!(echo.connections(), 10);

    let mut bootstrap = Bootstrap::new();
    let nobody = bootstrap.reserve("nobody");
    let proxy = bootstrap
        .listener(inspecting("main"))
        .cluster(Cluster::new("db").endpoint(nobody))
        .start(program)
        .await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    proxy.until_stat("cluster.db.upstream_cx_connect_fail", |count| count == 1).await;
    connection.write("*1 ping\r\n").await;
    connection.read_to_end().await;
    assert_eq!(proxy.stat("cluster.db.upstream_cx_connect_fail").await, 1);
}
