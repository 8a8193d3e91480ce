//! Active health checks: who is asked, what counts as an answer, and who gets requests because of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::pki::SERVER_NAME;
use harness::port::Port;
use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, Pki, Program, Proxy, Route, Value, json,
};

mod checkers;
mod hosts;

on_both!(
    a_host_is_left_out_while_its_checks_fail,
    no_request_comes_before_the_first_checks,
    a_host_is_checked_at_another_port_or_not_at_all,
    events_are_logged_as_json,
    a_response_can_take_its_host_out_of_use,
    a_degraded_host_says_so,
    connections_serve_several_checks_unless_told_otherwise,
    a_passed_check_ends_an_ejection,
    a_host_without_an_answer_has_timed_out,
    checks_are_secured_as_requests_are,
    a_discovered_host_gets_nothing_before_its_first_check,
);

/// A health check that is made ten times a second.
fn check(kind: &str, checker: Value) -> Value {
    let mut check = json!({
        "timeout": "2s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 2, "healthy_threshold": 2,
    });
    check[kind] = checker;
    check
}

fn http() -> Value {
    check("http_health_check", json!({"path": "/healthz"}))
}

/// A cluster without panic.
fn cluster(check: Value) -> Cluster {
    Cluster::new("app")
        .with("health_checks", Value::Array(vec![check]))
        .with("common_lb_config.healthy_panic_threshold.value", 0)
}

async fn start(program: Program, cluster: Cluster) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster).start(program).await
}

/// A backend whose answer to checks can be changed; requests get 200.
struct Moody {
    backend: Backend,
    status: Arc<AtomicU16>,
}

impl Moody {
    async fn new(name: &str, status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let shown = Arc::clone(&status);
        let backend = Backend::scripted(name, move |request| {
            match (request.path.as_str(), shown.load(Relaxed)) {
                ("/healthz", status) if status != 200 => Answer::status(status),
                _ => Answer::echo(),
            }
        });
        Self { backend: backend.await, status }
    }

    fn becomes(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    /// How many requests came that were no checks.
    fn requests(&self) -> usize {
        self.backend.calls().iter().filter(|call| call.path != "/healthz").count()
    }
}

/// The health flags of the endpoint at `backend`.
async fn flags(proxy: &Proxy, at: std::net::SocketAddr) -> String {
    let clusters = proxy.admin().get("/clusters").send().await.text();
    let prefix = format!("app::{at}::health_flags::");
    let line = clusters.lines().find_map(|line| line.strip_prefix(&*prefix));
    line.unwrap_or_else(|| panic!("{at} is not in {clusters}")).to_owned()
}

async fn until_flags(proxy: &Proxy, at: std::net::SocketAddr, wanted: &str) {
    eventually_true(wanted, async || flags(proxy, at).await == wanted).await;
}

async fn all_succeed(proxy: &Proxy) {
    for _ in 0..10 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
}

async fn a_host_is_left_out_while_its_checks_fail(program: Program) {
    let (good, moody) = (Backend::echo("good").await, Moody::new("moody", 200).await);
    let proxy = start(program, cluster(http()).endpoint(&good).endpoint(&moody.backend)).await;
    proxy.until_stat("cluster.app.health_check.healthy", |count| count == 2).await;
    all_succeed(&proxy).await;
    assert!(moody.requests() > 0, "it is in use");

    moody.becomes(503);
    until_flags(&proxy, moody.backend.address(), "/failed_active_hc").await;
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 1).await;
    proxy.until_stat("cluster.app.health_check.healthy", |count| count == 1).await;
    let before = moody.requests();
    all_succeed(&proxy).await;
    assert_eq!(moody.requests(), before, "it is out of use");

    moody.becomes(200);
    until_flags(&proxy, moody.backend.address(), "healthy").await;
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 2).await;
    eventually_true("it is in use again", async || {
        all_succeed(&proxy).await;
        moody.requests() > before
    })
    .await;
    assert!(proxy.stat("cluster.app.health_check.failure").await >= 1);
    assert_eq!(proxy.stat("cluster.app.health_check.network_failure").await, 0);
    let attempts = proxy.stat("cluster.app.health_check.attempt").await;
    assert!(proxy.stat("cluster.app.health_check.success").await <= attempts + 1);
}

async fn no_request_comes_before_the_first_checks(program: Program) {
    let (good, bad) = (Backend::echo("good").await, Moody::new("bad", 503).await);
    let nobody = Port::reserve();
    let cluster = cluster(http()).endpoint(&good).endpoint(&bad.backend).endpoint(nobody.address());
    let proxy = start(program, cluster).await;
    all_succeed(&proxy).await;
    assert_eq!(bad.requests(), 0);
    let calls = good.calls();
    assert_eq!(calls[0].path, "/healthz", "the first of all is a check");
    assert_eq!(flags(&proxy, nobody.address()).await, "/failed_active_hc");
    assert!(proxy.stat("cluster.app.health_check.network_failure").await >= 1);
}

