//! The `ratelimit` filter: a service counts requests for many proxies.

use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, RateLimitServer, Route, Value,
    json,
};

on_both!(
    requests_within_their_limits_go_on,
    requests_beyond_a_limit_are_refused,
    a_limit_may_be_only_counted,
    routes_say_what_is_counted,
    a_service_that_does_not_answer_allows_or_refuses,
);

const PER_ROUTE: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";

fn key(value: &str) -> Value {
    json!({"actions": [{"generic_key": {"descriptor_value": value}}]})
}

/// A route that lets requests say what they are answered with.
fn asking() -> Route {
    let header =
        json!({"header_name": "x-verdict", "descriptor_key": "verdict", "skip_if_absent": true});
    let actions = json!([{"generic_key": {"descriptor_value": "a"}}, {"request_headers": header}]);
    Route::prefix("/").to("app").with("route.rate_limits", json!([{"actions": actions}]))
}

async fn start(
    program: Program,
    app: &Backend,
    service: &RateLimitServer,
    mut fields: Value,
    routes: impl IntoIterator<Item = Route>,
) -> Proxy {
    fields["domain"] = "shop".into();
    if fields["timeout"].is_null() {
        fields["timeout"] = "2s".into();
    }
    fields["rate_limit_service"] = json!({
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
    });
    let filter = typed("envoy.extensions.filters.http.ratelimit.v3.RateLimit", fields);
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let filters = json!([
        {"name": "limit", "typed_config": filter},
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]);
    let http = Http::routing(routes).with("http_filters", filters);
    let http = http.with("route_config.virtual_hosts.0.rate_limits", json!([key("host")]));
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
    bootstrap
        .listener(Listener::new("main", http.text_log(&log, format)))
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(Cluster::new("limits").endpoint(service).http2())
        .start(program)
        .await
}

/// A line of the access log, once it is there.
async fn logged(proxy: &Proxy, line: &str) {
    harness::eventually(line, async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        text.lines().any(|it| it == line).then_some(())
    })
    .await;
}

/// An answer of the service with everything in it.
fn saying(code: &str) -> String {
    format!(
        "{{overall_code: {code}, statuses: [\
        {{code: {code}, current_limit: {{requests_per_unit: 5, unit: MINUTE, name: nm}}, limit_remaining: 1, duration_until_reset: 30s}}, \
        {{code: OK, current_limit: {{requests_per_unit: 9, unit: SECOND}}, limit_remaining: 3, duration_until_reset: 1s}}], \
        response_headers_to_add: [{{key: x-rl, value: '1'}}], request_headers_to_add: [{{key: x-req, value: '2'}}], \
        raw_body: Ym9keQ==}}"
    )
}

async fn requests_within_their_limits_go_on(program: Program) {
    let (app, service) = (Backend::echo("app").await, RateLimitServer::as_asked().await);
    let fields = json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"});
    let proxy = start(program, &app, &service, fields, [asking()]).await;
    let reply = proxy.get("/").header("x-verdict", &saying("OK")).send().await;
    assert_eq!((reply.status, reply.echo().header("x-req").as_deref()), (200, Some("2")));
    for (name, value) in [
        ("x-rl", Some("1")),
        ("x-ratelimit-limit", Some("5, 5;w=60;name=\"nm\", 9;w=1")),
        ("x-ratelimit-remaining", Some("1")),
        ("x-ratelimit-reset", Some("30")),
        ("x-envoy-ratelimited", None),
    ] {
        assert_eq!(reply.header(name).as_deref(), value, "{name}");
    }
    proxy.until_stats([("cluster.app.ratelimit.ok", 1)]).await;
}

async fn requests_beyond_a_limit_are_refused(program: Program) {
    let (app, service) = (Backend::echo("app").await, RateLimitServer::as_asked().await);
    let proxy = start(program, &app, &service, json!({}), [asking()]).await;
    let reply = proxy.get("/").header("x-verdict", &saying("OVER_LIMIT")).send().await;
    assert_eq!((reply.status, reply.text()), (429, "body".to_owned()));
    let headers = ["x-rl", "x-envoy-ratelimited", "x-ratelimit-limit"].map(|it| reply.header(it));
    assert_eq!(headers, [Some("1"), Some("true"), None].map(|it| it.map(ToOwned::to_owned)));
    logged(&proxy, "429 RL request_rate_limited").await;
    assert_eq!(app.count(), 0);
    proxy
        .until_stats([("cluster.app.ratelimit.over_limit", 1), ("cluster.app.upstream_rq_429", 1)])
        .await;
    let fields = json!({
        "rate_limited_status": {"code": "Forbidden"},
        "rate_limited_as_resource_exhausted": true,
        "disable_x_envoy_ratelimited_header": true,
        "response_headers_to_add": [{"header": {"key": "x-mine", "value": "1"}}],
        "stat_prefix": "own",
    });
    let proxy = start(program, &app, &service, fields, [asking()]).await;
    let reply = proxy.get("/").header("x-verdict", &saying("OVER_LIMIT")).send().await;
    let headers = ["x-mine", "x-envoy-ratelimited"].map(|it| reply.header(it));
    assert_eq!((reply.status, headers), (403, [Some("1".to_owned()), None]));
    let grpc = proxy.get("/").header("content-type", "application/grpc");
    let reply = grpc.header("x-verdict", &saying("OVER_LIMIT")).send().await;
    assert_eq!((reply.status, reply.header("grpc-status").as_deref()), (200, Some("8")));
    proxy.until_stats([("cluster.app.ratelimit.own.over_limit", 2)]).await;
}

