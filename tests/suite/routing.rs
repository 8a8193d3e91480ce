//! Which virtual host and which route a request takes, and what the route does with it.

use harness::{Backend, Bootstrap, Cluster, Http, Program, Proxy, Route, VirtualHost, json};

on_both!(
    the_most_specific_domain_wins,
    the_first_matching_route_wins,
    every_kind_of_path_match,
    every_kind_of_header_match,
    absent_and_repeated_headers_match_as_in_envoy,
    query_parameters_match,
    a_request_without_a_route_gets_404,
    a_route_to_an_unknown_cluster_is_answered_as_configured,
    a_cluster_named_by_a_header,
    direct_responses,
    redirects,
    rewrites_of_path_and_host,
    header_changes_at_four_levels,
    a_cluster_without_endpoints_gets_503,
);

async fn the_most_specific_domain_wins(program: Program) {
    let host = |name: &str, domain: &str| {
        VirtualHost::new(name, [domain], [Route::prefix("/").direct(200, name)])
    };
    let proxy = Bootstrap::http(Http::hosting([
        host("default", "*"),
        host("suffix", "*.example.com"),
        host("long suffix", "*.shop.example.com"),
        host("prefix", "www.*"),
        host("exact", "www.example.com"),
        host("with port", "ported.test:8080"),
    ]))
    .start(program)
    .await;
    for (asked, answered) in [
        ("www.example.com", "exact"),
        ("WWW.EXAMPLE.com", "exact"),
        ("a.example.com", "suffix"),
        ("a.shop.example.com", "long suffix"),
        ("example.com", "default"),
        ("www.example.org", "prefix"),
        ("ported.test:8080", "with port"),
        ("ported.test", "default"),
        ("anything", "default"),
    ] {
        let reply = proxy.get("/").host(asked).send().await;
        assert_eq!(reply.text(), answered, "{asked}");
    }
}

async fn the_first_matching_route_wins(program: Program) {
    let proxy = Bootstrap::routing([
        Route::prefix("/a/b").direct(200, "first"),
        Route::prefix("/a").direct(200, "second"),
        Route::path("/a/c").direct(200, "never"),
    ])
    .start(program)
    .await;
    assert_answers(&proxy, &[("/a/b/c", "first"), ("/a/c", "second"), ("/a", "second")]).await;
}

async fn every_kind_of_path_match(program: Program) {
    let on = |matching, body: &str| Route::matching(matching).direct(200, body);
    let proxy = Bootstrap::routing([
        on(json!({"path": "/exact"}), "path"),
        on(json!({"path": "/folded", "case_sensitive": false}), "folded path"),
        on(json!({"path_separated_prefix": "/api"}), "separated"),
        on(json!({"safe_regex": {"regex": "/v[0-9]+/item"}}), "regex"),
        on(json!({"prefix": "/Pre", "case_sensitive": false}), "folded prefix"),
        on(json!({"prefix": "/"}), "rest"),
    ])
    .start(program)
    .await;
    assert_answers(
        &proxy,
        &[
            ("/exact", "path"),
            ("/exact?query=1", "path"),
            ("/exact/", "rest"),
            ("/FOLDED", "folded path"),
            ("/api", "separated"),
            ("/api/users", "separated"),
            ("/api?q", "separated"),
            ("/apiary", "rest"),
            ("/v12/item", "regex"),
            ("/v12/item?x=y", "regex"),
            ("/v12/items", "rest"),
            ("/prefix", "folded prefix"),
        ],
    )
    .await;
}

