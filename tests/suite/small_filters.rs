//! HTTP filters that have little to say: `buffer`, `health_check`, `on_demand`, `set_filter_state`.

use std::time::Duration;

use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Reply, Route, Value, json,
};

on_both!(
    buffered_requests_have_a_length,
    requests_that_are_too_large_are_refused,
    health_checks_are_answered_by_the_proxy,
    health_checks_go_by_the_health_of_clusters,
    health_checks_may_go_to_the_upstream,
    a_failing_proxy_tells_everybody,
    filters_without_anything_to_do_do_nothing,
    what_requests_say_becomes_filter_state,
);

const BUFFER: &str = "buffer.v3.Buffer";
const HEALTH_CHECK: &str = "health_check.v3.HealthCheck";

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

async fn buffered_requests_have_a_length(program: Program) {
    let app = Backend::echo("app").await;
    let per_route = "buffer.v3.BufferPerRoute";
    let routes = [
        Route::prefix("/off").to("app").tell("buffer", per_route, json!({"disabled": true})),
        Route::prefix("/").to("app"),
    ];
    let limit = json!({"max_request_bytes": 100});
    let proxy = start(program, &app, Http::routing(routes).filter("buffer", BUFFER, limit)).await;
    let call = |path: &str| {
        let call = proxy.client().post(path).header("transfer-encoding", "chunked");
        call.body("one").body_after(Duration::from_millis(20), "two")
    };
    let echo = |reply: &Reply| {
        let echo = reply.echo();
        (echo.body().to_owned(), echo.header("content-length"))
    };
    assert_eq!(echo(&call("/").send().await), ("onetwo".into(), Some("6".into())));
    assert_eq!(echo(&call("/off").send().await), ("onetwo".into(), None));
    let reply = call("/").trailer("x-t", "1").send().await;
    assert_eq!(reply.echo().body(), "onetwo");
    assert_eq!(proxy.get("/").send().await.echo().header("content-length"), None);
}

async fn requests_that_are_too_large_are_refused(program: Program) {
    let app = Backend::echo("app").await;
    let own = json!({"buffer": {"max_request_bytes": 20}});
    let routes = [
        Route::prefix("/own").to("app").tell("buffer", "buffer.v3.BufferPerRoute", own),
        Route::prefix("/").to("app"),
    ];
    let limit = json!({"max_request_bytes": 10});
    let proxy = start(program, &app, Http::routing(routes).filter("buffer", BUFFER, limit)).await;
    for (path, length, status) in
        [("/", 10, 200), ("/", 11, 413), ("/own", 20, 200), ("/own", 21, 413)]
    {
        let reply = proxy.client().post(path).body("b".repeat(length)).send().await;
        assert_eq!(reply.status, status, "{path} {length}");
        assert_eq!(reply.text() == "Payload Too Large", status == 413, "{path} {length}");
    }
    assert_eq!(proxy.stat("http.main.downstream_rq_too_large").await, 2);
}

/// A filter for requests to exactly `path`.
fn check(http: Http, path: &str, mut fields: Value) -> Http {
    fields["headers"] = json!([{"name": ":path", "string_match": {"exact": path}}]);
    http.filter(path, HEALTH_CHECK, fields)
}

/// What the reply says of health, if anything.
fn says(reply: &Reply) -> (u16, Option<String>, Option<String>) {
    let cluster = reply.header("x-envoy-upstream-healthchecked-cluster");
    (reply.status, cluster, reply.header("x-envoy-immediate-health-check-fail"))
}

const ME: Option<&str> = Some("test-cluster");

fn owned(text: Option<&str>) -> Option<String> {
    text.map(ToOwned::to_owned)
}

async fn health_checks_are_answered_by_the_proxy(program: Program) {
    let app = Backend::echo("app").await;
    let http = Http::routing([Route::prefix("/").to("app")]);
    let proxy = start(program, &app, check(http, "/hc", json!({"pass_through_mode": false}))).await;
    let reply = proxy.get("/hc").send().await;
    assert_eq!((says(&reply), reply.text()), ((200, owned(ME), None), String::new()));
    assert_eq!(says(&proxy.get("/hc/more").send().await), (200, None, None));
    assert_eq!(app.count(), 1);
}

