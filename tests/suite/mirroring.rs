//! Requests that go to a second cluster as well, whatever becomes of them there.

use std::time::{Duration, Instant};

use harness::backend::tcp::TcpBackend;
use harness::eventually::eventually_true;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Program, Proxy, Route, Value, VirtualHost,
    json,
};

on_both!(
    a_mirrored_request_differs_by_its_host,
    a_mirror_gets_the_body_once_whatever_is_retried,
    a_mirror_gets_trailers,
    what_a_mirror_answers_is_nobodys_business,
    mirrors_change_headers_and_hosts,
    a_share_of_requests_is_mirrored,
    the_most_specific_mirrors_count,
    what_has_no_endpoint_is_not_mirrored,
    a_mirror_has_the_time_of_its_route,
    unknown_mirrors_are_refused_or_passed_over,
);

on_outrigger_only!(a_mirror_that_hangs_costs_a_request_nothing because MIRRORS_NEVER_SLOW);

fn mirrored(policies: Value) -> Route {
    Route::prefix("/").to("app").with("route.request_mirror_policies", policies)
}

async fn mirroring(program: Program, route: Route, app: &Backend, mirror: &Backend) -> Proxy {
    Bootstrap::routing([route])
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(Cluster::new("mirror").endpoint(mirror))
        .start(program)
        .await
}

async fn backends() -> (Backend, Backend) {
    (Backend::echo("app").await, Backend::echo("mirror").await)
}

async fn arrived(mirror: &Backend, count: usize) {
    eventually_true("mirrored requests arrive", async || mirror.count() == count).await;
}

async fn a_mirrored_request_differs_by_its_host(program: Program) {
    let (app, mirror) = backends().await;
    let route = mirrored(json!([{"cluster": "mirror"}]))
        .with("route.prefix_rewrite", "/new/")
        .with("request_headers_to_add", json!([{"header": {"key": "x-route", "value": "r"}}]));
    let proxy = mirroring(program, route, &app, &mirror).await;
    for (host, shadow) in [("a.com", "a.com-shadow"), ("a.com:81", "a.com-shadow:81")] {
        let reply = proxy.get("/x?q").host(host).send().await;
        assert_eq!((reply.status, reply.echo().backend()), (200, "app"));
        eventually_true("the mirror has it", async || {
            mirror.calls().iter().any(|call| call.host == shadow)
        })
        .await;
    }
    let (original, copy) = (app.calls().remove(0), mirror.calls().remove(0));
    assert_eq!((copy.method.as_str(), copy.path.as_str()), ("GET", "/new/x?q"));
    for name in
        ["x-request-id", "x-route", "x-envoy-original-path", "x-envoy-expected-rq-timeout-ms"]
    {
        assert!(copy.header(name).is_some(), "{name}");
        assert_eq!(copy.header(name), original.header(name), "{name}");
    }
    assert_eq!(copy.header("x-envoy-internal"), Some("true"));
    assert!(copy.header("x-forwarded-for").is_some_and(|own| !own.is_empty()));
    proxy
        .until_stats([
            ("cluster.mirror.upstream_rq_total", 2),
            ("cluster.mirror.upstream_rq_200", 2),
            ("cluster.mirror.upstream_rq_completed", 2),
            ("cluster.app.upstream_rq_total", 2),
            ("http.main.downstream_rq_total", 2),
        ])
        .await;
}

async fn a_mirror_gets_the_body_once_whatever_is_retried(program: Program) {
    let mirror = Backend::echo("mirror").await;
    let app = Backend::scripted("app", |call| match call.nth {
        0 | 1 => Answer::status(503),
        _ => Answer::echo(),
    })
    .await;
    let route = mirrored(json!([{"cluster": "mirror"}, {"cluster": "mirror"}]))
        .retry(json!({"retry_on": "5xx", "num_retries": 3}));
    let proxy = mirroring(program, route, &app, &mirror).await;
    let body = "0123456789".repeat(10_000);
    let reply = proxy.client().post("/").body(body.clone()).send().await;
    assert_eq!((reply.status, app.count()), (200, 3));
    arrived(&mirror, 2).await;
    for call in mirror.calls() {
        assert!(call.body == body, "{} bytes", call.body.len());
        assert_eq!(call.header("x-envoy-attempt-count"), None);
    }
}

