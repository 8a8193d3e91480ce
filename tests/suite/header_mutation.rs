//! The `header_mutation` filter: headers change before requests are forwarded, and in all that they are answered with.

use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Reply, Route, Value, json,
};

on_both!(
    changes_are_made_in_their_order,
    the_level_that_is_heard_last_wins,
    every_answer_is_changed,
    filters_see_what_those_before_them_have_changed,
    logs_and_the_router_see_the_changed_request,
    queries_are_changed,
);

fn append(name: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": name, "value": value}, "append_action": action}})
}

fn set(name: &str, value: &str) -> Value {
    append(name, value, "OVERWRITE_IF_EXISTS_OR_ADD")
}

fn add(name: &str, value: &str) -> Value {
    append(name, value, "APPEND_IF_EXISTS_OR_ADD")
}

/// A message of the filter's.
fn message(name: &str, mutations: impl Into<Value>) -> Value {
    let fields = json!({"mutations": mutations.into()});
    typed(&format!("envoy.extensions.filters.http.header_mutation.v3.{name}"), fields)
}

/// A filter called `name`.
fn filter(name: &str, mutations: impl Into<Value>) -> Value {
    json!({"name": name, "typed_config": message("HeaderMutation", mutations)})
}

fn filtering(routes: impl IntoIterator<Item = Route>, filters: &[Value]) -> Http {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let router = json!({"name": "envoy.filters.http.router", "typed_config": router});
    let filters: Vec<_> = filters.iter().cloned().chain([router]).collect();
    Http::routing(routes).with("http_filters", filters)
}

fn said(route: Route, mutations: impl Into<Value>) -> Route {
    let config = message("HeaderMutationPerRoute", mutations);
    route.with("typed_per_filter_config", json!({"m": config}))
}

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

/// What the upstream got and what the client got of the headers that begin with `x-m`.
fn seen(reply: &Reply) -> (String, String) {
    let names = ["x-m-a", "x-m-b", "x-m-c", "x-m-d", "x-m-e"];
    let lines = |of: &dyn Fn(&str) -> Option<String>| {
        let line = |name: &&str| Some(format!("{}={}", name.strip_prefix("x-m-")?, of(name)?));
        names.iter().filter_map(line).collect::<Vec<_>>().join(" ")
    };
    let echo = reply.echo();
    (lines(&|name| echo.header(name)), lines(&|name| reply.header(name)))
}

