//! The `local_ratelimit` filters: limits that one process counts by itself, for requests and for connections.

use harness::bootstrap::typed;
use harness::discovery_files::DiscoveryFile;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Reply, Route, Value, json,
};

use crate::hot_swap::table;

on_both!(
    requests_beyond_the_limit_are_refused,
    grpc_clients_see_their_own_status,
    a_limit_may_only_be_counted,
    routes_have_limits_of_their_own,
    requests_are_described_by_their_routes,
    filters_may_describe_requests_themselves,
    a_descriptor_may_stand_for_many_values,
    hosts_may_describe_requests_as_well,
    connections_may_have_their_own_buckets,
    new_connections_beyond_a_rate_are_closed,
);

on_outrigger_only!(tokens_outlive_updates because TOKENS_ARE_KEPT);

const MESSAGE: &str = "local_ratelimit.v3.LocalRateLimit";

/// So many tokens, and one more every minute: none comes while a scenario runs.
fn bucket(tokens: u32) -> Value {
    json!({"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "60s"})
}

/// A limit that counts and enforces, with further `fields`.
fn limit(tokens: u32, fields: impl Into<Value>) -> Value {
    let fields = fields.into();
    let all = json!({"default_value": {"numerator": 100}});
    let mut limit = json!({
        "stat_prefix": "lrl", "token_bucket": bucket(tokens), "filter_enabled": all, "filter_enforced": all,
    });
    limit.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    limit
}

/// A route whose requests are described by `actions`.
fn described(path: &str, actions: impl Into<Value>) -> Route {
    let actions = actions.into();
    Route::prefix(path).to("app").with("route.rate_limits", json!([{"actions": actions}]))
}

fn generic(value: &str) -> Value {
    json!([{"generic_key": {"descriptor_value": value}}])
}

/// Descriptors of one entry, and their tokens.
fn descriptors<const N: usize>(all: [(&str, &str, u32); N]) -> Value {
    let one = |(key, value, tokens)| json!({"entries": [{"key": key, "value": value}], "token_bucket": bucket(tokens)});
    all.map(one).to_vec().into()
}

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

/// How many of `times` requests pass.
async fn passing(proxy: &Proxy, path: &str, header: (&str, &str), times: usize) -> usize {
    let mut passed = 0;
    for _ in 0..times {
        let reply = proxy.get(path).header(header.0, header.1).send().await;
        assert!(matches!(reply.status, 200 | 429), "{}", reply.status);
        passed += usize::from(reply.status == 200);
    }
    passed
}

/// What the client is told of its limit.
fn told(reply: &Reply) -> [Option<String>; 3] {
    ["limit", "remaining", "reset"].map(|name| reply.header(&format!("x-ratelimit-{name}")))
}

async fn requests_beyond_the_limit_are_refused(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let fields = json!({
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "response_headers_to_add": [{"header": {"key": "x-limited", "value": "%REQ(:path)%"}}],
    });
    let routed = json!([{"header": {"key": "x-route", "value": "r"}}]);
    let http =
        Http::routing([Route::prefix("/").to("app").with("response_headers_to_add", routed)])
            .filter("limit", MESSAGE, limit(2, fields))
            .text_log(&log, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
    let bootstrap = bootstrap.listener(Listener::new("main", http));
    let proxy = bootstrap.cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    for (status, remaining, reset) in [(200, "1", "0"), (200, "0", "60"), (429, "0", "60")] {
        let reply = proxy.get("/p").send().await;
        assert_eq!(reply.status, status);
        assert_eq!(told(&reply), [Some("2".into()), Some(remaining.into()), Some(reset.into())]);
        assert_eq!(reply.header("x-route").as_deref(), Some("r"));
        let limited = reply.header("x-limited");
        assert_eq!(limited.as_deref(), (status == 429).then_some("/p"));
        assert_eq!(reply.text() == "local_rate_limited", status == 429);
    }
    let line = harness::eventually("a third line in the log", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().nth(2).map(ToOwned::to_owned)
    });
    assert_eq!(line.await, "429 RL local_rate_limited");
    for (name, count) in [("enabled", 3), ("enforced", 1), ("rate_limited", 1), ("ok", 2)] {
        assert_eq!(proxy.stat(&format!("lrl.http_local_rate_limit.{name}")).await, count, "{name}");
    }
    assert_eq!(app.count(), 2);
}

async fn grpc_clients_see_their_own_status(program: Program) {
    let app = Backend::echo("app").await;
    let exhausted = json!({"rate_limited_as_resource_exhausted": true});
    let routes = [
        Route::prefix("/plain").to("app").tell("limit", MESSAGE, limit(0, json!({}))),
        Route::prefix("/exhausted").to("app").tell("limit", MESSAGE, limit(0, exhausted)),
        Route::prefix("/status").to("app").tell(
            "limit",
            MESSAGE,
            limit(0, json!({"status": {"code": "ServiceUnavailable"}})),
        ),
        Route::prefix("/ok").to("app").tell(
            "limit",
            MESSAGE,
            limit(0, json!({"status": {"code": "OK"}})),
        ),
    ];
    let http = Http::routing(routes).filter("limit", MESSAGE, json!({"stat_prefix": "lrl"}));
    let proxy = start(program, &app, http).await;
    for (path, status) in [("/plain", "14"), ("/exhausted", "8")] {
        let call = Client::http2(proxy.address("main")).post(path);
        let reply = call.header("content-type", "application/grpc").send().await;
        assert_eq!(reply.header("grpc-status").as_deref(), Some(status), "{path}");
    }
    for (path, status) in [("/exhausted", 429), ("/status", 503), ("/ok", 429)] {
        assert_eq!(proxy.get(path).send().await.status, status, "{path}");
    }
}

async fn a_limit_may_only_be_counted(program: Program) {
    let app = Backend::echo("app").await;
    let none = json!({"default_value": {"numerator": 0}});
    let added = json!([{"header": {"key": "x-limited", "value": "true"}}]);
    let counted =
        json!({"filter_enforced": none, "request_headers_to_add_when_not_enforced": added});
    let off = json!({"stat_prefix": "off", "token_bucket": bucket(0)});
    let routes =
        [Route::prefix("/off").to("app").tell("limit", MESSAGE, off), Route::prefix("/").to("app")];
    let http = Http::routing(routes).filter("limit", MESSAGE, limit(1, counted));
    let proxy = start(program, &app, http).await;
    for limited in [None, Some("true".to_owned())] {
        let reply = proxy.get("/").send().await;
        assert_eq!((reply.status, reply.echo().header("x-limited")), (200, limited));
    }
    assert_eq!(proxy.get("/off").send().await.status, 200);
    for (name, count) in [("enabled", 2), ("enforced", 0), ("rate_limited", 1), ("ok", 1)] {
        assert_eq!(proxy.stat(&format!("lrl.http_local_rate_limit.{name}")).await, count, "{name}");
    }
}

async fn routes_have_limits_of_their_own(program: Program) {
    let app = Backend::echo("app").await;
    let own = |tokens| limit(tokens, json!({"stat_prefix": "own"}));
    let routes = [
        Route::prefix("/two").to("app").tell("limit", MESSAGE, own(2)),
        Route::prefix("/same").to("app").tell("limit", MESSAGE, own(2)),
        Route::prefix("/filter").to("app"),
    ];
    let http = Http::routing(routes).filter("limit", MESSAGE, limit(1, json!({})));
    let proxy = start(program, &app, http).await;
    for (path, expected) in [("/two", 2), ("/same", 2), ("/filter", 1)] {
        assert_eq!(passing(&proxy, path, ("x", "y"), 3).await, expected, "{path}");
    }
    assert_eq!(proxy.stat("own.http_local_rate_limit.ok").await, 4);
    assert_eq!(proxy.stat("lrl.http_local_rate_limit.ok").await, 1);
}

async fn requests_are_described_by_their_routes(program: Program) {
    let app = Backend::echo("app").await;
    let header = json!([{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]);
    let matched = json!([{"header_value_match": {
        "descriptor_value": "curl", "headers": [{"name": "user-agent", "string_match": {"prefix": "curl"}}],
    }}]);
    let staged = json!([{"stage": 1, "actions": generic("staged")}]);
    let disabled = json!([{"disable_key": "k", "actions": generic("disabled")}]);
    let routes = [
        described("/user", header),
        described("/agent", matched),
        described("/cluster", json!([{"destination_cluster": {}}])),
        described("/client", json!([{"masked_remote_address": {"v4_prefix_mask_len": 8}}])),
        described(
            "/query",
            json!([{"query_parameters": {"query_parameter_name": "q", "descriptor_key": "q"}}]),
        ),
        Route::prefix("/staged").to("app").with("route.rate_limits", staged),
        Route::prefix("/disabled").to("app").with("route.rate_limits", disabled),
    ];
    let descriptors = descriptors([
        ("user", "ann", 1),
        ("header_match", "curl", 2),
        ("destination_cluster", "app", 3),
        ("masked_remote_address", "127.0.0.0/8", 4),
        ("q", "a b", 5),
        ("generic_key", "staged", 1),
        ("generic_key", "disabled", 1),
    ]);
    let limit = limit(1000, json!({"descriptors": descriptors}));
    let proxy = start(program, &app, Http::routing(routes).filter("limit", MESSAGE, limit)).await;
    for (path, header, expected) in [
        ("/user", ("x-user", "ann"), 1),
        ("/user", ("x-user", "bob"), 6),
        ("/user", ("x-none", "ann"), 6),
        ("/agent", ("user-agent", "curl/8"), 2),
        ("/agent", ("user-agent", "other"), 6),
        ("/cluster", ("x", "y"), 3),
        ("/client", ("x", "y"), 4),
        ("/query?q=a%20b", ("x", "y"), 5),
        ("/staged", ("x", "y"), 6),
        ("/disabled", ("x", "y"), 6),
    ] {
        assert_eq!(passing(&proxy, path, header, 6).await, expected, "{path} {header:?}");
    }
}

async fn filters_may_describe_requests_themselves(program: Program) {
    let app = Backend::echo("app").await;
    let limits = json!([
        {"actions": [{"request_headers": {"header_name": "x-a", "descriptor_key": "a"}}], "hits_addend": {"number": 2}},
        {"actions": [{"request_headers": {"header_name": "x-b", "descriptor_key": "b"}}]},
    ]);
    let all = descriptors([("a", "1", 4), ("b", "1", 3), ("generic_key", "route", 1)]);
    let fields = |consumes: bool| {
        json!({
            "rate_limits": limits, "descriptors": all, "always_consume_default_token_bucket": consumes,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        })
    };
    let routes = [
        described("/own", generic("route")),
        described("/both", generic("route")).tell("limit", MESSAGE, limit(2, fields(true))),
    ];
    let http = Http::routing(routes).filter("limit", MESSAGE, limit(1, fields(false)));
    let proxy = start(program, &app, http).await;
    for (path, header, expected) in [
        ("/own", ("x-a", "1"), 2),
        ("/own", ("x-b", "1"), 3),
        ("/own", ("x-c", "1"), 1),
        ("/both", ("x-b", "1"), 2),
    ] {
        assert_eq!(passing(&proxy, path, header, 5).await, expected, "{path} {header:?}");
    }
    let reply = proxy.get("/own").header("x-a", "1").send().await;
    assert_eq!(told(&reply)[0].as_deref(), Some("4"));
}

async fn a_descriptor_may_stand_for_many_values(program: Program) {
    let app = Backend::echo("app").await;
    let header = json!([{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]);
    let all = descriptors([("user", "", 1), ("user", "ann", 2)]);
    let fields = json!({"descriptors": all, "max_dynamic_descriptors": 2});
    let http =
        Http::routing([described("/", header)]).filter("limit", MESSAGE, limit(1000, fields));
    let proxy = start(program, &app, http).await;
    for (user, times, expected) in [
        ("ann", 3, 2),
        ("bob", 2, 1),
        ("cy", 2, 1),
        ("bob", 1, 0),
        ("dan", 2, 1),
        ("bob", 1, 0),
        ("cy", 1, 1),
    ] {
        assert_eq!(passing(&proxy, "/", ("x-user", user), times).await, expected, "{user}");
    }
}

async fn hosts_may_describe_requests_as_well(program: Program) {
    let app = Backend::echo("app").await;
    let all = descriptors([("generic_key", "route", 4), ("generic_key", "host", 2)]);
    let heeds = |option: &str| limit(1000, json!({"descriptors": all, "vh_rate_limits": option}));
    let includes = described("/route-includes", generic("route"))
        .with("route.include_vh_rate_limits", true)
        .tell("limit", MESSAGE, heeds("IGNORE"));
    let of = |path: &str, option: &str| {
        described(path, generic("route")).tell("limit", MESSAGE, heeds(option))
    };
    let routes = [
        includes,
        of("/override", "OVERRIDE"),
        of("/include", "INCLUDE"),
        of("/ignore", "IGNORE"),
        Route::prefix("/none").to("app").tell("limit", MESSAGE, heeds("OVERRIDE")),
        Route::prefix("/alone").to("app").tell("limit", MESSAGE, heeds("IGNORE")),
    ];
    let http = Http::routing(routes)
        .filter("limit", MESSAGE, json!({"stat_prefix": "lrl"}))
        .with("route_config.virtual_hosts.0.rate_limits", json!([{"actions": generic("host")}]));
    let proxy = start(program, &app, http).await;
    for (path, expected) in [
        ("/route-includes", 2),
        ("/override", 4),
        ("/include", 2),
        ("/ignore", 4),
        ("/none", 2),
        ("/alone", 6),
    ] {
        assert_eq!(passing(&proxy, path, ("x", "y"), 6).await, expected, "{path}");
    }
}

async fn connections_may_have_their_own_buckets(program: Program) {
    let app = Backend::echo("app").await;
    let fields = json!({"local_rate_limit_per_downstream_connection": true});
    let http =
        Http::routing([Route::prefix("/").to("app")]).filter("limit", MESSAGE, limit(1, fields));
    let proxy = start(program, &app, http).await;
    for _ in 0..2 {
        let mut connection = proxy.client().connect().await.unwrap();
        for status in [200, 429] {
            assert_eq!(connection.send(proxy.get("/")).await.unwrap().status, status);
        }
    }
}

async fn new_connections_beyond_a_rate_are_closed(program: Program) {
    let rate = |tokens, fields: Value| {
        let mut rate = json!({"stat_prefix": "rate", "token_bucket": bucket(tokens)});
        rate.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        rate
    };
    let message = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
    let listener = |name: &str, rate: Value| {
        let http = Http::routing([Route::prefix("/").direct(200, "ok")]);
        let mut value = Value::from(http);
        value["stat_prefix"] = name.into();
        let filters = json!([
            {"name": "rate", "typed_config": typed(message, rate)},
            {"name": "http", "typed_config": value},
        ]);
        Listener::new(name, Http::routing([])).with("filter_chains.0.filters", filters)
    };
    let shared = json!({"share_key": "both"});
    let off = json!({"runtime_enabled": {"default_value": false}});
    let proxy = Bootstrap::new()
        .listener(listener("own", rate(2, json!({}))))
        .listener(listener("a", rate(3, shared.clone())))
        .listener(listener("b", rate(3, shared)))
        .listener(listener("off", rate(0, off)))
        .start(program)
        .await;
    for (names, expected) in [(&["own"][..], 2), (&["a", "b"], 3), (&["off"], 6)] {
        let mut passed = 0;
        for at in 0..6 {
            let client = Client::http1(proxy.address(names[at % names.len()]));
            passed += usize::from(client.get("/").try_send().await.is_ok());
        }
        assert_eq!(passed, expected, "{names:?}");
    }
    assert_eq!(proxy.stat("local_rate_limit.rate.rate_limited").await, 4 + 3);
}

async fn tokens_outlive_updates(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let rds = DiscoveryFile::routes(bootstrap.dir());
    let routes = |other: &str| {
        let own = Route::prefix("/own").to("app").tell("limit", MESSAGE, limit(2, json!({})));
        table("routes", [Route::prefix("/other").direct(200, other), own])
    };
    rds.publish([routes("old")]);
    let http = Http::routes_from_file("routes", rds.path());
    let http = http.filter("limit", MESSAGE, json!({"stat_prefix": "lrl"}));
    let bootstrap = bootstrap.listener(Listener::new("main", http));
    let proxy = bootstrap.cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    assert_eq!(passing(&proxy, "/own", ("x", "y"), 1).await, 1);
    rds.publish([routes("new")]);
    harness::eventually::eventually_true("the new table", async || {
        proxy.get("/other").send().await.text() == "new"
    })
    .await;
    assert_eq!(passing(&proxy, "/own", ("x", "y"), 3).await, 1);
}
