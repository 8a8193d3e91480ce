//! Connections carried by HTTP: behind a CONNECT, or within a POST.

use std::sync::Arc;

use harness::{
    Bootstrap, Cluster, Http, Listener, Program, Proxy, RawConnection, Route, Tcp, TcpBackend,
    Value, json,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::until_logged;

on_both!(
    bytes_travel_behind_a_connect,
    bytes_travel_within_a_post,
    a_tunnel_that_is_refused_is_no_connection,
    an_endpoint_without_a_word_is_no_tunnel,
    what_the_endpoint_answers_is_kept,
);

/// The heads of requests for tunnels.
type Heads = Arc<Mutex<Vec<String>>>;

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Agrees to every tunnel, and gives back what comes through it.
async fn agreeing() -> (TcpBackend, Heads) {
    let heads = Heads::default();
    let seen = Arc::clone(&heads);
    let backend = TcpBackend::scripted(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let head = read_head(&mut stream).await;
            seen.lock().push(head);
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-gate: open\r\n\r\n").await.unwrap();
            let (mut input, mut output) = stream.split();
            let _ = tokio::io::copy(&mut input, &mut output).await;
        }
    })
    .await;
    (backend, heads)
}

/// A proxy in front of `backend` that lets tunnels and bodies through.
async fn gate(program: Program, backend: &TcpBackend) -> Proxy {
    let allowed = json!([{"upgrade_type": "CONNECT"}]);
    let connect = Route::matching(json!({"connect_matcher": {}}));
    let connect = connect.to("app").with("route.upgrade_configs", allowed.clone());
    let http = Http::routing([connect, Route::prefix("/").to("app")])
        .with("upgrade_configs", allowed)
        .with("http2_protocol_options", json!({"allow_connect": true}));
    Bootstrap::http(http).cluster(Cluster::new("app").endpoint(backend)).start(program).await
}

fn header(name: &str, value: &str) -> Value {
    json!({"header": {"key": name, "value": value}})
}

async fn echoes(connection: &mut RawConnection, words: &str) {
    connection.write(words).await;
    assert_eq!(connection.read_exactly(words.len()).await, words.as_bytes());
}

fn gates() -> Vec<Program> {
    [Program::Outrigger, Program::Envoy].into_iter().filter(|it| it.is_installed()).collect()
}

