//! Subsets of a cluster's endpoints: where requests go by the metadata their route wants.

use std::collections::BTreeSet;

use harness::{Bootstrap, Cluster, Everywhere, Http, Program, Proxy, Route, Value, json};

mod within;

on_both!(
    requests_go_to_the_subset_their_route_wants,
    without_a_subset_the_fallback_policy_decides,
    a_selector_decides_about_its_own_fallback,
    a_subset_in_bad_health_is_still_the_subset,
    weighted_clusters_add_their_wishes,
    lists_stand_for_each_of_their_elements,
    a_subset_may_be_a_single_host,
    criteria_are_tried_one_after_the_other,
    the_policy_may_be_an_extension,
    filters_have_the_last_word,
);

on_outrigger_only!(the_order_of_selectors_does_not_matter because FALLBACKS_OF_SELECTORS);

/// No endpoint.
const NOBODY: [u8; 0] = [];

/// Endpoint number `number` with these labels.
fn endpoint(app: &Everywhere, number: u8, labels: Value) -> Value {
    let (ip, port) = (app.address(number).ip().to_string(), app.address(number).port());
    let mut endpoint = json!({
        "endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}},
        "metadata": {"filter_metadata": {}},
    });
    endpoint["metadata"]["filter_metadata"]["envoy.lb"] = labels;
    endpoint
}

/// Cluster `app` with an endpoint for each of these labels, numbered from 1.
fn cluster<const N: usize>(app: &Everywhere, labels: [Value; N], subsets: Value) -> Cluster {
    let endpoints = (1..).zip(labels).map(|(number, labels)| endpoint(app, number, labels));
    endpoints.fold(Cluster::new("app"), Cluster::lb_endpoint).with("lb_subset_config", subsets)
}

/// A `metadata_match` for these labels.
fn wanting(labels: Value) -> Value {
    let mut wanted = json!({"filter_metadata": {"other": {"v": "x"}}});
    wanted["filter_metadata"]["envoy.lb"] = labels;
    wanted
}

/// A route for requests to `path` that want these labels of the endpoint.
fn route(path: &str, labels: Value) -> Route {
    Route::path(path).to("app").with("route.metadata_match", wanting(labels))
}

/// The same for several clusters.
fn weighted_route(path: &str, labels: Value, clusters: &Value) -> Route {
    let route = Route::path(path).with("route.metadata_match", wanting(labels));
    route.with("route.weighted_clusters.clusters", clusters.clone())
}

async fn start(program: Program, cluster: Cluster, routes: Vec<Route>) -> Proxy {
    Bootstrap::routing(routes).cluster(cluster).start(program).await
}

/// The number of the endpoint that answers a request to `path`; none if nobody does.
async fn answering(proxy: &Proxy, path: &str) -> Option<u8> {
    let reply = proxy.get(path).send().await;
    if reply.status == 200 {
        return Some(reply.text().rsplit('.').next().unwrap().parse().unwrap());
    }
    assert_eq!((reply.status, &*reply.text()), (503, "no healthy upstream"));
    None
}

/// The endpoints that answer requests to `path`.
async fn users(proxy: &Proxy, path: &str) -> Vec<u8> {
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        seen.extend(answering(proxy, path).await);
    }
    seen.into_iter().collect()
}

async fn assert_stats(proxy: &Proxy, stats: [(&str, u64); 3]) {
    for (name, value) in stats {
        assert_eq!(proxy.stat(&format!("cluster.app.lb_subsets_{name}")).await, value, "{name}");
    }
}

