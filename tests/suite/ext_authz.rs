//! The `ext_authz` filter: a service decides about requests, over gRPC or plain HTTP.

mod over_http;
mod routes;
mod told;

use harness::bootstrap::typed;
use harness::{
    AuthzServer, Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Route, Value, json,
};

use crate::differences::{CALLS_ARE_ITS_OWN, Differs as _};

on_both!(
    an_allowed_request_goes_on,
    a_denied_request_is_answered_as_the_service_says,
    a_service_that_does_not_decide_denies,
    a_service_that_does_not_decide_may_allow,
    an_allowed_request_is_changed,
    the_response_to_an_allowed_request_is_changed,
    a_changed_request_may_take_another_route,
    rules_limit_what_is_changed,
    bad_answers_are_refused,
    requests_with_headers_that_are_none_are_not_forwarded,
    services_are_not_told_of_the_proxy_itself,
    what_the_service_says_is_metadata,
    a_filter_may_be_for_a_share_of_requests,
);

const FILTER: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";

/// The filter, asking the cluster `authz` over gRPC, with `fields`.
fn asking(mut fields: Value) -> Value {
    if fields["http_service"].is_null() && fields["grpc_service"].is_null() {
        fields["grpc_service"] = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "2s"});
    }
    fields["transport_api_version"] = "V3".into();
    json!({"name": "authz", "typed_config": typed(FILTER, fields)})
}

/// A connection manager with `filter` and these routes, which logs status, flags, details and metadata.
fn filtering(filter: Value, routes: impl IntoIterator<Item = Route>) -> Http {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let router = json!({"name": "envoy.filters.http.router", "typed_config": router});
    Http::routing(routes).with("stat_prefix", "ing").with("http_filters", vec![filter, router])
}

/// What the access log says: status, flags and details.
const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";

/// A proxy with these clusters, which logs.
async fn start(program: Program, http: Http, clusters: impl IntoIterator<Item = Cluster>) -> Proxy {
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let bootstrap = bootstrap.listener(Listener::new("main", http.text_log(&log, LOG)));
    clusters.into_iter().fold(bootstrap, Bootstrap::cluster).start(program).await
}

/// A proxy in front of `app`, with the filter.
async fn guarding(
    program: Program,
    app: &Backend,
    authz: &AuthzServer,
    fields: Value,
    routes: impl IntoIterator<Item = Route>,
) -> Proxy {
    let http = filtering(asking(fields), routes);
    let clusters =
        [Cluster::new("app").endpoint(app), Cluster::new("authz").endpoint(authz).http2()];
    start(program, http, clusters).await
}

fn to_app() -> [Route; 1] {
    [Route::prefix("/").to("app")]
}

/// A line of the access log, once it is there.
async fn logged(proxy: &Proxy, line: &str) {
    harness::eventually(line, async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        text.lines().any(|it| it == line).then_some(())
    })
    .await;
}

async fn an_allowed_request_goes_on(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let proxy = guarding(program, &app, &authz, json!({}), to_app()).await;
    let reply = proxy.get("/a?b").header("x-a", "1").send().await;
    assert_eq!((reply.status, reply.echo().path()), (200, "/a?b"));
    assert_eq!(authz.count(), 1);
    proxy
        .until_stats([
            ("http.ing.ext_authz.ok", 1),
            ("http.ing.ext_authz.denied", 0),
            ("http.ing.ext_authz.error", 0),
            ("cluster.app.ext_authz.ok", 1),
            ("cluster.authz.upstream_rq_200", 1),
        ])
        .await;
}

