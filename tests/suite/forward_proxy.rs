//! Forward proxying: requests name hosts, which are looked up when first named.

use harness::eventually::eventually_true;
use harness::{
    Backend, Bootstrap, Cluster, DnsServer, Http, Listener, Pki, Program, Proxy, Route, Tcp, Value,
    json,
};

on_both!(
    every_request_goes_to_the_host_it_names,
    a_name_is_looked_up_once_for_all_who_wait,
    a_name_that_does_not_resolve_is_answered_for,
    there_is_a_limit_to_names,
    there_is_a_limit_to_those_who_wait,
    a_failed_name_recovers,
    a_changed_address_is_followed,
    the_order_of_addresses_does_not_matter,
    an_unused_name_is_forgotten,
    routes_put_another_host_in_place,
    a_route_can_do_without_the_filter,
    the_cluster_resolves_what_the_filter_did_not,
    names_can_be_known_from_the_start,
    caches_of_one_name_are_alike,
    a_connection_goes_to_the_server_name_it_asks_for,
);
on_outrigger_only!(a_changed_address_is_followed_at_once because OLD_ADDRESSES);

/// Two backends at the same port of different addresses, so that a name decides between them.
async fn pair() -> (Backend, Backend) {
    super::dns::pair().await
}

/// A `DnsCacheConfig` called `names` that asks `dns`, with `fields` over it.
fn cache(dns: &DnsServer, fields: &Value) -> Value {
    let mut config = json!({
        "name": "names",
        "dns_lookup_family": "V4_ONLY",
        "typed_dns_resolver_config": dns.resolver(),
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    config
}

/// A cluster `hosts` of the hosts that requests name.
fn cluster(cache: &Value) -> Cluster {
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        "dns_cache_config": cache,
    });
    let name = "envoy.clusters.dynamic_forward_proxy";
    Cluster::new("hosts")
        .with("type", Value::Null)
        .with("load_assignment", Value::Null)
        .with("lb_policy", "CLUSTER_PROVIDED")
        .with("cluster_type", json!({"name": name, "typed_config": config}))
}

/// A connection manager with the filter, which is called `forward`.
fn filtering(routes: Vec<Route>, cache: &Value) -> Http {
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        "dns_cache_config": cache,
    });
    let router =
        json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let filters = json!([
        {"name": "forward", "typed_config": config},
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]);
    Http::routing(routes).with("http_filters", filters)
}

/// A forward proxy that logs flags and details.
async fn forwarding(program: Program, cache: &Value, routes: Vec<Route>) -> Proxy {
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let http = filtering(routes, cache).text_log(&log, "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
    let listener = Listener::new("main", http);
    bootstrap.listener(listener).cluster(cluster(cache)).start(program).await
}

fn to_hosts() -> Vec<Route> {
    vec![Route::prefix("/").to("hosts")]
}

/// Status, and body or backend.
async fn ask(proxy: &Proxy, host: &str, path: &str) -> (u16, String) {
    let reply = proxy.get(path).host(host).send().await;
    let said = match reply.status {
        200 => reply.echo().backend().to_owned(),
        _ => reply.text(),
    };
    (reply.status, said)
}

async fn every_request_goes_to_the_host_it_names(program: Program) {
    let (one, two) = pair().await;
    let port = one.address().port();
    let dns = DnsServer::start().await;
    dns.set("one.test", &["127.0.0.1"]);
    dns.set("two.test", &["127.0.0.2", "127.0.0.1"]);
    let proxy = forwarding(program, &cache(&dns, &json!({})), to_hosts()).await;
    for _ in 0..3 {
        assert_eq!(ask(&proxy, &format!("one.test:{port}"), "/").await, (200, "one".into()));
        assert_eq!(ask(&proxy, &format!("two.test:{port}"), "/").await, (200, "two".into()));
    }
    assert_eq!(ask(&proxy, &format!("127.0.0.2:{port}"), "/").await, (200, "two".into()));
    assert_eq!((dns.queries("one.test"), dns.queries("two.test")), (1, 1));
    assert_eq!((one.count(), two.count()), (3, 4));
    assert_eq!(one.calls()[0].host, format!("one.test:{port}"));
    for (name, value) in [
        ("dns_cache.names.dns_query_attempt", 3),
        ("dns_cache.names.dns_query_success", 3),
        ("dns_cache.names.host_added", 3),
        ("dns_cache.names.host_address_changed", 3),
        ("dns_cache.names.num_hosts", 3),
        ("dns_cache.names.circuit_breakers.rq_pending_remaining", 1024),
        ("cluster.hosts.membership_total", 3),
        ("cluster.hosts.upstream_rq_total", 7),
    ] {
        assert_eq!(proxy.stat(name).await, value, "{name}");
    }
}

async fn a_name_is_looked_up_once_for_all_who_wait(program: Program) {
    let app = Backend::echo("app").await;
    let host = format!("app.test:{}", app.address().port());
    let dns = DnsServer::start().await;
    dns.hold("app.test");
    let proxy = forwarding(program, &cache(&dns, &json!({})), to_hosts()).await;
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(proxy.get("/").host(&host).send())).collect();
    let left = "dns_cache.names.circuit_breakers.rq_pending_remaining";
    proxy.until_stat(left, |left| left == 1024 - 8).await;
    dns.set("app.test", &["127.0.0.1"]);
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(dns.queries("app.test"), 1);
    proxy.until_stat(left, |left| left == 1024).await;
}