async fn every_kind_of_header_match(program: Program) {
    let on = |matcher, body: &str| {
        Route::matching(json!({"prefix": "/", "headers": [matcher]})).direct(200, body)
    };
    let text = |rule| json!({"name": "x-a", "string_match": rule});
    let proxy = Bootstrap::routing([
        on(text(json!({"exact": "one"})), "exact"),
        on(text(json!({"exact": "FOLD", "ignore_case": true})), "folded"),
        on(text(json!({"prefix": "pre"})), "prefix"),
        on(text(json!({"suffix": "post"})), "suffix"),
        on(text(json!({"contains": "mid"})), "contains"),
        on(text(json!({"safe_regex": {"regex": "r[0-9]"}})), "regex"),
        on(json!({"name": "x-n", "range_match": {"start": -5, "end": 10}}), "range"),
        on(json!({"name": "x-p", "present_match": true}), "present"),
        on(json!({"name": ":method", "string_match": {"exact": "PUT"}}), "method"),
        on(
            json!({"name": "x-q", "string_match": {"exact": "z"}, "invert_match": true,
                  "treat_missing_header_as_empty": true}),
            "not z",
        ),
    ])
    .start(program)
    .await;
    let z = ("x-q", "z");
    for (headers, answered) in [
        ([("x-a", "one"), z], "exact"),
        ([("x-a", "fold"), z], "folded"),
        ([("x-a", "prefixed"), z], "prefix"),
        ([("x-a", "compost"), z], "suffix"),
        ([("x-a", "amidst"), z], "contains"),
        ([("x-a", "r7"), z], "regex"),
        ([("x-n", "-5"), z], "range"),
        ([("x-p", ""), z], "present"),
        ([("x-n", "10"), ("x-q", "y")], "not z"),
    ] {
        let [one, two] = headers;
        let call = proxy.get("/").header(one.0, one.1).header(two.0, two.1);
        assert_eq!(call.send().await.text(), answered, "{headers:?}");
    }
    let put = proxy.client().call(http::Method::PUT, "/").header("x-q", "z").send().await;
    assert_eq!(put.text(), "method");
    assert_eq!(proxy.get("/").send().await.text(), "not z", "a missing header counts as empty");
    let several = proxy.get("/").header("x-a", "on").header("x-a", "e").header("x-q", "z");
    assert_eq!(several.send().await.status, 404, "each of several values is matched by itself");
}

async fn absent_and_repeated_headers_match_as_in_envoy(program: Program) {
    let exact = json!({"string_match": {"exact": "a"}});
    let empty = json!({"string_match": {"exact": ""}});
    let regex = json!({"string_match": {"safe_regex": {"regex": "a.*"}}});
    let range = json!({"range_match": {"start": 1, "end": 5}});
    let present = json!({"present_match": true});
    let absent = json!({"present_match": false});
    let requests: [&[&str]; 6] = [&[], &[""], &["a"], &["b"], &["3"], &["b", "a"]];
    // Whether the route is taken for each of these: as it stands, inverted, with an absent header taken as an empty
    // one, and both.
    let table = [
        (exact, ["--y--y", "-y-yy-", "--y--y", "yy-yy-"]),
        (empty, ["-y----", "--yyyy", "yy----", "--yyyy"]),
        (regex, ["--y--y", "-y-yy-", "--y--y", "yy-yy-"]),
        (range, ["----y-", "-yyy-y", "----y-", "yyyy-y"]),
        (present, ["-yyyyy", "y-----", "yyyyyy", "------"]),
        (absent, ["y-----", "-yyyyy", "------", "yyyyyy"]),
    ];
    let mut routes = Vec::new();
    let mut expected = Vec::new();
    for (number, (rule, answers)) in table.iter().enumerate() {
        for (kind, answers) in answers.iter().enumerate() {
            let mut matcher = rule.clone();
            matcher["name"] = "x-h".into();
            matcher["invert_match"] = (kind % 2 == 1).into();
            matcher["treat_missing_header_as_empty"] = (kind >= 2).into();
            let path = format!("/{number}/{kind}");
            let matching = json!({"path": path, "headers": [matcher]});
            routes.push(Route::matching(matching).direct(200, "y"));
            expected.push((path, *answers));
        }
    }
    routes.push(Route::prefix("/").direct(200, "-"));
    let proxy = Bootstrap::routing(routes).start(program).await;
    let mut connection = proxy.client().connect().await.unwrap();
    for (path, expected) in expected {
        let mut answers = String::new();
        for values in requests {
            let call = values.iter().fold(proxy.get(&path), |call, it| call.header("x-h", it));
            answers += &connection.send(call).await.unwrap().text();
        }
        assert_eq!(answers, expected, "{path}");
    }
}

async fn query_parameters_match(program: Program) {
    let on = |matcher, body: &str| {
        Route::matching(json!({"prefix": "/", "query_parameters": [matcher]})).direct(200, body)
    };
    let proxy = Bootstrap::routing([
        on(json!({"name": "version", "string_match": {"exact": "2"}}), "two"),
        on(json!({"name": "debug", "present_match": true}), "debug"),
        Route::prefix("/").direct(200, "rest"),
    ])
    .start(program)
    .await;
    assert_answers(
        &proxy,
        &[
            ("/?version=2", "two"),
            ("/?a=b&version=2", "two"),
            ("/?version=22", "rest"),
            ("/?debug", "debug"),
            ("/?debug=1&version=1", "debug"),
            ("/?Debug", "rest"),
        ],
    )
    .await;
}

async fn a_request_without_a_route_gets_404(program: Program) {
    let host = VirtualHost::new("one", ["one.test"], [Route::path("/here").direct(200, "here")]);
    let proxy = Bootstrap::http(Http::hosting([host])).start(program).await;
    let other_host = proxy.get("/here").host("two.test").send().await;
    assert_eq!((other_host.status, other_host.body.len()), (404, 0));
    assert_eq!(proxy.get("/there").host("one.test").send().await.status, 404);
    assert_eq!(proxy.get("/here").host("one.test").send().await.status, 200);
    proxy.until_stat("http.main.no_route", |count| count == 2).await;
}

