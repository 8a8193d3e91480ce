//! Endpoints by name: addresses are followed, failures survived, families and times obeyed.

use std::time::Duration;

use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::{
    Answer, Backend, Bootstrap, Cluster, DnsServer, Http, Listener, Program, Proxy, Route, Value,
    json,
};

on_both!(
    every_address_is_an_endpoint,
    a_changed_address_is_followed,
    a_failure_keeps_the_last_addresses,
    a_changed_cluster_has_its_addresses_until_it_knows_better,
    a_name_that_is_gone_has_no_endpoints,
    a_time_to_live_is_respected_if_wanted,
    failures_have_their_own_rate,
    the_family_decides_what_is_asked_for,
    a_logical_name_is_one_endpoint,
    a_logical_name_keeps_requests_under_way,
    a_logical_name_that_is_gone_keeps_its_address,
    a_logical_cluster_has_one_endpoint,
    the_extension_is_the_same_in_another_form,
    the_bootstrap_names_the_servers,
    lookups_are_counted,
);

/// Two backends at the same port of different addresses, so that a name decides between them.
pub(crate) async fn pair() -> (Backend, Backend) {
    loop {
        let one = Backend::echo("one").await;
        let port = one.address().port();
        if let Ok(free) = std::net::TcpListener::bind(("127.0.0.2", port)) {
            drop(free);
            let two = Backend::echo_at("two", ([127, 0, 0, 2], port).into()).await;
            return (one, two);
        }
    }
}

/// An endpoint that is a name.
fn named(name: &str, port: u16) -> Value {
    json!({"endpoint": {"address": {"socket_address": {"address": name, "port_value": port}}}})
}

/// A cluster `app` of `app.test`, which `dns` is asked for every 50 ms.
fn cluster(kind: &str, dns: &DnsServer, port: u16) -> Cluster {
    Cluster::new("app")
        .with("type", kind)
        .with("dns_lookup_family", "V4_ONLY")
        .with("dns_refresh_rate", "0.05s")
        .with("typed_dns_resolver_config", dns.resolver())
        .lb_endpoint(named("app.test", port))
}

async fn serving(program: Program, cluster: Cluster) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster).start(program).await
}

async fn backend_of(proxy: &Proxy) -> String {
    let reply = proxy.get("/").send().await;
    if reply.status == 200 { reply.echo().backend().to_owned() } else { reply.status.to_string() }
}

/// The addresses of the endpoints of a cluster.
async fn endpoints(proxy: &Proxy, cluster: &str) -> Vec<String> {
    let text = proxy.admin().get("/clusters").send().await.text();
    let own = text.lines().filter_map(|line| line.strip_prefix(cluster)?.strip_prefix("::"));
    let lines = own.filter_map(|line| line.split_once("::weight"));
    lines.map(|(address, _)| address.to_owned()).collect()
}

async fn every_address_is_an_endpoint(program: Program) {
    let (one, two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1", "127.0.0.2", "127.0.0.1"]);
    let proxy = serving(program, cluster("STRICT_DNS", &dns, one.address().port())).await;
    for _ in 0..8 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
    assert_eq!((one.count(), two.count()), (4, 4));
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 2);
}

async fn a_changed_address_is_followed(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = serving(program, cluster("STRICT_DNS", &dns, one.address().port())).await;
    assert_eq!(backend_of(&proxy).await, "one");
    dns.set("app.test", &["127.0.0.2"]);
    eventually_true("the new address", async || backend_of(&proxy).await == "two").await;
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 1);
}

async fn a_failure_keeps_the_last_addresses(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = serving(program, cluster("STRICT_DNS", &dns, one.address().port())).await;
    dns.fail("app.test");
    proxy.until_stat("cluster.app.update_failure", |count| count >= 2).await;
    assert_eq!(backend_of(&proxy).await, "one");
    dns.set("app.test", &["127.0.0.2"]);
    eventually_true("the recovery", async || backend_of(&proxy).await == "two").await;
}

async fn a_changed_cluster_has_its_addresses_until_it_knows_better(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let bootstrap = Bootstrap::new();
    let clusters = DiscoveryFile::clusters(bootstrap.dir());
    let app = || cluster("STRICT_DNS", &dns, one.address().port());
    clusters.publish([app().into()]);
    let route = Route::prefix("/").with("route.cluster_header", "x-cluster");
    let proxy = bootstrap
        .with("dynamic_resources.cds_config", clusters.source())
        .listener(Listener::new("main", Http::routing([route])))
        .start(program)
        .await;
    let answer = async |cluster: &str| {
        let reply = proxy.get("/").header("x-cluster", cluster).send().await;
        reply.header("x-backend").unwrap_or_else(|| reply.status.to_string())
    };
    assert_eq!(answer("app").await, "one");

    dns.hold("app.test");
    let more = Cluster::new("more").endpoint(&one);
    clusters.publish([app().with("dns_refresh_rate", "0.04s").into(), more.into()]);
    eventually_true("the change", async || answer("more").await == "one").await;
    assert_eq!(answer("app").await, "one");
    dns.set("app.test", &["127.0.0.2"]);
    eventually_true("the new address", async || answer("app").await == "two").await;
}

