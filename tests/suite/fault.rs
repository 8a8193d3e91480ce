//! The `fault` filter: delays, aborts and slow responses on purpose.

use std::time::{Duration, Instant};

use harness::client::Call;
use harness::eventually::has_waited;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Reply, Route, Value, json,
};

on_both!(
    requests_are_delayed_and_aborted,
    logs_tell_what_was_done,
    headers_decide_where_they_may,
    a_fault_is_for_some_requests_only,
    routes_have_faults_of_their_own,
    only_so_many_streams_have_faults_at_a_time,
    responses_go_slowly,
);

const HTTP_FAULT: &str = "fault.v3.HTTPFault";

fn always() -> Value {
    json!({"numerator": 100})
}

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let http = http.with("stat_prefix", "ing");
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

/// A proxy in front of `app` that makes this fault.
async fn faulty(program: Program, app: &Backend, fault: Value) -> Proxy {
    let http = Http::routing([Route::prefix("/").to("app")]).filter("fault", HTTP_FAULT, fault);
    start(program, app, http).await
}

async fn timed(call: Call) -> (Reply, Duration) {
    let begin = Instant::now();
    let reply = call.send().await;
    (reply, begin.elapsed())
}

/// A delay, an abort, and both, each of its own route.
fn delays_and_aborts() -> Http {
    let delay = json!({"fixed_delay": "0.15s", "percentage": always()});
    let http = |status: u16| json!({"http_status": status, "percentage": always()});
    let grpc = json!({"grpc_status": 9, "percentage": always()});
    let route = |path: &str| Route::prefix(path).to("app");
    let faulty = |path: &str, fault: Value| route(path).tell("fault", HTTP_FAULT, fault);
    Http::routing([
        faulty("/delay", json!({"delay": delay})),
        faulty("/abort", json!({"abort": http(418)})),
        faulty("/grpc", json!({"abort": grpc})),
        faulty("/both", json!({"delay": delay, "abort": http(503)})),
        route("/"),
    ])
    .filter("fault", HTTP_FAULT, json!({}))
}

async fn requests_are_delayed_and_aborted(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = start(program, &app, delays_and_aborts()).await;
    for (path, status, waits) in [
        ("/", 200, false),
        ("/delay", 200, true),
        ("/abort", 418, false),
        ("/grpc", 200, false),
        ("/both", 503, true),
    ] {
        let (reply, took) = timed(proxy.get(path)).await;
        let has_waited = has_waited(took, Duration::from_millis(150));
        assert_eq!((reply.status, has_waited), (status, waits), "{path} {took:?}");
        let is_aborted = reply.text() == "fault filter abort";
        assert_eq!(is_aborted, !matches!(path, "/" | "/delay"), "{path}");
    }
    for (path, status) in [("/grpc", "9"), ("/both", "14")] {
        let call = Client::http2(proxy.address("main")).post(path);
        let reply = call.header("content-type", "application/grpc").send().await;
        assert_eq!(reply.header("grpc-status").as_deref(), Some(status), "{path}");
    }
    let stats = [("delays_injected", 3), ("aborts_injected", 5), ("active_faults", 0)];
    for (name, count) in stats {
        proxy.until_stat(&format!("http.ing.fault.{name}"), |it| it == count).await;
    }
    assert_eq!(app.count(), 2);
}

async fn logs_tell_what_was_done(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let format = "%REQ(:path)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
    let listener = Listener::new("main", delays_and_aborts().text_log(&log, format));
    let bootstrap = bootstrap.listener(listener).cluster(Cluster::new("app").endpoint(&app));
    let proxy = bootstrap.start(program).await;
    for path in ["/", "/delay", "/abort", "/both"] {
        proxy.get(path).send().await;
    }
    let lines = harness::eventually("all lines of the log", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        (text.lines().count() == 4).then_some(text)
    });
    assert_eq!(
        lines.await.lines().collect::<Vec<_>>(),
        [
            "/ 200 - via_upstream",
            "/delay 200 DI via_upstream",
            "/abort 418 FI fault_filter_abort",
            "/both 503 DI,FI fault_filter_abort",
        ]
    );
}

async fn headers_decide_where_they_may(program: Program) {
    let app = Backend::echo("app").await;
    let fault = json!({
        "delay": {"header_delay": {}, "percentage": always()},
        "abort": {"header_abort": {}, "percentage": always()},
    });
    let proxy = faulty(program, &app, fault).await;
    let call = |headers: &[(&str, &str)]| {
        let name = |name: &str| format!("x-envoy-fault-{name}");
        headers.iter().fold(proxy.get("/"), |call, (key, value)| call.header(&name(key), value))
    };
    for (headers, status) in [
        (&[("abort-request", "429")][..], 429),
        (&[("abort-request", "199")], 200),
        (&[("abort-request", "600")], 200),
        (&[("abort-request", "no")], 200),
        (&[("abort-request", "429"), ("abort-request-percentage", "0")], 200),
        (&[("abort-request", "429"), ("abort-request-percentage", "100")], 429),
        (&[("abort-request", "429"), ("abort-request-percentage", "some")], 429),
    ] {
        assert_eq!(call(headers).send().await.status, status, "{headers:?}");
    }
    let (_, took) = timed(call(&[("delay-request", "120")])).await;
    assert!(has_waited(took, Duration::from_millis(120)), "{took:?}");
    let all = [("delay-request", "60000"), ("delay-request-percentage", "0")];
    assert_eq!(call(&all).send().await.status, 200);
    let call = Client::http2(proxy.address("main")).post("/");
    let call = call.header("content-type", "application/grpc");
    let reply = call.header("x-envoy-fault-abort-grpc-request", "7").send().await;
    assert_eq!(reply.header("grpc-status").as_deref(), Some("7"));
    assert_eq!(proxy.stat("http.ing.fault.aborts_injected").await, 4);
    assert_eq!(proxy.stat("http.ing.fault.delays_injected").await, 1);
}

