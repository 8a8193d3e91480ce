//! What each command operator says: the same as Envoy.

use std::net::SocketAddr;

use certs::Request;
use harness::bootstrap::typed;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, Pki, Program, Proxy, Route, Tcp,
    TcpBackend, Value, json,
};

on_both!(
    operators_say_of_a_request_what_envoy_does,
    operators_say_of_a_connection_what_envoy_does,
    operators_say_of_tls_what_envoy_does,
);

/// Metadata of one namespace.
fn metadata(namespace: &str, values: &Value) -> Value {
    json!({"filter_metadata": {namespace: values}})
}

/// A listener of which everything that logs tell has a name.
fn listener(filters: impl Into<harness::Filters>) -> Listener {
    Listener::new("main", filters)
        .with("metadata", metadata("of.listener", &json!({"x": "listener"})))
        .with("traffic_direction", "INBOUND")
        .with("filter_chains.0.name", "the chain")
        .with("filter_chains.0.metadata", metadata("of.chain", &json!({"x": "chain"})))
}

async fn start(
    program: Program,
    bootstrap: Bootstrap,
    listener: Listener,
    app: SocketAddr,
) -> Proxy {
    let cluster = Cluster::new("app").endpoint(app);
    let endpoint = "load_assignment.endpoints.0.lb_endpoints.0.metadata";
    let whole = json!({"x": "cluster", "o": {"b": 1, "a": [true, null, 2]}});
    let cluster = cluster
        .with("metadata", metadata("of.cluster", &whole))
        .with(endpoint, metadata("of.endpoint", &json!({"x": "endpoint"})));
    bootstrap.listener(listener).cluster(cluster).start(program).await
}

/// A `FileAccessLog` that writes each of `operators` under its own name.
fn log(file: &std::path::Path, operators: &[(&str, Value)]) -> Value {
    let format: serde_json::Map<_, _> = operators
        .iter()
        .map(|(operator, _)| ((*operator).to_owned(), format!("%{operator}%").into()))
        .collect();
    json!({"path": file, "log_format": {"json_format": format}})
}

/// The first line, as JSON.
async fn line(proxy: &Proxy) -> Value {
    harness::eventually("a line in the access log", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        serde_json::from_str(text.lines().next()?).ok()
    })
    .await
}

fn compare(line: &Value, operators: &[(&str, Value)]) {
    for (operator, expected) in operators {
        let said = &line[*operator];
        match expected.as_str() {
            Some("<any>") => assert!(!said.is_null(), "{operator}: {line}"),
            Some("<number>") => assert!(said.is_u64(), "{operator}: {line}"),
            _ => assert_eq!(said, expected, "{operator}"),
        }
    }
}

fn metadata_and_sizes() -> Vec<(&'static str, Value)> {
    vec![
        ("ACCESS_LOG_TYPE", json!("DownstreamEnd")),
        ("METADATA(ROUTE:of.route:s)", json!("route")),
        ("METADATA(ROUTE:of.route:n)", json!(2)),
        ("METADATA(ROUTE:of.route:l)", json!([1, "a", {"k": null}])),
        ("METADATA(ROUTE:of.route:l:a)", json!(null)),
        ("METADATA(VIRTUAL_HOST:of.host)", json!({"x": "host"})),
        ("METADATA(CLUSTER:of.cluster:o)", json!({"a": [true, null, 2], "b": 1})),
        ("METADATA(LISTENER:of.listener:x)", json!("listener")),
        ("METADATA(LISTENER_FILTER_CHAIN:of.chain:x)", json!("chain")),
        ("METADATA(UPSTREAM_HOST:of.endpoint:x)", json!("endpoint")),
        ("METADATA(DYNAMIC:none:x)", json!(null)),
        ("CLUSTER_METADATA(of.cluster:x)", json!("cluster")),
        ("UPSTREAM_METADATA(of.endpoint:x)", json!("endpoint")),
        ("DYNAMIC_METADATA(none:x)", json!(null)),
        ("FILTER_STATE(none)", json!(null)),
        ("FILTER_STATE(none:PLAIN)", json!(null)),
        ("BYTES_RETRANSMITTED", json!(0)),
        ("PACKETS_RETRANSMITTED", json!(0)),
        ("REQUEST_HEADERS_BYTES", json!("<number>")),
        ("RESPONSE_HEADERS_BYTES", json!("<number>")),
        ("RESPONSE_TRAILERS_BYTES", json!(0)),
        ("DOWNSTREAM_LOCAL_DNS_SAN", json!(null)),
        ("UPSTREAM_LOCAL_DNS_SAN", json!(null)),
        ("UPSTREAM_LOCAL_IP_SAN", json!(null)),
        ("UPSTREAM_PEER_CERT_V_START", json!(null)),
        ("UPSTREAM_TLS_GROUP", json!(null)),
        ("UPSTREAM_FILTER_STATE(none)", json!(null)),
        ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", json!("")),
        ("DOWNSTREAM_DIRECT_LOCAL_PORT", json!("<number>")),
    ]
}

