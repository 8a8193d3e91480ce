//! Before the filter chain: what listener filters learn of a connection, and which chain that leads to.

use std::net::{Ipv6Addr, SocketAddr};

use harness::bootstrap::socket_address;
use harness::{Bootstrap, Http, Listener, Program, Proxy, RawConnection, Route, Value, json};
use socket2::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

on_both!(
    a_proxy_header_says_who_the_client_is,
    a_wrong_proxy_header_ends_the_connection,
    a_proxy_header_may_be_optional,
    a_version_of_the_proxy_header_may_be_disallowed,
    where_a_header_may_be_missing_a_disallowed_version_is_none,
    a_chain_is_chosen_by_the_direct_peer_behind_a_proxy_header,
    only_the_usual_loopback_addresses_are_local,
    a_chain_for_an_unknown_transport_protocol_takes_nobody,
    plain_text_http_is_told_from_anything_else,
    a_request_line_without_an_end_is_refused,
    a_connection_without_a_chain_is_closed,
    a_filter_may_be_disabled_for_some_ports,
    a_silent_client_is_cut_after_the_timeout,
    a_slow_client_may_go_on_after_the_timeout,
    a_listener_has_several_addresses,
    socket_options_are_set_on_the_sockets,
    connections_may_be_spread_evenly_among_the_workers,
    clients_may_use_several_paths,
);

mod pipe;
mod server_first;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const V1: &str = "PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n";

/// The header of version 2 with this command and family, for a client 1.2.3.4:1111 of 5.6.7.8:80.
fn v2(command: u8, family: u8, extensions: &[u8]) -> Vec<u8> {
    let addresses = [1, 2, 3, 4, 5, 6, 7, 8, 0x04, 0x57, 0, 80];
    let length = u16::try_from(addresses.len() + extensions.len()).unwrap().to_be_bytes();
    let fixed = [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length].concat();
    [&fixed, &addresses[..], extensions].concat()
}

/// Answers everything with `body`, and with the addresses it knows.
fn answering(body: &str) -> Http {
    let who = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
        %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
    Http::routing([Route::prefix("/").direct(200, body)]).with(
        "route_config.response_headers_to_add",
        json!([{"header": {"key": "x-who", "value": who}}]),
    )
}

fn reading_proxy_headers(config: Value) -> Listener {
    Listener::new("main", answering("ok")).listener_filter(
        "proxy_protocol",
        "ProxyProtocol",
        config,
    )
}

async fn start(program: Program, listener: Listener) -> Proxy {
    Bootstrap::new().listener(listener).start(program).await
}

/// What comes back for these bytes until the connection ends.
async fn answer(proxy: &Proxy, bytes: impl AsRef<[u8]>) -> String {
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write(bytes).await;
    connection.read_to_end().await
}

/// As [`answer`], from this address: the body alone.
async fn body_from(source: &str, proxy: &Proxy, bytes: impl AsRef<[u8]>) -> String {
    let mut connection = RawConnection::open_from(source, proxy.address("main")).await;
    connection.write(bytes).await;
    body(&connection.read_to_end().await)
}

/// The full name of a statistic of the listener.
fn of_listener(proxy: &Proxy, name: &str) -> String {
    format!("listener.{}.{name}", proxy.address("main").to_string().replace(':', "_"))
}