async fn a_route_to_an_unknown_cluster_is_answered_as_configured(program: Program) {
    let by_header = |path, header: &str| Route::path(path).with("route.cluster_header", header);
    let proxy = Bootstrap::routing([
        by_header("/default", "x-to"),
        by_header("/404", "x-to").with("route.cluster_not_found_response_code", "NOT_FOUND"),
    ])
    .start(program)
    .await;
    assert_eq!(proxy.get("/default").header("x-to", "gone").send().await.status, 503);
    assert_eq!(proxy.get("/404").header("x-to", "gone").send().await.status, 404);
}

async fn a_cluster_named_by_a_header(program: Program) {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let proxy = Bootstrap::routing([Route::prefix("/").with("route.cluster_header", "x-cluster")])
        .cluster(Cluster::new("one").endpoint(&one))
        .cluster(Cluster::new("two").endpoint(&two))
        .start(program)
        .await;
    for name in ["one", "two"] {
        let reply = proxy.get("/").header("x-cluster", name).send().await;
        assert_eq!(reply.echo().backend(), name);
    }
    assert_eq!(proxy.get("/").send().await.status, 503, "no header");
}

async fn direct_responses(program: Program) {
    let proxy = Bootstrap::routing([
        Route::path("/teapot").direct(418, "short and stout"),
        Route::path("/empty").with("direct_response.status", 204),
    ])
    .start(program)
    .await;
    let teapot = proxy.get("/teapot").send().await;
    assert_eq!((teapot.status, teapot.text().as_str()), (418, "short and stout"));
    assert_eq!(teapot.header("content-type").as_deref(), Some("text/plain"));
    assert_eq!(teapot.header("server").as_deref(), Some("envoy"));
    let head = proxy.client().call(http::Method::HEAD, "/teapot").send().await;
    assert_eq!((head.status, head.body.len()), (418, 0));
    let empty = proxy.get("/empty").send().await;
    assert_eq!((empty.status, empty.body.len()), (204, 0));
}

async fn redirects(program: Program) {
    let on = |path, action| Route::prefix(path).redirect(action);
    let proxy = Bootstrap::routing([
        on("/https", json!({"https_redirect": true})),
        on("/scheme", json!({"scheme_redirect": "ftp"})),
        on("/host", json!({"host_redirect": "other.test"})),
        on("/port", json!({"port_redirect": 8443})),
        on("/path", json!({"path_redirect": "/new?fixed"})),
        on("/strip", json!({"host_redirect": "other.test", "strip_query": true})),
        on("/prefix", json!({"prefix_rewrite": "/swapped"})),
        on(
            "/regex",
            json!({"regex_rewrite": {
            "pattern": {"regex": "/regex/([0-9]+)"}, "substitution": "/item/\\1"}}),
        ),
        on("/see", json!({"path_redirect": "/x", "response_code": "SEE_OTHER"})),
        on("/found", json!({"path_redirect": "/x", "response_code": "FOUND"})),
        on("/temporary", json!({"path_redirect": "/x", "response_code": "TEMPORARY_REDIRECT"})),
        on("/permanent", json!({"path_redirect": "/x", "response_code": "PERMANENT_REDIRECT"})),
    ])
    .start(program)
    .await;
    for (path, status, location) in [
        ("/https?q=1", 301, "https://test.example/https?q=1"),
        ("/scheme", 301, "ftp://test.example/scheme"),
        ("/host/a?b", 301, "http://other.test/host/a?b"),
        ("/port", 301, "http://test.example:8443/port"),
        ("/path?q=1", 301, "http://test.example/new?fixed"),
        ("/strip/a?b=c", 301, "http://other.test/strip/a"),
        ("/prefix/tail?q", 301, "http://test.example/swapped/tail?q"),
        ("/regex/42", 301, "http://test.example/item/42"),
        ("/see", 303, "http://test.example/x"),
        ("/found", 302, "http://test.example/x"),
        ("/temporary", 307, "http://test.example/x"),
        ("/permanent", 308, "http://test.example/x"),
    ] {
        let reply = proxy.get(path).send().await;
        let got = reply.header("location").unwrap_or_default();
        assert_eq!((reply.status, got.as_str()), (status, location), "{path}");
    }
}

