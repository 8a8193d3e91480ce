//! Which requests are traced, which headers tell the next hop, and what collectors get to know.

mod contexts;
mod copies;
mod names;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use harness::bootstrap::typed;
use harness::collector::{Collector, Reported};
use harness::port::Port;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Route, Value, json,
};

on_both!(
    a_span_says_what_envoys_says,
    each_attempt_has_a_span_of_its_own,
    spans_say_what_failed,
    ids_decide_and_remember,
    zipkin_is_told_in_json,
    otlp_goes_over_http_as_well,
    proxies_in_a_row_make_one_trace,
    a_dead_collector_costs_nothing_but_spans,
);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// OTLP over gRPC to cluster `collector`.
fn otlp() -> Value {
    open_telemetry(json!({"grpc_service": {"envoy_grpc": {"cluster_name": "collector"}}}))
}

fn open_telemetry(mut config: Value) -> Value {
    config["service_name"] = "shop".into();
    let config = typed("envoy.config.trace.v3.OpenTelemetryConfig", config);
    json!({"name": "envoy.tracers.opentelemetry", "typed_config": config})
}

/// Zipkin's JSON to cluster `collector`, with these fields besides.
fn zipkin(fields: &Value) -> Value {
    let mut config = json!({
        "collector_cluster": "collector",
        "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    });
    for (name, value) in fields.as_object().unwrap() {
        config[name] = value.clone();
    }
    let config = typed("envoy.config.trace.v3.ZipkinConfig", config);
    json!({"name": "envoy.tracers.zipkin", "typed_config": config})
}

/// A bootstrap that sends each span at once, with clusters `app` and `collector`.
fn tracing(app: &Backend, collector: Cluster) -> Bootstrap {
    let at_once =
        json!({"opentelemetry": {"min_flush_spans": 1}, "zipkin": {"min_flush_spans": 1}});
    Bootstrap::new()
        .with(
            "layered_runtime.layers",
            json!([{"name": "s", "static_layer": {"tracing": at_once}}]),
        )
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(collector)
}

/// Serves `routes`, with these fields of `tracing`.
async fn proxy(
    program: Program,
    app: &Backend,
    collector: SocketAddr,
    fields: Value,
    routes: impl IntoIterator<Item = Route>,
) -> Proxy {
    let grpc = fields.to_string().contains("envoy_grpc");
    let cluster = Cluster::new("collector").endpoint(collector);
    let cluster = if grpc { cluster.http2() } else { cluster };
    let http = Http::routing(routes).with("tracing", fields);
    tracing(app, cluster).listener(Listener::new("main", http)).start(program).await
}

fn everything() -> [Route; 1] {
    [Route::prefix("/").to("app")]
}

fn tags<const N: usize>(tags: [(&str, &str); N]) -> BTreeMap<String, String> {
    tags.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The span of this kind, which is the only one.
fn only<'a>(spans: &'a [Reported], kind: &str) -> &'a Reported {
    let mut found = spans.iter().filter(|span| span.kind == kind);
    let span = found.next().unwrap_or_else(|| panic!("no {kind}: {spans:#?}"));
    assert!(found.next().is_none(), "{spans:#?}");
    span
}

async fn a_span_says_what_envoys_says(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let fields = json!({"provider": otlp(), "verbose": true});
    let proxy = proxy(program, &app, collector.address(), fields, everything()).await;
    let call = proxy.client().post("/path?query").header("user-agent", "test").body("12345");
    let reply = call.send().await;
    let spans = collector.until(1).await;
    let span = only(&spans, "SERVER");
    let echo = reply.echo();
    let parent = format!("00-{}-{}-01", span.trace, span.id);
    assert_eq!(echo.header("traceparent").as_deref(), Some(&*parent));
    let id = echo.header("x-request-id").unwrap();
    assert_eq!(id.as_bytes()[14], b'9', "{id}");
    assert_eq!((span.name.as_str(), span.parent.as_str(), span.failed), ("ingress", "", false));
    let wanted = tags([
        ("component", "proxy"),
        ("downstream_cluster", "-"),
        ("guid:x-request-id", &id),
        ("http.method", "POST"),
        ("http.protocol", "HTTP/1.1"),
        ("http.status_code", "200"),
        ("http.url", "http://test.example/path?query"),
        ("node_id", "test-node"),
        ("peer.address", "127.0.0.1"),
        ("request_size", "5"),
        ("response_flags", "-"),
        ("response_size", &reply.body.len().to_string()),
        ("upstream_cluster", "app"),
        ("upstream_cluster.name", "app"),
        ("user_agent", "test"),
        ("zone", ""),
    ]);
    assert_eq!(span.tags, wanted);
    let events = [
        "last_downstream_rx_byte_received",
        "first_upstream_tx_byte_sent",
        "last_upstream_tx_byte_sent",
        "first_upstream_rx_byte_received",
        "last_upstream_rx_byte_received",
        "first_downstream_tx_byte_sent",
        "last_downstream_tx_byte_sent",
    ];
    assert_eq!(span.events, events);
    assert_eq!(span.resource["service.name"], "shop");
    proxy.until_stat("tracing.opentelemetry.spans_sent", |count| count == 1).await;
    assert_eq!(proxy.stat("http.main.tracing.random_sampling").await, 1);
}

async fn each_attempt_has_a_span_of_its_own(program: Program) {
    let collector = Collector::start().await;
    let app = Backend::scripted("app", |call| match call.nth {
        0 => Answer::status(503),
        _ => Answer::echo(),
    })
    .await;
    let fields = json!({"provider": otlp(), "spawn_upstream_span": true});
    let retry = json!({"retry_on": "5xx", "num_retries": 1});
    let routes = [Route::prefix("/").to("app").retry(retry)];
    let proxy = proxy(program, &app, collector.address(), fields, routes).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let spans = collector.until(3).await;
    let server = only(&spans, "SERVER");
    let attempts: Vec<_> = spans.iter().filter(|span| span.kind == "CLIENT").collect();
    assert_eq!(attempts.len(), 2);
    for (attempt, call) in attempts.iter().zip(app.calls()) {
        assert_eq!((&attempt.trace, &attempt.parent), (&server.trace, &server.id));
        assert_eq!(attempt.name, "router app egress");
        let wanted = format!("00-{}-{}-01", attempt.trace, attempt.id);
        assert_eq!(call.header("traceparent"), Some(&*wanted));
    }
    let host = app.address().to_string();
    let both = [
        ("component", "proxy"),
        ("http.protocol", "HTTP/1.1"),
        ("peer.address", &host),
        ("response_flags", "-"),
        ("upstream_address", &host),
        ("upstream_cluster", "app"),
        ("upstream_cluster.name", "app"),
    ];
    let mut first = tags(both);
    first.extend(tags([("http.status_code", "503"), ("error", "true")]));
    let mut second = tags(both);
    second.extend(tags([("http.status_code", "200"), ("retry.count", "1")]));
    assert_eq!((&attempts[0].tags, attempts[0].failed), (&first, true));
    assert_eq!((&attempts[1].tags, attempts[1].failed), (&second, false));
}

async fn spans_say_what_failed(program: Program) {
    let collector = Collector::start().await;
    let app = Backend::scripted("app", |call| match call.path.as_str() {
        "/grpc" => Answer::status(200).header("grpc-status", "14").header("grpc-message", "no"),
        _ => Answer::status(404),
    })
    .await;
    let nobody = Port::reserve();
    let fields = json!({"provider": otlp(), "spawn_upstream_span": true});
    let http = Http::routing([Route::path("/dead").to("dead"), Route::prefix("/").to("app")])
        .with("tracing", fields);
    let cluster = Cluster::new("collector").endpoint(collector.address()).http2();
    let proxy = tracing(&app, cluster)
        .cluster(Cluster::new("dead").endpoint(nobody.address()))
        .listener(Listener::new("main", http))
        .start(program)
        .await;
    assert_eq!(proxy.get("/dead").send().await.status, 503);
    let spans = collector.until(2).await;
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    assert_eq!(server.tag("response_flags"), "UF");
    assert_eq!((server.tag("error"), server.failed), ("true", true));
    assert_eq!(client.tag("error.reason"), "remote connection failure");
    assert_eq!((client.tag("http.status_code"), client.tag("http.protocol")), ("0", "-"));
    assert_eq!((client.tag("error"), client.failed), ("true", false));

    assert_eq!(proxy.get("/").send().await.status, 404);
    let spans = collector.until(4).await.split_off(2);
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    assert_eq!((server.tag("error"), server.failed, client.failed), ("", false, true));

    proxy.client().post("/grpc").header("content-type", "application/grpc").send().await;
    let spans = collector.until(6).await.split_off(4);
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    for span in [server, client] {
        assert_eq!((span.tag("grpc.status_code"), span.tag("grpc.message")), ("14", "no"));
        assert_eq!((span.tag("error"), span.failed), ("true", true));
    }
    assert_eq!(server.tag("grpc.path"), "/grpc");
    assert_eq!(server.tag("grpc.content_type"), "application/grpc");
}

async fn ids_decide_and_remember(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let fields = json!({"provider": otlp(), "random_sampling": {"value": 50}});
    let proxy = proxy(program, &app, collector.address(), fields, everything()).await;
    for (id, asks, wanted, sampled) in [
        ("00000001-0000-4000-8000-000000000000", "", '9', "01"),
        ("00001387-0000-4000-8000-000000000000", "", '9', "01"),
        ("00001388-0000-4000-8000-000000000000", "", '4', "00"),
        ("00001388-0000-1000-8000-000000000000", "", '1', "00"),
        ("00001388-0000-9000-8000-000000000000", "", '9', "01"),
        ("0000ffff-0000-a000-8000-000000000000", "", 'a', "01"),
        ("0000ffff-0000-b000-8000-000000000000", "", 'b', "01"),
        ("00001388-0000-4000-8000-000000000000", "x-client-trace-id", 'b', "01"),
        ("00001388-0000-4000-8000-000000000000", "x-envoy-force-trace", '4', "00"),
        ("zz000001-0000-9000-8000-000000000000", "", '9', "00"),
        ("00000001-short", "", 'r', "01"),
        ("short", "", 'r', "00"),
    ] {
        let mut call = proxy.get("/").header("x-request-id", id);
        if !asks.is_empty() {
            call = call.header(asks, "1");
        }
        let echo = call.send().await.echo();
        let seen = echo.header("x-request-id").unwrap();
        let mut remembered = id.to_owned();
        if id.len() == 36 {
            remembered.replace_range(14..15, &wanted.to_string());
        }
        assert_eq!(seen, remembered, "{id} {asks}");
        let parent = echo.header("traceparent").unwrap();
        assert!(parent.ends_with(&format!("-{sampled}")), "{id} {asks}: {parent}");
    }
    let stats = [
        ("http.main.tracing.random_sampling", 4),
        ("http.main.tracing.service_forced", 1),
        ("http.main.tracing.client_enabled", 2),
        ("http.main.tracing.not_traceable", 5),
    ];
    proxy.until_stats(stats).await;
}

async fn zipkin_is_told_in_json(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let fields = json!({"provider": zipkin(&json!({})), "spawn_upstream_span": true});
    let proxy = proxy(program, &app, collector.address(), fields, everything()).await;
    let parts = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
    let call = parts.iter().fold(proxy.get("/"), |call, (name, value)| call.header(name, value));
    call.send().await;
    let spans = collector.until(2).await;
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    assert_eq!((server.trace.as_str(), server.id.as_str()), (TRACE, SPAN));
    assert_eq!((server.name.as_str(), server.shared), ("test.example", true));
    assert_eq!((client.trace.as_str(), client.parent.as_str()), (TRACE, SPAN));
    assert_eq!((client.name.as_str(), client.shared), ("router app egress", false));
    assert_eq!((&server.events, &client.events), (&vec!["ss".to_owned()], &vec!["cr".to_owned()]));
    assert_eq!(server.tag("http.url"), "http://test.example/");
    assert!(!server.tags.contains_key("zone"), "{server:?}");
    assert_eq!(server.resource["serviceName"], "test-cluster");
    let report = &collector.reports()[0];
    assert_eq!(
        (report.path.as_str(), &report.headers["host"]),
        ("/api/v2/spans", &"collector".parse().unwrap())
    );
    let stats = [("tracing.zipkin.spans_sent", 2), ("tracing.zipkin.reports_dropped", 0)];
    proxy.until_stats(stats).await;
    proxy.until_stat("tracing.zipkin.reports_sent", |count| count > 0).await;
}

async fn otlp_goes_over_http_as_well(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let attributes = json!({"team": "a", "service.name": "other"});
    let detector = "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig";
    let provider = open_telemetry(json!({
        "http_service": {
            "http_uri": {"uri": "http://otlp.example/v1/traces?x", "cluster": "collector", "timeout": "5s"},
            "request_headers_to_add": [{"header": {"key": "x-tenant", "value": "lab"}}],
        },
        "resource_detectors": [{
            "name": "envoy.tracers.opentelemetry.resource_detectors.static_config",
            "typed_config": typed(detector, json!({"attributes": attributes})),
        }],
    }));
    let proxy =
        proxy(program, &app, collector.address(), json!({"provider": provider}), everything())
            .await;
    proxy.get("/").send().await;
    let spans = collector.until(1).await;
    assert_eq!(spans[0].resource["team"], "a");
    assert_eq!(spans[0].resource["service.name"], "other");
    let report = &collector.reports()[0];
    let header = |name: &str| report.headers[name].to_str().unwrap().to_owned();
    assert_eq!((report.path.as_str(), report.spans), ("/v1/traces?x", 1));
    assert_eq!((header("host"), header("x-tenant")), ("otlp.example".into(), "lab".into()));
}

async fn proxies_in_a_row_make_one_trace(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let fields = json!({"provider": otlp(), "spawn_upstream_span": true});
    let second = proxy(program, &app, collector.address(), fields.clone(), everything()).await;
    let http = Http::routing(everything()).with("tracing", fields);
    let cluster = Cluster::new("collector").endpoint(collector.address()).http2();
    let first = Bootstrap::new()
        .with(
            "layered_runtime.layers",
            json!([{"name": "s", "static_layer": {"tracing.opentelemetry.min_flush_spans": 1}}]),
        )
        .cluster(Cluster::new("app").endpoint(second.address("main")))
        .cluster(cluster)
        .listener(Listener::new("main", http).with("traffic_direction", "OUTBOUND"))
        .start(program)
        .await;
    assert_eq!(first.get("/").send().await.status, 200);
    let spans = collector.until(4).await;
    assert!(spans.iter().all(|span| span.trace == spans[0].trace), "{spans:#?}");
    let root = spans.iter().find(|span| span.parent.is_empty()).unwrap();
    // Where attempts have spans of their own, only those are of a client.
    assert_eq!((root.name.as_str(), root.kind.as_str()), ("egress test.example", "SERVER"));
    // Each span is part of the one before it.
    let mut last = root;
    for name in ["router app egress", "ingress", "router app egress"] {
        last = spans.iter().find(|span| span.parent == last.id).unwrap();
        assert_eq!(last.name, name);
    }
    let ids: std::collections::BTreeSet<_> = spans
        .iter()
        .map(|span| span.tag("guid:x-request-id"))
        .filter(|id| !id.is_empty())
        .collect();
    assert_eq!(ids.len(), 1, "{spans:#?}");
}

async fn a_dead_collector_costs_nothing_but_spans(program: Program) {
    let app = Backend::echo("app").await;
    let dead = Port::reserve();
    let fields = json!({"provider": otlp()});
    let proxy = proxy(program, &app, dead.address(), fields, everything()).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
    proxy.until_stat("tracing.opentelemetry.spans_sent", |count| count > 0).await;
    // One that comes up is told what happens from then on.
    let collector = Collector::start_at(dead.address()).await;
    harness::eventually("a span at the new collector", async || {
        assert_eq!(proxy.get("/").send().await.status, 200);
        collector.spans().pop()
    })
    .await;
}