fn expressions(address: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("CEL(request.path)", json!("/p/q?a=b")),
        ("CEL(request.url_path)", json!("/p/q")),
        ("CEL(request.query)", json!("a=b")),
        ("CEL(size(request.path))", json!("8")),
        ("CEL(request.path):2", json!("/p")),
        ("CEL(request.headers['X-Debug'])", json!("on")),
        ("CEL(response.headers['x-answer'])", json!("42")),
        ("CEL(response.code)", json!("200")),
        ("TYPED_CEL(response.code)", json!(200)),
        ("TYPED_CEL(response.code > 3)", json!(true)),
        ("CEL(response.flags)", json!("0")),
        ("CEL(request.referer)", json!(null)),
        ("CEL(request.protocol)", json!("HTTP/1.1")),
        ("CEL(request.method)", json!("GET")),
        ("CEL(request.size)", json!("0")),
        ("CEL(connection.mtls)", json!("false")),
        ("CEL(connection.requested_server_name)", json!("")),
        ("CEL(upstream.address)", json!(address)),
        ("CEL(upstream.request_attempt_count)", json!("1")),
        ("CEL(upstream.transport_failure_reason)", json!("")),
        ("CEL(xds.cluster_name)", json!("app")),
        ("CEL(xds.route_name)", json!("the route")),
        ("CEL(xds.virtual_host_name)", json!("all")),
        ("CEL(xds.filter_chain_name)", json!("the chain")),
        ("CEL(xds.listener_direction)", json!("1")),
        ("CEL(xds.route_metadata.filter_metadata['of.route'].s)", json!("route")),
        ("CEL(request.time)", json!("<any>")),
        ("CEL(request.duration)", json!("<any>")),
        ("CEL(response.backend_latency)", json!("<any>")),
        ("CEL(source.address)", json!("<any>")),
    ]
}

async fn operators_say_of_a_request_what_envoy_does(program: Program) {
    let app = Backend::scripted("app", |_| Answer::status(200).header("x-answer", "42")).await;
    let bootstrap = Bootstrap::new();
    let address = app.address().to_string();
    let mut expected = metadata_and_sizes();
    expected.extend(expressions(&address));
    let of_route = metadata("of.route", &json!({"s": "route", "n": 2, "l": [1, "a", {"k": null}]}));
    let route = Route::prefix("/").to("app").with("name", "the route").with("metadata", of_route);
    let http = Http::routing([route])
        .with("route_config.virtual_hosts.0.metadata", metadata("of.host", &json!({"x": "host"})))
        .file_log(log(&bootstrap.dir().join("access.log"), &expected));
    let proxy = start(program, bootstrap, listener(http), app.address()).await;
    proxy.get("/p/q?a=b").header("x-debug", "on").send().await;
    compare(&line(&proxy).await, &expected);
}