async fn a_name_that_is_gone_has_no_endpoints(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = serving(program, cluster("STRICT_DNS", &dns, one.address().port())).await;
    assert_eq!(backend_of(&proxy).await, "one");
    dns.remove("app.test");
    proxy.until_stat("cluster.app.membership_total", |count| count == 0).await;
    assert_eq!(proxy.get("/").send().await.text(), "no healthy upstream");
    // The name exists again, without an address of the wanted kind.
    dns.set("app.test", &["::1"]);
    proxy.until_stat("cluster.app.update_no_rebuild", |count| count >= 2).await;
    assert_eq!(proxy.stat("cluster.app.update_failure").await, 0);
    dns.set("app.test", &["127.0.0.1"]);
    eventually_true("the name", async || backend_of(&proxy).await == "one").await;
}

async fn a_time_to_live_is_respected_if_wanted(program: Program) {
    let app = Backend::echo("app").await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    dns.set("short.test", &["127.0.0.1"]);
    let patient = cluster("STRICT_DNS", &dns, app.address().port()).with("respect_dns_ttl", true);
    let hasty = Cluster::new("hasty")
        .with("type", "STRICT_DNS")
        .with("dns_refresh_rate", "0.05s")
        .with("dns_lookup_family", "V4_ONLY")
        .with("typed_dns_resolver_config", dns.resolver())
        .lb_endpoint(named("short.test", app.address().port()));
    let _proxy = Bootstrap::new().cluster(patient).cluster(hasty).start(program).await;
    eventually_true("several lookups", async || dns.queries("short.test") >= 6).await;
    assert_eq!(dns.queries("app.test"), 1);
}

async fn failures_have_their_own_rate(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.fail("app.test");
    let cluster =
        cluster("STRICT_DNS", &dns, one.address().port()).with("dns_refresh_rate", "300s").with(
            "dns_failure_refresh_rate",
            json!({"base_interval": "0.02s", "max_interval": "0.1s"}),
        );
    let proxy = serving(program, cluster).await;
    assert_eq!(backend_of(&proxy).await, "503");
    proxy.until_stat("cluster.app.update_failure", |count| count >= 3).await;
    dns.set("app.test", &["127.0.0.1"]);
    eventually_true("the recovery", async || backend_of(&proxy).await == "one").await;
    assert_eq!(proxy.stat("cluster.app.update_success").await, 1);
}

/// A family, the addresses of a name, the types asked for, and the endpoints they make.
struct Case(
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

async fn the_family_decides_what_is_asked_for(program: Program) {
    const BOTH: &[&str] = &["127.0.0.1", "::1"];
    const V4: &str = "127.0.0.1:9";
    const V6: &str = "[::1]:9";
    let cases = [
        Case("V4_ONLY", BOTH, &["A"], &[V4]),
        Case("V6_ONLY", BOTH, &["AAAA"], &[V6]),
        Case("AUTO", BOTH, &["AAAA"], &[V6]),
        Case("AUTO", &["127.0.0.1"], &["AAAA", "A"], &[V4]),
        Case("V4_PREFERRED", BOTH, &["A"], &[V4]),
        Case("V4_PREFERRED", &["::1"], &["A", "AAAA"], &[V6]),
        Case("ALL", BOTH, &["A", "AAAA"], &[V4, V6]),
    ];
    let dns = DnsServer::start().await;
    let mut bootstrap = Bootstrap::new();
    for (index, Case(family, addresses, ..)) in cases.iter().enumerate() {
        let name = format!("name{index}.test");
        dns.set(&name, addresses);
        let cluster = Cluster::new(&name)
            .with("type", "STRICT_DNS")
            .with("dns_lookup_family", *family)
            .with("typed_dns_resolver_config", dns.resolver())
            .with("dns_refresh_rate", "300s")
            .lb_endpoint(named(&name, 9));
        bootstrap = bootstrap.cluster(cluster);
    }
    let proxy = bootstrap.start(program).await;
    for (index, Case(family, addresses, types, expected)) in cases.iter().enumerate() {
        let name = format!("name{index}.test");
        let mut found = endpoints(&proxy, &name).await;
        found.sort();
        assert_eq!(found, *expected, "{family} of {addresses:?}");
        let mut asked = dns.types(&name);
        if *family == "ALL" {
            asked.sort();
        }
        assert_eq!(asked, *types, "{family} of {addresses:?}");
    }
}

async fn a_logical_name_is_one_endpoint(program: Program) {
    let (one, two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.2", "127.0.0.1"]);
    let proxy = serving(program, cluster("LOGICAL_DNS", &dns, one.address().port())).await;
    for _ in 0..4 {
        assert_eq!(backend_of(&proxy).await, "two");
    }
    assert_eq!((one.count(), two.count()), (0, 4));
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 1);
    dns.set("app.test", &["127.0.0.1", "127.0.0.2"]);
    eventually_true("the new address", async || backend_of(&proxy).await == "one").await;
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 1);
}

