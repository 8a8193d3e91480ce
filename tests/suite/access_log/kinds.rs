//! Requests that are logged before they end: when, as what, and what is known of them by then.

use std::net::SocketAddr;
use std::time::Duration;

use harness::backend::upgrade::UpgradeBackend;
use harness::{
    Answer, Backend, Bootstrap, Cluster, FaultyBackend, Http, Listener, Program, Proxy, Route,
    Value, json,
};

on_both!(
    a_request_is_logged_when_it_comes_and_when_it_goes,
    a_request_is_logged_every_so_often,
    a_tunnel_is_logged_when_it_stands,
    a_line_tells_the_path_that_was_sent,
    a_request_that_a_filter_answers_has_a_cluster,
    what_is_never_absent_is_said_in_json,
);

const FORMAT: &str = "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% \
    %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %RESP(X-ANSWER)% \
    %UPSTREAM_REQUEST_ATTEMPT_COUNT%";

async fn start(program: Program, app: impl Into<SocketAddr>, http: Http, format: &str) -> Proxy {
    let bootstrap = Bootstrap::new();
    let http = http.text_log(&bootstrap.dir().join("access.log"), format);
    let cluster = Cluster::new("app").endpoint(app);
    bootstrap.listener(Listener::new("main", http)).cluster(cluster).start(program).await
}

/// The lines of the log, once the last of them begins with `last`.
async fn lines(proxy: &Proxy, last: &str) -> Vec<String> {
    harness::eventually(&format!("a line {last}"), async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.last().is_some_and(|line| line.starts_with(last)).then_some(lines)
    })
    .await
}

fn to_app() -> Http {
    Http::routing([Route::prefix("/").to("app")])
}

async fn a_request_is_logged_when_it_comes_and_when_it_goes(program: Program) {
    let app =
        Backend::scripted("app", |_| Answer::status(201).header("x-answer", "42").body("ok")).await;
    for options in [
        ("access_log_options", json!({"flush_access_log_on_new_request": true})),
        ("flush_access_log_on_new_request", json!(true)),
    ] {
        let proxy = start(program, &app, to_app().with(options.0, options.1), FORMAT).await;
        proxy.client().post("/a").body("12345").send().await;
        let expected = [
            "DownstreamStart /a 0 - 0 0 app - 0",
            "DownstreamEnd /a 201 via_upstream 5 2 app 42 1",
        ];
        assert_eq!(lines(&proxy, "DownstreamEnd").await, expected);
    }
}

async fn a_request_is_logged_every_so_often(program: Program) {
    let later = Duration::from_millis(700);
    let app = Backend::scripted("app", move |_| {
        Answer::status(200).header("x-answer", "42").body("12").body_after(later, "34")
    })
    .await;
    let options = json!({"access_log_flush_interval": "0.2s"});
    let proxy = start(program, &app, to_app().with("access_log_options", options), FORMAT).await;
    proxy.client().post("/a").body("12345").send().await;
    let lines = lines(&proxy, "DownstreamEnd").await;
    let (end, periodic) = lines.split_last().unwrap();
    assert_eq!(end, "DownstreamEnd /a 200 via_upstream 5 4 app 42 1");
    assert!((2..=4).contains(&periodic.len()), "{lines:?}");
    for line in periodic {
        assert_eq!(line, "DownstreamPeriodic /a 200 via_upstream 5 2 app 42 1");
    }
    // One that is over is not logged any more.
    proxy.get("/b").send().await;
    let after = self::lines(&proxy, "DownstreamEnd /b").await;
    assert_eq!(after.iter().filter(|line| line.contains(" /a ")).count(), lines.len());
}

async fn a_tunnel_is_logged_when_it_stands(program: Program) {
    let app = UpgradeBackend::start().await;
    let options = json!({"flush_log_on_tunnel_successfully_established": true});
    let http = to_app()
        .with("access_log_options", options)
        .with("upgrade_configs", json!([{"upgrade_type": "websocket"}]));
    let proxy = start(program, &app, http, "%ACCESS_LOG_TYPE% %RESPONSE_CODE%").await;
    let mut client = proxy.connect().await;
    let head = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write(head).await;
    lines(&proxy, "DownstreamTunnelSuccessfullyEstablished 101").await;
    drop(client);
    assert_eq!(lines(&proxy, "DownstreamEnd 101").await.len(), 2);
}

