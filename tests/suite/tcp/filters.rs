//! What stands around a TCP proxy: TLS on either side, server names, limits on connections.

use std::time::{Duration, Instant};

use harness::pki::SERVER_NAME;
use harness::{
    Bootstrap, Client, Close, Cluster, Filters, Http, Listener, Pki, Program, Route, Tcp,
    TcpBackend, json,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ping, until_logged};

on_both!(
    tls_ends_and_begins_around_bytes,
    names_choose_chains_and_clusters_without_ending_tls,
    a_chain_limits_its_connections,
    a_limit_applies_to_http_too,
);

async fn tls_ends_and_begins_around_bytes(program: Program) {
    let (pki, app) = (Pki::new(), TcpBackend::echo().await);
    let (server, client) = (pki.workload("server"), pki.workload("client"));
    let bootstrap = Bootstrap::new();
    let tcp = Tcp::to("app").text_log(
        &bootstrap.dir().join("access.log"),
        "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %REQUESTED_SERVER_NAME% \
            %DOWNSTREAM_PEER_URI_SAN%",
    );
    let bootstrap = bootstrap
        .listener(Listener::new("inner", tcp).tls(pki.mutual(&server)).tls_inspector())
        .listener(Listener::new("main", Tcp::to("inner")));
    let context = json!({"sni": SERVER_NAME, "common_tls_context": pki.common(&client)});
    let inner = bootstrap.address("inner");
    let proxy = bootstrap
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("inner").endpoint(inner).tls(context))
        .start(program)
        .await;
    let sent = vec![b'x'; 300_000];
    let stream = proxy.connect().await.into_stream();
    let (mut reads, mut writes) = stream.into_split();
    let (_, mut received) = tokio::join!(
        async {
            writes.write_all(&sent).await.unwrap();
            writes.flush().await.unwrap();
        },
        async {
            let mut received = vec![0; sent.len()];
            reads.read_exact(&mut received).await.unwrap();
            received
        }
    );
    assert!(received == sent);
    writes.shutdown().await.unwrap();
    received.clear();
    assert_eq!(reads.read_to_end(&mut received).await.unwrap(), 0);
    let line = until_logged(&proxy, 1).await.remove(0);
    let uri = "spiffe://cluster.local/ns/default/sa/client";
    assert_eq!(line, format!("- 300000 300000 {SERVER_NAME} {uri}"));
    assert_eq!(proxy.stat("cluster.inner.ssl.handshake").await, 1);
}

async fn names_choose_chains_and_clusters_without_ending_tls(program: Program) {
    let pki = Pki::new();
    let request = certs::Request::default().dns("one.test").dns("two.test").dns("other.test");
    let identity = pki.issue("server", &request);
    let terminating = |name: &'static str| {
        let http = Http::routing([Route::prefix("/").direct(200, name)]);
        Listener::new(name, http).tls(Pki::server_only(&identity))
    };
    let by_name = Tcp::to("fallback").after("sni_cluster", "SniCluster", json!({}));
    let front = Listener::new("main", by_name)
        .chain(json!({"server_names": ["other.test"]}), None, Tcp::to("fallback"))
        .tls_inspector();
    let bootstrap = Bootstrap::new()
        .listener(terminating("one"))
        .listener(terminating("two"))
        .listener(terminating("else"))
        .listener(front);
    let at = |name| bootstrap.address(name);
    let (one, two, fallback) = (at("one"), at("two"), at("else"));
    let proxy = bootstrap
        .cluster(Cluster::new("one.test").endpoint(one))
        .cluster(Cluster::new("two.test").endpoint(two))
        .cluster(Cluster::new("fallback").endpoint(fallback))
        .start(program)
        .await;
    for (name, answer) in [("one.test", "one"), ("two.test", "two"), ("other.test", "else")] {
        let mut tls = pki.client(None);
        tls.server_name = name.to_owned();
        let client = Client::http1(proxy.address("main")).tls(tls);
        assert_eq!(client.get("/").send().await.text(), answer, "{name}");
    }
}

async fn a_chain_limits_its_connections(program: Program) {
    let app = TcpBackend::echo().await;
    let limit = json!({"stat_prefix": "two", "max_connections": 2, "delay": "2s"});
    let filters = Tcp::to("app").after("connection_limit", "ConnectionLimit", limit);
    let proxy =
        Bootstrap::tcp(filters).cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
    ping(&mut one).await;
    ping(&mut two).await;
    let begun = Instant::now();
    let mut three = proxy.connect().await;
    proxy.until_stat("connection_limit.two.active_connections", |count| count == 3).await;
    assert_eq!(three.read_to_close().await, (String::new(), Close::Fin));
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    proxy.until_stat("connection_limit.two.active_connections", |count| count == 2).await;
    assert_eq!(proxy.stat("connection_limit.two.limited_connections").await, 1);
    assert_eq!(app.connections(), 2);
    drop(one);
    proxy.until_stat("connection_limit.two.active_connections", |count| count == 1).await;
    ping(&mut proxy.connect().await).await;
    ping(&mut two).await;
}

async fn a_limit_applies_to_http_too(program: Program) {
    let limit = json!({"stat_prefix": "one", "max_connections": 1});
    let http = Http::routing([Route::prefix("/").direct(200, "hello")]);
    let off = json!({
        "stat_prefix": "off", "max_connections": 1,
        "runtime_enabled": {"default_value": false, "runtime_key": "limit"},
    });
    let filters = Filters::from(http).after("connection_limit", "ConnectionLimit", off).after(
        "connection_limit",
        "ConnectionLimit",
        limit,
    );
    let proxy = Bootstrap::tcp(filters).start(program).await;
    let mut connection = proxy.client().connect().await.unwrap();
    assert_eq!(connection.send(proxy.get("/")).await.unwrap().text(), "hello");
    assert!(proxy.get("/").try_send().await.is_err(), "one is the limit");
    assert_eq!(connection.send(proxy.get("/")).await.unwrap().text(), "hello");
    assert_eq!(proxy.stat("connection_limit.one.limited_connections").await, 1);
    assert_eq!(proxy.stat("connection_limit.off.active_connections").await, 0);
}