async fn a_logical_name_keeps_requests_under_way(program: Program) {
    let late = || Answer::echo().after(Duration::from_millis(400));
    let old = Backend::scripted("old", move |_| late()).await;
    let port = old.address().port();
    let _new = Backend::echo_at("new", ([127, 0, 0, 2], port).into()).await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = serving(program, cluster("LOGICAL_DNS", &dns, port)).await;
    let slow = tokio::spawn(proxy.get("/").send());
    eventually_true("the request", async || old.count() == 1).await;
    dns.set("app.test", &["127.0.0.2"]);
    eventually_true("the new address", async || endpoints(&proxy, "app").await[0].contains("0.2"))
        .await;
    assert_eq!(slow.await.unwrap().echo().backend(), "old");
    assert_eq!(backend_of(&proxy).await, "new");
}

async fn a_logical_name_that_is_gone_keeps_its_address(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = serving(program, cluster("LOGICAL_DNS", &dns, one.address().port())).await;
    dns.remove("app.test");
    proxy.until_stat("cluster.app.update_failure", |count| count >= 2).await;
    assert_eq!(backend_of(&proxy).await, "one");
}

async fn a_logical_cluster_has_one_endpoint(program: Program) {
    let dns = DnsServer::start().await;
    let cluster = cluster("LOGICAL_DNS", &dns, 9).lb_endpoint(named("other.test", 9));
    let said = Bootstrap::new().cluster(cluster).refusal(program);
    let reason =
        "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint";
    assert!(said.contains(reason), "{said}");
}

async fn the_extension_is_the_same_in_another_form(program: Program) {
    let (one, two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.2", "127.0.0.1"]);
    for (single, expected) in [(false, (2, 2)), (true, (2, 6))] {
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
            "dns_lookup_family": "V4_ONLY",
            "dns_refresh_rate": "0.05s",
            "typed_dns_resolver_config": dns.resolver(),
            "all_addresses_in_single_endpoint": single,
        });
        let cluster = Cluster::new("app")
            .with("type", Value::Null)
            .with("cluster_type", json!({"name": "envoy.cluster.dns", "typed_config": config}))
            .lb_endpoint(named("app.test", one.address().port()));
        let proxy = serving(program, cluster).await;
        for _ in 0..4 {
            assert_eq!(proxy.get("/").send().await.status, 200);
        }
        assert_eq!((one.count(), two.count()), expected);
    }
}

async fn the_bootstrap_names_the_servers(program: Program) {
    let (one, _two) = pair().await;
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let cluster = cluster("STRICT_DNS", &dns, one.address().port())
        .with("typed_dns_resolver_config", Value::Null);
    let options = json!({"dns_resolver_options": {"use_tcp_for_dns_lookups": true}});
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(cluster)
        .with("typed_dns_resolver_config", dns.resolver_with(options))
        .start(program)
        .await;
    assert_eq!(backend_of(&proxy).await, "one");
    assert!(dns.queries_over_tcp() > 0);
    assert_eq!(dns.queries_over_tcp(), dns.queries("app.test"));
}

async fn lookups_are_counted(program: Program) {
    let dns = DnsServer::start().await;
    dns.set("app.test", &["127.0.0.1"]);
    let proxy = serving(program, cluster("STRICT_DNS", &dns, 9)).await;
    proxy.until_stat("cluster.app.update_no_rebuild", |count| count >= 2).await;
    assert!(proxy.stat("cluster.app.update_success").await >= 3);
    assert_eq!(proxy.stat("cluster.app.update_failure").await, 0);
    assert!(proxy.stat("dns.cares.resolve_total").await >= 3);
    assert_eq!(proxy.stat("cluster.app.membership_change").await, 1);
    dns.hold("app.test");
    proxy.until_stat("dns.cares.pending_resolutions", |count| count == 1).await;
    let (attempts, done) = (
        proxy.stat("cluster.app.update_attempt").await,
        proxy.stat("cluster.app.update_success").await,
    );
    assert_eq!(attempts, done + 1);
    dns.remove("app.test");
    proxy.until_stat("dns.cares.not_found", |count| count >= 1).await;
    dns.fail("app.test");
    proxy.until_stat("dns.cares.get_addr_failure", |count| count >= 1).await;
}
