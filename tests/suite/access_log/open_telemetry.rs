//! Access logs that a collector takes, in OTLP.

use harness::bootstrap::typed;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, LogCollector, Program, Proxy, Route,
    Value, json,
};
use prost::Message as _;
use xds::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use xds::opentelemetry::proto::common::v1::any_value::Value as Any;
use xds::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
use xds::opentelemetry::proto::logs::v1::LogRecord;

on_both!(
    a_collector_is_told_what_the_format_says,
    a_resource_may_do_without_the_node,
    a_collector_that_is_gone_costs_records_only,
    a_record_of_a_traced_request_tells_its_span,
    a_collector_may_speak_http,
);

const CONFIG: &str =
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";

/// A proxy that tells `collector` of its requests to `app`.
async fn telling(
    program: Program,
    app: &Backend,
    collector: &LogCollector,
    mut config: Value,
) -> Proxy {
    config["common_config"] = json!({
        "log_name": "the log",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}},
        "buffer_flush_interval": "0.1s",
        "filter_state_objects_to_log": ["none"],
    });
    let log = json!([{"name": "otel", "typed_config": typed(CONFIG, config)}]);
    let http = Http::routing([Route::prefix("/").to("app")]).with("access_log", log);
    let node = json!({"id": "the id", "cluster": "the cluster", "locality": {"zone": "the zone"}});
    Bootstrap::new()
        .with("node", node)
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(Cluster::new("collector").endpoint(collector).http2())
        .start(program)
        .await
}

/// A value as JSON.
fn value(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::KvlistValue(list)) => members(&list.values),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|it| self::value(Some(it))).collect(),
        _ => json!(null),
    }
}

fn members(members: &[KeyValue]) -> Value {
    members.iter().map(|it| json!([it.key, value(it.value.as_ref())])).collect()
}

async fn records(collector: &LogCollector, count: usize) -> Vec<LogRecord> {
    harness::eventually(&format!("{count} records"), async || {
        let reports = collector.reports();
        let logs = reports.iter().flat_map(|report| &report.resource_logs);
        let records = logs.flat_map(|logs| &logs.scope_logs).flat_map(|it| &it.log_records);
        let records: Vec<_> = records.cloned().collect();
        (records.len() >= count).then_some(records)
    })
    .await
}

async fn a_collector_is_told_what_the_format_says(program: Program) {
    let (app, collector) = (Backend::echo("app").await, LogCollector::start());
    let text = |text: &str| json!({"string_value": text});
    let config = json!({
        "body": text("%REQ(:METHOD)% %REQ(:PATH)% %REQ(X-NONE)% %RESPONSE_CODE%"),
        "attributes": {"values": [
            {"key": "z", "value": text("%RESPONSE_CODE%")},
            {"key": "a", "value": text("%REQ(X-NONE)%")},
            {"key": "nested", "value": {"kvlist_value": {"values": [
                {"key": "cluster", "value": text("%UPSTREAM_CLUSTER%")}]}}},
            {"key": "list", "value": {"array_value": {"values": [text("x"), text("%PROTOCOL%")]}}},
        ]},
        "resource_attributes": {"values": [{"key": "region", "value": text("%here%%")}]},
    });
    let proxy = telling(program, &app, &collector, config).await;
    assert_eq!(proxy.get("/one").send().await.status, 200);
    let records = records(&collector, 1).await;
    let record = &records[0];
    assert_eq!(value(record.body.as_ref()), json!("GET /one - 200"));
    let expected = json!([
        ["z", "200"],
        ["a", "-"],
        ["nested", [["cluster", "app"]]],
        ["list", ["x", "HTTP/1.1"]],
    ]);
    assert_eq!(members(&record.attributes), expected);
    assert!(record.time_unix_nano > 1_700_000_000_000_000_000, "{record:?}");
    assert!(record.trace_id.is_empty() && record.span_id.is_empty(), "{record:?}");
    let resource = collector.reports()[0].resource_logs[0].resource.clone().unwrap();
    let expected = json!([
        ["log_name", "the log"],
        ["zone_name", "the zone"],
        ["cluster_name", "the cluster"],
        ["node_name", "the id"],
        ["region", "%here%%"],
    ]);
    assert_eq!(members(&resource.attributes), expected);
    proxy.until_stat("access_logs.open_telemetry_access_log.logs_written", |it| it == 1).await;
}

async fn a_resource_may_do_without_the_node(program: Program) {
    let (app, collector) = (Backend::echo("app").await, LogCollector::start());
    let config = json!({"disable_builtin_labels": true, "stat_prefix": "mine"});
    let proxy = telling(program, &app, &collector, config).await;
    proxy.get("/").send().await;
    let records = records(&collector, 1).await;
    assert_eq!((&records[0].body, records[0].attributes.len()), (&None, 0));
    let resource = collector.reports()[0].resource_logs[0].resource.clone().unwrap_or_default();
    assert_eq!(members(&resource.attributes), json!([]));
    proxy.until_stat("access_logs.open_telemetry_access_log.mine.logs_written", |it| it == 1).await;
}