async fn rewrites_of_path_and_host(program: Program) {
    let app = Backend::echo("app").await;
    let to = |prefix: &str| Route::prefix(prefix).to("app");
    let regex =
        json!({"pattern": {"regex": "^/regex/([^/]+)/(.*)$"}, "substitution": "/\\2/of/\\1"});
    let authority =
        json!({"pattern": {"regex": "^/path-host/([a-z.]+)/.*$"}, "substitution": "\\1"});
    let proxy = Bootstrap::routing([
        to("/prefix/").with("route.prefix_rewrite", "/"),
        to("/regex/").with("route.regex_rewrite", regex),
        to("/literal").with("route.host_rewrite_literal", "literal.test"),
        to("/header").with("route.host_rewrite_header", "x-host"),
        to("/path-host/").with("route.host_rewrite_path_regex", authority),
        to("/format").with("route.host_rewrite", "%REQ(x-host)%.%REQ(x-none)%.test"),
        to("/"),
    ])
    .cluster(Cluster::new("app").endpoint(&app))
    .start(program)
    .await;
    for (asked, path, host, original) in [
        ("/prefix/a?b=c", "/a?b=c", "test.example", Some("/prefix/a?b=c")),
        ("/regex/x/y?z", "/y/of/x?z", "test.example", Some("/regex/x/y?z")),
        ("/literal", "/literal", "literal.test", None),
        ("/header", "/header", "from.header", None),
        ("/path-host/p.test/1", "/path-host/p.test/1", "p.test", None),
        ("/format", "/format", "from.header.-.test", None),
        ("/as-is?q", "/as-is?q", "test.example", None),
    ] {
        let echo = proxy.get(asked).header("x-host", "from.header").send().await.echo();
        assert_eq!((echo.path(), echo.host()), (path, host), "{asked}");
        assert_eq!(echo.header("x-envoy-original-path").as_deref(), original, "{asked}");
    }
}

async fn header_changes_at_four_levels(program: Program) {
    let app = Backend::echo("app").await;
    let add = |value: &str| json!([{"header": {"key": "x-level", "value": value}}]);
    let set = |key: &str, value: &str| json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    let weighted = json!({"name": "app", "weight": 1, "request_headers_to_add": add("cluster"),
        "response_headers_to_add": add("cluster")});
    let route = Route::prefix("/")
        .with("route.weighted_clusters.clusters", json!([weighted]))
        .with("request_headers_to_add", json!([
            {"header": {"key": "x-level", "value": "route"}},
            set("x-protocol", "%PROTOCOL%"),
            set("x-literal", "100%% of %REQ(x-in)%"),
            {"header": {"key": "x-new", "value": "added"}, "append_action": "ADD_IF_ABSENT"},
            {"header": {"key": "x-absent", "value": "no"}, "append_action": "OVERWRITE_IF_EXISTS"},
        ]))
        .with("request_headers_to_remove", json!(["x-secret"]))
        .with("response_headers_to_remove", json!(["x-backend"]))
        .with("response_headers_to_add", add("route"));
    let host = VirtualHost::new("all", ["*"], [route])
        .with("request_headers_to_add", add("host"))
        .with("response_headers_to_add", add("host"));
    let http = Http::hosting([host])
        .with("route_config.request_headers_to_add", add("table"))
        .with("route_config.response_headers_to_add", add("table"));
    let proxy =
        Bootstrap::http(http).cluster(Cluster::new("app").endpoint(&app)).start(program).await;

    let call = proxy.get("/").header("x-in", "5").header("x-secret", "s").header("x-new", "mine");
    let reply = call.send().await;
    let echo = reply.echo();
    assert_eq!(echo.header("x-level").as_deref(), Some("cluster,route,host,table"));
    assert_eq!(reply.header("x-level").as_deref(), Some("cluster,route,host,table"));
    assert_eq!(echo.header("x-protocol").as_deref(), Some("HTTP/1.1"));
    assert_eq!(echo.header("x-literal").as_deref(), Some("100% of 5"));
    assert_eq!(echo.header("x-new").as_deref(), Some("mine"));
    assert_eq!(echo.header("x-absent"), None);
    assert_eq!(echo.header("x-secret"), None);
    assert_eq!(reply.header("x-backend"), None);
}

async fn a_cluster_without_endpoints_gets_503(program: Program) {
    let proxy = Bootstrap::routing([Route::prefix("/").to("nobody")])
        .cluster(Cluster::new("nobody"))
        .start(program)
        .await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (503, "no healthy upstream"));
    proxy.until_stat("cluster.nobody.upstream_cx_none_healthy", |count| count == 1).await;
}

async fn assert_answers(proxy: &Proxy, expected: &[(&str, &str)]) {
    for (path, answered) in expected {
        assert_eq!(proxy.get(path).send().await.text(), *answered, "{path}");
    }
}
