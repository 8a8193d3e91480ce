//! The `cors` filter: what browsers are told about pages of other origins.

use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Reply, Route, Value, json,
};

on_both!(
    preflights_are_answered_for_the_upstream,
    preflights_of_others_go_to_the_upstream_unless_that_is_not_wanted,
    responses_say_which_origin_may_see_them,
    what_a_route_leaves_out_its_virtual_host_and_table_say,
    a_policy_may_be_for_a_share_of_requests_or_only_counted,
    only_forwarding_routes_have_policies,
);

fn policy(fields: Value) -> Value {
    typed("envoy.extensions.filters.http.cors.v3.CorsPolicy", fields)
}

/// A policy for pages of `https://a.test`, with `fields`.
fn for_a(mut fields: Value) -> Value {
    fields["allow_origin_string_match"] = json!([{"exact": "https://a.test"}]);
    policy(fields)
}

fn filtering(routes: impl IntoIterator<Item = Route>) -> Http {
    let filter =
        |message: &str| typed(&format!("envoy.extensions.filters.http.{message}"), json!({}));
    Http::routing(routes).with("stat_prefix", "ing").with(
        "http_filters",
        json!([
            {"name": "cors", "typed_config": filter("cors.v3.Cors")},
            {"name": "envoy.filters.http.router", "typed_config": filter("router.v3.Router")},
        ]),
    )
}

fn said(route: Route, policy: impl Into<Value>) -> Route {
    route.with("typed_per_filter_config", json!({"cors": policy.into()}))
}

/// A proxy in front of `app`.
async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

/// Names and values of what the filter says in a response, without their `access-control-`.
fn says(reply: &Reply) -> Vec<String> {
    let names = [
        "allow-origin",
        "allow-credentials",
        "allow-methods",
        "allow-headers",
        "expose-headers",
        "max-age",
        "allow-private-network",
    ];
    let said = names.into_iter().filter_map(|name| {
        Some(format!("{name}: {}", reply.header(&format!("access-control-{name}"))?))
    });
    said.collect()
}

/// Asks whether a page of `origin` may PUT to `path`.
async fn preflight(proxy: &Proxy, path: &str, origin: &str, headers: &[(&str, &str)]) -> Reply {
    let call = proxy.client().call(http::Method::OPTIONS, path).header("origin", origin);
    let call = call.header("access-control-request-method", "PUT");
    let call = headers.iter().fold(call, |call, (name, value)| call.header(name, value));
    call.send().await
}

async fn preflights_are_answered_for_the_upstream(program: Program) {
    let app = Backend::echo("app").await;
    let all = json!({
        "allow_methods": "GET,PUT",
        "allow_headers": "x-a",
        "expose_headers": "x-b,x-c",
        "max_age": "600",
        "allow_credentials": true,
        "allow_private_network_access": true,
    });
    let route = |path: &str| Route::prefix(path).to("app");
    let routes = [
        said(route("/all"), for_a(all))
            .with("response_headers_to_add", json!([{"header": {"key": "x-route", "value": "1"}}])),
        said(
            route("/any"),
            policy(json!({
                "allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}], "allow_methods": "*", "allow_headers": "*",
            })),
        ),
    ];
    let proxy = start(program, &app, filtering(routes)).await;
    let private = [("access-control-request-private-network", "true")];
    let reply = preflight(&proxy, "/all", "https://a.test", &private).await;
    let expected = [
        "allow-origin: https://a.test",
        "allow-credentials: true",
        "allow-methods: GET,PUT",
        "allow-headers: x-a",
        "expose-headers: x-b,x-c",
        "max-age: 600",
        "allow-private-network: true",
    ];
    assert_eq!((reply.status, says(&reply)), (200, expected.map(ToOwned::to_owned).to_vec()));
    assert_eq!((reply.text(), reply.header("x-route")), (String::new(), None));
    let wanted = [("access-control-request-headers", "x-d, x-e")];
    let reply = preflight(&proxy, "/any", "null", &wanted).await;
    assert_eq!(
        says(&reply),
        ["allow-origin: null", "allow-methods: PUT", "allow-headers: x-d, x-e"]
    );
    let reply = preflight(&proxy, "/any", "null", &[]).await;
    assert_eq!(says(&reply), ["allow-origin: null", "allow-methods: PUT", "allow-headers: "]);
    assert_eq!(app.count(), 0);
    assert_eq!(proxy.stat("http.ing.cors.origin_valid").await, 3);
}