/// An endpoint with its own way of being checked.
fn endpoint(at: &Backend, check: Value) -> Value {
    let address = harness::bootstrap::socket_address(at.address());
    let mut endpoint = json!({"endpoint": {"address": address}});
    endpoint["endpoint"]["health_check_config"] = check;
    endpoint
}

async fn a_host_is_checked_at_another_port_or_not_at_all(program: Program) {
    let (app, unchecked) = (Backend::echo("app").await, Moody::new("unchecked", 503).await);
    let checks = Moody::new("checks", 200).await;
    let port = checks.backend.address().port();
    let cluster = cluster(http())
        .lb_endpoint(endpoint(&app, json!({"port_value": port, "hostname": "app.example"})))
        .lb_endpoint(endpoint(&unchecked.backend, json!({"disable_active_health_check": true})));
    let proxy = start(program, cluster).await;
    until_flags(&proxy, app.address(), "healthy").await;
    assert_eq!(checks.backend.calls()[0].host, "app.example");
    assert_eq!((app.count(), unchecked.backend.count()), (0, 0), "nobody asks these");
    assert_eq!(flags(&proxy, unchecked.backend.address()).await, "healthy");
    assert_eq!(proxy.stat("cluster.app.health_check.healthy").await, 1, "of one that is checked");

    checks.becomes(503);
    until_flags(&proxy, app.address(), "/failed_active_hc").await;
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 1).await;
}

async fn events_are_logged_as_json(program: Program) {
    let moody = Moody::new("app", 503).await;
    let mut bootstrap = Bootstrap::routing([Route::prefix("/").to("app")]);
    let log = bootstrap.dir().join("events.log");
    let mut check = http();
    check["event_logger"] = json!([{
        "name": "file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
            "event_log_path": log,
        },
    }]);
    bootstrap = bootstrap.cluster(cluster(check).endpoint(&moody.backend));
    let proxy = bootstrap.start(program).await;
    moody.becomes(200);
    until_flags(&proxy, moody.backend.address(), "healthy").await;
    moody.becomes(500);
    until_flags(&proxy, moody.backend.address(), "/failed_active_hc").await;

    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually_true("three events", async || read().len() >= 3).await;
    let event = |name: &str, value: Value| {
        json!({
            "health_checker_type": "HTTP",
            "host": {"socket_address": {
                "protocol": "TCP", "address": "127.0.0.1",
                "port_value": moody.backend.address().port(), "resolver_name": "",
                "ipv4_compat": false, "network_namespace_filepath": "",
            }},
            "cluster_name": "app",
            "locality": {"region": "", "zone": "", "sub_zone": ""},
            name: value,
        })
    };
    let first = json!({"failure_type": "ACTIVE", "first_check": true, "http_status_code": 503});
    let eject = json!({"failure_type": "ACTIVE", "http_status_code": 500});
    let wanted = [
        event("health_check_failure_event", first),
        event("add_healthy_event", json!({"first_check": false})),
        event("eject_unhealthy_event", eject),
    ];
    for (mut line, wanted) in read().into_iter().zip(wanted) {
        let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert_eq!(time.as_str().unwrap().len(), "2026-01-01T00:00:00.000Z".len());
        assert_eq!(line, wanted);
    }
}

async fn a_response_can_take_its_host_out_of_use(program: Program) {
    let good = Backend::echo("good").await;
    let leaving = Backend::scripted("leaving", |request| match request.path.as_str() {
        "/healthz" => Answer::echo(),
        _ => Answer::echo().header("x-envoy-immediate-health-check-fail", "true"),
    });
    let leaving = leaving.await;
    let mut check = http();
    check["interval"] = "600s".into();
    check["no_traffic_interval"] = "600s".into();
    let proxy = start(program, cluster(check).endpoint(&good).endpoint(&leaving)).await;
    let requests = || leaving.calls().iter().filter(|call| call.path != "/healthz").count();
    eventually_true("a response of it", async || {
        let reply = proxy.get("/").send().await;
        assert_eq!(reply.status, 200);
        requests() > 0
    })
    .await;
    let wanted = "/failed_active_hc/excluded_via_immediate_hc_fail";
    until_flags(&proxy, leaving.address(), wanted).await;
    proxy.until_stat("cluster.app.membership_excluded", |count| count == 1).await;
    assert_eq!(proxy.stat("cluster.app.health_check.passive_failure").await, 1);
    let before = requests();
    all_succeed(&proxy).await;
    assert_eq!(requests(), before);
}