async fn a_mirror_gets_trailers(program: Program) {
    let (app, mirror) = backends().await;
    let proxy = Bootstrap::routing([mirrored(json!([{"cluster": "mirror"}]))])
        .cluster(Cluster::new("app").http2().endpoint(&app))
        .cluster(Cluster::new("mirror").http2().endpoint(&mirror))
        .start(program)
        .await;
    let client = Client::http2(proxy.address("main"));
    let reply = client.post("/").body("part").trailer("x-sum", "7").send().await;
    assert_eq!(reply.status, 200);
    arrived(&mirror, 1).await;
    let copy = mirror.calls().remove(0);
    assert_eq!(copy.body, "part");
    assert_eq!(copy.trailers.get("x-sum").map(|sum| sum.as_bytes()), Some(&b"7"[..]));
    assert_eq!(copy.host, "test.example-shadow");
}

async fn what_a_mirror_answers_is_nobodys_business(program: Program) {
    let app = Backend::echo("app").await;
    let mirror = Backend::scripted("mirror", |call| match call.nth {
        0 => Answer::status(500),
        1 => Answer::abort(),
        _ => Answer::hang(),
    })
    .await;
    let proxy = mirroring(program, mirrored(json!([{"cluster": "mirror"}])), &app, &mirror).await;
    for count in 1..=4 {
        let reply = proxy.client().post("/").body("x").send().await;
        assert_eq!((reply.status, reply.echo().backend()), (200, "app"));
        arrived(&mirror, count).await;
    }
    proxy
        .until_stats([
            ("cluster.mirror.upstream_rq_500", 1),
            ("cluster.mirror.upstream_rq_503", 1),
            ("cluster.mirror.upstream_rq_active", 2),
            ("cluster.app.upstream_rq_200", 4),
        ])
        .await;
}

async fn mirrors_change_headers_and_hosts(program: Program) {
    let (app, mirror) = backends().await;
    let changes = json!([
        {"append": {"header": {"key": "x-path", "value": "%REQ(:path)%"}}},
        {"remove": "x-secret"},
    ]);
    let policies = json!([{"cluster_header": "x-mirror", "disable_shadow_host_suffix_append": true,
        "host_rewrite_literal": "m.example", "request_headers_mutations": changes},
        {"cluster": "mirror", "disable_shadow_host_suffix_append": true}]);
    let proxy = mirroring(program, mirrored(policies), &app, &mirror).await;
    let call = proxy.get("/x").host("a.com").header("x-secret", "s").header("x-mirror", "mirror");
    assert_eq!(call.send().await.status, 200);
    arrived(&mirror, 2).await;
    let calls = mirror.calls();
    let by_host = |host: &str| calls.iter().find(|call| call.host == host).unwrap();
    let changed = by_host("m.example");
    assert_eq!((changed.header("x-path"), changed.header("x-secret")), (Some("/x"), None));
    assert_eq!(by_host("a.com").header("x-secret"), Some("s"));
    assert_eq!(app.calls()[0].header("x-secret"), Some("s"));

    for cluster in ["nowhere", ""] {
        let call = proxy.get("/x").host("b.com").header("x-mirror", cluster);
        assert_eq!(call.send().await.status, 200);
    }
    arrived(&mirror, 4).await;
}

async fn a_share_of_requests_is_mirrored(program: Program) {
    let (app, mirror) = backends().await;
    let share = |numerator: u32| json!({"default_value": {"numerator": numerator}});
    let policies = json!([{"cluster": "mirror", "runtime_fraction": share(30)},
        {"cluster": "other", "runtime_fraction": share(0)}]);
    let other = Backend::echo("other").await;
    let proxy = Bootstrap::routing([mirrored(policies)])
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("mirror").endpoint(&mirror))
        .cluster(Cluster::new("other").endpoint(&other))
        .start(program)
        .await;
    let mut connection = proxy.client().connect().await.unwrap();
    for _ in 0..300 {
        assert_eq!(connection.send(proxy.get("/")).await.unwrap().status, 200);
    }
    proxy.until_stat("cluster.app.upstream_rq_200", |count| count == 300).await;
    let mirrored = proxy.stat("cluster.mirror.upstream_rq_total").await;
    assert!((40..=140).contains(&mirrored), "{mirrored}");
    assert_eq!(other.count(), 0);
}

async fn the_most_specific_mirrors_count(program: Program) {
    let (app, mirror) = backends().await;
    let (of_host, of_table) = (Backend::echo("of_host").await, Backend::echo("of_table").await);
    let own = mirrored(json!([{"cluster": "mirror"}]));
    let with = |name: &str, domain: &str| {
        VirtualHost::new(
            name,
            [domain],
            [own.clone().with("match.prefix", "/own"), Route::prefix("/").to("app")],
        )
    };
    let http = Http::hosting([
        with("a", "a.com").with("request_mirror_policies", json!([{"cluster": "of_host"}])),
        with("b", "*"),
    ]);
    let http = http.with("route_config.request_mirror_policies", json!([{"cluster": "of_table"}]));
    let proxy = Bootstrap::http(http)
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("mirror").endpoint(&mirror))
        .cluster(Cluster::new("of_host").endpoint(&of_host))
        .cluster(Cluster::new("of_table").endpoint(&of_table))
        .start(program)
        .await;
    for (host, path, chosen) in [
        ("a.com", "/own", &mirror),
        ("a.com", "/", &of_host),
        ("b.com", "/", &of_table),
        ("b.com", "/own", &mirror),
    ] {
        let before = chosen.count();
        assert_eq!(proxy.get(path).host(host).send().await.status, 200);
        arrived(chosen, before + 1).await;
    }
    assert_eq!((mirror.count(), of_host.count(), of_table.count()), (2, 1, 1));
}

