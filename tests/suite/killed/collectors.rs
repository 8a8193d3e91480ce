//! Collectors of traces and access logs.

use harness::collector::Collector;
use harness::eventually::eventually_true;
use harness::{Client, LogCollector};

use super::{
    Backend, Bootstrap, Cluster, Duration, Http, Listener, Program, Proxy, Relay, Route, Taken,
    Traffic, Value, Verdicts, app, json, survives, typed, users, verdict,
};

on_both!(
    no_request_notices_that_a_collector_of_spans_is_away,
    no_request_notices_that_a_collector_of_spans_over_http_is_away,
    no_request_notices_that_a_collector_of_zipkin_is_away,
    no_request_notices_that_a_collector_of_logs_is_away,
);

/// A proxy in front of `app` and of the collector that `relay` stands for, which reports often.
async fn reporting(program: Program, app: &Backend, http: Http, collector: Cluster) -> Proxy {
    let often = json!({"opentelemetry": {"min_flush_spans": 5}, "zipkin": {"min_flush_spans": 5}});
    let layer = json!([{"name": "s", "static_layer": {"tracing": often}}]);
    Bootstrap::new()
        .with("layered_runtime.layers", layer)
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(collector)
        .start(program)
        .await
}

fn to_app() -> Http {
    Http::routing([Route::prefix("/").to("app")])
}

/// Every request is answered, and none the later.
async fn unnoticed(proxy: &mut Proxy, relay: &mut Relay) {
    let traffic = Traffic::of(users(proxy), |client: &Client| client.get("/"), verdict);
    let verdicts = Verdicts { up: "200", killed: "200", hanging: "200" };
    let Taken { up, killed, hanging } = survives(proxy, relay, traffic, verdicts).await;
    let bound = up.p99 * 4 + Duration::from_millis(100);
    assert!(killed.p99 < bound && hanging.p99 < bound, "{up:?} {killed:?} {hanging:?}");
}

async fn tracing(program: Program, provider: Value, http2: bool, failed: &str) {
    let (app, collector) = (app().await, Collector::start().await);
    let mut relay = Relay::to(collector.address()).await;
    let cluster = Cluster::new("collector").endpoint(&relay);
    let cluster = if http2 { cluster.http2() } else { cluster };
    let http = to_app().with("tracing", json!({"provider": provider}));
    let mut proxy = reporting(program, &app, http, cluster).await;
    unnoticed(&mut proxy, &mut relay).await;
    assert!(proxy.stat(failed).await > 0, "{failed}");
    let before = collector.spans().len();
    eventually_true("new spans", async || {
        proxy.get("/").send().await;
        collector.spans().len() > before
    })
    .await;
}

fn open_telemetry(mut config: Value) -> Value {
    config["service_name"] = "shop".into();
    let config = typed("envoy.config.trace.v3.OpenTelemetryConfig", config);
    json!({"name": "envoy.tracers.opentelemetry", "typed_config": config})
}

async fn no_request_notices_that_a_collector_of_spans_is_away(program: Program) {
    let service = json!({"envoy_grpc": {"cluster_name": "collector"}, "timeout": "0.25s"});
    let provider = open_telemetry(json!({"grpc_service": service}));
    tracing(program, provider, true, "cluster.collector.upstream_cx_connect_fail").await;
}

async fn no_request_notices_that_a_collector_of_spans_over_http_is_away(program: Program) {
    let uri = json!({"uri": "http://collector.test/", "cluster": "collector", "timeout": "0.25s"});
    let provider = open_telemetry(json!({"http_service": {"http_uri": uri}}));
    tracing(program, provider, false, "cluster.collector.upstream_cx_connect_fail").await;
}

async fn no_request_notices_that_a_collector_of_zipkin_is_away(program: Program) {
    let config = json!({
        "collector_cluster": "collector",
        "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    });
    let config = typed("envoy.config.trace.v3.ZipkinConfig", config);
    let provider = json!({"name": "envoy.tracers.zipkin", "typed_config": config});
    tracing(program, provider, false, "tracing.zipkin.reports_dropped").await;
}

async fn no_request_notices_that_a_collector_of_logs_is_away(program: Program) {
    let (app, collector) = (app().await, LogCollector::start());
    let mut relay = Relay::to(&collector).await;
    let name = "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";
    let service = json!({"envoy_grpc": {"cluster_name": "collector"}, "timeout": "0.25s"});
    let config = json!({"common_config": {
        "log_name": "log",
        "transport_api_version": "V3",
        "grpc_service": service,
        "buffer_flush_interval": "0.1s",
    }});
    let log = json!([{"name": "otel", "typed_config": typed(name, config)}]);
    let http = to_app().with("access_log", log);
    let cluster = Cluster::new("collector").endpoint(&relay).http2();
    let mut proxy = reporting(program, &app, http, cluster).await;
    unnoticed(&mut proxy, &mut relay).await;
    let dropped = proxy.stat("access_logs.open_telemetry_access_log.logs_dropped").await;
    assert!(dropped > 0);
    let before = collector.reports().len();
    eventually_true("new records", async || {
        proxy.get("/").send().await;
        collector.reports().len() > before
    })
    .await;
}