async fn a_line_tells_the_path_that_was_sent(program: Program) {
    let app = Backend::scripted("app", |call| match &*call.path {
        "/redirected" => Answer::status(302).header("location", "http://a.test/old/2"),
        _ => Answer::status(200),
    })
    .await;
    let added = json!([{"header": {"key": "x-added", "value": "of the route"}}]);
    let http = Http::routing([
        Route::prefix("/old")
            .to("app")
            .with("route.prefix_rewrite", "/new")
            .with("route.host_rewrite_literal", "b.test")
            .with("request_headers_to_add", added),
        Route::path("/redirected").to("app").with("route.internal_redirect_policy", json!({})),
    ]);
    let format = "%REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
        %PATH(WQ:PATH)% %PATH(NQ:ORIG)% %REQ(:AUTHORITY)% %REQ(X-ADDED)% %REQ(X-TWO)% \
        %RESPONSE_CODE_DETAILS%";
    let proxy = start(program, &app, http, format).await;
    let call = proxy.get("/old/1?q").host("a.test").header("x-two", "1").header("x-two", "2");
    call.send().await;
    proxy.get("/redirected").host("a.test").send().await;
    let expected = [
        "/new/1?q /old/1?q /old/1?q /new/1?q /old/1 b.test of the route 1 via_upstream",
        "/old/2 - /old/2 /old/2 - a.test - - internal_redirect",
        "/new/2 /old/2 /old/2 /new/2 /old/2 b.test of the route - via_upstream",
    ];
    assert_eq!(lines(&proxy, "/new/2").await, expected);
}

async fn a_request_that_a_filter_answers_has_a_cluster(program: Program) {
    let app = Backend::echo("app").await;
    let rules = json!({"rules": {"action": "ALLOW", "policies": {}}});
    let routes = [
        Route::path("/direct").direct(403, "no"),
        Route::path("/unknown").with("route.cluster_header", "x-none"),
        Route::prefix("/").to("app"),
    ];
    let http = Http::routing(routes).filter("rbac", "rbac.v3.RBAC", rules);
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %UPSTREAM_CLUSTER% %UPSTREAM_HOST%";
    let proxy = start(program, &app, http, format).await;
    for path in ["/direct", "/unknown", "/a"] {
        proxy.get(path).send().await;
    }
    let expected = ["/direct 403 - -", "/unknown 403 - -", "/a 403 app -"];
    assert_eq!(lines(&proxy, "/a").await, expected);
}

async fn what_is_never_absent_is_said_in_json(program: Program) {
    let refused = FaultyBackend::hanging().await;
    for omits in [false, true] {
        let bootstrap = Bootstrap::new();
        let choice = r#"{"operators": ["TRACE_ID", {"command": "REQ", "param": ":METHOD", "max_length": 2}]}"#;
        let format = json!({
            "unset": "%ENVIRONMENT(NOT_SET_ANYWHERE)%",
            "flags": "%RESPONSE_FLAGS%",
            "long flags": "%RESPONSE_FLAGS_LONG%",
            "coalesced": format!("%COALESCE({choice})%"),
            "a number": r#"%COALESCE({"operators": ["TRACE_ID", "RESPONSE_CODE"]})%"#,
            "custom": "%CUSTOM_FLAGS%",
            "reply": "%LOCAL_REPLY_BODY%",
            "header": "%REQUEST_HEADER(:PATH)%",
            "one": "%REQ(X-TWO)%",
        });
        let path = bootstrap.dir().join("access.log");
        let format = json!({"json_format": format, "omit_empty_values": omits});
        let http = Http::routing([Route::prefix("/").direct(403, "no")])
            .file_log(json!({"path": path, "log_format": format}));
        let cluster = Cluster::new("app").endpoint(&refused);
        let proxy =
            bootstrap.listener(Listener::new("main", http)).cluster(cluster).start(program).await;
        proxy.get("/a").header("x-two", "1").header("x-two", "2").send().await;
        let line = lines(&proxy, "{").await.remove(0);
        let expected = json!({"unset": "-", "flags": "-", "long flags": "-", "coalesced": "GE",
            "a number": 403, "custom": "", "reply": "", "header": "/a", "one": "1"});
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }
}