async fn preflights_of_others_go_to_the_upstream_unless_that_is_not_wanted(program: Program) {
    let app = Backend::echo("app").await;
    let strict = json!({"forward_not_matching_preflights": false, "allow_methods": "GET", "allow_credentials": true});
    let routes = [
        said(Route::prefix("/strict").to("app"), for_a(strict)),
        said(Route::prefix("/a").to("app"), for_a(json!({"allow_methods": "GET"}))),
        Route::prefix("/").to("app"),
    ];
    let proxy = start(program, &app, filtering(routes)).await;
    let reply = preflight(&proxy, "/strict", "https://b.test", &[]).await;
    assert_eq!(says(&reply), ["allow-credentials: true", "allow-methods: GET"]);
    assert_eq!((reply.status, app.count()), (200, 0));
    for (path, origin) in
        [("/a", "https://b.test"), ("/a", "https://a.test.b"), ("/", "https://a.test")]
    {
        let reply = preflight(&proxy, path, origin, &[]).await;
        assert_eq!(
            (reply.status, says(&reply).len(), reply.echo().method()),
            (200, 0, "OPTIONS"),
            "{path} {origin}"
        );
    }
    assert_eq!(proxy.stat("http.ing.cors.origin_invalid").await, 3);
}

async fn responses_say_which_origin_may_see_them(program: Program) {
    let app = Backend::echo("app").await;
    let fields =
        json!({"allow_methods": "GET", "expose_headers": "x-b", "allow_credentials": true});
    let routes = [
        said(Route::prefix("/nobody").to("nobody"), for_a(json!({}))),
        said(Route::prefix("/").to("app"), for_a(fields)),
    ];
    let nobody = harness::port::Port::reserve();
    let listener = Listener::new("main", filtering(routes));
    let proxy = Bootstrap::new()
        .listener(listener)
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("nobody").endpoint(&nobody))
        .start(program)
        .await;
    let reply = proxy.get("/").header("origin", "https://a.test").send().await;
    let expected =
        ["allow-origin: https://a.test", "allow-credentials: true", "expose-headers: x-b"];
    assert_eq!((reply.status, says(&reply)), (200, expected.map(ToOwned::to_owned).to_vec()));
    for headers in [&[][..], &[("origin", "")], &[("origin", "https://b.test")]] {
        let call =
            headers.iter().fold(proxy.get("/"), |call, (name, value)| call.header(name, value));
        assert_eq!(says(&call.send().await).len(), 0, "{headers:?}");
    }
    // An OPTIONS request that asks nothing goes to the upstream.
    let call = proxy.client().call(http::Method::OPTIONS, "/").header("origin", "https://a.test");
    let reply = call.send().await;
    assert_eq!((reply.echo().method(), says(&reply).len()), ("OPTIONS", 3));
    let reply = proxy.get("/nobody").header("origin", "https://a.test").send().await;
    assert_eq!((reply.status, says(&reply)), (503, vec![expected[0].to_owned()]));
    assert_eq!(proxy.stat("http.ing.cors.origin_valid").await, 3);
    assert_eq!(proxy.stat("http.ing.cors.origin_invalid").await, 1);
}