async fn a_name_that_does_not_resolve_is_answered_for(program: Program) {
    let dns = DnsServer::start().await;
    dns.fail("broken.test");
    dns.set("other.test", &["::1"]);
    dns.silence("silent.test");
    let cache = cache(&dns, &json!({"dns_query_timeout": "0.3s"}));
    let proxy = forwarding(program, &cache, to_hosts()).await;
    for name in ["gone.test", "gone.test", "broken.test", "other.test", "silent.test"] {
        let unresolved = (503, "DNS resolution failure".to_owned());
        assert_eq!(ask(&proxy, name, "/").await, unresolved, "{name}");
    }
    assert_eq!(dns.queries("gone.test"), 1);
    proxy.until_stat("dns_cache.names.dns_query_timeout", |count| count == 1).await;
    assert_eq!(proxy.stat("dns_cache.names.dns_query_failure").await, 2);
    assert_eq!(proxy.admin().post("/quitquitquit").send().await.status, 200);
    let lines = [
        "DF dns_resolution_failure{cares_norecords:Domain_name_not_found}",
        "DF dns_resolution_failure{cares_norecords:Domain_name_not_found}",
        "DF dns_resolution_failure{cares_failure:DNS_server_returned_general_failure}",
        "DF dns_resolution_failure{cares_norecords:DNS_server_returned_answer_with_no_data}",
        "DF dns_resolution_failure{resolve_timeout}",
    ];
    logged(&proxy, &lines).await;
}

/// The access log has these lines, sooner or later.
async fn logged(proxy: &Proxy, lines: &[&str]) {
    let read = || std::fs::read_to_string(proxy.file("access.log")).unwrap();
    eventually_true("the log", async || read().lines().count() >= lines.len()).await;
    assert_eq!(read().lines().collect::<Vec<_>>(), lines);
}

async fn there_is_a_limit_to_names(program: Program) {
    let app = Backend::echo("app").await;
    let port = app.address().port();
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = forwarding(program, &cache(&dns, &json!({"max_hosts": 1})), to_hosts()).await;
    let host = format!("app.test:{port}");
    assert_eq!(ask(&proxy, &host, "/").await.0, 200);
    let full = (503, "DNS cache overflow".to_owned());
    assert_eq!(ask(&proxy, "more.test", "/").await, full);
    assert_eq!(ask(&proxy, &host, "/").await.0, 200);
    assert_eq!(dns.queries("more.test"), 0);
    assert_eq!(proxy.stat("dns_cache.names.host_overflow").await, 1);
    assert_eq!(proxy.admin().post("/quitquitquit").send().await.status, 200);
    logged(&proxy, &["- via_upstream", "- dns_cache_overflow", "- via_upstream"]).await;
}