async fn changes_are_made_in_their_order(program: Program) {
    let app = Backend::echo("app").await;
    let changes = json!([
        append("x-m-a", "1", "ADD_IF_ABSENT"),
        append("x-m-b", "%REQ(x-m-a)%2", "ADD_IF_ABSENT"),
        append("x-m-a", "3", "ADD_IF_ABSENT"),
        append("x-m-c", "4", "OVERWRITE_IF_EXISTS"),
        append("x-m-d", "5", "OVERWRITE_IF_EXISTS"),
        append("x-m-e", "%REQ(x-none)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        {"remove": "x-gone"},
        add("x-gone", "%REQ(:path)% %PROTOCOL%"),
        {"remove_on_match": {"key_matcher": {"prefix": "x-old"}}},
        add("accept", "b"),
        append("x-empty", "", "ADD_IF_ABSENT"),
        {"append": {"header": {"key": "x-kept", "value": ""}, "keep_empty_value": true}},
    ]);
    let answers = json!([
        set("x-m-a", "%RESPONSE_CODE% %REQ(x-m-b)%"),
        add("x-m-b", "%RESP(x-m-a)%!"),
        {"remove": "x-m-d"},
    ]);
    let mutations = json!({"request_mutations": changes, "response_mutations": answers});
    let http = filtering([Route::prefix("/").to("app")], &[filter("m", mutations)]);
    let proxy = start(program, &app, http).await;
    let call = proxy.get("/p").header("x-m-c", "0").header("x-gone", "0").header("accept", "a");
    let reply = call.header("x-old-1", "a").header("x-old-2", "b").send().await;
    let (request, response) = seen(&reply);
    assert_eq!(request, "a=1 b=12 c=4");
    assert_eq!(response, "a=200 12 b=200 12!");
    let echo = reply.echo();
    assert_eq!(echo.header("x-gone").as_deref(), Some("/p HTTP/1.1"));
    assert_eq!(echo.header("accept").as_deref(), Some("a,b"));
    assert_eq!(echo.header("x-kept").as_deref(), Some(""));
    for name in ["x-old-1", "x-old-2", "x-empty"] {
        assert_eq!(echo.header(name), None, "{name}");
    }
}

async fn the_level_that_is_heard_last_wins(program: Program) {
    let app = Backend::echo("app").await;
    let level = |value: &str| {
        let both = json!([set("x-m-a", value), add("x-m-b", &format!("%REQ(x-m-b)%{value}"))]);
        json!({"request_mutations": both, "response_mutations": [set("x-m-c", value)]})
    };
    for (most_specific, expected) in [(false, "table"), (true, "cluster")] {
        let routes = [said(
            Route::prefix("/").to_weighted([("app", 1)]).with(
                "route.weighted_clusters.clusters.0.typed_per_filter_config",
                json!({"m": message("HeaderMutationPerRoute", level("cluster"))}),
            ),
            level("route"),
        )];
        let mut filter = filter("m", level("filter"));
        filter["typed_config"]["most_specific_header_mutations_wins"] = most_specific.into();
        let of = |name: &str| json!({"m": message("HeaderMutationPerRoute", level(name))});
        let http = filtering(routes, &[filter])
            .with("route_config.virtual_hosts.0.typed_per_filter_config", of("host"))
            .with("route_config.typed_per_filter_config", of("table"));
        let proxy = start(program, &app, http).await;
        let reply = proxy.get("/").send().await;
        let (request, response) = seen(&reply);
        assert_eq!(response, format!("c={expected}"));
        assert!(request.starts_with(&format!("a={expected} ")), "{request}");
    }
}

async fn every_answer_is_changed(program: Program) {
    let app = Backend::echo("app").await;
    let answers =
        json!({"response_mutations": [add("x-m-a", "%RESPONSE_CODE%"), set("server", "mine")]});
    let nobody = harness::port::Port::reserve();
    let routes = [
        Route::prefix("/direct").direct(201, "direct"),
        Route::prefix("/redirect").redirect(json!({"path_redirect": "/"})),
        Route::prefix("/nobody").to("nobody"),
        said(Route::prefix("/app").to("app"), json!({"response_mutations": [set("x-m-b", "1")]})),
    ];
    let listener = Listener::new("main", filtering(routes, &[filter("m", answers)]));
    let proxy = Bootstrap::new()
        .listener(listener)
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("nobody").endpoint(&nobody))
        .start(program)
        .await;
    for (path, status) in
        [("/direct", 201), ("/redirect", 301), ("/nobody", 503), ("/none", 404), ("/app", 200)]
    {
        let reply = proxy.get(path).send().await;
        let changed = (reply.status, reply.header("x-m-a"), reply.header("x-m-b"));
        let own = (path == "/app").then(|| "1".to_owned());
        assert_eq!(changed, (status, Some(status.to_string()), own), "{path}");
        // What every response of the proxy has comes after the filters.
        assert_eq!(reply.header("server").as_deref(), Some("envoy"), "{path}");
    }
}

