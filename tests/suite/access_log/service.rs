//! Access logs that an `AccessLogService` takes: message by message and field by field as Envoy sends them.

use harness::bootstrap::typed;
use harness::{
    AccessLogServer, Answer, Backend, Bootstrap, Cluster, Http, Listener, Pki, Program, Proxy,
    Route, Tcp, TcpBackend, Value, json,
};
use xds::envoy::service::accesslog::v3::StreamAccessLogsMessage;

on_both!(
    a_service_is_told_of_a_request_field_by_field,
    a_service_is_told_how_requests_fail,
    a_service_is_told_who_the_client_is,
    a_service_is_told_of_a_session_field_by_field,
    a_service_that_comes_back_is_told_again,
);

const HTTP: &str = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";
const TCP: &str = "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig";

/// A log whose entries the cluster `service` takes.
fn log(name: &str, mut config: Value) -> Value {
    config["common_config"] = json!({
        "log_name": "the log",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "service"}},
        "buffer_flush_interval": "0.05s",
        "filter_state_objects_to_log": ["state", "none"],
        "custom_tags": [
            {"tag": "literal", "literal": {"value": "x"}},
            {"tag": "header", "request_header": {"name": "x-one", "default_value": "default"}},
            {"tag": "none", "request_header": {"name": "x-none"}},
            {"tag": "format", "value": "%PROTOCOL% %REQ(X-NONE)%|"},
        ],
    });
    json!([{"name": "service", "typed_config": typed(name, config)}])
}

async fn start(
    program: Program,
    listener: Listener,
    app: Cluster,
    service: &AccessLogServer,
) -> Proxy {
    let node = json!({"id": "the id", "cluster": "the cluster", "locality": {"zone": "the zone"},
        "metadata": {"key": "value"}});
    Bootstrap::new()
        .with("node", node)
        .listener(listener)
        .cluster(app)
        .cluster(Cluster::new("service").endpoint(service).http2())
        .start(program)
        .await
}

/// The entries that have come, each as JSON.
fn entries(messages: &[StreamAccessLogsMessage]) -> Vec<Value> {
    let entries = messages.iter().flat_map(|message| {
        let message = xds::json::to_json(message);
        let logs = ["http_logs", "tcp_logs"].map(|kind| message[kind]["log_entry"].clone());
        logs.into_iter().find_map(|logs| logs.as_array().cloned()).unwrap_or_default()
    });
    entries.collect()
}

async fn until(service: &AccessLogServer, count: usize) -> Vec<Value> {
    harness::eventually(&format!("{count} entries"), async || {
        Some(entries(&service.reports())).filter(|entries| entries.len() >= count)
    })
    .await
}

/// Takes away from `entry` what no two runs have in common, once it has been looked at.
fn settled(mut entry: Value) -> Value {
    let common = entry["common_properties"].as_object_mut().unwrap();
    for (name, value) in common.iter_mut() {
        if name.ends_with("_address") {
            let port = value["socket_address"]["port_value"].take();
            // Of a client that only a header tells, no port is known.
            let is_told = value["socket_address"]["address"] == "10.0.0.1";
            assert!(port.as_u64().is_some_and(|port| is_told || port > 0), "{name} {port}");
        }
        if name.starts_with("time_to_") || name == "duration" || name == "start_time" {
            let text = value.as_str().unwrap();
            assert!(text.ends_with('s') || text.ends_with('Z'), "{name} {text}");
            *value = json!("some");
        }
    }
    // How much HTTP is on the wire is not counted.
    if !entry["request"].is_null() {
        let common = entry["common_properties"].as_object_mut().unwrap();
        common.retain(|name, _| !name.contains("_wire_bytes_"));
        for part in ["request", "response"] {
            let part = entry[part].as_object_mut().unwrap();
            let sizes = part.iter_mut().filter(|(name, _)| name.ends_with("_headers_bytes"));
            for (name, size) in sizes {
                let size = size.take();
                assert!(size.to_string().trim_matches('"').parse::<u64>().unwrap() > 20, "{name}");
            }
        }
    }
    entry
}

