//! What spans are called, and what else they say, as configured.

use harness::collector::Collector;
use harness::{Backend, Client, Cluster, Http, Listener, Program, Route, json};

use super::{only, otlp, proxy, tracing};

on_both!(spans_have_the_tags_and_names_that_are_configured, operations_are_passed_on,);

async fn spans_have_the_tags_and_names_that_are_configured(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let metadata =
        json!({"kind": {"route": {}}, "metadata_key": {"key": "m", "path": [{"key": "k"}]}});
    let tags = json!([
        {"tag": "literal", "literal": {"value": "l"}},
        {"tag": "both", "literal": {"value": "manager"}},
        {"tag": "unset", "environment": {"name": "OUTRIGGER_NOT_SET"}},
        {"tag": "default", "environment": {"name": "OUTRIGGER_NOT_SET", "default_value": "d"}},
        {"tag": "header", "request_header": {"name": "x-tag", "default_value": "none"}},
        {"tag": "absent", "request_header": {"name": "x-absent"}},
        {"tag": "metadata", "metadata": metadata},
        {"tag": "value", "value": "%REQ(:METHOD)% %RESPONSE_CODE%"},
        {"tag": "component", "literal": {"value": "mine"}},
    ]);
    let fields = json!({
        "provider": otlp(),
        "custom_tags": tags,
        "operation": "%REQ(:METHOD)% it",
        "upstream_operation": "on to %UPSTREAM_CLUSTER%",
        "spawn_upstream_span": true,
        "max_path_tag_length": 5,
        "random_sampling": {"value": 0},
    });
    let of_route = json!({
        "random_sampling": {"numerator": 100},
        "custom_tags": [{"tag": "both", "literal": {"value": "route"}}],
    });
    let routes = [
        Route::prefix("/traced")
            .to("app")
            .with("tracing", of_route)
            .with("metadata", json!({"filter_metadata": {"m": {"k": "v"}}})),
        Route::prefix("/").to("app"),
    ];
    let proxy = proxy(program, &app, collector.address(), fields, routes).await;
    proxy.get("/").send().await;
    proxy.get("/traced/far").header("x-tag", "h").send().await;
    let spans = collector.until(2).await;
    let (server, client) = (only(&spans, "SERVER"), only(&spans, "CLIENT"));
    assert_eq!((server.name.as_str(), client.name.as_str()), ("GET it", "on to app"));
    for span in [server, client] {
        for (name, value) in [
            ("literal", "l"),
            ("both", "route"),
            ("default", "d"),
            ("header", "h"),
            ("metadata", "v"),
            ("value", "GET 200"),
            ("component", "mine"),
        ] {
            assert_eq!(span.tag(name), value, "{name} of {span:?}");
        }
        assert!(!span.tags.contains_key("unset") && !span.tags.contains_key("absent"), "{span:?}");
    }
    assert_eq!(server.tag("http.url"), "http://test.example/trac");
}

async fn operations_are_passed_on(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let http = || {
        let decorated = Route::prefix("/decorated").to("app");
        let routes = [
            decorated.with("decorator", json!({"operation": "mine"})),
            Route::prefix("/alone")
                .to("app")
                .with("decorator", json!({"operation": "mine", "propagate": false})),
            Route::prefix("/").to("app"),
        ];
        Http::routing(routes).with("tracing", json!({"provider": otlp()}))
    };
    let proxy = tracing(&app, Cluster::new("collector").endpoint(collector.address()).http2())
        .listener(Listener::new("main", http()))
        .listener(Listener::new("out", http()).with("traffic_direction", "OUTBOUND"))
        .start(program)
        .await;
    const OPERATION: &str = "x-envoy-decorator-operation";
    let mut before = 0;
    for (listener, path, asked, name, passed_on, returned) in [
        ("main", "/decorated", None, "mine", None, Some("mine")),
        ("main", "/decorated", Some("theirs"), "theirs", None, None),
        ("main", "/alone", None, "mine", None, None),
        ("main", "/", None, "ingress", None, None),
        ("out", "/decorated", None, "mine", Some("mine"), None),
        ("out", "/alone", None, "mine", None, None),
        ("out", "/", None, "egress test.example", None, None),
    ] {
        let call = Client::http1(proxy.address(listener)).get(path);
        let call = if let Some(asked) = asked { call.header(OPERATION, asked) } else { call };
        let reply = call.send().await;
        assert_eq!(reply.header(OPERATION).as_deref(), returned, "{listener} {path}");
        assert_eq!(reply.echo().header(OPERATION).as_deref(), passed_on, "{listener} {path}");
        before += 1;
        let spans = collector.until(before).await;
        let kind = if listener == "out" { "CLIENT" } else { "SERVER" };
        let span = &spans[before - 1];
        assert_eq!((span.name.as_str(), span.kind.as_str()), (name, kind), "{listener} {path}");
    }
}
