//! The `rbac` filter of HTTP: who may make which requests.

mod conditions;
mod metadata;

use certs::Request;
use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Proxy, RawConnection, Route,
    Value, eventually, json,
};

on_both!(
    a_request_that_no_policy_allows_is_denied,
    policies_ask_for_method_path_and_headers,
    a_repeated_header_hides_nothing,
    paths_are_asked_about_as_they_are_forwarded,
    parameters_of_a_path_count_as_they_do_for_routes,
    clients_are_known_by_their_certificates,
    a_certificate_may_have_to_be_verified,
    addresses_are_those_of_the_socket_of_a_header_or_of_a_proxy,
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

/// A client that presents a certificate with these names.
fn named(proxy: &Proxy, pki: &Pki, request: &Request) -> Client {
    proxy.client().tls(pki.client(Some(&pki.issue("client", request))))
}

pub(crate) fn authenticated(matcher: Value) -> Value {
    let name = object([("principal_name", matcher)]);
    vec![object([("authenticated", name)])].into()
}

async fn clients_are_known_by_their_certificates(program: Program) {
    let policies = json!({
        "uri": who(authenticated(json!({"exact": "spiffe://cluster.local/ns/a/sa/b"}))),
        "namespace": who(authenticated(json!({"safe_regex": {"regex": ".*/ns/ops/.*"}}))),
        "dns": who(authenticated(json!({"suffix": ".ops.test"}))),
        "subject": who(authenticated(json!({"exact": "CN=carl,O=Ops"}))),
        "anyone": {"permissions": [{"url_path": {"path": {"exact": "/tls"}}}], "principals": [{"authenticated": {}}]},
        "empty": {
            "permissions": [{"url_path": {"path": {"exact": "/empty"}}}],
            "principals": authenticated(json!({"exact": ""})),
        },
    });
    let pki = Pki::new();
    let server = pki.workload("server");
    let mut tls = pki.mutual(&server);
    tls["require_client_certificate"] = false.into();
    let http = ruled("ALLOW", policies);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http.clone()).tls(tls))
        .listener(Listener::new("plain", http))
        .start(program)
        .await;
    let uri = |account: &str| Request::default().uri(account);
    for (request, expected) in [
        (uri("spiffe://cluster.local/ns/a/sa/b"), 200),
        (uri("spiffe://cluster.local/ns/a/sa/bb"), 403),
        (uri("spiffe://x/ns/ops/sa/any"), 200),
        (uri("spiffe://x/ns/other/sa/any").uri("spiffe://cluster.local/ns/a/sa/b"), 200),
        (uri("spiffe://x/ns/other/sa/any").dns("one.ops.test"), 200),
        (Request::default().dns("one.test").organization("Ops").common_name("carl"), 200),
        (Request::default().dns("one.test").organization("Dev").common_name("carl"), 403),
    ] {
        let reply = named(&proxy, &pki, &request).get("/").send().await;
        assert_eq!(reply.status, expected, "{request:?}");
    }
    let nobody = proxy.client().tls(pki.client(None));
    let plain = Client::http1(proxy.address("plain"));
    for (path, with_tls, without) in [("/", 403, 403), ("/tls", 200, 403), ("/empty", 200, 403)] {
        assert_eq!(nobody.get(path).send().await.status, with_tls, "{path}");
        assert_eq!(plain.get(path).send().await.status, without, "{path}");
    }
}