fn body(answer: &str) -> String {
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

async fn a_proxy_header_says_who_the_client_is(program: Program) {
    let proxy = start(program, reading_proxy_headers(json!({}))).await;
    let itself = format!(" {} 127.0.0.1", proxy.address("main"));
    let v6 = "PROXY TCP6 1::2 3::4 1111 80\r\n".as_bytes();
    for (header, who) in [
        (V1.as_bytes(), "x-who: 1.2.3.4:1111 5.6.7.8:80 127.0.0.1"),
        (&v2(0x21, 0x11, b"\x01\x00\x02h2"), "x-who: 1.2.3.4:1111 5.6.7.8:80 127.0.0.1"),
        (v6, "x-who: [1::2]:1111 [3::4]:80 127.0.0.1"),
        (b"PROXY UNKNOWN whatever\r\n", &itself),
        (&v2(0x20, 0x00, b"cut"), &itself),
    ] {
        let whole = answer(&proxy, [header, REQUEST.as_bytes()].concat()).await;
        assert!(whole.contains(who), "{who}: {whole}");
    }
    let mut slow = RawConnection::open(proxy.address("main")).await;
    let (beginning, rest) = V1.split_at(20);
    slow.write(beginning).await;
    slow.write(rest).await;
    slow.write(REQUEST).await;
    assert!(slow.read_to_end().await.contains("x-who: 1.2.3.4:1111"));
    assert_eq!(proxy.stat("proxy_proto.versions.v1.found").await, 4);
    assert_eq!(proxy.stat("proxy_proto.versions.v2.found").await, 2);
}

async fn a_wrong_proxy_header_ends_the_connection(program: Program) {
    let proxy = start(program, reading_proxy_headers(json!({"stat_prefix": "edge"}))).await;
    let texts = [
        "PROXY TCP4 1.2.3.4 5.6.7.8 11\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 11 22\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 11 70000\r\n",
        "PROXY TCP4 224.0.0.1 5.6.7.8 11 22\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 11 22\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 11 22\r\n",
    ];
    for header in texts {
        assert_eq!(answer(&proxy, format!("{header}{REQUEST}")).await, "", "{header}");
    }
    let binaries = [
        v2(0x22, 0x11, b""),
        v2(0x11, 0x11, b""),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x21, b""),
        v2(0x21, 0x11, b"\x01\x00\x04abc"),
    ];
    for header in &binaries {
        let bytes = [header, REQUEST.as_bytes()].concat();
        assert_eq!(answer(&proxy, bytes).await, "", "{header:x?}");
    }
    assert_eq!(answer(&proxy, REQUEST).await, "", "no header at all");
    proxy.until_stat("downstream_cx_proxy_proto_error", |count| count == 12).await;
    assert_eq!(proxy.stat("proxy_proto.edge.versions.v1.error").await, 6);
    assert_eq!(proxy.stat("proxy_proto.edge.versions.v2.error").await, 5);
    assert_eq!(proxy.stat("proxy_proto.edge.not_found_disallowed").await, 1);
    assert_eq!(proxy.stat(&of_listener(&proxy, "downstream_cx_total")).await, 0);
}