async fn there_is_a_limit_to_those_who_wait(program: Program) {
    let dns = DnsServer::start().await;
    dns.hold("slow.test");
    let limits = json!({"dns_cache_circuit_breaker": {"max_pending_requests": 2}});
    let proxy = forwarding(program, &cache(&dns, &limits), to_hosts()).await;
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(proxy.get("/").host("slow.test").send())).collect();
    proxy.until_stat("dns_cache.names.circuit_breakers.rq_pending_open", |open| open == 1).await;
    let refused = (503, "Dynamic forward proxy pending request overflow".to_owned());
    assert_eq!(ask(&proxy, "slow.test", "/").await, refused);
    assert_eq!(proxy.stat("dns_cache.names.dns_rq_pending_overflow").await, 1);
    dns.remove("slow.test");
    for request in waiting {
        assert_eq!(request.await.unwrap().text(), "DNS resolution failure");
    }
}

async fn a_failed_name_recovers(program: Program) {
    let app = Backend::echo("app").await;
    let host = format!("app.test:{}", app.address().port());
    let dns = DnsServer::start().await;
    dns.fail("app.test");
    let again = json!({"dns_failure_refresh_rate": {"base_interval": "0.05s"}});
    let proxy = forwarding(program, &cache(&dns, &again), to_hosts()).await;
    assert_eq!(ask(&proxy, &host, "/").await.0, 503);
    dns.set("app.test", &["127.0.0.1"]);
    eventually_true("the name", async || ask(&proxy, &host, "/").await.0 == 200).await;
}

async fn a_changed_address_is_followed(program: Program) {
    let (one, _two) = pair().await;
    let host = format!("app.test:{}", one.address().port());
    let dns = DnsServer::start().await;
    dns.set_for("app.test", &["127.0.0.1"], 1);
    let cache = cache(&dns, &json!({"dns_min_refresh_rate": "1s"}));
    let once = cluster(&cache).with("max_requests_per_connection", 1);
    let listener = Listener::new("main", filtering(to_hosts(), &cache));
    let proxy = Bootstrap::new().listener(listener).cluster(once).start(program).await;
    assert_eq!(ask(&proxy, &host, "/").await, (200, "one".into()));
    dns.set_for("app.test", &["127.0.0.2"], 300);
    eventually_true("the new address", async || ask(&proxy, &host, "/").await.1 == "two").await;
    dns.fail("app.test");
    assert_eq!(ask(&proxy, &host, "/").await, (200, "two".into()));
    assert_eq!(proxy.stat("dns_cache.names.host_address_changed").await, 2);
}

async fn a_changed_address_is_followed_at_once(program: Program) {
    let (one, _two) = pair().await;
    let host = format!("app.test:{}", one.address().port());
    let dns = DnsServer::start().await;
    dns.set_for("app.test", &["127.0.0.1"], 1);
    let cache = cache(&dns, &json!({"dns_min_refresh_rate": "1s"}));
    let proxy = forwarding(program, &cache, to_hosts()).await;
    assert_eq!(ask(&proxy, &host, "/").await, (200, "one".into()));
    dns.set_for("app.test", &["127.0.0.2"], 300);
    proxy.until_stat("dns_cache.names.host_address_changed", |count| count == 2).await;
    assert_eq!(ask(&proxy, &host, "/").await, (200, "two".into()));
}

