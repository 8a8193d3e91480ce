//! Which endpoint a connection goes to, how often one is tried, and what ends a connection from outside.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::port::Port;
use harness::{
    Bootstrap, Close, Cluster, Listener, Program, Proxy, RawConnection, Tcp, TcpBackend, json,
};

use super::ping;

on_both!(a_client_keeps_its_endpoint, attempts_are_spaced_out);

on_outrigger_only!(
    a_drain_waits_for_connections_and_then_cuts_them because GRACEFUL_SIGTERM,
    a_connection_outlives_its_filter_chain because CHAINS_ARE_KEPT,
);

/// Which endpoint a client at this address reaches.
async fn reached(proxy: &Proxy, source: &str) -> String {
    let mut connection = RawConnection::open_from(source, proxy.address("main")).await;
    connection.finish().await;
    connection.read_to_end().await
}

async fn a_client_keeps_its_endpoint(program: Program) {
    let names = ["one", "two", "three", "four"];
    let mut cluster = Cluster::new("app").with("lb_policy", "MAGLEV");
    let mut backends = Vec::new();
    for name in names {
        let backend = TcpBackend::named(name).await;
        cluster = cluster.endpoint(&backend);
        backends.push(backend);
    }
    let tcp = Tcp::to("app").with("hash_policy", json!([{"source_ip": {}}]));
    let proxy = Bootstrap::tcp(tcp).cluster(cluster).start(program).await;
    let mut all = BTreeSet::new();
    for client in 1..=16 {
        let source = format!("127.0.0.{client}");
        let first = reached(&proxy, &source).await;
        for _ in 0..3 {
            assert_eq!(reached(&proxy, &source).await, first, "{source}");
        }
        all.insert(first);
    }
    // That all 16 fall on one endpoint happens once in 4^15 times.
    assert!(all.len() > 1, "{all:?}");
}

async fn attempts_are_spaced_out(program: Program) {
    const CONNECTIONS: u32 = 12;
    let dead = Port::reserve();
    let tcp = Tcp::to("app")
        .with("max_connect_attempts", 2)
        .with("backoff_options", json!({"base_interval": "0.4s", "max_interval": "0.4s"}));
    let proxy =
        Bootstrap::tcp(tcp).cluster(Cluster::new("app").endpoint(&dead)).start(program).await;
    let begun = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(proxy.connect().await);
    }
    for connection in &mut connections {
        connection.read_to_end().await;
    }
    // Each waits a random part of the interval; that all wait less than a quarter happens once in 4^12 times.
    assert!(begun.elapsed() > Duration::from_millis(100), "{:?}", begun.elapsed());
    let failed = u64::from(2 * CONNECTIONS);
    proxy.until_stat("cluster.app.upstream_cx_connect_fail", |count| count == failed).await;
}

async fn a_drain_waits_for_connections_and_then_cuts_them(program: Program) {
    let app = TcpBackend::echo().await;
    let mut proxy = Bootstrap::tcp(Tcp::to("app"))
        .cluster(Cluster::new("app").endpoint(&app))
        .argument("--drain-time-s")
        .argument("2")
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    ping(&mut connection).await;
    let address = proxy.address("main");
    proxy.signal("TERM");
    let begun = Instant::now();
    eventually_true("new connections being refused", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
    ping(&mut connection).await;
    assert_eq!(connection.read_to_close().await, (String::new(), Close::Fin));
    assert!(begun.elapsed() > Duration::from_millis(1800), "{:?}", begun.elapsed());
    assert_eq!(proxy.exit_status().await.code(), Some(0));
}

async fn a_connection_outlives_its_filter_chain(program: Program) {
    let app = TcpBackend::echo().await;
    let mut bootstrap = Bootstrap::new();
    let listeners = DiscoveryFile::listeners(bootstrap.dir());
    let chain = |bootstrap: &mut Bootstrap, prefix: &str| {
        let tcp = Tcp::to("app").with("stat_prefix", prefix);
        let listener = Listener::new("main", tcp).with("filter_chains.0.name", prefix);
        bootstrap.reserve_for(listener)
    };
    let (first, second) = (chain(&mut bootstrap, "first"), chain(&mut bootstrap, "second"));
    listeners.publish([first]);
    let proxy = bootstrap
        .with("dynamic_resources.lds_config", listeners.source())
        .cluster(Cluster::new("app").endpoint(&app))
        .argument("--drain-time-s")
        .argument("1")
        .start(program)
        .await;
    let mut connection = proxy.connect().await;
    ping(&mut connection).await;
    listeners.publish([second]);
    eventually_true("new connections on the new chain", async || {
        ping(&mut proxy.connect().await).await;
        proxy.stat("tcp.second.downstream_cx_total").await > 0
    })
    .await;
    let updated = Instant::now();
    while updated.elapsed() < Duration::from_millis(2500) {
        ping(&mut connection).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
