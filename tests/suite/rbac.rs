//! The `rbac` filter of HTTP: who may make which requests.

pub(crate) mod clients;
mod conditions;
mod metadata;

use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Route, Value, eventually,
    json,
};

on_both!(
    a_request_that_no_policy_allows_is_denied,
    policies_ask_for_method_path_and_headers,
    a_repeated_header_hides_nothing,
    paths_are_asked_about_as_they_are_forwarded,
    parameters_of_a_path_count_as_they_do_for_routes,
    routes_may_have_rules_of_their_own,
    a_grpc_client_reads_its_status,
);

fn any() -> Value {
    json!([{"any": true}])
}

fn policy(permissions: Value, principals: Value) -> Value {
    object([("permissions", permissions), ("principals", principals)])
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
}

/// A policy of these permissions for everybody.
fn may(permissions: Value) -> Value {
    policy(permissions, any())
}

/// A policy for these principals, whatever they do.
pub(crate) fn who(principals: Value) -> Value {
    policy(any(), principals)
}

pub(crate) fn rules(action: &str, policies: Value) -> Value {
    object([("action", action.into()), ("policies", policies)])
}

fn filter(name: &str, config: Value) -> Value {
    let config = typed("envoy.extensions.filters.http.rbac.v3.RBAC", config);
    json!({"name": name, "typed_config": config})
}

/// Routes behind `rbac` filters.
fn guarded(
    filters: impl IntoIterator<Item = Value>,
    routes: impl IntoIterator<Item = Route>,
) -> Http {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let router = json!({"name": "envoy.filters.http.router", "typed_config": router});
    let filters: Vec<Value> = filters.into_iter().chain([router]).collect();
    Http::routing(routes).with("stat_prefix", "ing").with("http_filters", filters)
}

fn ok(route: Route) -> Route {
    route.direct(200, "ok")
}

/// One filter with these rules, in front of everything.
fn ruled(action: &str, policies: Value) -> Http {
    guarded([filter("rbac", json!({"rules": rules(action, policies)}))], [ok(Route::prefix("/"))])
}

async fn start(program: Program, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let http = http.text_log(&log, "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%");
    bootstrap.listener(Listener::new("main", http)).start(program).await
}

async fn status(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> u16 {
    let call = proxy.get(path);
    headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await.status
}

pub(crate) async fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    eventually("lines in the access log", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        let lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
    .await
}

async fn a_request_that_no_policy_allows_is_denied(program: Program) {
    let policies = json!({
        "b ad[1]:x": may(json!([{"header": {"name": "x-bad", "present_match": true}}])),
        "a": may(json!([{"header": {"name": "x-a", "present_match": true}}])),
    });
    let proxy = start(program, ruled("DENY", policies.clone())).await;
    let reply = proxy.get("/").header("x-bad", "1").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "RBAC: access denied"));
    assert_eq!(reply.header("content-type").as_deref(), Some("text/plain"));
    assert_eq!(status(&proxy, "/", &[("x-bad", "1"), ("x-a", "1")]).await, 403);
    assert_eq!(status(&proxy, "/", &[]).await, 200);
    let expected = [
        "403 rbac_access_denied_matched_policy[b_ad[1]:x] -",
        "403 rbac_access_denied_matched_policy[a] -",
        "200 direct_response -",
    ];
    assert_eq!(lines(&proxy, 3).await, expected);
    proxy.until_stats([("http.ing.rbac.denied", 2), ("http.ing.rbac.allowed", 1)]).await;

    let proxy = start(program, ruled("ALLOW", policies)).await;
    assert_eq!(status(&proxy, "/", &[("x-a", "1")]).await, 200);
    assert_eq!(status(&proxy, "/", &[]).await, 403);
    let expected = ["200 direct_response -", "403 rbac_access_denied_matched_policy[none] -"];
    assert_eq!(lines(&proxy, 2).await, expected);
    assert_eq!(status(&start(program, ruled("ALLOW", json!({}))).await, "/", &[]).await, 403);
}

async fn policies_ask_for_method_path_and_headers(program: Program) {
    let template = |form: &str| {
        let name = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
        json!({"uri_template": {"name": "t", "typed_config": typed(name, json!({"path_template": form}))}})
    };
    let header =
        |name: &str, matcher: Value| json!({"header": {"name": name, "string_match": matcher}});
    let all = |rules: Value| json!({"and_rules": {"rules": rules}});
    let policies = json!({
        "reads": may(json!([all(json!([
            header(":method", json!({"exact": "GET"})),
            {"url_path": {"path": {"prefix": "/read/"}}},
            {"not_rule": {"url_path": {"path": {"suffix": "/secret"}}}},
        ]))])),
        "host": may(json!([header(":authority", json!({"suffix": ".test", "ignore_case": true}))])),
        "templates": may(json!([template("/user/*/items"), template("/files/{path=**}.jpg")])),
        "query": may(json!([header(":path", json!({"exact": "/q?a=b"}))])),
        "regex": may(json!([{"url_path": {"path": {"safe_regex": {"regex": "/v[0-9]+"}}}}])),
    });
    let proxy = start(program, ruled("ALLOW", policies)).await;
    for (path, expected) in [
        ("/read/a", 200),
        ("/read/a?x=/secret", 200),
        ("/read/secret", 403),
        ("/read", 403),
        ("/user/1/items", 200),
        ("/user/1/items?q", 200),
        ("/user/1/2/items", 403),
        ("/user//items", 403),
        ("/files/a/b.jpg", 200),
        ("/files/a/b.png", 403),
        ("/q?a=b", 200),
        ("/q", 403),
        ("/v12", 200),
        ("/v12?x", 200),
        ("/v", 403),
        ("/xv1", 403),
    ] {
        assert_eq!(status(&proxy, path, &[]).await, expected, "{path}");
    }
    let reply = proxy.client().post("/read/a").send().await;
    assert_eq!(reply.status, 403);
    assert_eq!(proxy.get("/").host("a.TEST").send().await.status, 200);
    assert_eq!(proxy.get("/").host("a.test.x").send().await.status, 403);
}