async fn a_denied_request_is_answered_as_the_service_says(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let route = Route::prefix("/")
        .to("app")
        .with("response_headers_to_add", json!([{"header": {"key": "x-route", "value": "1"}}]));
    let fields = json!({"stat_prefix": "deny", "max_denied_response_body_bytes": 6});
    let proxy = guarding(program, &app, &authz, fields, [route]).await;
    let reply = proxy.get("/").header("x-verdict", "status: {code: 7}").send().await;
    assert_eq!((reply.status, reply.text()), (403, String::new()));
    assert_eq!(reply.header("x-route").as_deref(), Some("1"));
    logged(&proxy, "403 UAEX ext_authz_denied").await;
    let verdict = "{status: {code: 16}, denied_response: {status: {code: Unauthorized}, body: denied by, headers: [\
        {header: {key: x-d, value: '1'}}, {header: {key: X-D, value: '2'}}, {header: {key: x-e, value: '3'}, append: true}, \
        {header: {key: content-type, value: text/x}, append: false}, {header: {key: set-cookie, value: a=b}}]}}";
    let reply = proxy.get("/").header("x-verdict", verdict).send().await;
    assert_eq!((reply.status, reply.text()), (401, "denied".to_owned()));
    let headers = ["x-d", "x-e", "content-type", "set-cookie"].map(|name| reply.header(name));
    let expected = [Some("1,2"), None, Some("text/x"), Some("a=b")];
    assert_eq!(headers, expected.map(|it| it.map(ToOwned::to_owned)));
    let grpc = proxy.client().post("/").header("content-type", "application/grpc");
    let reply = grpc.header("x-verdict", verdict).send().await;
    assert_eq!((reply.status, reply.header("grpc-status").as_deref()), (200, Some("16")));
    assert_eq!(app.count(), 0);
    proxy
        .until_stats([
            ("http.ing.ext_authz.deny.denied", 3),
            ("cluster.app.ext_authz.deny.denied", 3),
            ("cluster.app.upstream_rq_401", 2),
            ("cluster.app.upstream_rq_403", 1),
        ])
        .await;
}

async fn a_service_that_does_not_decide_denies(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let grpc = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "0.3s"});
    let fields = json!({"grpc_service": grpc, "status_on_error": {"code": "BadGateway"}});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    for verdict in ["fail", "hang"] {
        let reply = proxy.get("/").header("x-verdict", verdict).send().await;
        assert_eq!((reply.status, reply.text()), (502, String::new()), "{verdict}");
    }
    logged(&proxy, "502 UAEX ext_authz_error").await;
    let verdict = "{status: {code: 2}, error_response: {status: {code: NotFound}}}";
    let reply = proxy.get("/").header("x-verdict", verdict).send().await;
    assert_eq!(reply.status, 404);
    logged(&proxy, "404 UAEX ext_authz_error").await;
    drop(authz);
    assert_eq!(proxy.get("/").send().await.status, 502);
    assert_eq!(app.count(), 0);
    proxy.until_stats([("http.ing.ext_authz.error", 4), ("cluster.app.ext_authz.error", 4)]).await;
}

async fn a_service_that_does_not_decide_may_allow(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let fields = json!({"failure_mode_allow": true, "failure_mode_allow_header_add": true});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    let reply = proxy.get("/").header("x-verdict", "fail").send().await;
    let told = |echo: harness::reply::Echo| echo.header("x-envoy-auth-failure-mode-allowed");
    assert_eq!(told(reply.echo()).as_deref(), Some("true"));
    assert_eq!(told(proxy.get("/").send().await.echo()), None);
    let denied = proxy.get("/").header("x-verdict", "status: {code: 7}").send().await;
    assert_eq!(denied.status, 403);
    proxy
        .until_stats([
            ("http.ing.ext_authz.error", 1),
            ("http.ing.ext_authz.failure_mode_allowed", 1),
            ("cluster.app.ext_authz.failure_mode_allowed", 1),
        ])
        .await;
}

async fn an_allowed_request_is_changed(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let proxy = guarding(program, &app, &authz, json!({}), to_app()).await;
    let verdict = "ok_response: {headers: [\
        {header: {key: X-A, value: new}}, {header: {key: x-b, value: add}, append_action: ADD_IF_ABSENT}, \
        {header: {key: x-a, value: second}, append_action: ADD_IF_ABSENT}, \
        {header: {key: x-c, value: set}, append_action: OVERWRITE_IF_EXISTS}, \
        {header: {key: x-a, value: more}, append: true}, {header: {key: x-e, value: none}, append: true}, \
        {header: {key: host, value: b.test}}], headers_to_remove: [x-rm, host, ':path'], \
        query_parameters_to_set: [{key: n, value: a}, {key: z, value: '9'}], query_parameters_to_remove: [e]}";
    let call = proxy.get("/o?q=1&z=2&q=3&e").header("x-a", "1").header("x-rm", "1");
    let echo = call.header("x-verdict", verdict).send().await.echo();
    assert_eq!((echo.path(), echo.host()), ("/o?n=a&q=1&q=3&z=9", "b.test"));
    let headers = ["x-a", "x-b", "x-c", "x-e", "x-rm"].map(|name| echo.header(name));
    let expected = [Some("second,more"), Some("add"), Some("set"), None, None];
    assert_eq!(headers, expected.map(|it| it.map(ToOwned::to_owned)));
    let verdict = "ok_response: {headers: [{header: {key: ':path', value: /other}}, {header: {key: ':method', value: PUT}}]}";
    let echo = proxy.get("/").header("x-verdict", verdict).send().await.echo();
    assert_eq!((echo.path(), echo.method()), ("/other", "PUT"));
}