async fn a_collector_that_is_gone_costs_records_only(program: Program) {
    let (app, collector) = (Backend::echo("app").await, LogCollector::start());
    let proxy = telling(program, &app, &collector, json!({})).await;
    proxy.get("/").send().await;
    records(&collector, 1).await;
    drop(collector);
    harness::eventually("a record that was dropped", async || {
        assert_eq!(proxy.get("/").send().await.status, 200);
        let dropped = proxy.stat("access_logs.open_telemetry_access_log.logs_dropped").await;
        (dropped > 0).then_some(())
    })
    .await;
}

async fn a_record_of_a_traced_request_tells_its_span(program: Program) {
    let (app, collector) = (Backend::echo("app").await, LogCollector::start());
    let spans = Backend::scripted("spans", |_| Answer::status(200)).await;
    let common = json!({
        "log_name": "the log",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}},
        "buffer_flush_interval": "0.1s",
    });
    let log = typed(CONFIG, json!({"common_config": common}));
    let uri = json!({"uri": "http://spans.test/v1/traces", "cluster": "spans", "timeout": "1s"});
    let provider = json!({"service_name": "svc", "http_service": {"http_uri": uri}});
    let provider = typed("envoy.config.trace.v3.OpenTelemetryConfig", provider);
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("access_log", json!([{"name": "otel", "typed_config": log}]))
        .with("tracing", json!({"provider": {"name": "otel", "typed_config": provider}}));
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("spans").endpoint(&spans))
        .cluster(Cluster::new("collector").endpoint(&collector).http2())
        .start(program)
        .await;
    let id = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{id}-b7ad6b7169203331-01");
    proxy.get("/").header("traceparent", &parent).send().await;
    let record = records(&collector, 1).await.remove(0);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&record.trace_id), id);
    // As the upstream was told.
    let sent = app.calls()[0].header("traceparent").unwrap().to_owned();
    assert_eq!(sent, format!("00-{id}-{}-01", hex(&record.span_id)));
}

async fn a_collector_may_speak_http(program: Program) {
    let app = Backend::echo("app").await;
    let collector = Backend::scripted("collector", |_| Answer::status(200)).await;
    let text = |text: &str| json!({"string_value": text});
    let uri = json!({"uri": "http://logs.test/v1/logs", "cluster": "collector", "timeout": "1s"});
    let config = json!({
        "http_service": {"http_uri": uri,
            "request_headers_to_add": [{"header": {"key": "x-key", "value": "secret"}}]},
        "log_name": "the log",
        "buffer_flush_interval": "0.1s",
        "attributes": {"values": [{"key": "path", "value": text("%REQ(:PATH)%")}]},
        "custom_tags": [
            {"tag": "literal", "literal": {"value": "x"}},
            {"tag": "header", "request_header": {"name": "x-one", "default_value": "default"}},
        ],
        "resource_attributes": {"values": [{"key": "node_name", "value": text("mine")}]},
        "resource_detectors": [{"name": "static", "typed_config": typed(
            "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig",
            json!({"attributes": {"found": "here", "zone_name": "found"}}))}],
    });
    let log = json!([{"name": "otel", "typed_config": typed(CONFIG, config)}]);
    let http = Http::routing([Route::prefix("/").to("app")]).with("access_log", log);
    let node = json!({"id": "the id", "cluster": "the cluster", "locality": {"zone": "the zone"}});
    let proxy = Bootstrap::new()
        .with("node", node)
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("collector").endpoint(&collector))
        .start(program)
        .await;
    proxy.get("/one").header("x-one", "1").send().await;
    let call = harness::eventually("a report", async || collector.calls().into_iter().next()).await;
    assert_eq!((call.method.as_str(), &*call.path), ("POST", "/v1/logs"));
    assert_eq!(call.header("content-type"), Some("application/x-protobuf"));
    assert_eq!((call.header("host"), call.header("x-key")), (Some("logs.test"), Some("secret")));
    let report = ExportLogsServiceRequest::decode(&*call.body).unwrap();
    let logs = &report.resource_logs[0];
    let record = &logs.scope_logs[0].log_records[0];
    let attributes = members(&record.attributes);
    let mut attributes = attributes.as_array().unwrap().clone();
    // Envoy keeps custom tags in no order.
    attributes.sort_by_key(ToString::to_string);
    let expected = json!([["header", "1"], ["literal", "x"], ["path", "/one"]]);
    assert_eq!(json!(attributes), expected);
    let resource = members(&logs.resource.as_ref().unwrap().attributes);
    let mut resource = resource.as_array().unwrap().clone();
    resource.sort_by_key(ToString::to_string);
    let expected = json!([
        ["cluster_name", "the cluster"],
        ["found", "here"],
        ["log_name", "the log"],
        ["node_name", "mine"],
        ["zone_name", "found"],
    ]);
    assert_eq!(json!(resource), expected);
    proxy.until_stat("access_logs.open_telemetry_access_log.logs_written", |it| it == 1).await;
}