async fn a_repeated_header_hides_nothing(program: Program) {
    let is_a = json!({"header": {"name": "x", "string_match": {"exact": "a"}}});
    let is_not_a =
        json!({"header": {"name": "x", "string_match": {"exact": "a"}, "invert_match": true}});
    let is_small = json!({"header": {"name": "x", "range_match": {"start": 1, "end": 5}}});
    for (rule, expected) in [
        (is_a, [403, 200, 200, 200, 403, 403]),
        (is_not_a, [403, 403, 403, 403, 200, 200]),
        (is_small, [403, 403, 403, 403, 403, 200]),
    ] {
        let proxy = start(program, ruled("ALLOW", json!({"p": may(json!([rule]))}))).await;
        let sent: [&[&str]; 6] = [&[], &["a"], &["a", "b"], &["b", "a"], &["a,b"], &["9", "3"]];
        for (values, expected) in sent.into_iter().zip(expected) {
            let headers: Vec<_> = values.iter().map(|value| ("x", *value)).collect();
            assert_eq!(status(&proxy, "/", &headers).await, expected, "{rule} {values:?}");
        }
    }
}

async fn paths_are_asked_about_as_they_are_forwarded(program: Program) {
    let app = Backend::echo("app").await;
    let policies = json!({"p": may(json!([{"url_path": {"path": {"prefix": "/admin"}}}]))});
    let http = guarded(
        [filter("rbac", json!({"rules": rules("DENY", policies)}))],
        [Route::prefix("/").to("app")],
    );
    let http = http
        .with("normalize_path", true)
        .with("merge_slashes", true)
        .with("path_with_escaped_slashes_action", "UNESCAPE_AND_FORWARD");
    let proxy =
        Bootstrap::http(http).cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    for path in [
        "/admin",
        "/x/../admin",
        "//admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/.//admin",
        "/x%2f../admin",
        "/admin%2fx",
    ] {
        let mut connection = proxy.connect().await;
        connection.write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let head = connection.read_head().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{path}: {head}");
    }
    for (path, seen) in [("/x/../a", "/a"), ("/Admin", "/Admin"), ("/a%20b", "/a%20b")] {
        let mut connection = proxy.connect().await;
        connection.write(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let head = connection.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        connection.read_until(&format!("\"{seen}\"")).await;
    }
}

async fn parameters_of_a_path_count_as_they_do_for_routes(program: Program) {
    let policies = json!({"p": may(json!([{"url_path": {"path": {"exact": "/a/b"}}}]))});
    let proxy = start(program, ruled("ALLOW", policies.clone())).await;
    let statuses = async |proxy: &Proxy| {
        let mut all = Vec::new();
        for path in ["/a/b", "/a;x/b", "/a/b;y?q;z", "/a;/b/c"] {
            all.push(status(proxy, path, &[]).await);
        }
        all
    };
    assert_eq!(statuses(&proxy).await, [200, 403, 403, 403]);
    let http = guarded(
        [filter("rbac", json!({"rules": rules("ALLOW", policies)}))],
        [Route::path("/a/b").direct(200, "ok"), Route::prefix("/").direct(404, "no")],
    );
    let http = http.with("route_config.ignore_path_parameters_in_path_matching", true);
    assert_eq!(statuses(&start(program, http).await).await, [200, 200, 200, 403]);
}

async fn routes_may_have_rules_of_their_own(program: Program) {
    let deny_all = || rules("DENY", json!({"all": may(any())}));
    let route = |path: &str, said: Value| {
        ok(Route::prefix(path)).with("typed_per_filter_config", json!({"rbac": said}))
    };
    let own = |config: Value| typed("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", config);
    let on_header = may(json!([{"header": {"name": "x-in", "present_match": true}}]));
    let routes = [
        route("/free", own(json!({}))),
        route(
            "/own",
            own(json!({"rbac": {
                "rules": rules("ALLOW", json!({"in": on_header})),
                "rules_stat_prefix": "unused_",
                "track_per_rule_stats": true,
            }})),
        ),
        route("/off", typed("envoy.config.route.v3.FilterConfig", json!({"disabled": true}))),
        ok(Route::prefix("/")),
    ];
    let filters = [filter("rbac", json!({"rules": deny_all(), "rules_stat_prefix": "main_"}))];
    let proxy = start(program, guarded(filters, routes)).await;
    for (path, headers, expected) in [
        ("/", &[][..], 403),
        ("/free", &[], 200),
        ("/off", &[], 200),
        ("/own", &[], 403),
        ("/own", &[("x-in", "1")], 200),
    ] {
        assert_eq!(status(&proxy, path, headers).await, expected, "{path} {headers:?}");
    }
    proxy
        .until_stats([
            ("http.ing.rbac.main_.denied", 2),
            ("http.ing.rbac.main_.allowed", 1),
            ("http.ing.rbac.main_.policy.in.allowed", 1),
        ])
        .await;
}

async fn a_grpc_client_reads_its_status(program: Program) {
    let proxy = start(program, ruled("ALLOW", json!({}))).await;
    let call = Client::http2(proxy.address("main")).post("/s/m");
    let reply = call.header("content-type", "application/grpc").send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("grpc-status").as_deref(), Some("7"));
    assert_eq!(reply.header("grpc-message").as_deref(), Some("RBAC: access denied"));
}