async fn the_response_to_an_allowed_request_is_changed(program: Program) {
    let app = Backend::scripted("app", |_| harness::Answer::status(200).header("x-own", "1")).await;
    let authz = AuthzServer::as_asked().await;
    let proxy = guarding(program, &app, &authz, json!({}), to_app()).await;
    let verdict = "ok_response: {response_headers_to_add: [\
        {header: {key: x-r, value: '1'}}, {header: {key: x-r, value: '2'}}, \
        {header: {key: x-own, value: '2'}, append_action: ADD_IF_ABSENT}, \
        {header: {key: x-none, value: '1'}, append_action: OVERWRITE_IF_EXISTS}, \
        {header: {key: x-set, value: '1'}, append: false}]}";
    let reply = proxy.get("/").header("x-verdict", verdict).send().await;
    let headers = ["x-r", "x-own", "x-none", "x-set"].map(|name| reply.header(name));
    let expected = [Some("1,2"), Some("1"), None, Some("1")];
    assert_eq!(headers, expected.map(|it| it.map(ToOwned::to_owned)));
}

async fn a_changed_request_may_take_another_route(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let routes = || {
        [
            Route::prefix("/")
                .when_header("x-team", "a")
                .to("app")
                .with("route.prefix_rewrite", "/a/"),
            Route::prefix("/").to("app"),
        ]
    };
    let verdict = "ok_response: {headers: [{header: {key: x-team, value: a}}]}";
    for (clears, path) in [(true, "/a/x"), (false, "/x")] {
        let fields = json!({"clear_route_cache": clears});
        let proxy = guarding(program, &app, &authz, fields, routes()).await;
        let reply = proxy.get("/x").header("x-verdict", verdict).send().await;
        assert_eq!(reply.echo().path(), path, "{clears}");
    }
}

async fn rules_limit_what_is_changed(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let verdict = "ok_response: {headers: [{header: {key: x-no, value: '1'}}, {header: {key: x-yes, value: '1'}}, \
        {header: {key: ':path', value: /z}}, {header: {key: host, value: b.test}}, {header: {key: x-envoy-a, value: '1'}}], \
        headers_to_remove: [x-not]}";
    let rules = json!({"disallow_expression": {"regex": "x-no.*"}});
    let fields = json!({"decoder_header_mutation_rules": rules});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    let call = proxy.get("/").header("x-not", "1").host("a.test");
    let echo = call.header("x-verdict", verdict).send().await.echo();
    assert_eq!((echo.path(), echo.host()), ("/z", "a.test"));
    let headers = ["x-no", "x-yes", "x-envoy-a", "x-not"].map(|name| echo.header(name).is_some());
    assert_eq!(headers, [false, true, false, true]);
    let rules = json!({"disallow_expression": {"regex": "x-no.*"}, "disallow_is_error": true});
    let fields = json!({"decoder_header_mutation_rules": rules});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    assert_eq!(proxy.get("/").header("x-verdict", verdict).send().await.status, 500);
    assert_eq!(proxy.get("/").send().await.status, 200);
    logged(&proxy, "500 UAEX ext_authz_invalid").await;
}

async fn bad_answers_are_refused(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let fields = json!({"validate_mutations": true, "failure_mode_allow": true});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    for verdict in [
        "ok_response: {headers: [{header: {key: x bad, value: a}}]}",
        r#"ok_response: {headers: [{header: {key: x-a, value: "a\nb"}}]}"#,
        "ok_response: {response_headers_to_add: [{header: {key: x bad, value: a}}]}",
        "{status: {code: 7}, denied_response: {headers: [{header: {key: x bad, value: a}}]}}",
    ] {
        let reply = proxy.get("/").header("x-verdict", verdict).send().await;
        assert_eq!(reply.status, 500, "{verdict}");
    }
    assert_eq!(app.count(), 0);
    logged(&proxy, "500 UAEX ext_authz_invalid").await;
    proxy
        .until_stats([("http.ing.ext_authz.invalid", 4), ("cluster.app.ext_authz.invalid", 4)])
        .await;
}