async fn a_proxy_header_may_be_optional(program: Program) {
    let config = json!({"allow_requests_without_proxy_protocol": true});
    let proxy = start(program, reading_proxy_headers(config)).await;
    assert!(answer(&proxy, format!("{V1}{REQUEST}")).await.contains("x-who: 1.2.3.4:1111"));
    assert!(answer(&proxy, REQUEST).await.contains("x-who: 127.0.0.1:"));
    // Begins like a header, and is none.
    let mut post = RawConnection::open(proxy.address("main")).await;
    post.write("P").await;
    post.write("UT / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert!(post.read_to_end().await.contains("x-who: 127.0.0.1:"));
    assert_eq!(answer(&proxy, format!("PROXY what\r\n{REQUEST}")).await, "");
    assert_eq!(proxy.stat("proxy_proto.not_found_allowed").await, 2);
}

async fn a_version_of_the_proxy_header_may_be_disallowed(program: Program) {
    let proxy = start(program, reading_proxy_headers(json!({"disallowed_versions": ["V1"]}))).await;
    assert_eq!(answer(&proxy, format!("{V1}{REQUEST}")).await, "");
    let whole = answer(&proxy, [&v2(0x21, 0x11, b""), REQUEST.as_bytes()].concat()).await;
    assert!(whole.contains("x-who: 1.2.3.4:1111"), "{whole}");
    assert_eq!(proxy.stat("proxy_proto.versions.v1.disallowed").await, 1);
    assert_eq!(proxy.stat("proxy_proto.versions.v1.found").await, 1);
    assert_eq!(proxy.stat("downstream_cx_proxy_proto_error").await, 0);
}

async fn where_a_header_may_be_missing_a_disallowed_version_is_none(program: Program) {
    let config =
        json!({"disallowed_versions": ["V1"], "allow_requests_without_proxy_protocol": true});
    let proxy = start(program, reading_proxy_headers(config)).await;
    // Passed on as what the client says: which is no HTTP.
    assert!(answer(&proxy, format!("{V1}{REQUEST}")).await.starts_with("HTTP/1.1 400 "));
    let whole = answer(&proxy, [&v2(0x21, 0x11, b""), REQUEST.as_bytes()].concat()).await;
    assert!(whole.contains("x-who: 1.2.3.4:1111"), "{whole}");
    assert_eq!(proxy.stat("proxy_proto.not_found_allowed").await, 1);
    assert_eq!(proxy.stat("proxy_proto.versions.v1.found").await, 0);
}

async fn a_chain_is_chosen_by_the_direct_peer_behind_a_proxy_header(program: Program) {
    let one = |ip: &str| json!([{"address_prefix": ip, "prefix_len": 32}]);
    let listener = reading_proxy_headers(json!({}))
        .chain(json!({"direct_source_prefix_ranges": one("127.0.0.2")}), None, answering("direct"))
        .chain(json!({"source_prefix_ranges": one("1.2.3.4")}), None, answering("source"))
        .chain(json!({"destination_port": 443}), None, answering("port"));
    let proxy = start(program, listener).await;
    let to =
        |source: &str, port: u16| format!("PROXY TCP4 {source} 5.6.7.8 1111 {port}\r\n{REQUEST}");
    assert_eq!(body_from("127.0.0.1", &proxy, to("9.9.9.9", 80)).await, "ok");
    assert_eq!(body_from("127.0.0.1", &proxy, to("1.2.3.4", 80)).await, "source");
    assert_eq!(body_from("127.0.0.2", &proxy, to("1.2.3.4", 80)).await, "direct");
    assert_eq!(body_from("127.0.0.2", &proxy, to("1.2.3.4", 443)).await, "port");
}

async fn only_the_usual_loopback_addresses_are_local(program: Program) {
    let kind = |kind: &str| json!({"source_type": kind});
    let listener = Listener::new("main", answering("any"))
        .chain(kind("SAME_IP_OR_LOOPBACK"), None, answering("local"))
        .chain(kind("EXTERNAL"), None, answering("external"));
    let proxy = start(program, listener).await;
    assert_eq!(body_from("127.0.0.1", &proxy, REQUEST).await, "local");
    assert_eq!(body_from("127.0.0.2", &proxy, REQUEST).await, "external");
}

async fn a_chain_for_an_unknown_transport_protocol_takes_nobody(program: Program) {
    let listener = Listener::new("main", answering("any")).chain(
        json!({"transport_protocol": "quic"}),
        None,
        answering("quic"),
    );
    let proxy = start(program, listener).await;
    assert_eq!(body(&answer(&proxy, REQUEST).await), "any");
}

/// Chains for each kind of HTTP, and one for the rest.
fn inspecting_http() -> Listener {
    let protocol = |name: &str| json!({"application_protocols": [name]});
    Listener::new("main", answering("raw").with("http_protocol_options.accept_http_10", true))
        .chain(
            protocol("http/1.0"),
            None,
            answering("1.0").with("http_protocol_options.accept_http_10", true),
        )
        .chain(protocol("http/1.1"), None, answering("1.1"))
        .chain(protocol("h2c"), None, answering("2"))
        .tls_inspector()
        .listener_filter("http_inspector", "HttpInspector", json!({}))
}

async fn plain_text_http_is_told_from_anything_else(program: Program) {
    let proxy = start(program, inspecting_http()).await;
    assert_eq!(proxy.get("/").send().await.text(), "1.1");
    let http2 = harness::Client::http2(proxy.address("main"));
    assert_eq!(http2.get("/").send().await.text(), "2");
    assert_eq!(body(&answer(&proxy, "GET / HTTP/1.0\r\nhost: a\r\n\r\n").await), "1.0");
    // An empty line in front of a request: allowed, but not looked behind.
    assert_eq!(body(&answer(&proxy, format!("\r\n{REQUEST}")).await), "raw");
    for (name, count) in [
        ("http_inspector.http10_found", 1),
        ("http_inspector.http11_found", 1),
        ("http_inspector.http2_found", 1),
        ("http_inspector.http_not_found", 1),
        ("tls_inspector.tls_not_found", 4),
    ] {
        assert_eq!(proxy.stat(name).await, count, "{name}");
    }
}

async fn a_request_line_without_an_end_is_refused(program: Program) {
    let listener = Listener::new("main", answering("raw"));
    let listener = listener.listener_filter("http_inspector", "HttpInspector", json!({}));
    let proxy = start(program, listener).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write(format!("GET /{}", "a".repeat(70_000))).await;
    assert_eq!(connection.read_to_end().await, "");
    proxy.until_stat("http_inspector.read_error", |count| count == 1).await;
}

async fn a_connection_without_a_chain_is_closed(program: Program) {
    let listener = inspecting_http()
        .with("filter_chains.0.filter_chain_match", json!({"transport_protocol": "tls"}));
    let proxy = start(program, listener).await;
    assert_eq!(answer(&proxy, "something else\r\n").await, "");
    proxy.until_stat(&of_listener(&proxy, "no_filter_chain_match"), |count| count == 1).await;
    assert_eq!(proxy.stat(&of_listener(&proxy, "downstream_cx_total")).await, 0);
}

async fn a_filter_may_be_disabled_for_some_ports(program: Program) {
    let http = json!({"application_protocols": ["http/1.1"]});
    let port =
        |start: u16, end: u16| json!({"destination_port_range": {"start": start, "end": end}});
    let some = json!({"or_match": {"rules": [port(80, 81), {"not_match": port(0, 9000)}]}});
    let listener = reading_proxy_headers(json!({}))
        .chain(http, None, answering("http"))
        .listener_filter("http_inspector", "HttpInspector", json!({}))
        .with("listener_filters.1.filter_disabled", some);
    let proxy = start(program, listener).await;
    for (port, expected) in [(80, "ok"), (81, "http"), (9000, "ok")] {
        let header = format!("PROXY TCP4 1.2.3.4 5.6.7.8 1111 {port}\r\n{REQUEST}");
        assert_eq!(body(&answer(&proxy, header).await), expected, "{port}");
    }
}

async fn a_silent_client_is_cut_after_the_timeout(program: Program) {
    let proxy = start(program, inspecting_http().with("listener_filters_timeout", "0.2s")).await;
    let mut silent = RawConnection::open(proxy.address("main")).await;
    assert_eq!(silent.read_to_end().await, "");
    let mut slow = RawConnection::open(proxy.address("main")).await;
    slow.write("GET / HT").await;
    assert_eq!(slow.read_to_end().await, "");
    proxy.until_stat(&of_listener(&proxy, "downstream_pre_cx_timeout"), |count| count == 2).await;
    proxy.until_stat(&of_listener(&proxy, "downstream_pre_cx_active"), |count| count == 0).await;
}

async fn a_slow_client_may_go_on_after_the_timeout(program: Program) {
    let listener = inspecting_http()
        .with("listener_filters_timeout", "0.2s")
        .with("continue_on_listener_filters_timeout", true);
    let proxy = start(program, listener).await;
    let mut slow = RawConnection::open(proxy.address("main")).await;
    slow.write(&REQUEST[..10]).await;
    proxy.until_stat(&of_listener(&proxy, "downstream_cx_active"), |count| count == 1).await;
    slow.write(&REQUEST[10..]).await;
    assert_eq!(body(&slow.read_to_end().await), "raw");
}

async fn a_listener_has_several_addresses(program: Program) {
    let mut bootstrap = Bootstrap::new();
    let (second, third) = (bootstrap.reserve("second"), bootstrap.reserve("third"));
    let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), third.port());
    let addresses = [second, v6].map(|at| json!({"address": socket_address(at)}));
    let listener =
        Listener::new("main", answering("ok")).with("additional_addresses", addresses.to_vec());
    let proxy = bootstrap.listener(listener).start(program).await;
    for address in [proxy.address("main"), second, v6] {
        let mut connection = RawConnection::open(address).await;
        connection.write(REQUEST).await;
        let whole = connection.read_to_end().await;
        assert!(whole.contains(&format!(" {address} ")), "{address}: {whole}");
    }
    let shown = proxy.admin().get("/listeners").send().await.text();
    assert!(shown.contains(&format!("main::{}", proxy.address("main"))), "{shown}");
}

