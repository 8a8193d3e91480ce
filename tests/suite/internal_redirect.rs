//! Redirects that the proxy follows for its client.

use harness::{Answer, Backend, Bootstrap, Client, Cluster, Program, Proxy, Route, Value, json};

on_both!(
    a_redirect_is_followed,
    only_some_redirects_are_followed,
    a_redirect_brings_the_body_along,
    see_other_is_asked_for_with_get,
    redirects_are_followed_so_many_times,
    schemes_change_only_where_that_is_allowed,
    predicates_decide_about_routes,
    headers_of_the_redirect_are_copied,
    a_redirect_is_logged_as_a_request_of_its_own,
);

/// Redirects requests with the header `x-to` there, with the status of `x-status` (302); echoes all others.
async fn redirecting() -> Backend {
    Backend::scripted("app", |call| {
        let Some(to) = call.header("x-to").filter(|_| call.path.starts_with("/from")) else {
            return Answer::echo();
        };
        let status = call.header("x-status").map_or(302, |status| status.parse().unwrap());
        Answer::status(status).header("location", to).header("x-copied", "new").body("moved")
    })
    .await
}

async fn following(program: Program, policy: Value) -> (Proxy, Backend) {
    let app = redirecting().await;
    let from = Route::prefix("/from").to("app").with("name", "from");
    let proxy = Bootstrap::routing([
        from.with("route.internal_redirect_policy", policy).with("route.prefix_rewrite", "/from"),
        Route::prefix("/to").to("app").with("name", "to"),
        Route::prefix("/direct").direct(203, "direct").with("name", "direct"),
    ])
    .cluster(Cluster::new("app").endpoint(&app))
    .start(program)
    .await;
    (proxy, app)
}

async fn a_redirect_is_followed(program: Program) {
    let (proxy, app) = following(program, json!({})).await;
    let call = proxy.get("/from/a").host("a.com").header("x-to", "http://b.com:81/to/x?q#part");
    let reply = call.send().await;
    assert_eq!(reply.status, 200);
    let echo = reply.echo();
    assert_eq!((echo.host(), echo.path()), ("b.com:81", "/to/x?q"));
    assert_eq!(echo.header("x-envoy-original-url").as_deref(), Some("http://a.com/from/a"));
    let (first, second) = (app.calls().remove(0), app.calls().remove(1));
    assert_eq!(first.header("x-request-id"), second.header("x-request-id"));
    proxy
        .until_stats([
            ("cluster.app.upstream_internal_redirect_succeeded_total", 1),
            ("http.main.downstream_rq_total", 2),
            ("http.main.downstream_rq_completed", 1),
            ("http.main.downstream_rq_active", 0),
            ("http.main.rq_total", 2),
        ])
        .await;
    let direct = proxy.get("/from").header("x-to", "http://b.com/direct").send().await;
    assert_eq!((direct.status, direct.text().as_str()), (203, "direct"));
}

async fn only_some_redirects_are_followed(program: Program) {
    let (proxy, _app) =
        following(program, json!({"redirect_response_codes": [301, 307, 404]})).await;
    for (status, to, wanted) in [
        ("301", "http://b.com/to", 200),
        ("302", "http://b.com/to", 302),
        ("307", "http://b.com/nowhere", 307),
        ("307", "/to", 307),
        ("307", "b.com", 307),
        ("404", "http://b.com/to", 404),
    ] {
        let call = proxy.get("/from").header("x-to", to).header("x-status", status);
        let reply = call.send().await;
        assert_eq!(reply.status, wanted, "{status} {to}");
        if wanted != 200 {
            assert_eq!(reply.header("location").as_deref(), Some(to));
            assert_eq!(reply.text(), "moved");
        }
    }
    proxy
        .until_stats([
            ("cluster.app.upstream_internal_redirect_succeeded_total", 1),
            ("cluster.app.upstream_internal_redirect_failed_total", 3),
            ("http.main.passthrough_internal_redirect_bad_location", 2),
            ("http.main.passthrough_internal_redirect_no_route", 1),
        ])
        .await;
}

async fn a_redirect_brings_the_body_along(program: Program) {
    let (proxy, app) = following(program, json!({"redirect_response_codes": [307]})).await;
    let body = "0123456789".repeat(5000);
    for client in [proxy.client(), Client::http2(proxy.address("main"))] {
        let call = client.post("/from").header("x-to", "http://b.com/to").header("x-status", "307");
        let reply = call.body(body.clone()).send().await;
        assert_eq!((reply.status, reply.echo().method()), (200, "POST"));
        assert!(reply.echo().body() == body);
    }
    assert_eq!(app.count(), 4);
}