fn times(names: &[&str]) -> serde_json::Map<String, Value> {
    names.iter().map(|name| ((*name).to_owned(), json!("some"))).collect()
}

/// `value` with what `more` says.
fn and(mut value: Value, more: serde_json::Map<String, Value>) -> Value {
    value.as_object_mut().unwrap().extend(more);
    value
}

fn address() -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": null}})
}

const ALL_TIMES: [&str; 9] = [
    "start_time",
    "duration",
    "time_to_last_rx_byte",
    "time_to_first_upstream_tx_byte",
    "time_to_last_upstream_tx_byte",
    "time_to_first_upstream_rx_byte",
    "time_to_last_upstream_rx_byte",
    "time_to_first_downstream_tx_byte",
    "time_to_last_downstream_tx_byte",
];

fn told() -> Value {
    log(
        HTTP,
        json!({
            "additional_request_headers_to_log": ["X-One", "x-two", "x-none", ":path"],
            "additional_response_headers_to_log": ["X-Answer", "x-two", "x-none", ":status"],
            "additional_response_trailers_to_log": ["x-trailer", "x-none"],
        }),
    )
}

/// The first message says who tells.
fn assert_introduced(first: &StreamAccessLogsMessage) {
    let node = first.identifier.as_ref().unwrap().node.as_ref().unwrap();
    assert_eq!((&*node.id, &*node.cluster), ("the id", "the cluster"));
    assert_eq!(node.locality.as_ref().unwrap().zone, "the zone");
    assert_eq!(node.metadata.as_ref().unwrap().fields.len(), 1);
    assert_eq!(first.identifier.as_ref().unwrap().log_name, "the log");
}

fn request(id: &Value) -> Value {
    json!({
        "request_method": "POST",
        "scheme": "http",
        "authority": "a.test",
        "path": "/p?q=1",
        "user_agent": "ua",
        "referer": "ref",
        "forwarded_for": "10.0.0.1",
        "request_id": id,
        "request_body_bytes": "7",
        "request_headers_bytes": null,
        "request_headers": {":path": "/p?q=1", "x-one": "1", "x-two": "1,2"},
    })
}

fn response() -> Value {
    json!({
        "response_code": 200,
        "response_code_details": "via_upstream",
        "response_body_bytes": "5",
        "response_headers_bytes": null,
        "response_headers": {":status": "200", "x-answer": "42", "x-two": "a,b"},
        "response_trailers": {"x-trailer": "end"},
    })
}

