//! Access logs that a collector takes, in OTLP.

use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Cluster, Http, Listener, LogCollector, Program, Proxy, Route, Value, json,
};
use xds::opentelemetry::proto::common::v1::any_value::Value as Any;
use xds::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
use xds::opentelemetry::proto::logs::v1::LogRecord;

on_both!(
    a_collector_is_told_what_the_format_says,
    a_resource_may_do_without_the_node,
    a_collector_that_is_gone_costs_records_only,
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