async fn socket_options_are_set_on_the_sockets(program: Program) {
    let option = |level: i32, name: i32, value: i32, state: &str| json!({"level": level, "name": name, "int_value": value, "state": state});
    let mut bootstrap = Bootstrap::new();
    let second = bootstrap.reserve("second");
    // TCP_MAXSEG: what the kernel tells the client of it can be seen there. Options may be bytes, too: 700 as a
    // number of this machine, and the name of a way to control congestion.
    let number = json!({"level": 6, "name": 2, "buf_value": "vAIAAA==", "state": "STATE_BOUND"});
    let name = json!({"level": 6, "name": 13, "buf_value": "cmVubw==", "state": "STATE_PREBIND"});
    let listener = Listener::new("main", answering("ok"))
        .with(
            "socket_options",
            json!([option(6, 2, 600, "STATE_PREBIND"), option(1, 9, 1, "STATE_LISTENING")]),
        )
        .with(
            "additional_addresses",
            json!([{
                "address": socket_address(second),
                "socket_options": {"socket_options": [number, name]},
            }]),
        );
    let proxy = bootstrap.listener(listener).start(program).await;
    for (address, longest) in [(proxy.address("main"), 600), (second, 700)] {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mss = socket2::SockRef::from(&stream).tcp_mss().unwrap();
        assert!((longest - 100..=longest).contains(&mss), "{mss}");
    }
}

