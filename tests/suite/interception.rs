//! Connections made to somebody else that a sidecar takes: redirected by iptables, in a network of its own.

use std::net::SocketAddr;

use harness::bootstrap::socket_address;
use harness::discovery_files::DiscoveryFile;
use harness::{
    Backend, Bootstrap, Cluster, Http, Listener, Netns, Program, RawConnection, Route, Tcp,
    TcpBackend, Value, json,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

on_both!(
    a_redirected_connection_reaches_the_listener_of_its_destination,
    a_redirected_connection_reaches_the_chain_of_its_destination,
    a_connection_is_taken_without_being_changed,
    what_is_not_configured_passes_through,
    a_listener_without_a_socket_may_come_and_go,
    endpoints_see_the_address_of_the_client,
    endpoints_see_the_address_that_a_proxy_in_front_tells,
);

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
/// Whose connections are redirected.
const CLIENT: &str = "10.9.0.2";

/// Answers everything with `body` and the address the client meant.
fn answering(body: &str) -> Http {
    let header = json!({"key": "x-to", "value": "%DOWNSTREAM_LOCAL_ADDRESS%"});
    Http::routing([Route::prefix("/").direct(200, body)])
        .with("route_config.response_headers_to_add", json!([{"header": header}]))
}

/// A listener without a socket, at this address.
fn virtual_listener(address: &str) -> Listener {
    let at: SocketAddr = address.parse().unwrap();
    Listener::new(address, answering(address))
        .with("address", socket_address(at))
        .with("bind_to_port", false)
}

/// Redirects the client's connections to `port`.
fn redirect(network: &Netns, port: u16) {
    let from = format!("iptables -t nat -A OUTPUT -p tcp -s {CLIENT}");
    network.run(&format!("{from} -j REDIRECT --to-ports {port}"));
}

/// What the client gets from `destination`: the body, and the address that the proxy thinks it meant.
async fn answer(destination: &str) -> (String, String) {
    let mut connection = RawConnection::open_from(CLIENT, destination.parse().unwrap()).await;
    connection.write(REQUEST).await;
    let answer = connection.read_to_end().await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let to = head.lines().find_map(|line| line.strip_prefix("x-to: ")).unwrap_or_default();
    (body.to_owned(), to.to_owned())
}

fn said(body: &str, to: &str) -> (String, String) {
    (body.to_owned(), to.to_owned())
}

async fn a_redirected_connection_reaches_the_listener_of_its_destination(program: Program) {
    let Some(network) = Netns::enter() else { return };
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", answering("main")).with("use_original_dst", true))
        .listener(virtual_listener("10.9.0.7:80"))
        .listener(virtual_listener("0.0.0.0:80"))
        .listener(virtual_listener("0.0.0.0:81"))
        .start(program)
        .await;
    redirect(&network, proxy.address("main").port());
    for (destination, body) in [
        ("10.9.0.7:80", "10.9.0.7:80"),
        ("10.9.0.8:80", "0.0.0.0:80"),
        ("10.9.0.7:81", "0.0.0.0:81"),
        ("10.9.0.7:82", "main"),
    ] {
        assert_eq!(answer(destination).await, said(body, destination));
    }
    network.run("iptables -t nat -F OUTPUT");
    let main = proxy.address("main").to_string();
    assert_eq!(answer(&main).await, said("main", &main));
}

async fn a_redirected_connection_reaches_the_chain_of_its_destination(program: Program) {
    let Some(network) = Netns::enter() else { return };
    let block = json!([{"address_prefix": "10.9.1.0", "prefix_len": 24}]);
    let listener = Listener::new("main", answering("other"))
        .chain(json!({"destination_port": 81}), None, answering("port"))
        .chain(json!({"prefix_ranges": block}), None, answering("block"))
        .listener_filter("original_dst", "OriginalDst", json!({}));
    let proxy = Bootstrap::new().listener(listener).start(program).await;
    redirect(&network, proxy.address("main").port());
    for (destination, body) in
        [("10.9.0.7:80", "other"), ("10.9.1.7:80", "block"), ("10.9.1.7:81", "port")]
    {
        assert_eq!(answer(destination).await, said(body, destination));
    }
}

/// Takes the client's connections without changing their addresses.
fn tproxy(network: &Netns, port: u16) {
    let mangle = "iptables -t mangle -A";
    network.run(&format!("{mangle} OUTPUT -p tcp -s {CLIENT} -j MARK --set-mark 1"));
    network.run("ip rule add fwmark 1 lookup 100");
    network.run("ip route add local 0.0.0.0/0 dev lo table 100");
    let target = format!("TPROXY --on-ip 127.0.0.1 --on-port {port} --tproxy-mark 1");
    network.run(&format!("{mangle} PREROUTING -p tcp -s {CLIENT} -j {target}"));
}

async fn a_connection_is_taken_without_being_changed(program: Program) {
    let Some(network) = Netns::enter() else { return };
    let listener = Listener::new("main", answering("main"))
        .with("transparent", true)
        .with("use_original_dst", true);
    let proxy = Bootstrap::new()
        .listener(listener)
        .listener(virtual_listener("10.9.0.7:80"))
        .start(program)
        .await;
    tproxy(&network, proxy.address("main").port());
    assert_eq!(answer("10.9.0.7:80").await, said("10.9.0.7:80", "10.9.0.7:80"));
    assert_eq!(answer("10.9.0.8:80").await, said("main", "10.9.0.8:80"));
}

async fn a_listener_without_a_socket_may_come_and_go(program: Program) {
    let Some(network) = Netns::enter() else { return };
    let bootstrap = Bootstrap::new()
        .listener(Listener::new("main", answering("main")).with("use_original_dst", true));
    let file = DiscoveryFile::listeners(bootstrap.dir());
    file.publish([]);
    let proxy = bootstrap.with("dynamic_resources.lds_config", file.source()).start(program).await;
    redirect(&network, proxy.address("main").port());
    assert_eq!(answer("10.9.0.7:80").await.0, "main");
    let added = virtual_listener("0.0.0.0:80").at(proxy.address("main"));
    for (listeners, body) in [(vec![added], "0.0.0.0:80"), (vec![], "main")] {
        file.publish(listeners);
        harness::eventually(body, async || (answer("10.9.0.7:80").await.0 == body).then_some(()))
            .await;
    }
}

async fn what_is_not_configured_passes_through(program: Program) {
    let Some(network) = Netns::enter() else { return };
    let [one, two] = [Backend::echo("one").await, Backend::echo("two").await];
    let original = Cluster::new("original")
        .with("type", "ORIGINAL_DST")
        .with("lb_policy", "CLUSTER_PROVIDED")
        .with("load_assignment", Value::Null);
    let listener = Listener::new("main", Http::routing([Route::prefix("/").to("original")]))
        .with("use_original_dst", true);
    let proxy = Bootstrap::new().listener(listener).cluster(original).start(program).await;
    redirect(&network, proxy.address("main").port());
    for (backend, name) in [(&one, "one"), (&two, "two")] {
        let (body, _) = answer(&backend.address().to_string()).await;
        assert!(body.contains(&format!("\"backend\":\"{name}\"")), "{body}");
    }
}

/// Answers every request with the address of its connection's peer.
async fn seeing_peers() -> TcpBackend {
    TcpBackend::scripted(|mut stream| async move {
        let peer = stream.peer_addr().unwrap().ip().to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{peer}", peer.len());
        let mut seen = Vec::new();
        while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
            if seen.ends_with(b"\r\n\r\n") {
                seen.clear();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

/// A listener that serves `filter` and has connections come from the address of its client.
fn keeping_the_source(listener: Listener) -> Listener {
    listener.listener_filter("original_src", "OriginalSrc", json!({"mark": MARK}))
}

/// What packets are marked with that pretend to come from elsewhere.
const MARK: u32 = 7;

async fn endpoints_see_the_address_of_the_client(program: Program) {
    let Some(_network) = Netns::enter() else { return };
    let app = seeing_peers().await;
    let listener = Listener::new("main", Http::routing([Route::prefix("/").to("app")]));
    let proxy = Bootstrap::new()
        .listener(keeping_the_source(listener))
        .listener(keeping_the_source(Listener::new("tcp", Tcp::to("app"))))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    // Whoever comes from the same address may share a connection to the endpoint, and nobody else.
    for (source, connections) in
        [("10.9.0.2", 1), ("10.9.0.3", 2), ("10.9.0.2", 2), ("10.9.0.3", 2)]
    {
        let mut connection = RawConnection::open_from(source, proxy.address("main")).await;
        connection.write(REQUEST).await;
        let answer = connection.read_to_end().await;
        assert!(answer.ends_with(&format!("\r\n\r\n{source}")), "{source}: {answer}");
        assert_eq!(proxy.stat("cluster.app.upstream_cx_total").await, connections);
    }
    let mut connection = RawConnection::open_from("10.9.0.4", proxy.address("tcp")).await;
    connection.write(REQUEST).await;
    connection.read_until("\r\n\r\n10.9.0.4").await;
}

async fn endpoints_see_the_address_that_a_proxy_in_front_tells(program: Program) {
    let Some(network) = Netns::enter() else { return };
    // To this machine, but only for marked packets; an answer is marked as what it answers.
    network.run("ip rule add fwmark 7 lookup 100");
    network.run("ip route add local 10.10.0.0/16 dev lo table 100");
    network.run("echo 1 > /proc/sys/net/ipv4/tcp_fwmark_accept");
    let app = seeing_peers().await;
    let listener = Listener::new("main", Tcp::to("app")).listener_filter(
        "proxy_protocol",
        "ProxyProtocol",
        json!({}),
    );
    let proxy = Bootstrap::new()
        .listener(keeping_the_source(listener))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let mut connection = RawConnection::open_from(CLIENT, proxy.address("main")).await;
    connection.write(format!("PROXY TCP4 10.10.0.5 10.9.0.7 1111 80\r\n{REQUEST}")).await;
    connection.read_until("\r\n\r\n10.10.0.5").await;
}