async fn what_has_no_endpoint_is_not_mirrored(program: Program) {
    let mirror = Backend::echo("mirror").await;
    let proxy = Bootstrap::routing([mirrored(json!([{"cluster": "mirror"}]))])
        .cluster(Cluster::new("app"))
        .cluster(Cluster::new("mirror").endpoint(&mirror))
        .start(program)
        .await;
    assert_eq!(proxy.get("/").send().await.status, 503);
    proxy.until_stat("http.main.downstream_rq_5xx", |count| count == 1).await;
    proxy.until_stat("cluster.mirror.upstream_rq_total", |count| count == 0).await;
}

async fn a_mirror_has_the_time_of_its_route(program: Program) {
    let app = Backend::echo("app").await;
    let mirror = Backend::scripted("mirror", |_| Answer::hang()).await;
    let route = mirrored(json!([{"cluster": "mirror"}])).with("route.timeout", "0.3s");
    let proxy = mirroring(program, route, &app, &mirror).await;
    assert_eq!(proxy.client().post("/").body("x").send().await.status, 200);
    proxy
        .until_stats([
            ("cluster.mirror.upstream_rq_timeout", 1),
            ("cluster.mirror.upstream_rq_504", 1),
            ("cluster.mirror.upstream_rq_active", 0),
            ("cluster.app.upstream_rq_timeout", 0),
        ])
        .await;
}

async fn unknown_mirrors_are_refused_or_passed_over(program: Program) {
    let app = Backend::echo("app").await;
    let route = mirrored(json!([{"cluster": "nowhere"}]));
    let bootstrap = |http| Bootstrap::http(http).cluster(Cluster::new("app").endpoint(&app));
    let refusal = bootstrap(Http::routing([route.clone()])).refusal(program);
    assert!(refusal.contains("nowhere"), "{refusal}");
    let lenient = Http::routing([route]).with("route_config.validate_clusters", false);
    let proxy = bootstrap(lenient).start(program).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
}

/// Latencies of requests with a body, one after the other: the middle one, and the one that 99 % do not exceed.
async fn latencies(proxy: &Proxy, path: &str, requests: usize) -> (Duration, Duration) {
    let body = bytes::Bytes::from(vec![b'x'; 256 << 10]);
    let mut connection = proxy.client().connect().await.unwrap();
    let mut taken = Vec::with_capacity(requests);
    for _ in 0..requests {
        let call = proxy.client().post(path).body(body.clone());
        let begin = Instant::now();
        assert_eq!(connection.send(call).await.unwrap().status, 200);
        taken.push(begin.elapsed());
    }
    taken.sort_unstable();
    (taken[requests / 2], taken[requests * 99 / 100])
}

async fn a_mirror_that_hangs_costs_a_request_nothing(program: Program) {
    let full = std::env::var("LOAD").is_ok_and(|load| load == "full");
    let requests = if full { 5000 } else { 300 };
    let app = Backend::scripted("app", |_| Answer::status(200)).await;
    // It takes connections, and not a byte from them.
    let mirror = TcpBackend::scripted(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mirrored = Route::prefix("/mirrored")
        .to("app")
        .with("route.request_mirror_policies", json!([{"cluster": "mirror"}]));
    let proxy = Bootstrap::routing([mirrored, Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("mirror").endpoint(mirror.address()))
        .start(program)
        .await;
    let plain = latencies(&proxy, "/", requests).await;
    let (_, memory) = (latencies(&proxy, "/mirrored", requests / 2).await, proxy.resident());
    let beside = latencies(&proxy, "/mirrored", requests).await;
    let grown = proxy.resident().saturating_sub(memory) >> 20;
    println!(
        "alone {plain:?}, beside a mirror that hangs {beside:?} (p50, p99), memory +{grown} MiB"
    );
    assert!(beside.1 < plain.1 * 4 + Duration::from_millis(100), "{plain:?} {beside:?}");
    assert!(grown < 64, "{grown} MiB more");
    if full {
        proxy.until_stat("cluster.app.retry_or_shadow_abandoned", |count| count > 0).await;
    }
}