async fn requests_go_to_the_subset_their_route_wants(program: Program) {
    let app = Everywhere::start().await;
    let labels = [
        json!({"v": "1", "stage": "prod"}),
        json!({"v": "1", "stage": "test"}),
        json!({"v": "2", "stage": "prod", "n": 7}),
        json!({"v": "2", "n": 7.5, "on": true}),
        json!({"n": "7", "nested": {"a": [1, null]}}),
        json!({}),
    ];
    let keys =
        [json!(["v"]), json!(["stage", "v"]), json!(["n"]), json!(["on"]), json!(["nested"])];
    let selectors: Vec<Value> = keys.into_iter().map(|keys| json!({"keys": keys})).collect();
    let routes = vec![
        route("/v1", json!({"v": "1"})),
        route("/v2", json!({"v": "2"})),
        route("/v1-prod", json!({"v": "1", "stage": "prod"})),
        route("/seven", json!({"n": 7})),
        route("/text", json!({"n": "7"})),
        route("/true", json!({"on": true})),
        route("/nested", json!({"nested": {"a": [1, null]}})),
        route("/v3", json!({"v": "3"})),
        route("/stage", json!({"stage": "prod"})),
        route("/more", json!({"v": "1", "other": 1})),
        Route::path("/any").to("app"),
    ];
    let cluster = cluster(&app, labels, json!({"subset_selectors": selectors}));
    let proxy = start(program, cluster, routes).await;
    let expected: [(&str, &[u8]); 11] = [
        ("/v1", &[1, 2]),
        ("/v2", &[3, 4]),
        ("/v1-prod", &[1]),
        ("/seven", &[3]),
        ("/text", &[5]),
        ("/true", &[4]),
        ("/nested", &[5]),
        ("/v3", &[]),
        ("/stage", &[]),
        ("/more", &[]),
        ("/any", &[]),
    ];
    for (path, endpoints) in expected {
        assert_eq!(users(&proxy, path).await, endpoints, "{path}");
    }
    assert_stats(&proxy, [("selected", 7 * 24), ("fallback", 0), ("fallback_panic", 0)]).await;
}

async fn without_a_subset_the_fallback_policy_decides(program: Program) {
    let app = Everywhere::start().await;
    let labels = || [json!({"v": 1, "d": 1}), json!({"v": 2, "d": 1}), json!({"v": 3})];
    let routes = || {
        vec![
            route("/v1", json!({"v": 1})),
            route("/v4", json!({"v": 4})),
            Route::prefix("/").to("app"),
        ]
    };
    let with = |mut subsets: Value| {
        subsets["subset_selectors"] = json!([{"keys": ["v"]}]);
        cluster(&app, labels(), subsets)
    };
    let any = with(json!({"fallback_policy": "ANY_ENDPOINT"}));
    let proxy = start(program, any, routes()).await;
    assert_eq!(users(&proxy, "/v1").await, [1]);
    assert_eq!(users(&proxy, "/v4").await, [1, 2, 3]);
    assert_eq!(users(&proxy, "/").await, [1, 2, 3]);
    assert_stats(&proxy, [("selected", 24), ("fallback", 48), ("fallback_panic", 0)]).await;

    let default = json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"d": 1}});
    let proxy = start(program, with(default), routes()).await;
    assert_eq!(users(&proxy, "/v4").await, [1, 2]);
    assert_eq!(users(&proxy, "/").await, [1, 2]);
    assert_stats(&proxy, [("selected", 0), ("fallback", 48), ("fallback_panic", 0)]).await;

    let empty = json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"d": 2}});
    let proxy = start(program, with(empty.clone()), routes()).await;
    assert_eq!(users(&proxy, "/v4").await, NOBODY);
    let mut panic = empty;
    panic["panic_mode_any"] = true.into();
    let proxy = start(program, with(panic), routes()).await;
    assert_eq!(users(&proxy, "/v4").await, [1, 2, 3]);
    assert_eq!(users(&proxy, "/v1").await, [1]);
    assert_stats(&proxy, [("selected", 24), ("fallback", 0), ("fallback_panic", 24)]).await;

    let without = json!({"panic_mode_any": true});
    let proxy = start(program, with(without), routes()).await;
    assert_eq!(users(&proxy, "/v4").await, NOBODY, "there is no fallback to panic about");

    let nothing_selected = json!({"subset_selectors": [{"keys": []}]});
    let proxy = start(program, cluster(&app, labels(), nothing_selected), routes()).await;
    assert_eq!(users(&proxy, "/v1").await, NOBODY);
    let no_selectors = json!({"fallback_policy": "NO_FALLBACK"});
    let proxy = start(program, cluster(&app, labels(), no_selectors), routes()).await;
    assert_eq!(users(&proxy, "/v1").await, [1, 2, 3]);
}

