//! Contexts of traces in headers: read, continued, or left as they are.

use harness::collector::Collector;
use harness::{Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Value, json};

use super::{SPAN, TRACE, everything, otlp, tracing, zipkin};

on_both!(w3c_contexts_go_on, b3_contexts_go_on, headers_stay_as_they_are_where_nothing_is_traced,);

async fn w3c_contexts_go_on(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let http = |sampling: u32, stay: bool| {
        let mut fields = json!({"provider": otlp(), "random_sampling": {"value": sampling}});
        if stay {
            fields["no_context_propagation"] = true.into();
        }
        Http::routing(everything()).with("tracing", fields)
    };
    let proxy = tracing(&app, Cluster::new("collector").endpoint(collector.address()).http2())
        .listener(Listener::new("main", http(100, false)))
        .listener(Listener::new("never", http(0, false)))
        .listener(Listener::new("stay", http(100, true)))
        .start(program)
        .await;
    let sent = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    for (listener, theirs, ours) in
        [("main", "01", "01"), ("main", "00", "00"), ("never", "01", "00"), ("never", "00", "00")]
    {
        let client = Client::http1(proxy.address(listener));
        let call = client.get("/").header("traceparent", &sent(theirs));
        let call = call.header("tracestate", "a=b").header("baggage", "x=y");
        let echo = call.send().await.echo();
        let parent = echo.header("traceparent").unwrap();
        assert!(parent.starts_with(&format!("00-{TRACE}-")), "{parent}");
        assert!(parent.ends_with(&format!("-{ours}")), "{listener} {theirs}: {parent}");
        assert!(!parent.contains(SPAN), "{parent}");
        assert_eq!(echo.header("tracestate").as_deref(), Some("a=b"));
        assert_eq!(echo.header("baggage").as_deref(), Some("x=y"));
    }
    let spans = collector.until(1).await;
    assert_eq!((spans[0].trace.as_str(), spans[0].parent.as_str()), (TRACE, SPAN));

    let bad = proxy.get("/").header("traceparent", "bad").header("tracestate", "a=b");
    let echo = bad.send().await.echo();
    assert_eq!(echo.header("traceparent").as_deref(), Some("bad"));
    assert_eq!(echo.header("tracestate").as_deref(), Some("a=b"));

    let client = Client::http1(proxy.address("stay"));
    let echo = client.get("/").header("traceparent", &sent("01")).send().await.echo();
    assert_eq!(echo.header("traceparent"), Some(sent("01")));
    assert_eq!(client.get("/").send().await.echo().header("traceparent"), None);
    let b3 = format!("{TRACE}-{SPAN}-1");
    let echo = proxy.get("/").header("b3", &b3).send().await.echo();
    assert_eq!(echo.header("b3"), Some(b3));
}

async fn b3_contexts_go_on(program: Program) {
    let (app, collector) = (Backend::echo("app").await, Collector::start().await);
    let http = |provider: Value, sampling: u32| {
        let sampling = json!({"value": sampling});
        let fields = json!({"provider": provider, "random_sampling": sampling});
        Http::routing(everything()).with("tracing", fields)
    };
    let shared = || zipkin(&json!({}));
    let own = zipkin(&json!({"shared_span_context": false, "trace_id_128bit": true}));
    let both = zipkin(&json!({"trace_context_option": "USE_B3_WITH_W3C_PROPAGATION"}));
    let proxy = tracing(&app, Cluster::new("collector").endpoint(collector.address()))
        .listener(Listener::new("main", http(shared(), 100)))
        .listener(Listener::new("never", http(shared(), 0)))
        .listener(Listener::new("own", http(own, 100)))
        .listener(Listener::new("w3c", http(both, 100)))
        .start(program)
        .await;
    let seen = async |listener: &str, sent: &[(&str, &str)], header: &str| {
        let client = Client::http1(proxy.address(listener));
        let call =
            sent.iter().fold(client.get("/"), |call, (name, value)| call.header(name, value));
        call.send().await.echo().header(header).unwrap_or_default()
    };
    let single = format!("{TRACE}-{SPAN}");
    for (listener, sent, wanted) in [
        ("main", single.clone(), format!("{single}-1")),
        ("main", format!("{single}-0"), format!("{single}-0")),
        ("main", format!("{single}-d"), format!("{single}-1")),
        ("main", format!("{single}-1-0000000000000abc"), format!("{single}-1-0000000000000abc")),
        ("never", single.clone(), format!("{single}-0")),
        ("never", format!("{single}-1"), format!("{single}-1")),
        ("main", "junk".to_owned(), "junk".to_owned()),
    ] {
        assert_eq!(seen(listener, &[("b3", &sent)], "b3").await, wanted, "{listener} {sent}");
    }
    let parts = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "true")];
    for (name, wanted) in
        [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1"), ("b3", "")]
    {
        assert_eq!(seen("main", &parts, name).await, wanted, "{name}");
    }
    assert_eq!(seen("own", &parts, "x-b3-traceid").await, TRACE);
    assert_eq!(seen("own", &parts, "x-b3-parentspanid").await, SPAN);
    assert_ne!(seen("own", &parts, "x-b3-spanid").await, SPAN);
    assert_eq!(seen("own", &[], "x-b3-traceid").await.len(), 32);
    assert_eq!(seen("main", &[], "x-b3-traceid").await.len(), 16);
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let w3c = [("traceparent", w3c.as_str())];
    assert_eq!(seen("w3c", &w3c, "x-b3-traceid").await, TRACE);
    assert_eq!(seen("w3c", &w3c, "traceparent").await, w3c[0].1);
    assert_eq!(seen("w3c", &parts, "traceparent").await, w3c[0].1);
    assert_ne!(seen("main", &w3c, "x-b3-traceid").await, TRACE);
    assert_eq!(seen("main", &w3c, "traceparent").await, w3c[0].1);
}

async fn headers_stay_as_they_are_where_nothing_is_traced(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = Bootstrap::routing(everything())
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let echo = proxy.get("/").send().await.echo();
    let id = echo.header("x-request-id").unwrap();
    assert_eq!(id.as_bytes()[14], b'4', "{id}");
    assert_eq!((echo.header("traceparent"), echo.header("b3")), (None, None));
    for (name, value) in [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("baggage", "x=y"),
        ("b3", "0"),
        ("x-b3-traceid", "a3ce929d0e0e4736"),
        ("x-envoy-decorator-operation", "theirs"),
    ] {
        let echo = proxy.get("/").header(name, value).send().await.echo();
        assert_eq!(echo.header(name).as_deref(), Some(value));
    }
}