async fn a_fault_is_for_some_requests_only(program: Program) {
    let app = Backend::echo("app").await;
    let abort = json!({"http_status": 503, "percentage": always()});
    let fault = json!({
        "abort": abort,
        "upstream_cluster": "app",
        "headers": [{"name": "x-a", "string_match": {"exact": "1"}}],
        "downstream_nodes": ["one", "two"],
    });
    let routes = [Route::prefix("/direct").direct(200, ""), Route::prefix("/").to("app")];
    let http = Http::routing(routes).filter("fault", HTTP_FAULT, fault);
    let proxy = start(program, &app, http).await;
    for (path, value, node, status) in [
        ("/", "1", "two", 503),
        ("/", "2", "two", 200),
        ("/", "1", "three", 200),
        ("/direct", "1", "one", 200),
    ] {
        let call = proxy.get(path).header("x-a", value);
        let call = call.header("x-envoy-downstream-service-node", node);
        let call = call.header("x-envoy-downstream-service-cluster", "web");
        assert_eq!(call.send().await.status, status, "{path} {value} {node}");
    }
    assert_eq!(proxy.get("/").header("x-a", "1").send().await.status, 200);
    assert_eq!(proxy.stat("http.ing.fault.aborts_injected").await, 1);
    assert_eq!(proxy.stat("http.ing.fault.web.aborts_injected").await, 1);
    let half = json!({"abort": {"http_status": 503, "percentage": {"numerator": 50}}});
    let proxy = faulty(program, &app, half).await;
    let mut aborted = 0;
    for _ in 0..100 {
        aborted += u32::from(proxy.get("/").send().await.status == 503);
    }
    // One in 2^99 runs has none, or all.
    assert!((1..100).contains(&aborted), "{aborted}");
}

async fn routes_have_faults_of_their_own(program: Program) {
    let app = Backend::echo("app").await;
    let abort = |status: u16| json!({"abort": {"http_status": status, "percentage": always()}});
    let none = json!({"abort": {"http_status": 500}});
    let http = Http::routing([
        Route::prefix("/none").to("app").tell("fault", HTTP_FAULT, none),
        Route::prefix("/own").to("app").tell("fault", HTTP_FAULT, abort(501)),
        Route::prefix("/direct").direct(200, "").tell("fault", HTTP_FAULT, abort(502)),
        Route::prefix("/all").to("app"),
    ])
    .filter("fault", HTTP_FAULT, abort(503));
    let proxy = start(program, &app, http).await;
    for (path, status) in
        [("/none", 200), ("/own", 501), ("/direct", 502), ("/all", 503), ("/no-route", 503)]
    {
        assert_eq!(proxy.get(path).send().await.status, status, "{path}");
    }
}

async fn only_so_many_streams_have_faults_at_a_time(program: Program) {
    let app = Backend::echo("app").await;
    let delay = json!({"header_delay": {}, "percentage": always()});
    let fault = json!({"delay": delay, "max_active_faults": 1});
    let proxy = faulty(program, &app, fault).await;
    let call = |delay: &str| proxy.get("/").header("x-envoy-fault-delay-request", delay);
    let slow = tokio::spawn(call("400").send());
    proxy.until_stat("http.ing.fault.active_faults", |active| active == 1).await;
    let reply = call("60000").send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(proxy.stat("http.ing.fault.faults_overflow").await, 1);
    assert_eq!(slow.await.unwrap().status, 200);
    proxy.until_stat("http.ing.fault.active_faults", |active| active == 0).await;
    assert_eq!(proxy.stat("http.ing.fault.delays_injected").await, 1);
}

async fn responses_go_slowly(program: Program) {
    let app = Backend::echo("app").await;
    let fault = |limit: Value| json!({"response_rate_limit": limit});
    let fixed = json!({"fixed_limit": {"limit_kbps": 4}, "percentage": always()});
    let header = json!({"header_limit": {}, "percentage": always()});
    let body = "b".repeat(2048);
    let direct = |path: &str| Route::prefix(path).direct(200, &body);
    let http = Http::routing([
        direct("/fixed").tell("fault", HTTP_FAULT, fault(fixed)),
        direct("/header").tell("fault", HTTP_FAULT, fault(header)),
    ])
    .filter("fault", HTTP_FAULT, json!({}));
    let proxy = start(program, &app, http).await;
    let rate = "x-envoy-fault-throughput-response";
    // Eight slices of a sixteenth of a second each, the first of which goes at once.
    let slow = Duration::from_millis(380);
    for (path, value, is_slow) in
        [("/fixed", "", true), ("/header", "4", true), ("/header", "4000", false)]
    {
        let (reply, took) = timed(proxy.get(path).header(rate, value)).await;
        assert_eq!((reply.status, reply.body.len()), (200, 2048), "{path}");
        assert_eq!(took >= slow, is_slow, "{path} {took:?}");
    }
    let reply = proxy.get("/header").send().await;
    assert_eq!(reply.body.len(), 2048);
    assert_eq!(proxy.stat("http.ing.fault.response_rl_injected").await, 3);
}
