//! What the access log says of a request, as text and as JSON.

mod connections;
mod filters;
mod kinds;
mod open_telemetry;
mod operators;
mod service;

use harness::port::Port;
use harness::{
    Answer, Backend, Bootstrap, Cluster, FaultyBackend, Http, Program, Proxy, Route, Value, json,
};

on_both!(
    a_text_line_says_what_its_format_asks_for,
    a_json_line_keeps_its_types,
    every_failure_has_its_flag_and_details,
    a_filter_leaves_lines_out,
    a_moved_log_is_opened_anew,
);

async fn one_line(proxy: &Proxy) -> String {
    harness::eventually("a line in the access log", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        text.ends_with('\n').then(|| text.trim_end().to_owned())
    })
    .await
}

/// A proxy with routes to everything the scenarios need, logging to `access.log`.
async fn logging(
    program: Program,
    app: &Backend,
    log: impl Fn(Http, &std::path::Path) -> Http,
) -> Proxy {
    let bootstrap = Bootstrap::new();
    let http = Http::routing([Route::prefix("/").to("app").with("name", "everything")]);
    let http = log(http, &bootstrap.dir().join("access.log"));
    bootstrap
        .listener(harness::Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(app))
        .start(program)
        .await
}

async fn a_text_line_says_what_its_format_asks_for(program: Program) {
    let app =
        Backend::scripted("app", |_| Answer::status(201).header("x-answer", "42").body("five!"))
            .await;
    let format = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% \
        %REQ(X-LONG):3% %REQ(X-NONE)% %RESP(X-ANSWER)% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% \
        %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %ROUTE_NAME% %REQUEST_HEADERS_BYTES% \
        %UPSTREAM_REQUEST_ATTEMPT_COUNT% 100%% %START_TIME(%Y)% %DURATION%";
    let proxy = logging(program, &app, |http, file| http.text_log(file, format)).await;
    let call = proxy.client().post("/path?query").header("x-long", "abcdef").body("1234567");
    call.send().await;
    let line = one_line(&proxy).await;
    let words: Vec<&str> = line.split(' ').collect();
    let host = app.address().to_string();
    let expected = [
        "POST",
        "/path?query",
        "HTTP/1.1",
        "201",
        "-",
        "via_upstream",
        "7",
        "5",
        "abc",
        "-",
        "42",
        "app",
        &host,
        "127.0.0.1",
        "everything",
    ];
    assert_eq!(words[..expected.len()], expected, "{line}");
    assert_eq!(words[16..18], ["1", "100%"], "{line}");
    assert!(words[18].starts_with("20") && words[19].parse::<u64>().is_ok(), "{line}");
}

async fn a_json_line_keeps_its_types(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = logging(program, &app, |http, file| {
        http.file_log(json!({"path": file, "log_format": {"json_format": {
            "status": "%RESPONSE_CODE%",
            "text": "%REQ(:METHOD)% %PROTOCOL%",
            "none": "%REQ(X-NONE)%",
            "nested": {"cluster": "%UPSTREAM_CLUSTER%"},
            "quoted": "%REQ(X-QUOTED)%",
        }}}))
    })
    .await;
    proxy.get("/").header("x-quoted", "a\"b\\c").send().await;
    let line: Value = serde_json::from_str(&one_line(&proxy).await).unwrap();
    assert_eq!(
        line,
        json!({"status": 200, "text": "GET HTTP/1.1", "none": null,
            "nested": {"cluster": "app"}, "quoted": "a\"b\\c"})
    );
}

async fn every_failure_has_its_flag_and_details(program: Program) {
    let hanging = FaultyBackend::hanging().await;
    let garbage = FaultyBackend::talking_garbage().await;
    let aborting = Backend::scripted("aborting", |_| Answer::abort()).await;
    let nobody = Port::reserve();
    let bootstrap = Bootstrap::new();
    let to = |path: &str, cluster: &str| Route::path(path).to(cluster);
    let http = Http::routing([
        to("/timeout", "hanging").with("route.timeout", "0.1s"),
        to("/empty", "empty"),
        to("/refused", "nobody"),
        to("/reset", "aborting"),
        to("/garbage", "garbage"),
        to("/overflow", "full"),
        Route::path("/unknown").with("route.cluster_header", "x-cluster"),
        Route::path("/direct").direct(403, "no"),
    ]);
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
    let http = http.text_log(&bootstrap.dir().join("access.log"), format);
    let full = json!([{"max_connections": 0, "max_pending_requests": 0}]);
    let proxy = bootstrap
        .listener(harness::Listener::new("main", http))
        .cluster(Cluster::new("hanging").endpoint(&hanging))
        .cluster(Cluster::new("empty"))
        .cluster(Cluster::new("nobody").endpoint(&nobody))
        .cluster(Cluster::new("aborting").endpoint(&aborting))
        .cluster(Cluster::new("garbage").endpoint(&garbage))
        .cluster(Cluster::new("full").endpoint(&hanging).with("circuit_breakers.thresholds", full))
        .start(program)
        .await;
    let expected = [
        ("/none", "404 NR route_not_found"),
        ("/direct", "403 - direct_response"),
        ("/timeout", "504 UT response_timeout"),
        ("/empty", "503 UH no_healthy_upstream"),
        ("/refused", "503 UF upstream_reset_before_response_started{remote_connection_failure"),
        ("/reset", "503 UC upstream_reset_before_response_started{connection_termination}"),
        ("/garbage", "502 UPE upstream_reset_before_response_started{protocol_error"),
        ("/overflow", "503 UO upstream_reset_before_response_started{overflow}"),
        ("/unknown", "503 NC cluster_not_found"),
    ];
    for (path, _) in expected {
        proxy.get(path).header("x-cluster", "gone").send().await;
    }
    let log = harness::eventually("all lines", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        (text.lines().count() == expected.len()).then_some(text)
    })
    .await;
    for ((path, said), line) in expected.iter().zip(log.lines()) {
        assert!(line.starts_with(&format!("{path} {said}")), "{line}\nexpected {said}");
    }
}

async fn a_filter_leaves_lines_out(program: Program) {
    let app =
        Backend::scripted("app", |call| Answer::status(call.path[1..].parse().unwrap())).await;
    let proxy = logging(program, &app, |http, file| {
        let filter = json!({"status_code_filter": {"comparison": {"op": "GE",
            "value": {"default_value": 500, "runtime_key": "none"}}}});
        http.text_log(file, "%RESPONSE_CODE%").with("access_log.0.filter", filter)
    })
    .await;
    for status in ["/200", "/503", "/404", "/500"] {
        proxy.get(status).send().await;
    }
    harness::eventually::eventually_true("two lines", async || {
        std::fs::read_to_string(proxy.file("access.log")).is_ok_and(|text| text == "503\n500\n")
    })
    .await;
}

async fn a_moved_log_is_opened_anew(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = logging(program, &app, |http, file| http.text_log(file, "%REQ(:PATH)%")).await;
    proxy.get("/before").send().await;
    assert_eq!(one_line(&proxy).await, "/before");
    std::fs::rename(proxy.file("access.log"), proxy.file("access.log.1")).unwrap();
    assert_eq!(proxy.admin().post("/reopen_logs").send().await.status, 200);
    proxy.get("/after").send().await;
    assert_eq!(one_line(&proxy).await, "/after");
}