async fn see_other_is_asked_for_with_get(program: Program) {
    let (proxy, app) = following(program, json!({"redirect_response_codes": [303]})).await;
    let call = proxy.client().post("/from").header("x-to", "http://b.com/to");
    let reply = call.header("x-status", "303").body("body").send().await;
    assert_eq!((reply.status, reply.echo().method(), reply.echo().body()), (200, "GET", ""));
    assert_eq!(reply.echo().header("content-length"), None);
    assert_eq!(app.calls()[0].body, "body");
}

async fn redirects_are_followed_so_many_times(program: Program) {
    let (proxy, app) = following(program, json!({"max_internal_redirects": 3})).await;
    let reply = proxy.get("/from").header("x-to", "http://b.com/from").send().await;
    assert_eq!((reply.status, app.count()), (302, 4));
    proxy
        .until_stats([
            ("cluster.app.upstream_internal_redirect_succeeded_total", 3),
            ("cluster.app.upstream_internal_redirect_failed_total", 1),
            ("http.main.passthrough_internal_redirect_too_many_redirects", 1),
        ])
        .await;
}

fn predicate(name: &str, message: &str, mut config: Value) -> Value {
    let name = format!("envoy.extensions.internal_redirect.{name}.v3.{message}");
    config["@type"] = format!("type.googleapis.com/{name}").into();
    json!({"name": message, "typed_config": config})
}

async fn schemes_change_only_where_that_is_allowed(program: Program) {
    let safe = predicate("safe_cross_scheme", "SafeCrossSchemeConfig", json!({}));
    for (policy, status) in [
        (json!({}), 302),
        (json!({"allow_cross_scheme_redirect": true}), 200),
        (json!({"allow_cross_scheme_redirect": true, "predicates": [safe]}), 302),
    ] {
        let (proxy, _app) = following(program, policy.clone()).await;
        let reply = proxy.get("/from").header("x-to", "https://b.com/to").send().await;
        assert_eq!(reply.status, status, "{policy}");
        let counted = match policy.as_object().unwrap().len() {
            0 => "http.main.passthrough_internal_redirect_unsafe_scheme",
            1 => "cluster.app.upstream_internal_redirect_succeeded_total",
            _ => "http.main.passthrough_internal_redirect_predicate",
        };
        proxy.until_stat(counted, |count| count == 1).await;
    }
}

async fn predicates_decide_about_routes(program: Program) {
    let listed = json!({"allowed_route_names": ["to"]});
    let listed = predicate("allow_listed_routes", "AllowListedRoutesConfig", listed);
    let (proxy, _app) = following(program, json!({"predicates": [listed]})).await;
    for (to, status) in [("http://b.com/to", 200), ("http://b.com/direct", 302)] {
        assert_eq!(proxy.get("/from").header("x-to", to).send().await.status, status, "{to}");
    }
    let previous = predicate("previous_routes", "PreviousRoutesConfig", json!({}));
    let policy = json!({"max_internal_redirects": 9, "predicates": [previous]});
    let (proxy, app) = following(program, policy).await;
    let reply = proxy.get("/from").header("x-to", "http://b.com/from").send().await;
    assert_eq!((reply.status, app.count()), (302, 2));
    proxy.until_stat("http.main.passthrough_internal_redirect_predicate", |count| count == 1).await;
}

async fn headers_of_the_redirect_are_copied(program: Program) {
    let policy = json!({"response_headers_to_copy": ["x-copied", "x-gone"]});
    let (proxy, app) = following(program, policy).await;
    let call = proxy.get("/from").header("x-to", "http://b.com/to").header("x-copied", "old");
    let echo = call.header("x-gone", "1").header("x-kept", "1").send().await.echo();
    assert_eq!(echo.header("x-copied").as_deref(), Some("new"));
    assert_eq!((echo.header("x-gone"), echo.header("x-kept").as_deref()), (None, Some("1")));
    assert_eq!(app.calls()[0].header("x-copied"), Some("old"));
}

async fn a_redirect_is_logged_as_a_request_of_its_own(program: Program) {
    let app = redirecting().await;
    let from = Route::prefix("/from").to("app").with("route.internal_redirect_policy", json!({}));
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %ROUTE_NAME%";
    let http = harness::Http::routing([from, Route::prefix("/to").to("app").with("name", "to")]);
    let proxy = bootstrap
        .listener(harness::Listener::new("main", http.text_log(&log, format)))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let reply = proxy.get("/from").header("x-to", "http://b.com/to").send().await;
    assert_eq!(reply.status, 200);
    harness::eventually::eventually_true("both are logged", async || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        lines == "/to 302 internal_redirect to\n/to 200 via_upstream to\n"
    })
    .await;
}