async fn a_certificate_may_have_to_be_verified(program: Program) {
    let custom = |fields: Value| {
        let name = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
        json!([{"custom": {"name": "mtls", "typed_config": typed(name, fields)}}])
    };
    let at = |path: &str, principals: Value| {
        policy(json!([{"url_path": {"path": {"exact": path}}}]), principals)
    };
    let san =
        |kind: &str, matcher: Value| json!({"san_matcher": {"san_type": kind, "matcher": matcher}});
    let policies = json!({
        "any": at("/any", custom(json!({"any_validated_client_certificate": true}))),
        "uri": at("/uri", custom(san("URI", json!({"prefix": "spiffe://td/ns/a/"})))),
        "dns": at("/dns", custom(san("DNS", json!({"exact": "one.test"})))),
        "weak": at("/weak", authenticated(json!({"prefix": "spiffe://td/ns/a/"}))),
    });
    let pki = Pki::new();
    let server = pki.workload("server");
    let mut tls = pki.mutual(&server);
    tls["require_client_certificate"] = false.into();
    let mut lax = tls.clone();
    let validation = &mut lax["common_tls_context"]["validation_context"];
    validation["trust_chain_verification"] = "ACCEPT_UNTRUSTED".into();
    let http = ruled("ALLOW", policies);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http.clone()).tls(tls))
        .listener(Listener::new("lax", http).tls(lax))
        .start(program)
        .await;
    let request = Request::default().uri("spiffe://td/ns/a/sa/b").dns("one.test");
    let known = pki.client(Some(&pki.issue("known", &request)));
    let stranger = pki.client(Some(&Pki::new().issue("stranger", &request)));
    let other = pki.client(Some(&pki.issue("other", &Request::default().dns("two.test"))));
    let nobody = pki.client(None);
    let lax = Client::http1(proxy.address("lax"));
    for (path, expected) in [
        ("/any", [200, 403, 200, 200, 403]),
        ("/uri", [200, 403, 403, 200, 403]),
        ("/dns", [200, 403, 403, 200, 403]),
        ("/weak", [200, 403, 403, 200, 200]),
    ] {
        let strictly = [&known, &nobody, &other].map(|it| proxy.client().tls(it.clone()));
        let laxly = [&known, &stranger].map(|it| lax.clone().tls(it.clone()));
        for (client, expected) in strictly.into_iter().chain(laxly).zip(expected) {
            assert_eq!(client.get(path).send().await.status, expected, "{path}");
        }
    }
}

async fn addresses_are_those_of_the_socket_of_a_header_or_of_a_proxy(program: Program) {
    let range = |ip: &str| json!({"address_prefix": ip, "prefix_len": 32});
    let at = |path: &str, principal: Value| json!({"permissions": [{"url_path": {"path": {"exact": path}}}], "principals": [principal]});
    let bootstrap = Bootstrap::new();
    let policies = json!({
        "remote": at("/remote", json!({"remote_ip": range("1.2.3.4")})),
        "source": at("/source", json!({"source_ip": range("5.6.7.8")})),
        "direct": at("/direct", json!({"direct_remote_ip": range("127.0.0.1")})),
        "to": may(json!([{"and_rules": {"rules": [
            {"url_path": {"path": {"exact": "/to"}}},
            {"destination_ip": range("9.9.9.9")},
            {"destination_port_range": {"start": 80, "end": 81}},
            {"not_rule": {"destination_port": 81}},
        ]}}])),
    });
    let http = ruled("ALLOW", policies);
    let behind = Listener::new("behind", http.clone()).listener_filter(
        "proxy_protocol",
        "ProxyProtocol",
        json!({}),
    );
    let proxy =
        bootstrap.listener(Listener::new("main", http)).listener(behind).start(program).await;
    let forwarded = [("x-forwarded-for", "1.2.3.4")];
    for (path, direct, with_header) in
        [("/remote", 403, 200), ("/source", 403, 403), ("/direct", 200, 200), ("/to", 403, 403)]
    {
        assert_eq!(status(&proxy, path, &[]).await, direct, "{path}");
        assert_eq!(status(&proxy, path, &forwarded).await, with_header, "{path}");
    }
    for (path, expected) in
        [("/remote", "403"), ("/source", "200"), ("/direct", "200"), ("/to", "200")]
    {
        let mut connection = RawConnection::open(proxy.address("behind")).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        connection.write(format!("PROXY TCP4 5.6.7.8 9.9.9.9 1000 80\r\n{request}")).await;
        let head = connection.read_head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {head}");
    }
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
