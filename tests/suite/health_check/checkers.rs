//! What is asked over HTTP, TCP and gRPC, and which answers are good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use harness::port::Port;
use harness::{Answer, Backend, Bootstrap, Program, Route, Value, json};

use crate::differences::{AUTHORITIES, Differs as _};

use super::{Moody, check, cluster, flags, http, start, until_flags};

on_both!(
    the_request_of_a_check_is_as_configured,
    a_check_has_a_body_and_says_whom_it_asks,
    a_cluster_may_have_any_name,
    expected_and_retriable_statuses,
    a_body_without_the_expected_text_is_a_failure,
    a_port_is_checked_by_connecting_or_by_talking,
    a_grpc_service_says_whether_it_serves,
);

async fn the_request_of_a_check_is_as_configured(program: Program) {
    let app = Backend::echo("app").await;
    let checker = json!({
        "path": "/ping?deep=1", "host": "checks.example", "method": "POST",
        "codec_client_type": "HTTP2",
        "request_headers_to_add": [{"header": {"key": "x-probe", "value": "yes"}}],
        "request_headers_to_remove": ["user-agent"],
    });
    let http2 = cluster(check("http_health_check", checker)).endpoint(&app);
    let proxy = start(program, http2).await;
    until_flags(&proxy, app.address(), "healthy").await;
    let call = &app.calls()[0];
    assert_eq!((call.method.as_str(), &*call.path), ("POST", "/ping?deep=1"));
    assert_eq!((&*call.host, format!("{:?}", call.version)), ("checks.example", "HTTP/2.0".into()));
    assert_eq!((call.header("x-probe"), call.header("user-agent")), (Some("yes"), None));

    let plain = Backend::echo("app").await;
    let proxy = start(program, cluster(http()).endpoint(&plain)).await;
    until_flags(&proxy, plain.address(), "healthy").await;
    let call = &plain.calls()[0];
    assert_eq!((call.method.as_str(), &*call.host), ("GET", "app"), "the cluster's name");
    assert_eq!(call.header("user-agent"), Some("Envoy/HC"));
}

async fn a_check_has_a_body_and_says_whom_it_asks(program: Program) {
    let app = Backend::echo("app").await;
    let header = |key: &str, value: &str| json!({"header": {"key": key, "value": value}});
    let checker = json!({
        "path": "/ping", "method": "POST", "send": {"text": "68656c6c6f"},
        "request_headers_to_add": [
            header("x-host", "%UPSTREAM_HOST% by %PROTOCOL%"),
            header("x-year", "%START_TIME(%Y)%"),
            header("x-name", "%UPSTREAM_HOST_NAME%"),
        ],
    });
    let proxy = start(program, cluster(check("http_health_check", checker)).endpoint(&app)).await;
    until_flags(&proxy, app.address(), "healthy").await;
    let call = &app.calls()[0];
    assert_eq!((&call.body[..], call.header("content-length")), (&b"hello"[..], Some("5")));
    assert_eq!(call.header("x-host"), Some(&*format!("{} by HTTP/1.1", app.address())));
    assert!(call.header("x-year").unwrap().starts_with("20"));
    let address = app.address().to_string();
    assert_eq!(call.header("x-name"), Some(&*address), "the endpoint has no other name");
}

async fn a_cluster_may_have_any_name(program: Program) {
    let app = Backend::echo("app").await;
    let name = "outbound|80||app";
    let checked = cluster(http()).with("name", name).endpoint(&app);
    let routes = [Route::prefix("/").to(name)];
    let proxy = Bootstrap::routing(routes).cluster(checked).start(program).await;
    proxy.until_stat("cluster.outbound|80||app.membership_healthy", |count| count == 1).await;
    assert_eq!(app.calls()[0].host, name);
    if program.differs(AUTHORITIES) {
        return;
    }
    let app = Backend::echo("app").await;
    let http2 = json!({"path": "/healthz", "codec_client_type": "HTTP2"});
    let checked = cluster(check("http_health_check", http2)).with("name", name).endpoint(&app);
    let routes = [Route::prefix("/").to(name)];
    let proxy = Bootstrap::routing(routes).cluster(checked).start(program).await;
    proxy.until_stat("cluster.outbound|80||app.membership_healthy", |count| count == 1).await;
    assert_eq!(app.calls()[0].header("host"), Some(name));
}