async fn a_selector_decides_about_its_own_fallback(program: Program) {
    let app = Everywhere::start().await;
    let labels = [json!({"a": 1, "b": 1, "c": 1}), json!({"b": 2, "d": 1}), json!({"c": 1})];
    let fewer = |keys: &[&str], fewer: &[&str]| json!({"keys": keys, "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": fewer});
    let to = |keys: &[&str], policy: &str| json!({"keys": keys, "fallback_policy": policy});
    let subsets = json!({
        "fallback_policy": "ANY_ENDPOINT",
        "default_subset": {"d": 1},
        "subset_selectors": [
            fewer(&["a", "b"], &["b"]),
            fewer(&["c", "b", "a"], &["b", "a"]),
            to(&["b"], "NO_FALLBACK"),
            to(&["c"], "DEFAULT_SUBSET"),
            to(&["b", "d"], "ANY_ENDPOINT"),
            to(&["d"], "NOT_DEFINED"),
        ],
    });
    let routes = vec![
        route("/all", json!({"a": 1, "b": 1, "c": 1})),
        route("/a-b", json!({"a": 1, "b": 1, "c": 2})),
        route("/b", json!({"a": 1, "b": 2, "c": 2})),
        route("/none", json!({"a": 1, "b": 3, "c": 2})),
        route("/default", json!({"c": 2})),
        route("/any", json!({"b": 1, "d": 2})),
        route("/clusters", json!({"d": 2})),
    ];
    let proxy = start(program, cluster(&app, labels, subsets), routes).await;
    let expected: [(&str, &[u8]); 7] = [
        ("/all", &[1]),
        ("/a-b", &[1]),
        ("/b", &[2]),
        ("/none", &[]),
        ("/default", &[2]),
        ("/any", &[1, 2, 3]),
        ("/clusters", &[1, 2, 3]),
    ];
    for (path, endpoints) in expected {
        assert_eq!(users(&proxy, path).await, endpoints, "{path}");
    }
    assert_stats(&proxy, [("selected", 3 * 24), ("fallback", 24), ("fallback_panic", 0)]).await;
}

async fn a_subset_in_bad_health_is_still_the_subset(program: Program) {
    let app = Everywhere::start().await;
    let proxy = async |threshold: f64| {
        let mut gone = endpoint(&app, 1, json!({"v": 1}));
        gone["health_status"] = "UNHEALTHY".into();
        let subsets =
            json!({"subset_selectors": [{"keys": ["v"]}], "fallback_policy": "ANY_ENDPOINT"});
        let cluster = Cluster::new("app")
            .lb_endpoint(gone)
            .lb_endpoint(endpoint(&app, 2, json!({"v": 2})))
            .with("lb_subset_config", subsets)
            .with("common_lb_config.healthy_panic_threshold.value", threshold);
        let routes = vec![route("/v1", json!({"v": 1})), route("/v3", json!({"v": 3}))];
        start(program, cluster, routes).await
    };
    let panicking = proxy(50.0).await;
    assert_eq!(users(&panicking, "/v1").await, [1], "the subset alone is in panic");
    assert_eq!(panicking.stat("cluster.app.lb_healthy_panic").await, 24);
    let calm = proxy(0.0).await;
    assert_eq!(users(&calm, "/v1").await, NOBODY);
    assert_eq!(users(&calm, "/v3").await, [2]);
    assert_stats(&calm, [("selected", 24), ("fallback", 24), ("fallback_panic", 0)]).await;
}