async fn queries_are_changed(program: Program) {
    let app = Backend::echo("app").await;
    let change = |name: &str, value: &str, action: &str| json!({"append": {"record": {"key": name, "value": value}, "action": action}});
    let own = json!({"query_parameter_mutations": [
        change("a", "%REQ(x-a)%", "APPEND_IF_EXISTS_OR_ADD"),
        change("b", "new", "ADD_IF_ABSENT"),
        change("c", "new", "OVERWRITE_IF_EXISTS"),
        change("d", "a-._~b &=?/%%\u{e9}", "OVERWRITE_IF_EXISTS_OR_ADD"),
        {"remove": "e"},
    ]});
    let to_app = || Route::prefix("/").to("app");
    let proxy = start(program, &app, filtering([to_app()], &[filter("m", own)])).await;
    for (path, changed) in [
        ("/p", "/p?a=&b=new&d=D"),
        ("/p?e&e=2&z", "/p?a=&b=new&d=D&z="),
        ("/p?c=1&c=2&b=&a=x&d=1&d=2", "/p?a=x&a=&b=&c=new&d=D"),
    ] {
        let changed = changed.replace('D', "a-._%7Eb%20%26%3D%3F%2F%25%C3%A9");
        assert_eq!(proxy.get(path).send().await.echo().path(), changed, "{path}");
    }
    let own =
        json!({"query_parameter_mutations": [change("r", "1", "ADD_IF_ABSENT"), {"remove": "e"}]});
    let said_too =
        json!({"query_parameter_mutations": [change("r", "2", "APPEND_IF_EXISTS_OR_ADD")]});
    let http = filtering([said(to_app(), said_too)], &[filter("m", own)]);
    let proxy = start(program, &app, http).await;
    assert_eq!(proxy.get("/p?x=1&e").send().await.echo().path(), "/p?r=1&r=2&x=1");
}

async fn filters_see_what_those_before_them_have_changed(program: Program) {
    let app = Backend::echo("app").await;
    let first = json!({
        "request_mutations": [set("origin", "https://a.test"), set("x-m-a", "1")],
        "response_mutations": [add("x-m-b", "%RESP(access-control-allow-origin)%")],
    });
    let second = json!({
        "request_mutations": [add("x-m-b", "%REQ(x-m-a)%2"), add("x-m-c", "%REQ(x-route)%")],
        "response_mutations": [add("x-m-a", "%RESP(x-m-b)%"), add("x-m-c", "%RESP(x-route)%")],
    });
    let cors = typed("envoy.extensions.filters.http.cors.v3.Cors", json!({}));
    let filters = [
        filter("m", first),
        json!({"name": "cors", "typed_config": cors}),
        filter("second", second),
    ];
    let policy = json!({"allow_origin_string_match": [{"exact": "https://a.test"}]});
    let policy = typed("envoy.extensions.filters.http.cors.v3.CorsPolicy", policy);
    let added = json!([{"header": {"key": "x-route", "value": "r"}}]);
    let route =
        Route::prefix("/").to("app").with("typed_per_filter_config", json!({"cors": policy}));
    let route =
        route.with("request_headers_to_add", added.clone()).with("response_headers_to_add", added);
    let proxy = start(program, &app, filtering([route], &filters)).await;
    let reply = proxy.get("/").send().await;
    // Requests meet filters in order and then the route; answers meet the route and then the filters in reverse.
    assert_eq!(seen(&reply), ("a=1 b=12".into(), "b=https://a.test c=r".into()));
}

async fn logs_and_the_router_see_the_changed_request(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let changes = json!({"request_mutations": [
        set("x-m-a", "changed"), set("x-envoy-upstream-rq-timeout-ms", "4321"), {"remove": "x-m-b"},
    ]});
    let http = filtering([Route::prefix("/").to("app")], &[filter("m", changes)]);
    let http = http.text_log(&log, "%REQ(x-m-a)% %REQ(x-m-b)%\n");
    let bootstrap = bootstrap.listener(Listener::new("main", http));
    let proxy = bootstrap.cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    let reply = proxy.get("/").header("x-m-a", "1").header("x-m-b", "2").send().await;
    assert_eq!(reply.echo().header("x-envoy-expected-rq-timeout-ms").as_deref(), Some("4321"));
    let line = harness::eventually("a line in the log", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().next().map(ToOwned::to_owned)
    });
    assert_eq!(line.await, "changed -");
}