async fn expected_and_retriable_statuses(program: Program) {
    let moody = Moody::new("app", 204).await;
    let checker = json!({
        "path": "/healthz",
        "expected_statuses": [{"start": 200, "end": 201}, {"start": 204, "end": 206}],
        "retriable_statuses": [{"start": 500, "end": 501}],
    });
    let mut check = check("http_health_check", checker);
    check["unhealthy_threshold"] = 1_000_000.into();
    let proxy = start(program, cluster(check).endpoint(&moody.backend)).await;
    let at = moody.backend.address();
    until_flags(&proxy, at, "healthy").await;
    moody.becomes(500);
    proxy.until_stat("cluster.app.health_check.failure", |count| count > 2).await;
    assert_eq!(flags(&proxy, at).await, "healthy", "these failures are only counted");
    moody.becomes(206);
    until_flags(&proxy, at, "/failed_active_hc").await;
}

async fn a_body_without_the_expected_text_is_a_failure(program: Program) {
    let text = |text: &'static str| Backend::scripted(text, move |_| Answer::echo().body(text));
    let (good, bad) = (text("all is well").await, text("well, all is lost").await);
    let checker = json!({
        "path": "/", "receive": [{"text": "616c6c"}, {"text": "77656c6c"}],
    });
    let check = check("http_health_check", checker);
    let proxy = start(program, cluster(check).endpoint(&good).endpoint(&bad)).await;
    until_flags(&proxy, good.address(), "healthy").await;
    until_flags(&proxy, bad.address(), "/failed_active_hc").await;
}

async fn a_port_is_checked_by_connecting_or_by_talking(program: Program) {
    let (good, bad) = (Moody::new("good", 200).await, Moody::new("bad", 503).await);
    let nobody = Port::reserve();
    let all = |check: Value| {
        cluster(check).endpoint(&good.backend).endpoint(&bad.backend).endpoint(nobody.address())
    };
    let proxy = start(program, all(check("tcp_health_check", json!({})))).await;
    until_flags(&proxy, good.backend.address(), "healthy").await;
    until_flags(&proxy, bad.backend.address(), "healthy").await;
    until_flags(&proxy, nobody.address(), "/failed_active_hc").await;
    drop(proxy);

    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let talking = json!({
        "send": {"text": hex("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")},
        "receive": [{"text": hex("HTTP/1.1")}, {"text": hex("200 OK")}],
    });
    let mut check = check("tcp_health_check", talking);
    check["timeout"] = "0.3s".into();
    let proxy = start(program, all(check)).await;
    until_flags(&proxy, good.backend.address(), "healthy").await;
    // The wrong answer might still become the right one: only time tells.
    let timed_out = "/failed_active_hc/active_hc_timeout";
    until_flags(&proxy, bad.backend.address(), timed_out).await;
    until_flags(&proxy, nobody.address(), "/failed_active_hc").await;
}

async fn a_grpc_service_says_whether_it_serves(program: Program) {
    let status = Arc::new(AtomicU16::new(1));
    let shown = Arc::clone(&status);
    let app = Backend::scripted("app", move |_| {
        let state = shown.load(Relaxed).to_be_bytes()[1];
        Answer::status(200)
            .header("content-type", "application/grpc")
            .body(vec![0, 0, 0, 0, 2, 8, state])
            .trailer("grpc-status", "0")
    });
    let app = app.await;
    let checker = json!({
        "service_name": "shop", "authority": "shop.example",
        "initial_metadata": [{"header": {"key": "x-probe", "value": "yes"}}],
    });
    let cluster = cluster(check("grpc_health_check", checker)).http2().endpoint(&app);
    let proxy = start(program, cluster).await;
    until_flags(&proxy, app.address(), "healthy").await;
    let call = &app.calls()[0];
    assert_eq!((&*call.path, &*call.host), ("/grpc.health.v1.Health/Check", "shop.example"));
    assert_eq!(&call.body[..], b"\0\0\0\0\x06\x0a\x04shop");
    assert_eq!(call.header("content-type"), Some("application/grpc"));
    assert_eq!(call.header("te"), Some("trailers"));
    assert_eq!(call.header("x-probe"), Some("yes"));
    assert_eq!(call.header("grpc-timeout"), Some("2000m"));

    status.store(2, Relaxed);
    until_flags(&proxy, app.address(), "/failed_active_hc").await;
    status.store(1, Relaxed);
    until_flags(&proxy, app.address(), "healthy").await;
}