async fn weighted_clusters_add_their_wishes(program: Program) {
    let app = Everywhere::start().await;
    let labels = [json!({"v": 1, "s": 1}), json!({"v": 2, "s": 1}), json!({"v": 1, "s": 2})];
    let subsets = json!({"subset_selectors": [{"keys": ["v", "s"]}]});
    let wanting_v = |v: u8| wanting(json!({"v": v}));
    let clusters = json!([
        {"name": "app", "weight": 50, "metadata_match": wanting_v(1)},
        {"name": "app", "weight": 50, "metadata_match": wanting_v(2)},
    ]);
    let silent = json!([{"name": "app", "weight": 1}]);
    let routes = vec![
        weighted_route("/split", json!({"s": 1, "v": 7}), &clusters),
        weighted_route("/routes", json!({"s": 2, "v": 1}), &silent),
        weighted_route("/alone", json!({}), &clusters),
    ];
    let proxy = start(program, cluster(&app, labels, subsets), routes).await;
    assert_eq!(users(&proxy, "/split").await, [1, 2]);
    assert_eq!(users(&proxy, "/routes").await, [3]);
    assert_eq!(users(&proxy, "/alone").await, NOBODY, "no subset is for v alone");
}

async fn filters_have_the_last_word(program: Program) {
    let app = Everywhere::start().await;
    let labels = [json!({"v": 1, "s": 1}), json!({"v": 2, "s": 1}), json!({"v": 1, "s": 2})];
    let subsets = json!({"subset_selectors": [{"keys": ["v", "s"]}]});
    // What it says of the requests that it touches stands under the name it has here.
    let fault = json!({
        "delay": {"fixed_delay": "0.001s", "percentage": {"numerator": 100}},
        "headers": [{"name": "x-v", "string_match": {"exact": "2"}}],
        "filter_metadata": {"v": 2},
    });
    let http = Http::routing([route("/", json!({"v": 1, "s": 1}))]);
    let proxy = Bootstrap::http(http.filter("envoy.lb", "fault.v3.HTTPFault", fault))
        .cluster(cluster(&app, labels, subsets))
        .start(program)
        .await;
    for (v, number) in [("1", 1), ("2", 2)] {
        let reply = proxy.get("/").header("x-v", v).send().await;
        assert_eq!(reply.text(), app.address(number).ip().to_string());
    }
}

async fn the_policy_may_be_an_extension(program: Program) {
    let app = Everywhere::start().await;
    let labels = || [json!({"v": 1, "s": 1}), json!({"v": 2, "s": 1}), json!({"v": 2})];
    let policy = |redundant: bool| {
        let prefix = "type.googleapis.com/envoy.extensions.load_balancing_policies";
        let named = |name: &str, mut config: Value| {
            config["@type"] = format!("{prefix}.{name}").into();
            json!({"policies": [{"typed_extension_config": {"name": name, "typed_config": config}}]})
        };
        named(
            "subset.v3.Subset",
            json!({
                "subset_selectors": [{"keys": ["v"]}, {"keys": ["v", "s"], "fallback_policy": "NO_FALLBACK"}],
                "fallback_policy": "DEFAULT_SUBSET",
                "default_subset": {"s": 1},
                "allow_redundant_keys": redundant,
                "subset_lb_policy": named("random.v3.Random", json!({})),
            }),
        )
    };
    let proxy = async |redundant: bool| {
        let endpoints = (1..).zip(labels()).map(|(at, labels)| endpoint(&app, at, labels));
        let cluster = endpoints.fold(Cluster::new("app"), Cluster::lb_endpoint);
        let routes = vec![
            route("/exact", json!({"v": 2})),
            route("/more", json!({"v": 2, "x": 1})),
            route("/both", json!({"v": 2, "s": 1, "x": 1})),
            route("/neither", json!({"v": 2, "s": 2, "x": 1})),
            route("/less", json!({"s": 1, "x": 1})),
        ];
        start(program, cluster.with("load_balancing_policy", policy(redundant)), routes).await
    };
    let strict = proxy(false).await;
    assert_eq!(users(&strict, "/exact").await, [2, 3]);
    assert_eq!(users(&strict, "/more").await, [1, 2]);
    let lenient = proxy(true).await;
    assert_eq!(users(&lenient, "/exact").await, [2, 3]);
    assert_eq!(users(&lenient, "/more").await, [2, 3]);
    assert_eq!(users(&lenient, "/both").await, [2]);
    assert_eq!(users(&lenient, "/neither").await, NOBODY, "the longest selector decides");
    assert_eq!(users(&lenient, "/less").await, [1, 2]);
}