async fn a_limit_may_be_only_counted(program: Program) {
    let (app, service) = (Backend::echo("app").await, RateLimitServer::as_asked().await);
    let none = json!({"default_value": {"numerator": 0, "denominator": "HUNDRED"}});
    let fields = json!({"filter_enforced": none});
    let proxy = start(program, &app, &service, fields, [asking()]).await;
    let reply = proxy.get("/").header("x-verdict", &saying("OVER_LIMIT")).send().await;
    let header = reply.header("x-envoy-ratelimited");
    assert_eq!((reply.status, header.as_deref()), (200, Some("true")));
    proxy.until_stats([("cluster.app.ratelimit.over_limit", 1)]).await;
    let fields = json!({"filter_enabled": none});
    let proxy = start(program, &app, &service, fields, [asking()]).await;
    assert_eq!(proxy.get("/").header("x-verdict", "fail").send().await.status, 200);
    assert_eq!(service.count(), 1);
}

async fn routes_say_what_is_counted(program: Program) {
    let (app, service) = (Backend::echo("app").await, RateLimitServer::as_asked().await);
    let route = |path: &str| Route::prefix(path).to("app");
    let own = |path: &str| route(path).with("route.rate_limits", json!([key("route")]));
    let said = |route: Route, fields: Value| {
        route.with("typed_per_filter_config", json!({"limit": typed(PER_ROUTE, fields)}))
    };
    let staged = json!([{"stage": 1, "actions": key("late")["actions"]}, key("early")]);
    let routes = [
        own("/own"),
        route("/none"),
        route("/staged").with("route.rate_limits", staged),
        own("/both").with("route.include_vh_rate_limits", true),
        said(own("/include"), json!({"vh_rate_limits": "INCLUDE"})),
        said(route("/ignore"), json!({"vh_rate_limits": "IGNORE"})),
        said(own("/domain"), json!({"domain": "other"})),
        said(own("/instead"), json!({"rate_limits": [key("instead")]})),
        Route::prefix("/direct").direct(200, "direct"),
    ];
    let proxy = start(program, &app, &service, json!({}), routes).await;
    for (path, domain, expected) in [
        ("/own", "shop", &["route"][..]),
        ("/none", "shop", &["host"]),
        ("/staged", "shop", &["early"]),
        ("/both", "shop", &["route", "host"]),
        ("/include", "shop", &["route", "host"]),
        ("/domain", "other", &["route"]),
        ("/instead", "shop", &["instead"]),
    ] {
        assert_eq!(proxy.get(path).send().await.status, 200);
        let asked = service.last().message;
        let descriptors = asked.descriptors.iter().flat_map(|it| &it.entries);
        let values: Vec<_> = descriptors.map(|entry| &*entry.value).collect();
        assert_eq!((&*asked.domain, &*values), (domain, expected), "{path}");
    }
    for path in ["/ignore", "/direct"] {
        assert_eq!(proxy.get(path).send().await.status, 200);
    }
    assert_eq!(service.count(), 7);
}

async fn a_service_that_does_not_answer_allows_or_refuses(program: Program) {
    let (app, service) = (Backend::echo("app").await, RateLimitServer::as_asked().await);
    for deny in [false, true] {
        let fields = json!({
            "timeout": "0.3s",
            "failure_mode_deny": deny,
            "status_on_error": {"code": "BadGateway"},
        });
        let proxy = start(program, &app, &service, fields, [asking()]).await;
        for verdict in ["fail", "hang"] {
            let reply = proxy.get("/").header("x-verdict", verdict).send().await;
            assert_eq!(reply.status, if deny { 502 } else { 200 }, "{verdict}");
        }
        if deny {
            logged(&proxy, "502 RLSE rate_limiter_error").await;
        }
        let allowed = if deny { 0 } else { 2 };
        proxy
            .until_stats([
                ("cluster.app.ratelimit.error", 2),
                ("cluster.app.ratelimit.failure_mode_allowed", allowed),
            ])
            .await;
    }
}
