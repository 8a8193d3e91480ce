//! What does one whole request through the proxy cost, and how much of it is the proxy?
//!
//! Client, proxy and backend take turns on one thread. Client and proxy talk through memory, proxy and
//! backend through a loopback socket; "no proxy" is the same client and backend over a socket without
//! anything between them.

#![expect(clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use proxy::drain::connections::ConnectionSet;
use proxy::http::codec;
use proxy::http::connection::{Connection, Downstream};
use proxy::upstream::client::Presence;
use proxy::worker::Worker;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// The response's body.
const BODY: usize = 1024;

const DIRECT_RESPONSE: &str = "direct_response: { status: 200 }";
const FORWARD: &str = "route: { cluster: backend }";
const RETRY: &str = "route: { cluster: backend, timeout: 15s, retry_policy: \
    { retry_on: 'connect-failure,refused-stream,unavailable,cancelled', num_retries: 2 } }";

/// What a sidecar usually has on.
const OPTIONS: &str = r#"
          server_name: istio-envoy
          normalize_path: true
          merge_slashes: true
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/null"#;

/// A bootstrap with one listener and `routes` equal routes but for their prefix.
fn bootstrap(backend: SocketAddr, routes: usize, action: &str, options: &str) -> String {
    let port = backend.port();
    let route = |number| format!("{{ match: {{ prefix: /route-{number:05}/ }}, {action} }}");
    let routes: Vec<String> = (0..routes).map(route).collect();
    let routes = routes.join(",\n                ");
    format!(
        r#"static_resources:
  listeners:
  - name: in
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 1 }} }}
    filter_chains:
    - name: chain
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{routes}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router{options}
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"#
    )
}

/// Answers every request that has no body with the same bytes.
async fn serve_backend(listener: TcpListener) {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BODY, b'x');
    let answer: Rc<[u8]> = answer.into();
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = Rc::clone(&answer);
        tokio::task::spawn_local(async move {
            let mut request = Vec::new();
            while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                if request.ends_with(b"\r\n\r\n") {
                    request.clear();
                    stream.write_all(&answer).await.expect("a client that listens");
                }
            }
        });
    }
}

type Client = SendRequest<Empty<Bytes>>;

/// A client on one end of a connection.
async fn client<S>(stream: S) -> Client
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (client, connection) = handshake.await.expect("an open connection");
    tokio::task::spawn_local(connection);
    client
}

/// A client that talks through a proxy configured by `bootstrap`.
async fn through_proxy(bootstrap: &str) -> Client {
    let worker = Rc::new(Worker::new(0, benches::shared(benches::snapshot(bootstrap))));
    let snapshot = worker.snapshot();
    let chain = Arc::clone(snapshot.chain("in", "chain").expect("the chain above"));
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let downstream = Downstream {
        id: 0,
        pipe: None,
        local: nowhere,
        direct_local: nowhere,
        original_dst: None,
        remote: nowhere,
        direct_remote: nowhere,
        tls: None,
        server_name: None,
        tlvs: None,
        origin: None,
        presence: Presence::default(),
        dynamic: std::cell::RefCell::default(),
        listener: "in".into(),
    };
    let membership = Rc::new(ConnectionSet::default()).join();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let near = TcpStream::connect(address).await.expect("the listener above");
    let (far, _) = listener.accept().await.expect("the client above");
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a socket");
    }
    let http = Arc::clone(chain.http().expect("a connection manager"));
    let served = (chain, http);
    let connection = Connection::new(worker, downstream, membership, snapshot, served);
    tokio::task::spawn_local(codec::serve(connection, far));
    client(near).await
}

/// One request, of the kind browsers and meshes send, to its last byte.
async fn ask(client: &mut Client, path: &str, length: usize) {
    let request = Request::get(path)
        .header("host", "shop.example.com")
        .header("accept", "*/*")
        .header("user-agent", "bench/1")
        .header("x-request-id", "4cc0c3b1-8f6d-9f2b-8a4e-6a1f0f3c5d7e")
        .body(Empty::new())
        .expect("a valid request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.expect("the whole body");
    assert_eq!(body.to_bytes().len(), length);
}

fn request_path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let local = LocalSet::new();
    let backend = local.block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        tokio::task::spawn_local(serve_backend(listener));
        address
    });
    let mut group = criterion.benchmark_group("request_path");
    let mut measure = |name, mut client: Client, path: &str, length| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                local.block_on(&runtime, async {
                    let began = Instant::now();
                    for _ in 0..times {
                        ask(&mut client, path, length).await;
                    }
                    began.elapsed()
                })
            });
        });
    };

    let direct = async {
        let stream = TcpStream::connect(backend).await.expect("the backend");
        stream.set_nodelay(true).expect("a socket");
        client(stream).await
    };
    measure("no proxy", local.block_on(&runtime, direct), "/", BODY);
    for (name, routes, action, options, length) in [
        ("answered by the proxy", 1, DIRECT_RESPONSE, "", 0),
        ("forwarded", 1, FORWARD, "", BODY),
        ("forwarded by the last of 10,000 routes", 10_000, FORWARD, "", BODY),
        ("forwarded with a sidecar's options", 1, RETRY, OPTIONS, BODY),
    ] {
        let bootstrap = bootstrap(backend, routes, action, options);
        let client = local.block_on(&runtime, through_proxy(&bootstrap));
        measure(name, client, &format!("/route-{:05}/item", routes - 1), length);
    }
    group.finish();
}

criterion_group!(benches, request_path);
criterion_main!(benches);