async fn the_order_of_addresses_does_not_matter(program: Program) {
    let (one, _two) = pair().await;
    let host = format!("app.test:{}", one.address().port());
    let dns = DnsServer::start().await;
    dns.set_for("app.test", &["127.0.0.1", "127.0.0.2"], 1);
    let cache = cache(&dns, &json!({"dns_min_refresh_rate": "1s"}));
    let proxy = forwarding(program, &cache, to_hosts()).await;
    assert_eq!(ask(&proxy, &host, "/").await, (200, "one".into()));
    dns.set_for("app.test", &["127.0.0.2", "127.0.0.1"], 1);
    proxy.until_stat("dns_cache.names.dns_query_success", |count| count >= 3).await;
    assert_eq!(ask(&proxy, &host, "/").await, (200, "one".into()));
    assert_eq!(proxy.stat("cluster.hosts.membership_change").await, 1);
    assert_eq!(proxy.stat("cluster.hosts.upstream_cx_total").await, 1);
}

async fn an_unused_name_is_forgotten(program: Program) {
    let app = Backend::echo("app").await;
    let host = format!("app.test:{}", app.address().port());
    let dns = DnsServer::start().await;
    dns.set_for("app.test", &["127.0.0.1"], 1);
    let cache = cache(&dns, &json!({"dns_min_refresh_rate": "1s", "host_ttl": "0.1s"}));
    let proxy = forwarding(program, &cache, to_hosts()).await;
    assert_eq!(ask(&proxy, &host, "/").await.0, 200);
    proxy.until_stat("dns_cache.names.host_removed", |count| count == 1).await;
    assert_eq!(proxy.stat("dns_cache.names.num_hosts").await, 0);
    assert_eq!(ask(&proxy, &host, "/").await.0, 200);
    assert_eq!(proxy.stat("dns_cache.names.host_added").await, 2);
}

/// What a route says to the filter.
fn told(route: Route, config: &Value) -> Route {
    route.with("typed_per_filter_config", json!({"forward": config}))
}

async fn routes_put_another_host_in_place(program: Program) {
    let (one, two) = pair().await;
    let port = one.address().port();
    let dns = DnsServer::start().await;
    dns.set("one.test", &["127.0.0.1"]);
    dns.set("two.test", &["127.0.0.2"]);
    let per_route = |field: &str, value: &str| {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
            field: value,
        })
    };
    let literal = per_route("host_rewrite_literal", &format!("two.test:{port}"));
    let routes = vec![
        told(Route::prefix("/literal").to("hosts"), &literal),
        told(Route::prefix("/header").to("hosts"), &per_route("host_rewrite_header", "x-to")),
    ];
    let proxy = forwarding(program, &cache(&dns, &json!({})), routes).await;
    let host = format!("one.test:{port}");
    assert_eq!(ask(&proxy, "any.test", "/literal").await, (200, "two".into()));
    assert_eq!(two.calls()[0].host, format!("two.test:{port}"));
    assert_eq!(ask(&proxy, &host, "/header").await, (200, "one".into()));
    let call = proxy.get("/header").host("any.test").header("x-to", &host);
    assert_eq!(call.send().await.echo().backend(), "one");
    assert_eq!(one.calls()[1].host, host);
    assert_eq!(dns.queries("any.test"), 0);
}

async fn a_route_can_do_without_the_filter(program: Program) {
    let dns = DnsServer::start().await;
    let off = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": true,
    });
    let routes =
        vec![told(Route::prefix("/off").to("hosts"), &off), Route::prefix("/").to("hosts")];
    let proxy = forwarding(program, &cache(&dns, &json!({})), routes).await;
    let unresolved = (503, "DNS resolution failure".to_owned());
    assert_eq!(ask(&proxy, "gone.test", "/").await, unresolved);
    assert_eq!(ask(&proxy, "gone.test", "/off").await, (503, "no healthy upstream".into()));
}