async fn a_service_is_told_of_a_request_field_by_field(program: Program) {
    let answer = |_: &_| {
        let answer = Answer::status(200).header("x-answer", "42").header("x-two", "a");
        answer.header("x-two", "b").body("five!").trailer("x-trailer", "end")
    };
    let (app, service) = (Backend::scripted("app", answer).await, AccessLogServer::streaming());
    let format = json!({"text_format_source": {"inline_string": "set"}});
    let state =
        json!({"object_key": "state", "factory_key": "envoy.string", "format_string": format});
    let http = Http::routing([Route::prefix("/").to("app").with("name", "the route")])
        .filter("state", "set_filter_state.v3.Config", json!({"on_request_headers": [state]}))
        .with("access_log", told());
    let app = Cluster::new("app").endpoint(&app).http2();
    let proxy = start(program, Listener::new("main", http), app, &service).await;
    let call = proxy.client().post("/p?q=1").header("x-one", "1").header("x-two", "1");
    let call = call
        .header("x-two", "2")
        .header("user-agent", "ua")
        .header("referer", "ref")
        .header("x-forwarded-for", "10.0.0.1");
    call.host("a.test").body("1234567").send().await;
    let entry = settled(until(&service, 1).await.remove(0));
    let common = and(
        json!({
            "access_log_type": "DownstreamEnd",
            "downstream_remote_address": {"socket_address":
                {"address": "10.0.0.1", "port_value": null}},
            "downstream_direct_remote_address": address(),
            "downstream_local_address": address(),
            "upstream_remote_address": address(),
            "upstream_local_address": address(),
            "upstream_cluster": "app",
            "upstream_request_attempt_count": 1,
            "route_name": "the route",
            "stream_id": entry["request"]["request_id"],
            "custom_tags": {"literal": "x", "header": "1", "format": "HTTP/1.1 |"},
            "filter_state_objects": {"state": {
                "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "set"}},
        }),
        times(&ALL_TIMES),
    );
    let id = &entry["request"]["request_id"];
    let expected = json!({"common_properties": common, "protocol_version": "HTTP11",
        "request": request(id), "response": response()});
    assert_eq!(entry, expected);
    assert!(entry["request"]["request_id"].as_str().is_some_and(|id| id.len() == 36), "{entry}");
    assert_introduced(&service.reports()[0]);
    proxy.get("/").send().await;
    until(&service, 2).await;
    // Only the first message of a stream says who tells.
    assert!(service.reports()[1].identifier.is_none());
    proxy.until_stat("access_logs.grpc_access_log.logs_written", |it| it == 2).await;
    proxy.until_stat("access_logs.grpc_access_log.grpc_entries_flushed", |it| it == 2).await;
    assert_eq!(proxy.stat("access_logs.grpc_access_log.logs_dropped").await, 0);
}

async fn a_service_is_told_how_requests_fail(program: Program) {
    let (nobody, service) = (harness::port::Port::reserve(), AccessLogServer::streaming());
    let http = Http::routing([
        Route::path("/direct").direct(403, "no"),
        Route::path("/unknown").with("route.cluster_header", "x-none"),
        Route::path("/refused").to("app"),
    ])
    .with("access_log", told());
    let app = Cluster::new("app").endpoint(&nobody);
    let proxy = start(program, Listener::new("main", http), app, &service).await;
    for path in ["/direct", "/unknown", "/refused", "/none"] {
        proxy.get(path).send().await;
    }
    let entries: Vec<_> = until(&service, 4).await.into_iter().map(settled).collect();
    let downstream = [
        "start_time",
        "duration",
        "time_to_last_rx_byte",
        "time_to_first_downstream_tx_byte",
        "time_to_last_downstream_tx_byte",
    ];
    for (entry, (code, details, body, flags)) in entries.iter().zip([
        (403, "direct_response", json!("2"), json!(null)),
        (503, "cluster_not_found", json!(null), json!({"no_cluster_found": true})),
        (503, "", json!(null), json!({"upstream_connection_failure": true})),
        (404, "route_not_found", json!(null), json!({"no_route_found": true})),
    ]) {
        let (common, response) = (&entry["common_properties"], &entry["response"]);
        assert_eq!(response["response_code"], code, "{entry}");
        assert_eq!(common["response_flags"], flags, "{entry}");
        let is_refused = details.is_empty();
        if !is_refused {
            assert_eq!(response["response_code_details"], details, "{entry}");
            assert_eq!(response["response_body_bytes"], body, "{entry}");
        }
        let reason = &common["upstream_transport_failure_reason"];
        assert_eq!(reason.is_string(), is_refused, "{entry}");
        assert_eq!(common["upstream_cluster"].is_string(), is_refused, "{entry}");
        assert_eq!(common["upstream_remote_address"].is_object(), is_refused, "{entry}");
        let common = common.as_object().unwrap();
        let told: Vec<_> = common.keys().filter(|name| common[*name] == "some").collect();
        let mut expected = downstream.to_vec();
        expected.sort_unstable();
        assert_eq!(told, expected, "{entry}");
    }
}

async fn a_service_is_told_who_the_client_is(program: Program) {
    let (pki, app) = (Pki::new(), Backend::echo("app").await);
    let (server, client) = (pki.workload("server"), pki.workload("client"));
    let service = AccessLogServer::streaming();
    let http = Http::routing([Route::prefix("/").to("app")]).with("access_log", told());
    let listener = Listener::new("main", http).tls_inspector().tls(pki.mutual(&server));
    let app = Cluster::new("app").endpoint(&app);
    let proxy = start(program, listener, app, &service).await;
    proxy.client().tls(pki.client(Some(&client))).get("/").send().await;
    let entry = until(&service, 1).await.remove(0);
    let tls = &entry["common_properties"]["tls_properties"];
    let uri =
        |account: &str| json!([{"uri": format!("spiffe://cluster.local/ns/default/sa/{account}")}]);
    assert_eq!(tls["tls_version"], "TLSv1_3", "{tls}");
    assert_eq!(tls["tls_cipher_suite"], 0x1302, "{tls}");
    assert_eq!(tls["tls_sni_hostname"], harness::pki::SERVER_NAME, "{tls}");
    assert_eq!(tls["local_certificate_properties"]["subject_alt_name"], uri("server"));
    assert_eq!(tls["peer_certificate_properties"]["subject_alt_name"], uri("client"));
    assert_eq!(entry["request"]["scheme"], "https");
}

async fn a_service_is_told_of_a_session_field_by_field(program: Program) {
    let (app, service) = (TcpBackend::echo().await, AccessLogServer::streaming());
    let tcp = Tcp::to("app")
        .with("access_log_options", json!({"flush_access_log_on_connected": true}))
        .with("access_log", log(TCP, json!({})));
    let cluster = Cluster::new("app").endpoint(app.address());
    let proxy = start(program, Listener::new("main", tcp), cluster, &service).await;
    let mut client = proxy.connect().await;
    client.write("hello").await;
    assert_eq!(client.read_exactly(5).await, b"hello");
    drop(client);
    let entries: Vec<_> = until(&service, 2).await.into_iter().map(settled).collect();
    let id = &entries[0]["common_properties"]["stream_id"];
    assert!(id.as_str().is_some_and(|id| id.len() == 36), "{id}");
    let common = json!({
        "downstream_remote_address": address(),
        "downstream_direct_remote_address": address(),
        "downstream_local_address": address(),
        "upstream_remote_address": address(),
        "upstream_local_address": address(),
        "upstream_cluster": "app",
        "upstream_request_attempt_count": 1,
        "stream_id": id,
        "start_time": "some",
        "custom_tags": {"literal": "x", "header": "default", "format": " |"},
    });
    let began = json!({"access_log_type": "TcpUpstreamConnected", "intermediate_log_entry": true});
    let ended = json!({
        "access_log_type": "TcpConnectionEnd",
        "duration": "some",
        "downstream_wire_bytes_sent": "5",
        "downstream_wire_bytes_received": "5",
        "upstream_wire_bytes_sent": "5",
        "upstream_wire_bytes_received": "5",
    });
    let members = |value: Value| value.as_object().unwrap().clone();
    assert_eq!(entries[0]["common_properties"], and(common.clone(), members(began)));
    assert_eq!(entries[0]["connection_properties"], json!({}));
    assert_eq!(entries[1]["common_properties"], and(common, members(ended)));
    let moved = json!({"received_bytes": "5", "sent_bytes": "5"});
    assert_eq!(entries[1]["connection_properties"], moved);
    proxy.until_stat("access_logs.grpc_access_log.grpc_entries_flushed", |it| it == 2).await;
}

async fn a_service_that_comes_back_is_told_again(program: Program) {
    let (app, service) = (Backend::echo("app").await, AccessLogServer::streaming());
    let http = Http::routing([Route::prefix("/").to("app")]).with("access_log", told());
    let app = Cluster::new("app").endpoint(&app);
    let proxy = start(program, Listener::new("main", http), app, &service).await;
    proxy.get("/before").send().await;
    until(&service, 1).await;
    let address = std::net::SocketAddr::from(&service);
    drop(service);
    for _ in 0..20 {
        assert_eq!(proxy.get("/meanwhile").send().await.status, 200);
    }
    let service = AccessLogServer::streaming_at(address);
    harness::eventually("an entry about a request that came later", async || {
        assert_eq!(proxy.get("/after").send().await.status, 200);
        let entries = entries(&service.reports());
        entries.iter().any(|entry| entry["request"]["path"] == "/after").then_some(())
    })
    .await;
    assert!(service.reports()[0].identifier.is_some());
}