async fn operators_say_of_a_connection_what_envoy_does(program: Program) {
    let app = TcpBackend::echo().await;
    let bootstrap = Bootstrap::new();
    let address = app.address().to_string();
    let expected = [
        ("ACCESS_LOG_TYPE", json!("TcpConnectionEnd")),
        ("METADATA(ROUTE:of.route:s)", json!(null)),
        ("METADATA(CLUSTER:of.cluster:x)", json!("cluster")),
        ("METADATA(LISTENER:of.listener:x)", json!("listener")),
        ("METADATA(LISTENER_FILTER_CHAIN:of.chain:x)", json!("chain")),
        ("UPSTREAM_METADATA(of.endpoint:x)", json!("endpoint")),
        ("BYTES_RECEIVED", json!(5)),
        ("BYTES_SENT", json!(5)),
        ("REQUEST_HEADERS_BYTES", json!(0)),
        ("RESPONSE_HEADERS_BYTES", json!(0)),
        ("RESPONSE_CODE", json!(0)),
        ("PROTOCOL", json!(null)),
        ("CEL(request.path)", json!(null)),
        ("CEL(response.code)", json!(null)),
        ("CEL(request.duration)", json!("<any>")),
        ("CEL(xds.cluster_name)", json!("app")),
        ("CEL(xds.listener_direction)", json!("1")),
        ("CEL(xds.route_name)", json!(null)),
        ("CEL(upstream.address)", json!(address)),
        ("CEL(connection.mtls)", json!("false")),
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", json!(1)),
    ];
    let log = log(&bootstrap.dir().join("access.log"), &expected);
    let log = typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", log);
    let tcp = Tcp::to("app").with("access_log", json!([{"name": "file", "typed_config": log}]));
    let proxy = start(program, bootstrap, listener(tcp), app.address()).await;
    let mut client = proxy.connect().await;
    client.write("hello").await;
    assert_eq!(client.read_exactly(5).await, b"hello");
    drop(client);
    compare(&line(&proxy).await, &expected);
}

async fn operators_say_of_tls_what_envoy_does(program: Program) {
    let (pki, app, bootstrap) = (Pki::new(), Backend::echo("app").await, Bootstrap::new());
    let names = |account: &str| {
        let request = Request::default().uri(format!("spiffe://cluster.local/{account}"));
        let request = request.dns(harness::pki::SERVER_NAME).email(format!("{account}@a.test"));
        request.ip([127, 0, 0, 1]).ip(std::net::Ipv6Addr::LOCALHOST)
    };
    let server = pki.issue("server", &names("server"));
    let client = pki.issue("client", &names("client"));
    let expected = [
        ("DOWNSTREAM_LOCAL_IP_SAN", json!("127.0.0.1,::1")),
        ("DOWNSTREAM_LOCAL_EMAIL_SAN", json!("server@a.test")),
        ("DOWNSTREAM_PEER_IP_SAN", json!("127.0.0.1,::1")),
        ("DOWNSTREAM_PEER_EMAIL_SAN", json!("client@a.test")),
        ("DOWNSTREAM_PEER_CERT_V_START", json!("<any>")),
        ("DOWNSTREAM_PEER_CERT_V_END", json!("<any>")),
        ("DOWNSTREAM_PEER_CERT_V_START(%Y)", json!("<any>")),
        ("DOWNSTREAM_PEER_FINGERPRINT_1", json!("<any>")),
        ("DOWNSTREAM_PEER_FINGERPRINT_256", json!("<any>")),
        ("DOWNSTREAM_TLS_GROUP", json!("<any>")),
        ("DOWNSTREAM_TLS_VERSION", json!("TLSv1.3")),
    ];
    let http = Http::routing([Route::prefix("/").to("app")])
        .file_log(log(&bootstrap.dir().join("access.log"), &expected));
    let listener = listener(http).tls(pki.mutual(&server));
    let proxy = start(program, bootstrap, listener, app.address()).await;
    proxy.client().tls(pki.client(Some(&client))).get("/").send().await;
    let line = line(&proxy).await;
    compare(&line, &expected);
    let end = line["DOWNSTREAM_PEER_CERT_V_END"].as_str().unwrap();
    assert!(end.ends_with(".000Z") && end.len() == 24, "{end}");
}