async fn health_checks_go_by_the_health_of_clusters(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let of = |http, path: &str, cluster: &str, percent: f64| {
        let percentages = json!({cluster: {"value": percent}});
        let fields =
            json!({"pass_through_mode": false, "cluster_min_healthy_percentages": percentages});
        check(http, path, fields)
    };
    let mut http = Http::routing([Route::prefix("/").to("app")]);
    for (path, cluster, percent) in [
        ("/app", "app", 100.0),
        ("/empty", "empty", 1.0),
        ("/empty-is-fine", "empty", 0.0),
        ("/none", "none", 0.0),
        ("/half", "half", 50.0),
        ("/most", "half", 51.0),
    ] {
        http = of(http, path, cluster, percent);
    }
    let http = http.text_log(&log, "%REQ(:path)% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
    let endpoint = |status: &str| {
        let address = harness::bootstrap::socket_address(app.address());
        json!({"endpoint": {"address": address}, "health_status": status})
    };
    let half = Cluster::new("half").lb_endpoint(endpoint("HEALTHY"));
    let other = harness::port::Port::reserve();
    let address = harness::bootstrap::socket_address((&other).into());
    let half =
        half.lb_endpoint(json!({"endpoint": {"address": address}, "health_status": "UNHEALTHY"}));
    let proxy = bootstrap
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("empty"))
        .cluster(half)
        .start(program)
        .await;
    let expected = [
        ("/app", 200, "- health_check_ok_cluster_healthy"),
        ("/empty", 503, "LH health_check_failed_cluster_empty"),
        ("/empty-is-fine", 200, "- health_check_ok_cluster_healthy"),
        ("/none", 503, "LH health_check_failed_no_cluster_found"),
        ("/half", 200, "- health_check_ok_cluster_healthy"),
        ("/most", 503, "LH health_check_failed_cluster_unhealthy"),
    ];
    for (path, status, _) in expected {
        assert_eq!(proxy.get(path).send().await.status, status, "{path}");
    }
    let lines = harness::eventually("all lines of the log", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        (text.lines().count() == expected.len()).then_some(text)
    });
    let expected = expected.map(|(path, _, said)| format!("{path} {said}"));
    assert_eq!(lines.await.lines().collect::<Vec<_>>(), expected);
}

async fn health_checks_may_go_to_the_upstream(program: Program) {
    let app = Backend::scripted("app", |_| Answer::status(503)).await;
    let http = Http::routing([Route::prefix("/").to("app")]);
    let http = check(http, "/pass", json!({"pass_through_mode": true}));
    let http = check(http, "/cached", json!({"pass_through_mode": true, "cache_time": "60s"}));
    let proxy = start(program, &app, http).await;
    for _ in 0..2 {
        assert_eq!(says(&proxy.get("/pass").send().await), (503, owned(ME), None));
    }
    assert_eq!(app.count(), 2);
    let mut connection = proxy.client().connect().await.unwrap();
    for _ in 0..3 {
        let reply = connection.send(proxy.get("/cached")).await.unwrap();
        assert_eq!(says(&reply), (503, owned(ME), None));
    }
    assert_eq!(app.count(), 3);
}

async fn a_failing_proxy_tells_everybody(program: Program) {
    let app = Backend::echo("app").await;
    let http = Http::routing([Route::prefix("/").to("app")]);
    let http = check(http, "/hc", json!({"pass_through_mode": true}));
    let proxy = start(program, &app, http).await;
    assert_eq!(proxy.get("/hc").send().await.status, 200);
    proxy.admin().post("/healthcheck/fail").send().await;
    let failing = owned(Some("true"));
    assert_eq!(says(&proxy.get("/hc").send().await), (503, owned(ME), failing.clone()));
    assert_eq!(says(&proxy.get("/").send().await), (200, None, failing));
    proxy.admin().post("/healthcheck/ok").send().await;
    assert_eq!(says(&proxy.get("/hc").send().await), (200, owned(ME), None));
}

async fn filters_without_anything_to_do_do_nothing(program: Program) {
    let app = Backend::echo("app").await;
    let state = json!({"on_request_headers": [{
        "object_key": "k", "factory_key": "envoy.string", "read_only": true,
        "format_string": {"text_format_source": {"inline_string": "%REQ(x)%"}},
    }]});
    let http = Http::routing([Route::prefix("/").to("app")])
        .filter("demand", "on_demand.v3.OnDemand", json!({}))
        .filter("state", "set_filter_state.v3.Config", state);
    let proxy = start(program, &app, http).await;
    assert_eq!(proxy.get("/").header("x", "1").send().await.echo().path(), "/");
}

async fn what_requests_say_becomes_filter_state(program: Program) {
    let app = Backend::echo("app").await;
    let value = |key: &str, format: &str| {
        json!({
            "object_key": key,
            "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": format}},
        })
    };
    let mut unless_empty = value("b", "%REQ(y)%");
    unless_empty["skip_if_empty"] = json!(true);
    unless_empty["format_string"]["omit_empty_values"] = json!(true);
    let all = json!([value("a", "%REQ(x)% %REQ(:path)%"), unless_empty, value("c", "%REQ(y)%")]);
    let own = json!({"on_request_headers": [value("own", "route %REQ(x)%")]});
    let message = "set_filter_state.v3.Config";
    let routes =
        [Route::prefix("/own").to("app").tell("state", message, own), Route::prefix("/").to("app")];
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let states = ["a", "b", "c", "own"].map(|key| format!("%FILTER_STATE({key}:PLAIN)%"));
    let http = Http::routing(routes)
        .filter("state", message, json!({"on_request_headers": all}))
        .text_log(&log, &format!("{}|%FILTER_STATE(a)%", states.join("|")));
    let proxy = bootstrap
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    proxy.get("/1").header("x", "1").send().await;
    proxy.get("/own").header("x", "2").header("y", "3").send().await;
    let lines = harness::eventually("both lines of the log", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        (text.lines().count() == 2).then_some(text)
    });
    let expected = ["1 /1|-|-|-|\"1 /1\"", "2 /own|3|3|route 2|\"2 /own\""];
    assert_eq!(lines.await.lines().collect::<Vec<_>>(), expected);
}