async fn lists_stand_for_each_of_their_elements(program: Program) {
    let app = Everywhere::start().await;
    let labels = || [json!({"v": ["1", "2"]}), json!({"v": "2"}), json!({"v": ["3"]})];
    let routes = || {
        vec![
            route("/1", json!({"v": "1"})),
            route("/2", json!({"v": "2"})),
            route("/list", json!({"v": ["1", "2"]})),
        ]
    };
    let subsets = |any: bool| {
        json!({"subset_selectors": [{"keys": ["v"]}], "list_as_any": any,
        "fallback_policy": "DEFAULT_SUBSET", "default_subset": {"v": "3"}})
    };
    let proxy = start(program, cluster(&app, labels(), subsets(true)), routes()).await;
    assert_eq!(users(&proxy, "/1").await, [1]);
    assert_eq!(users(&proxy, "/2").await, [1, 2]);
    assert_eq!(users(&proxy, "/list").await, [3], "the default subset's value is in a list, too");
    let proxy = start(program, cluster(&app, labels(), subsets(false)), routes()).await;
    assert_eq!(users(&proxy, "/1").await, NOBODY);
    assert_eq!(users(&proxy, "/2").await, [2]);
    assert_eq!(users(&proxy, "/list").await, [1]);
}

async fn a_subset_may_be_a_single_host(program: Program) {
    let app = Everywhere::start().await;
    let mut gone = endpoint(&app, 1, json!({"v": 1}));
    gone["health_status"] = "UNHEALTHY".into();
    let second = endpoint(&app, 2, json!({"v": 1}));
    let subsets = json!({"subset_selectors": [{"keys": ["v"], "single_host_per_subset": true}]});
    let cluster = Cluster::new("app")
        .lb_endpoint(gone)
        .lb_endpoint(second)
        .with("lb_subset_config", subsets)
        .with("common_lb_config.healthy_panic_threshold.value", 0.0);
    let proxy = start(program, cluster, vec![route("/v1", json!({"v": 1}))]).await;
    assert_eq!(users(&proxy, "/v1").await, [1], "the first, whatever its health");
}

async fn criteria_are_tried_one_after_the_other(program: Program) {
    let app = Everywhere::start().await;
    let labels = || [json!({"v": 1, "s": 1}), json!({"v": 2, "s": 1})];
    let subsets = |policy: &str| json!({"subset_selectors": [{"keys": ["v", "s"]}, {"keys": ["s"]}], "metadata_fallback_policy": policy});
    let routes = || {
        vec![
            route("/second", json!({"s": 1, "fallback_list": [{"v": 3}, {"v": 2}, {"v": 1}]})),
            route("/nobody", json!({"s": 1, "fallback_list": [{"v": 3}, {"v": 4}]})),
            route("/empty", json!({"s": 1, "fallback_list": []})),
            route("/without", json!({"s": 1, "v": 1})),
        ]
    };
    let proxy = start(program, cluster(&app, labels(), subsets("FALLBACK_LIST")), routes()).await;
    assert_eq!(users(&proxy, "/second").await, [2]);
    assert_eq!(users(&proxy, "/nobody").await, NOBODY);
    assert_eq!(users(&proxy, "/empty").await, [1, 2]);
    assert_eq!(users(&proxy, "/without").await, [1]);
    let proxy =
        start(program, cluster(&app, labels(), subsets("METADATA_NO_FALLBACK")), routes()).await;
    assert_eq!(users(&proxy, "/second").await, NOBODY, "it is a label like any other");
    assert_eq!(users(&proxy, "/without").await, [1]);
}

async fn the_order_of_selectors_does_not_matter(program: Program) {
    let app = Everywhere::start().await;
    let selectors = json!([
        {"keys": ["a", "b"]},
        {"keys": ["a"], "fallback_policy": "ANY_ENDPOINT"},
    ]);
    let cluster = cluster(&app, [json!({"a": 1, "b": 1})], json!({"subset_selectors": selectors}));
    let proxy = start(program, cluster, vec![route("/", json!({"a": 2}))]).await;
    assert_eq!(users(&proxy, "/").await, [1]);
}
