//! What is counted for routes with a `stat_prefix`, and for virtual clusters.

use harness::port::Port;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Program, Proxy, Route, VirtualHost, json,
};

on_both!(routes_and_virtual_clusters_are_counted, labels_end_at_the_first_dot);

/// The statistics of virtual hosts that are not zero.
async fn counted(proxy: &Proxy) -> Vec<String> {
    let text = proxy.admin().get("/stats?filter=%5Evhost").send().await.text();
    let counted = |line: &&str| !line.ends_with(": 0") && !line.contains("upstream_rq_time:");
    text.lines().filter(counted).map(str::to_owned).collect()
}

const COUNTED: &str = "\
vhost.vh.route.a.b/c.upstream_rq_200: 1
vhost.vh.route.a.b/c.upstream_rq_2xx: 1
vhost.vh.route.a.b/c.upstream_rq_503: 1
vhost.vh.route.a.b/c.upstream_rq_5xx: 1
vhost.vh.route.a.b/c.upstream_rq_completed: 2
vhost.vh.route.a.b/c.upstream_rq_total: 2
vhost.vh.route.again.upstream_rq_200: 1
vhost.vh.route.again.upstream_rq_2xx: 1
vhost.vh.route.again.upstream_rq_completed: 1
vhost.vh.route.again.upstream_rq_retry: 1
vhost.vh.route.again.upstream_rq_retry_success: 1
vhost.vh.route.again.upstream_rq_total: 2
vhost.vh.route.dead.upstream_rq_503: 1
vhost.vh.route.dead.upstream_rq_5xx: 1
vhost.vh.route.dead.upstream_rq_completed: 1
vhost.vh.route.dead.upstream_rq_retry: 1
vhost.vh.route.dead.upstream_rq_retry_limit_exceeded: 1
vhost.vh.route.none.upstream_rq_503: 1
vhost.vh.route.none.upstream_rq_5xx: 1
vhost.vh.route.none.upstream_rq_completed: 1
vhost.vh.route.slow.upstream_rq_504: 1
vhost.vh.route.slow.upstream_rq_5xx: 1
vhost.vh.route.slow.upstream_rq_completed: 1
vhost.vh.route.slow.upstream_rq_timeout: 1
vhost.vh.route.slow.upstream_rq_total: 1
vhost.vh.vcluster.bad.upstream_rq_503: 1
vhost.vh.vcluster.bad.upstream_rq_5xx: 1
vhost.vh.vcluster.bad.upstream_rq_completed: 1
vhost.vh.vcluster.bad.upstream_rq_total: 1
vhost.vh.vcluster.other.upstream_rq_200: 3
vhost.vh.vcluster.other.upstream_rq_2xx: 3
vhost.vh.vcluster.other.upstream_rq_503: 2
vhost.vh.vcluster.other.upstream_rq_504: 1
vhost.vh.vcluster.other.upstream_rq_5xx: 3
vhost.vh.vcluster.other.upstream_rq_completed: 6
vhost.vh.vcluster.other.upstream_rq_retry: 2
vhost.vh.vcluster.other.upstream_rq_retry_limit_exceeded: 1
vhost.vh.vcluster.other.upstream_rq_retry_success: 1
vhost.vh.vcluster.other.upstream_rq_timeout: 1
vhost.vh.vcluster.other.upstream_rq_total: 5";