async fn what_a_route_leaves_out_its_virtual_host_and_table_say(program: Program) {
    let app = Backend::echo("app").await;
    let routes = [
        said(
            Route::prefix("/own").to("app"),
            policy(json!({"max_age": "1", "allow_credentials": false})),
        ),
        said(
            Route::prefix("/other").to("app"),
            policy(json!({"allow_origin_string_match": [{"exact": "b"}]})),
        ),
        Route::prefix("/weighted").to_weighted([("app", 1)]).with(
            "route.weighted_clusters.clusters.0.typed_per_filter_config",
            json!({"cors": policy(json!({"max_age": "9"}))}),
        ),
        said(
            Route::prefix("/off").to("app"),
            typed("envoy.config.route.v3.FilterConfig", json!({"disabled": true})),
        ),
        Route::prefix("/").to("app"),
    ];
    let host = for_a(json!({"max_age": "2", "allow_methods": "GET"}));
    let table =
        policy(json!({"allow_methods": "PUT", "allow_headers": "x-a", "allow_credentials": true}));
    let http = filtering(routes)
        .with("route_config.virtual_hosts.0.typed_per_filter_config", json!({"cors": host}))
        .with("route_config.typed_per_filter_config", json!({"cors": table}));
    let proxy = start(program, &app, http).await;
    let common = "allow-methods: GET, allow-headers: x-a";
    for (path, origin, expected) in [
        ("/own", "https://a.test", format!("allow-origin: https://a.test, {common}, max-age: 1")),
        ("/other", "b", format!("allow-origin: b, allow-credentials: true, {common}, max-age: 2")),
        ("/other", "https://a.test", String::new()),
        (
            "/weighted",
            "https://a.test",
            format!("allow-origin: https://a.test, allow-credentials: true, {common}, max-age: 9"),
        ),
        (
            "/",
            "https://a.test",
            format!("allow-origin: https://a.test, allow-credentials: true, {common}, max-age: 2"),
        ),
        ("/off", "https://a.test", String::new()),
    ] {
        let reply = preflight(&proxy, path, origin, &[]).await;
        assert_eq!(says(&reply).join(", "), expected, "{path} {origin}");
    }
}

async fn a_policy_may_be_for_a_share_of_requests_or_only_counted(program: Program) {
    let app = Backend::echo("app").await;
    let share =
        |percent: u32| json!({"default_value": {"numerator": percent, "denominator": "HUNDRED"}});
    let routes = [
        said(Route::prefix("/none").to("app"), for_a(json!({"filter_enabled": share(0)}))),
        said(Route::prefix("/all").to("app"), for_a(json!({"filter_enabled": share(100)}))),
        said(Route::prefix("/half").to("app"), for_a(json!({"filter_enabled": share(50)}))),
        said(
            Route::prefix("/shadow").to("app"),
            for_a(json!({"filter_enabled": share(0), "shadow_enabled": share(100)})),
        ),
    ];
    let proxy = start(program, &app, filtering(routes)).await;
    let count = async |path: &str, times: usize| {
        let mut said = 0;
        for _ in 0..times {
            let reply = proxy.get(path).header("origin", "https://a.test").send().await;
            said += usize::from(!says(&reply).is_empty());
        }
        said
    };
    assert_eq!((count("/none", 3).await, count("/all", 3).await), (0, 3));
    assert_eq!(proxy.stat("http.ing.cors.origin_valid").await, 3);
    assert_eq!(count("/shadow", 3).await, 0);
    assert_eq!(proxy.stat("http.ing.cors.origin_valid").await, 6);
    // One in 2^99 runs has none, or all.
    assert!((1..100).contains(&count("/half", 100).await));
}

async fn only_forwarding_routes_have_policies(program: Program) {
    let app = Backend::echo("app").await;
    let routes = [
        said(Route::prefix("/direct").direct(200, "direct"), for_a(json!({}))),
        said(Route::prefix("/redirect").redirect(json!({"path_redirect": "/"})), for_a(json!({}))),
    ];
    let http = filtering(routes).with(
        "route_config.virtual_hosts.0.typed_per_filter_config",
        json!({"cors": for_a(json!({}))}),
    );
    let proxy = start(program, &app, http).await;
    for (path, status) in [("/direct", 200), ("/redirect", 301), ("/nothing", 404)] {
        let reply = preflight(&proxy, path, "https://a.test", &[]).await;
        assert_eq!((reply.status, says(&reply).len()), (status, 0), "{path}");
    }
    assert_eq!(proxy.stat("http.ing.cors.origin_valid").await, 0);
}