async fn a_degraded_host_says_so(program: Program) {
    let good = Backend::echo("good").await;
    let tired = Backend::scripted("tired", |_| Answer::echo().header("x-envoy-degraded", "")).await;
    let mut cluster = cluster(http()).endpoint(&good).endpoint(&tired);
    for _ in 0..2 {
        cluster = cluster.endpoint(&good);
    }
    let proxy = start(program, cluster).await;
    until_flags(&proxy, tired.address(), "/degraded_active_hc").await;
    proxy.until_stat("cluster.app.membership_degraded", |count| count == 1).await;
    proxy.until_stat("cluster.app.health_check.degraded", |count| count == 1).await;
    all_succeed(&proxy).await;
    let requests = tired.calls().iter().filter(|call| call.path != "/healthz").count();
    assert_eq!(requests, 0, "three healthy hosts of four, by 1.4, carry everything");
}

async fn connections_serve_several_checks_unless_told_otherwise(program: Program) {
    for (reuse, wanted) in [(true, 1), (false, 4)] {
        let app = Backend::echo("app").await;
        let mut check = http();
        check["reuse_connection"] = reuse.into();
        let proxy = start(program, cluster(check).endpoint(&app)).await;
        eventually_true("four checks", async || app.count() >= 4).await;
        let connections = app.connections();
        assert!(if reuse { connections == wanted } else { connections >= wanted }, "{connections}");
        drop(proxy);
    }
}

async fn a_passed_check_ends_an_ejection(program: Program) {
    let failing = Backend::scripted("failing", |request| match request.path.as_str() {
        "/healthz" => Answer::echo(),
        _ => Answer::status(500),
    });
    let failing = failing.await;
    let detection = json!({
        "consecutive_5xx": 1, "max_ejection_percent": 100, "base_ejection_time": "600s",
    });
    let cluster = cluster(http()).endpoint(&failing).with("outlier_detection", detection);
    let proxy = start(program, cluster).await;
    assert_eq!(proxy.get("/").send().await.status, 500);
    let name = "cluster.app.outlier_detection.ejections_enforced_total";
    proxy.until_stat(name, |count| count == 1).await;
    proxy.until_stat("cluster.app.outlier_detection.ejections_active", |count| count == 0).await;
    until_flags(&proxy, failing.address(), "healthy").await;
}

async fn a_host_without_an_answer_has_timed_out(program: Program) {
    let (good, silent) =
        (Backend::echo("good").await, Backend::scripted("silent", |_| Answer::hang()).await);
    let mut check = http();
    check["timeout"] = "0.2s".into();
    let proxy = start(program, cluster(check).endpoint(&good).endpoint(&silent)).await;
    until_flags(&proxy, silent.address(), "/failed_active_hc/active_hc_timeout").await;
    all_succeed(&proxy).await;
}

async fn checks_are_secured_as_requests_are(program: Program) {
    let pki = Pki::new();
    let answering = Http::routing([Route::prefix("/").direct(200, "")]);
    let secured = Bootstrap::new()
        .listener(Listener::new("main", answering).tls(pki.mutual(&pki.workload("server"))))
        .start(Program::Outrigger)
        .await;
    let at = secured.address("main");
    for (identity, wanted) in [(true, "healthy"), (false, "/failed_active_hc")] {
        let mut common = pki.common(&pki.workload("client"));
        if !identity {
            common.as_object_mut().unwrap().remove("tls_certificates");
        }
        let context = json!({"sni": SERVER_NAME, "common_tls_context": common});
        let proxy = start(program, cluster(http()).endpoint(at).tls(context)).await;
        until_flags(&proxy, at, wanted).await;
    }
}

async fn a_discovered_host_gets_nothing_before_its_first_check(program: Program) {
    let (old, new) = (Backend::echo("old").await, Moody::new("new", 503).await);
    let bootstrap = Bootstrap::routing([Route::prefix("/").to("app")]);
    let file = DiscoveryFile::endpoints(bootstrap.dir());
    let publish = |hosts: &[&Backend]| {
        let endpoints: Vec<_> = hosts.iter().map(|host| endpoint(host, json!({}))).collect();
        let endpoints = json!([{"lb_endpoints": endpoints}]);
        file.publish([json!({"cluster_name": "app", "endpoints": endpoints})]);
    };
    publish(&[&old]);
    let cluster = Cluster::from_file("app", file.path())
        .with("health_checks", Value::Array(vec![http()]))
        .with("common_lb_config.ignore_new_hosts_until_first_hc", true);
    let proxy = bootstrap.cluster(cluster).start(program).await;
    all_succeed(&proxy).await;
    publish(&[&old, &new.backend]);
    proxy.until_stat("cluster.app.membership_total", |count| count == 2).await;
    until_flags(&proxy, new.backend.address(), "/failed_active_hc").await;
    all_succeed(&proxy).await;
    assert_eq!(new.requests(), 0);
    new.becomes(200);
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 2).await;
    eventually_true("it is in use", async || {
        all_succeed(&proxy).await;
        new.requests() > 0
    })
    .await;
}