async fn the_cluster_resolves_what_the_filter_did_not(program: Program) {
    let (one, _two) = pair().await;
    let port = one.address().port();
    let dns = DnsServer::start().await;
    dns.set("one.test", &["127.0.0.1"]);
    dns.set("two.test", &["127.0.0.2"]);
    let cache = cache(&dns, &json!({}));
    let bootstrap = Bootstrap::new();
    let log = bootstrap.file("access.log", "");
    let rewritten = Route::prefix("/rewritten")
        .to("hosts")
        .with("route.host_rewrite_literal", format!("two.test:{port}"));
    let http = Http::routing([rewritten, Route::prefix("/").to("hosts")])
        .text_log(&log, "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
    let proxy = bootstrap
        .listener(Listener::new("main", http))
        .cluster(cluster(&cache))
        .start(program)
        .await;
    let host = format!("one.test:{port}");
    assert_eq!(ask(&proxy, &host, "/").await, (200, "one".into()));
    assert_eq!(ask(&proxy, &host, "/rewritten").await, (200, "two".into()));
    assert_eq!(ask(&proxy, "gone.test", "/").await, (503, "no healthy upstream".into()));
    assert_eq!(proxy.admin().post("/quitquitquit").send().await.status, 200);
    let gone = "UH dns_resolution_failure{cares_norecords:Domain_name_not_found}";
    logged(&proxy, &["- via_upstream", "- via_upstream", gone]).await;
}

async fn names_can_be_known_from_the_start(program: Program) {
    let app = Backend::echo("app").await;
    let port = app.address().port();
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let early = json!({"preresolve_hostnames": [{"address": "app.test", "port_value": port}]});
    let proxy = forwarding(program, &cache(&dns, &early), to_hosts()).await;
    eventually_true("the lookup", async || dns.queries("app.test") == 1).await;
    assert_eq!(ask(&proxy, &format!("app.test:{port}"), "/").await.0, 200);
    assert_eq!(dns.queries("app.test"), 1);
}

async fn a_connection_goes_to_the_server_name_it_asks_for(program: Program) {
    let pki = Pki::new();
    let names = certs::Request::default().dns("one.test").dns("two.test").dns("gone.test");
    let identity = pki.issue("server", &names);
    let terminating = |name: &'static str| {
        let http = Http::routing([Route::prefix("/").direct(200, name)]);
        Listener::new(name, http).tls(Pki::server_only(&identity))
    };
    let dns = DnsServer::start().await;
    dns.set("one.test", &["127.0.0.1"]);
    dns.set("two.test", &["127.0.0.2"]);
    let cache = cache(&dns, &json!({}));
    let bootstrap = Bootstrap::new().listener(terminating("one"));
    let port = bootstrap.address("one").port();
    let config = json!({"dns_cache_config": cache, "port_value": port});
    let by_name = Tcp::to("hosts").after("sni_dynamic_forward_proxy", "FilterConfig", config);
    let address = json!({"socket_address": {"address": "127.0.0.2", "port_value": port}});
    let proxy = bootstrap
        .listener(terminating("two").with("address", address))
        .listener(Listener::new("main", by_name).tls_inspector())
        .cluster(cluster(&cache))
        .start(program)
        .await;
    let call = |name: &str| {
        let mut tls = pki.client(None);
        tls.server_name = name.to_owned();
        proxy.client().tls(tls).get("/")
    };
    for (name, answer) in [("one.test", "one"), ("two.test", "two"), ("one.test", "one")] {
        assert_eq!(call(name).send().await.text(), answer, "{name}");
    }
    assert!(call("gone.test").try_send().await.is_err());
    assert_eq!((dns.queries("one.test"), dns.queries("gone.test")), (1, 1));
    assert_eq!(proxy.stat("cluster.hosts.upstream_cx_total").await, 3);
}

async fn caches_of_one_name_are_alike(program: Program) {
    let dns = DnsServer::start().await;
    let one = cache(&dns, &json!({}));
    let other = cache(&dns, &json!({"max_hosts": 7}));
    let listener = Listener::new("main", filtering(to_hosts(), &one));
    let said = Bootstrap::new().listener(listener).cluster(cluster(&other)).refusal(program);
    assert!(said.contains("config specified DNS cache 'names' with different settings"), "{said}");
}