async fn bytes_travel_behind_a_connect(program: Program) {
    let tunnel = json!({
        "hostname": "port%DOWNSTREAM_LOCAL_PORT%.test:443",
        "headers_to_add": [header("x-client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
            header("x-fixed", "1")],
    });
    for gate_program in gates() {
        let (backend, heads) = agreeing().await;
        let gate = gate(gate_program, &backend).await;
        let at = gate.address("main");
        for cluster in
            [Cluster::new("gate").endpoint(at), Cluster::new("gate").endpoint(at).http2()]
        {
            let tcp = Tcp::to("gate").with("tunneling_config", tunnel.clone());
            let proxy = Bootstrap::tcp(tcp).cluster(cluster).start(program).await;
            let mut connection = proxy.connect().await;
            echoes(&mut connection, "there and back").await;
            let much = "much ".repeat(50_000);
            connection.write(&much).await;
            assert!(connection.read_exactly(much.len()).await == much.as_bytes());
            connection.finish().await;
            connection.read_to_close().await;
            let head = heads.lock().pop().unwrap();
            let port = proxy.address("main").port();
            assert!(
                head.starts_with(&format!("CONNECT port{port}.test:443 HTTP/1.1\r\n")),
                "{head}"
            );
            for line in [
                format!("host: port{port}.test:443"),
                "x-client: 127.0.0.1".to_owned(),
                "x-fixed: 1".to_owned(),
            ] {
                assert!(head.to_ascii_lowercase().lines().any(|it| it == line), "{line} in {head}");
            }
            proxy
                .until_stats([
                    ("tcp.main.downstream_cx_rx_bytes_total", 250_014),
                    ("tcp.main.downstream_cx_tx_bytes_total", 250_014),
                    ("cluster.gate.upstream_cx_total", 1),
                    ("cluster.gate.upstream_rq_total", 1),
                    ("cluster.gate.upstream_rq_active", 0),
                ])
                .await;
        }
    }
}

async fn bytes_travel_within_a_post(program: Program) {
    for gate_program in gates() {
        let heads = Heads::default();
        let seen = Arc::clone(&heads);
        let backend = TcpBackend::scripted(move |mut stream| {
            let seen = Arc::clone(&seen);
            async move {
                let head = read_head(&mut stream).await;
                seen.lock().push(head);
                let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut ping = [0; 9];
                stream.read_exact(&mut ping).await.unwrap();
                assert_eq!(&ping, b"4\r\nping\r\n");
                stream.write_all(b"4\r\npong\r\n").await.unwrap();
                let mut end = [0; 5];
                stream.read_exact(&mut end).await.unwrap();
                assert_eq!(&end, b"0\r\n\r\n");
                stream.write_all(b"3\r\nbye\r\n0\r\n\r\n").await.unwrap();
            }
        })
        .await;
        let gate = gate(gate_program, &backend).await;
        let at = gate.address("main");
        for over_http2 in [false, true] {
            let cluster = Cluster::new("gate").endpoint(at);
            let cluster = if over_http2 { cluster.http2() } else { cluster };
            let tunnel = json!({"hostname": "far.test:80", "use_post": true, "post_path": "/p"});
            let tcp = Tcp::to("gate").with("tunneling_config", tunnel);
            let proxy = Bootstrap::tcp(tcp).cluster(cluster).start(program).await;
            let mut connection = proxy.connect().await;
            connection.write("ping").await;
            assert_eq!(connection.read_exactly(4).await, b"pong");
            connection.finish().await;
            let rest = connection.read_to_end().await;
            // Over HTTP/1 Envoy ends both ways with the client.
            assert!(rest == "bye" || (program.is_envoy() && !over_http2), "{rest}");
            let head = heads.lock().pop().unwrap();
            assert!(head.starts_with("POST /p HTTP/1.1\r\n"), "{head}");
            assert!(head.contains("far.test:80"), "{head}");
        }
    }
}

const FORMAT: &str = "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON% \
    %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %UPSTREAM_PROTOCOL% \
    %BYTES_RECEIVED% %BYTES_SENT% \
    %FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:TYPED)%";

async fn tunnelling(program: Program, tunnel: Value, attempts: u32, cluster: Cluster) -> Proxy {
    let bootstrap = Bootstrap::new();
    let tcp = Tcp::to("gate")
        .with("tunneling_config", tunnel)
        .with("max_connect_attempts", attempts)
        .text_log(&bootstrap.dir().join("access.log"), FORMAT);
    bootstrap.listener(Listener::new("main", tcp)).cluster(cluster).start(program).await
}

async fn a_tunnel_that_is_refused_is_no_connection(program: Program) {
    let refusing = Route::matching(json!({"connect_matcher": {}})).direct(403, "");
    let allowed = json!([{"upgrade_type": "CONNECT"}]);
    let http = Http::routing([refusing])
        .with("upgrade_configs", allowed)
        .with("http2_protocol_options", json!({"allow_connect": true}));
    let gate = Bootstrap::http(http).start(program).await;
    let at = gate.address("main");
    let cluster = Cluster::new("gate").endpoint(at).http2();
    let tunnel = json!({"hostname": "far.test:80", "propagate_response_headers": true});
    let proxy = tunnelling(program, tunnel, 2, cluster).await;
    let mut connection = proxy.connect().await;
    assert_eq!(connection.read_to_end().await, "");
    let line = until_logged(&proxy, 1).await.remove(0);
    assert!(line.starts_with(&format!("UF,URX tunnel_response:403 2 {at} gate - 0 0 ")), "{line}");
    proxy
        .until_stat("cluster.gate.upstream_cx_connect_attempts_exceeded", |count| count == 1)
        .await;
}

async fn an_endpoint_without_a_word_is_no_tunnel(program: Program) {
    let silent = TcpBackend::scripted(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let cluster = Cluster::new("gate").endpoint(&silent);
    let tunnel = json!({"hostname": "far.test:80"});
    let proxy = tunnelling(program, tunnel, 1, cluster).await;
    let mut connection = proxy.connect().await;
    assert_eq!(connection.read_to_end().await, "");
    let line = until_logged(&proxy, 1).await.remove(0);
    assert!(line.starts_with("UF,URX "), "{line}");
}

async fn what_the_endpoint_answers_is_kept(program: Program) {
    let (backend, _) = agreeing().await;
    let tunnel = json!({"hostname": "far.test:80", "propagate_response_headers": true});
    let cluster = Cluster::new("gate").endpoint(&backend);
    let proxy = tunnelling(program, tunnel, 1, cluster).await;
    let mut connection = proxy.connect().await;
    echoes(&mut connection, "there and back").await;
    connection.finish().await;
    connection.read_to_close().await;
    let line = until_logged(&proxy, 1).await.remove(0);
    let at = backend.address();
    let (facts, state) = line.split_once(" {").unwrap();
    assert_eq!(facts, format!("- - 1 {at} gate - 14 14"));
    let state: Value = serde_json::from_str(&format!("{{{state}")).unwrap();
    let pairs = json!([{"key": ":status", "value": "200"}, {"key": "x-gate", "value": "open"}]);
    assert_eq!(state["headers"], pairs);
}