async fn requests_with_headers_that_are_none_are_not_forwarded(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let proxy = guarding(program, &app, &authz, json!({}), to_app()).await;
    for (verdict, said) in [
        (
            "ok_response: {headers: [{header: {key: x bad, value: a}}]}",
            "invalid header name: x bad",
        ),
        (
            r#"ok_response: {headers: [{header: {key: x-a, value: "a\nb"}}]}"#,
            "invalid header value for: x-a",
        ),
    ] {
        let reply = proxy.get("/").header("x-verdict", verdict).send().await;
        assert_eq!((reply.status, &*reply.text()), (503, said));
    }
    assert_eq!(app.count(), 0);
    let details = "filter_removed_required_request_headers{invalid_header_value_for:_x-a}";
    logged(&proxy, &format!("503 DPE {details}")).await;
    proxy.until_stats([("http.ing.ext_authz.invalid", 0), ("http.ing.ext_authz.ok", 2)]).await;
}

async fn services_are_not_told_of_the_proxy_itself(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let proxy = guarding(program, &app, &authz, json!({}), to_app()).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let told = authz.last().headers;
    for name in ["x-forwarded-for", "x-envoy-internal", "x-envoy-expected-rq-timeout-ms"] {
        assert_eq!(told.contains_key(name), program.differs(CALLS_ARE_ITS_OWN), "{name}");
    }
}

async fn what_the_service_says_is_metadata(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    // A route that wants metadata is found once the filter has had it.
    let path =
        |key: &str| json!({"filter": "envoy.filters.http.ext_authz", "path": [{"key": key}]});
    let mut says_team = path("team");
    says_team["value"] = json!({"string_match": {"exact": "a"}});
    let routes = || {
        let wanting = json!({"prefix": "/", "dynamic_metadata": [says_team]});
        [
            Route::matching(wanting).to("app").with("route.prefix_rewrite", "/a/"),
            Route::prefix("/").to("app"),
        ]
    };
    let change = "headers_to_remove: [x-none]";
    for (takes, path) in [(true, "/a/x"), (false, "/x")] {
        let fields = json!({"clear_route_cache": true, "enable_dynamic_metadata_ingestion": takes});
        let proxy = guarding(program, &app, &authz, fields, routes()).await;
        let outer = format!("{{ok_response: {{{change}}}, dynamic_metadata: {{team: a}}}}");
        let reply = proxy.get("/x").header("x-verdict", &outer).send().await;
        assert_eq!(reply.echo().path(), path);
        let inner = format!(
            "{{ok_response: {{{change}, dynamic_metadata: {{team: b}}}}, dynamic_metadata: {{team: a}}}}"
        );
        let reply = proxy.get("/x").header("x-verdict", &inner).send().await;
        assert_eq!(reply.echo().path(), "/x");
        let ignored = if takes { 0 } else { 2 };
        assert_eq!(proxy.stat("http.ing.ext_authz.ignored_dynamic_metadata").await, ignored);
    }
}

async fn a_filter_may_be_for_a_share_of_requests(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let none = json!({"default_value": {"numerator": 0, "denominator": "HUNDRED"}});
    let fields = json!({"filter_enabled": none});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    assert_eq!(proxy.get("/").header("x-verdict", "fail").send().await.status, 200);
    proxy.until_stats([("http.ing.ext_authz.disabled", 1)]).await;
    let fields = json!({
        "filter_enabled": none,
        "deny_at_disable": {"default_value": true, "runtime_key": "deny"},
        "status_on_error": {"code": "BadGateway"},
    });
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    assert_eq!(proxy.get("/").send().await.status, 502);
    logged(&proxy, "502 UAEX ext_authz_error").await;
    // As Istio asks for what one of its policies would deny.
    let key = json!([{"key": "shadow"}]);
    let says = json!({"filter": "rbac", "path": key, "value": {"string_match": {"prefix": "x"}}});
    let fields = json!({"filter_enabled_metadata": says});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    assert_eq!(proxy.get("/").header("x-verdict", "fail").send().await.status, 200);
    proxy.until_stats([("http.ing.ext_authz.disabled", 1)]).await;
    assert_eq!(authz.count(), 0);
}