async fn clients_may_use_several_paths(program: Program) {
    let multipath =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, Some(Protocol::MPTCP));
    let Ok(client) = multipath else {
        eprintln!("SKIPPED: the kernel has no Multipath TCP");
        return;
    };
    let proxy = start(program, Listener::new("main", answering("ok")).with("enable_mptcp", true));
    let proxy = proxy.await;
    let before = multipath_connections();
    client.connect(&proxy.address("main").into()).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut client = tokio::net::TcpStream::from_std(client.into()).unwrap();
    client.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut whole = String::new();
    client.read_to_string(&mut whole).await.unwrap();
    assert_eq!(body(&whole), "ok");
    assert_eq!(body(&answer(&proxy, REQUEST).await), "ok", "one path will do, too");
    assert!(multipath_connections() > before);
}

/// How many connections with Multipath TCP this machine has taken.
fn multipath_connections() -> u64 {
    let netstat = std::fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = netstat.lines().filter(|line| line.starts_with("MPTcpExt: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut columns = names.split(' ').zip(values.split(' '));
    columns.find(|(name, _)| *name == "MPCapableACKRX").unwrap().1.parse().unwrap()
}

async fn connections_may_be_spread_evenly_among_the_workers(program: Program) {
    const EACH: i64 = 12;
    let listener = Listener::new("main", answering("ok"))
        .with("connection_balance_config", json!({"exact_balance": {}}));
    let proxy = Bootstrap::new().argument("--concurrency").argument("2").listener(listener);
    let proxy = proxy.start(program).await;
    let active = |worker: u8| of_listener(&proxy, &format!("worker_{worker}.downstream_cx_active"));
    let mut connections = Vec::new();
    for _ in 0..2 * EACH {
        connections.push(RawConnection::open(proxy.address("main")).await);
    }
    for worker in [0, 1] {
        proxy.until_stat(&active(worker), |count| i64::try_from(count) == Ok(EACH)).await;
    }
    // Wherever it is served, it is served.
    for connection in &mut connections {
        connection.write(REQUEST).await;
        assert_eq!(body(&connection.read_to_end().await), "ok");
    }
    for worker in [0, 1] {
        proxy.until_stat(&active(worker), |count| count == 0).await;
        let total = of_listener(&proxy, &format!("worker_{worker}.downstream_cx_total"));
        assert_eq!(i64::try_from(proxy.stat(&total).await), Ok(EACH));
    }
}