async fn routes_and_virtual_clusters_are_counted(program: Program) {
    let app = Backend::scripted("app", |call| match call.path.as_str() {
        "/bad" => Answer::status(503),
        "/again" if call.nth == 0 => Answer::status(500),
        "/slow" => Answer::hang(),
        _ => Answer::echo(),
    })
    .await;
    let dead = Port::reserve();
    let counted_as = |route: Route, prefix: &str| route.with("stat_prefix", prefix);
    let retry = json!({"retry_on": "5xx,connect-failure", "num_retries": 1});
    let routes = [
        counted_as(Route::prefix("/direct").direct(200, ""), "direct"),
        counted_as(Route::prefix("/dead").to("dead").retry(retry.clone()), "dead"),
        counted_as(Route::prefix("/none").to("none"), "none"),
        counted_as(Route::prefix("/again").to("app").retry(retry), "again"),
        counted_as(Route::prefix("/slow").to("app").with("route.timeout", "0.2s"), "slow"),
        Route::prefix("/uncounted").to("app"),
        counted_as(Route::prefix("/").to("app"), "a.b/c"),
    ];
    let class = json!([{"name": "bad", "headers": [
        {"name": ":path", "string_match": {"exact": "/bad"}}]}]);
    let host = VirtualHost::new("vh", ["*"], routes).with("virtual_clusters", class);
    let proxy = Bootstrap::http(Http::hosting([host]))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("dead").endpoint(dead.address()))
        .cluster(Cluster::new("none"))
        .start(program)
        .await;
    let all = proxy.admin().get("/stats?filter=%5Evhost").send().await.text();
    for name in [
        "vhost.vh.route.direct.upstream_rq_total: 0",
        "vhost.vh.vcluster.other.upstream_rq_retry: 0",
    ] {
        assert!(all.lines().any(|line| line == name), "{name} from the start\n{all}");
    }
    for (path, status) in [
        ("/again", 200),
        ("/direct", 200),
        ("/dead", 503),
        ("/none", 503),
        ("/slow", 504),
        ("/uncounted", 200),
        ("/x", 200),
        ("/bad", 503),
    ] {
        assert_eq!(proxy.get(path).send().await.status, status, "{path}");
    }
    proxy.until_stat("vhost.vh.vcluster.bad.upstream_rq_completed", |count| count == 1).await;
    let found = counted(&proxy).await;
    assert_eq!(found, COUNTED.lines().collect::<Vec<_>>(), "{}", found.join("\n"));
}

async fn labels_end_at_the_first_dot(program: Program) {
    let app = Backend::echo("app").await;
    let host = |name: &str, domain: &str| {
        let route = Route::prefix("/").to("app").with("stat_prefix", "first.second");
        let class = json!([{"name": "c.d", "headers": [{"name": ":path", "present_match": true}]}]);
        VirtualHost::new(name, [domain], [route]).with("virtual_clusters", class)
    };
    let proxy = Bootstrap::http(Http::hosting([
        host("plain", "plain.test"),
        host("a.b:80", "dotted.test"),
    ]))
    .cluster(Cluster::new("app").endpoint(&app))
    .start(program)
    .await;
    for name in ["plain.test", "dotted.test"] {
        assert_eq!(proxy.get("/").host(name).send().await.status, 200);
    }
    let text = proxy.admin().get("/stats/prometheus").send().await.text();
    let lines = text.lines().filter(|line| line.starts_with("envoy_vhost"));
    let mut found: Vec<_> = lines.filter(|line| line.contains("upstream_rq_total")).collect();
    found.sort_unstable();
    let wanted = [
        r#"envoy_vhost_b_80_route_first_second_upstream_rq_total{envoy_virtual_host="a"} 1"#,
        r#"envoy_vhost_b_80_vcluster_c_d_upstream_rq_total{envoy_virtual_host="a"} 1"#,
        r#"envoy_vhost_b_80_vcluster_other_upstream_rq_total{envoy_virtual_host="a"} 0"#,
        r#"envoy_vhost_route_second_upstream_rq_total{envoy_virtual_host="plain",envoy_route="first"} 1"#,
        r#"envoy_vhost_vcluster_d_upstream_rq_total{envoy_virtual_cluster="c",envoy_virtual_host="plain"} 1"#,
        r#"envoy_vhost_vcluster_upstream_rq_total{envoy_virtual_cluster="other",envoy_virtual_host="plain"} 0"#,
    ];
    assert_eq!(found, wanted);
}
