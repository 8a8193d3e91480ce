//! How traffic is divided among priorities, localities and hosts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::{
    Answer, Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Route, Value, json,
};

mod zones;

on_both!(
    a_lower_priority_takes_what_the_higher_cannot_carry,
    ejected_hosts_make_traffic_spill_over,
    degraded_hosts_take_the_overflow,
    the_overprovisioning_factor_says_how_much_a_host_can_carry,
    one_priority_panics_and_the_other_does_not,
    nothing_answers_when_traffic_is_to_fail_in_panic,
    localities_get_their_weight_as_far_as_they_are_available,
    requests_are_dropped_as_the_management_server_says,
    all_requests_may_be_dropped,
    least_request_avoids_the_busy_host,
    a_full_scan_finds_the_only_idle_host,
    random_heeds_no_weights,
    a_policy_may_be_an_extension,
    a_new_host_starts_slowly,
);

on_outrigger_only!(peak_ewma_avoids_the_slow_host because CONTRIB_EXTENSIONS);

/// How many requests a share is measured with, and how far it may be off: beyond five standard deviations.
const REQUESTS: usize = 600;
const TOLERANCE: usize = 62;

/// So many backends that answer.
async fn backends<const N: usize>() -> [Backend; N] {
    let mut all = Vec::with_capacity(N);
    for index in 0..N {
        all.push(Backend::echo(&format!("backend-{index}")).await);
    }
    all.try_into().expect("as many as asked for")
}

/// Envoy's `LbEndpoint`.
fn endpoint(backend: &Backend) -> Value {
    let (ip, port) = (backend.address().ip().to_string(), backend.address().port());
    json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}})
}

fn with_health(backend: &Backend, health: &str) -> Value {
    let mut endpoint = endpoint(backend);
    endpoint["health_status"] = health.into();
    endpoint
}

/// Cluster `app` with these `LocalityLbEndpoints`.
fn cluster(localities: Value) -> Cluster {
    Cluster::new("app").with("load_assignment.endpoints", localities)
}

/// One locality of each priority, from 0.
fn priorities(hosts: &[&[Value]]) -> Value {
    let localities = hosts.iter().enumerate();
    localities
        .map(|(priority, hosts)| json!({"priority": priority, "lb_endpoints": hosts}))
        .collect()
}

async fn start(program: Program, cluster: Cluster) -> Proxy {
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster);
    proxy.start(program).await
}

/// Sends `count` requests one after the other; each gets an answer.
async fn send(proxy: &Proxy, count: usize) {
    let mut connection = proxy.client().connect().await.unwrap();
    for _ in 0..count {
        assert_eq!(connection.send(proxy.get("/")).await.unwrap().status, 200);
    }
}

/// How many requests each backend has had.
fn counts<const N: usize>(backends: &[Backend; N]) -> [usize; N] {
    backends.each_ref().map(Backend::count)
}

/// Asserts that the backends have had these percentages of the requests.
#[track_caller]
fn assert_shares<const N: usize>(backends: &[Backend; N], percentages: [usize; N]) {
    let counts = counts(backends);
    let total: usize = counts.iter().sum();
    for (count, percentage) in counts.iter().zip(percentages) {
        let near = count.abs_diff(total * percentage / 100) <= TOLERANCE;
        assert!(near && (*count == 0) == (percentage == 0), "{counts:?}, not {percentages:?} %");
    }
}

async fn a_lower_priority_takes_what_the_higher_cannot_carry(program: Program) {
    let hosts = backends::<4>().await;
    let [a, b, c, d] = &hosts;
    let endpoints = priorities(&[
        &[endpoint(a), with_health(b, "UNHEALTHY")],
        &[endpoint(c), with_health(d, "UNHEALTHY")],
    ]);
    let proxy = start(program, cluster(endpoints)).await;
    send(&proxy, REQUESTS).await;
    assert_shares(&hosts, [70, 0, 30, 0]);
}

async fn ejected_hosts_make_traffic_spill_over(program: Program) {
    let hosts = backends::<2>().await;
    let bad = Backend::scripted("bad", |_| Answer::status(500)).await;
    let [good, spare] = &hosts;
    let cluster = cluster(priorities(&[&[endpoint(good), endpoint(&bad)], &[endpoint(spare)]]))
        .with("outlier_detection", json!({"consecutive_5xx": 1, "max_ejection_percent": 50}));
    let proxy = start(program, cluster).await;
    let mut connection = proxy.client().connect().await.unwrap();
    while bad.count() == 0 {
        connection.send(proxy.get("/")).await.unwrap();
    }
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 2).await;
    assert_eq!(spare.count(), 0, "all were healthy");
    send(&proxy, REQUESTS).await;
    assert_shares(&hosts, [70, 30]);
}

async fn degraded_hosts_take_the_overflow(program: Program) {
    let hosts = backends::<3>().await;
    let [a, b, c] = &hosts;
    let endpoints = priorities(&[&[endpoint(a), with_health(b, "DEGRADED")], &[endpoint(c)]]);
    let proxy = start(program, cluster(endpoints)).await;
    send(&proxy, 100).await;
    let [healthy, degraded, spare] = counts(&hosts);
    assert!(degraded == 0 && spare > 5, "healthy hosts first: {healthy} and {spare}");

    let alone = cluster(priorities(&[&[endpoint(a), with_health(b, "DEGRADED")]]));
    let proxy = start(program, alone).await;
    send(&proxy, REQUESTS).await;
    let degraded = b.count();
    assert!(degraded.abs_diff(REQUESTS * 30 / 100) <= TOLERANCE, "{degraded}");
}

async fn the_overprovisioning_factor_says_how_much_a_host_can_carry(program: Program) {
    let hosts = backends::<3>().await;
    let [a, b, c] = &hosts;
    let endpoints = priorities(&[&[endpoint(a), with_health(b, "UNHEALTHY")], &[endpoint(c)]]);
    let policy = json!({"overprovisioning_factor": 100});
    let proxy = start(program, cluster(endpoints).with("load_assignment.policy", policy)).await;
    send(&proxy, REQUESTS).await;
    assert_shares(&hosts, [50, 0, 50]);

    let hosts = backends::<3>().await;
    let [a, b, c] = &hosts;
    let mut heavy = endpoint(a);
    heavy["load_balancing_weight"] = 9.into();
    let endpoints = priorities(&[&[heavy, with_health(b, "UNHEALTHY")], &[endpoint(c)]]);
    let policy = json!({"weighted_priority_health": true});
    let proxy = start(program, cluster(endpoints).with("load_assignment.policy", policy)).await;
    send(&proxy, 100).await;
    assert_eq!(counts(&hosts), [100, 0, 0], "nine tenths of the weight are enough");
}

async fn one_priority_panics_and_the_other_does_not(program: Program) {
    let hosts = backends::<7>().await;
    let gone = |host| with_health(host, "UNHEALTHY");
    let [a, b, c, d, e, f, g] = &hosts;
    // Priority 0 has 25 % and panics; priority 1 has 66 %: 35 and 92 are more than 100, so nobody panics.
    let enough = priorities(&[
        &[endpoint(a), gone(b), gone(c), gone(d)],
        &[endpoint(e), endpoint(f), gone(g)],
    ]);
    let proxy = start(program, cluster(enough)).await;
    send(&proxy, REQUESTS).await;
    let [first, .., last] = counts(&hosts);
    assert!(first.abs_diff(REQUESTS * 35 / 100) <= TOLERANCE && last == 0, "{first}");
    assert_eq!(proxy.stat("cluster.app.lb_healthy_panic").await, 0);

    // 35 and 46 are not.
    let few =
        priorities(&[&[endpoint(a), gone(b), gone(c), gone(d)], &[endpoint(e), gone(f), gone(g)]]);
    let few = cluster(few).with("common_lb_config.healthy_panic_threshold.value", 30);
    let proxy = start(program, few).await;
    let before = counts(&hosts);
    send(&proxy, REQUESTS).await;
    let after = counts(&hosts);
    let share =
        |from: usize, to: usize| -> usize { (from..to).map(|it| after[it] - before[it]).sum() };
    let all = share(0, 4);
    assert!(all.abs_diff(REQUESTS * 44 / 100) <= TOLERANCE, "35 of 81: {after:?}");
    assert!(share(1, 4).abs_diff(all * 3 / 4) <= 3, "all of priority 0: {after:?}");
    assert_eq!(share(5, 7), 0, "but only the healthy one of priority 1: {after:?}");
    assert_eq!(proxy.stat("cluster.app.lb_healthy_panic").await as usize, all);
}

async fn nothing_answers_when_traffic_is_to_fail_in_panic(program: Program) {
    let [a, b] = &backends::<2>().await;
    let gone = [with_health(a, "UNHEALTHY"), with_health(b, "UNHEALTHY")];
    let cluster = cluster(priorities(&[&gone]))
        .with("common_lb_config.zone_aware_lb_config", json!({"fail_traffic_on_panic": true}));
    let proxy = start(program, cluster).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, &*reply.text()), (503, "no healthy upstream"));
    assert_eq!(proxy.stat("cluster.app.lb_healthy_panic").await, 1);
}

async fn localities_get_their_weight_as_far_as_they_are_available(program: Program) {
    let hosts = backends::<4>().await;
    let [a, b, c, d] = &hosts;
    let locality = |zone: &str, weight: u32, hosts: &[Value]| json!({"locality": {"zone": zone}, "load_balancing_weight": weight, "lb_endpoints": hosts});
    let localities = json!([
        locality("one", 1, &[endpoint(a)]),
        locality("two", 4, &[endpoint(b), with_health(c, "UNHEALTHY")]),
        {"locality": {"zone": "none"}, "lb_endpoints": [endpoint(d)]},
    ]);
    let cluster = cluster(localities)
        .with("common_lb_config.locality_weighted_lb_config", json!({}))
        .with("common_lb_config.healthy_panic_threshold.value", 0);
    let proxy = start(program, cluster).await;
    // 1 to 4 × 0.7.
    send(&proxy, 380).await;
    let [one, two, gone, weightless] = counts(&hosts);
    assert!(one.abs_diff(100) <= 2 && two.abs_diff(280) <= 2, "{one} and {two}");
    assert_eq!((gone, weightless), (0, 0));
}

fn dropping(backend: &Backend, percent: u32) -> Cluster {
    let drops = json!([{"category": "storm", "drop_percentage": {"numerator": percent}}]);
    Cluster::new("app").endpoint(backend).with("load_assignment.policy.drop_overloads", drops)
}

async fn requests_are_dropped_as_the_management_server_says(program: Program) {
    let [app] = &backends::<1>().await;
    let proxy = start(program, dropping(app, 30)).await;
    let mut dropped = 0_usize;
    for _ in 0..REQUESTS {
        let reply = proxy.get("/").send().await;
        if reply.status != 200 {
            assert_eq!((reply.status, &*reply.text()), (503, "drop overload"));
            assert_eq!(reply.header("x-envoy-drop-overload").as_deref(), Some("true"));
            dropped += 1;
        }
    }
    assert!(dropped.abs_diff(REQUESTS * 30 / 100) <= TOLERANCE, "{dropped}");
    assert_eq!(app.count(), REQUESTS - dropped);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_503").await as usize, dropped);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_total").await as usize, REQUESTS - dropped);
}

async fn all_requests_may_be_dropped(program: Program) {
    let [app] = &backends::<1>().await;
    let proxy = start(program, dropping(app, 100)).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, &*reply.text()), (503, "unconditional drop overload"));
    assert_eq!(reply.header("x-envoy-unconditional-drop-overload").as_deref(), Some("true"));
    assert_eq!(app.count(), 0);
}

/// A backend that keeps requests to `/slow`, and one that does not; as many of the former as `slow`.
async fn one_busy(slow: usize) -> (Vec<Backend>, Backend) {
    let mut busy = Vec::new();
    for _ in 0..slow {
        let answer = |received: &harness::backend::Received| match &*received.path {
            "/slow" => Answer::hang(),
            _ => Answer::echo(),
        };
        busy.push(Backend::scripted("busy", answer).await);
    }
    (busy, Backend::scripted("idle", |_| Answer::echo()).await)
}

/// Keeps every busy backend busy with requests that are not answered while the result lives.
async fn occupy(proxy: &Proxy, busy: &[Backend]) -> Vec<tokio::task::JoinHandle<()>> {
    let mut held = Vec::new();
    while busy.iter().any(|backend| backend.count() == 0) {
        let call = proxy.get("/slow");
        let before: usize = busy.iter().map(Backend::count).sum();
        let task = tokio::spawn(async move {
            let _ = call.try_send().await;
        });
        harness::eventually("the request is somewhere", async || {
            let now: usize = busy.iter().map(Backend::count).sum();
            (now > before || task.is_finished()).then_some(())
        })
        .await;
        held.push(task);
    }
    held
}

async fn least_request_avoids_the_busy_host(program: Program) {
    let (busy, idle) = one_busy(1).await;
    let hosts = Cluster::new("app").endpoint(&busy[0]).endpoint(&idle);
    let proxy = start(program, hosts.with("lb_policy", "LEAST_REQUEST")).await;
    let held = occupy(&proxy, &busy).await;
    let (before, after) = (busy[0].count(), idle.count());
    send(&proxy, REQUESTS).await;
    let (busy, idle) = (busy[0].count() - before, idle.count() - after);
    assert!(busy.abs_diff(REQUESTS / 4) <= TOLERANCE, "only when drawn twice: {busy} and {idle}");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

/// `load_balancing_policy` with one policy.
fn policy(name: &str, fields: Value) -> Value {
    let mut config = fields;
    let package = "type.googleapis.com/envoy.extensions.load_balancing_policies";
    config["@type"] = format!("{package}.{name}").into();
    json!({"policies": [{"typed_extension_config": {"name": "policy", "typed_config": config}}]})
}

async fn a_full_scan_finds_the_only_idle_host(program: Program) {
    let (busy, idle) = one_busy(4).await;
    let hosts = busy.iter().fold(Cluster::new("app"), Cluster::endpoint).endpoint(&idle);
    let scan = policy("least_request.v3.LeastRequest", json!({"selection_method": "FULL_SCAN"}));
    let proxy = start(program, hosts.with("load_balancing_policy", scan)).await;
    let held = occupy(&proxy, &busy).await;
    let before = idle.count();
    send(&proxy, 50).await;
    assert_eq!(idle.count() - before, 50);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn peak_ewma_avoids_the_slow_host(program: Program) {
    let delay = Arc::new(AtomicU64::new(100));
    let millis = Arc::clone(&delay);
    let slow = Backend::scripted("slow", move |_| {
        Answer::status(200).after(Duration::from_millis(millis.load(Relaxed)))
    })
    .await;
    let fast = Backend::echo("fast").await;
    let hosts = Cluster::new("app").endpoint(&slow).endpoint(&fast);
    let by_latency =
        policy("peak_ewma.v3alpha.PeakEwma", json!({"decay_time": "0.5s", "default_rtt": "0s"}));
    // The filter without which Envoy would know no latencies, as configurations for it have it.
    let filter = |name: &str| {
        let package = "type.googleapis.com/envoy.extensions.filters.http";
        json!({"name": name, "typed_config": {"@type": format!("{package}.{name}")}})
    };
    let filters = json!([filter("peak_ewma.v3alpha.PeakEwmaConfig"), filter("router.v3.Router")]);
    let http = Http::routing([Route::prefix("/").to("app")]).with("http_filters", filters);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http))
        .cluster(hosts.with("load_balancing_policy", by_latency))
        .start(program)
        .await;
    send(&proxy, 100).await;
    // It is tried once, as nothing is known, and again when that has faded.
    let tries = slow.count();
    assert!((1..=20).contains(&tries), "{tries} of 100 requests to the slow host");

    delay.store(0, Relaxed);
    harness::eventually("the host is used again", async || {
        send(&proxy, 20).await;
        (slow.count() > tries + 20).then_some(())
    })
    .await;
}

async fn random_heeds_no_weights(program: Program) {
    let hosts = backends::<2>().await;
    let [a, b] = &hosts;
    let cluster = Cluster::new("app").weighted_endpoint(a, 9).weighted_endpoint(b, 1);
    let proxy = start(program, cluster.with("lb_policy", "RANDOM")).await;
    send(&proxy, REQUESTS).await;
    assert_shares(&hosts, [50, 50]);
}

async fn a_policy_may_be_an_extension(program: Program) {
    let hosts = backends::<3>().await;
    let [a, b, c] = &hosts;
    let locality = |zone: &str, weight: u32, hosts: &[Value]| json!({"locality": {"zone": zone}, "load_balancing_weight": weight, "lb_endpoints": hosts});
    let localities = json!([
        locality("one", 3, &[endpoint(a), endpoint(b)]),
        locality("two", 1, &[endpoint(c)])
    ]);
    let weighted = json!({"locality_lb_config": {"locality_weighted_lb_config": {}}});
    let round_robin = policy("round_robin.v3.RoundRobin", weighted);
    // What lb_policy says gives way.
    let cluster =
        cluster(localities).with("lb_policy", "RANDOM").with("load_balancing_policy", round_robin);
    let proxy = start(program, cluster).await;
    send(&proxy, 400).await;
    for (count, expected) in counts(&hosts).into_iter().zip([150_usize, 150, 100]) {
        assert!(count.abs_diff(expected) <= 2, "{:?}", counts(&hosts));
    }
}

async fn a_new_host_starts_slowly(program: Program) {
    let hosts = backends::<3>().await;
    let [a, b, c] = &hosts;
    let dir = tempfile::tempdir().unwrap();
    let files = harness::discovery_files::DiscoveryFile::endpoints(dir.path());
    let assignment = |hosts: &[&Backend]| {
        let hosts: Vec<Value> = hosts.iter().map(|host| endpoint(host)).collect();
        json!({"cluster_name": "app", "endpoints": [{"lb_endpoints": hosts}]})
    };
    files.publish([assignment(&[a, b])]);
    let window = Duration::from_secs(3);
    let slow = json!({"slow_start_config": {"slow_start_window": "3s"}});
    let cluster = Cluster::from_file("app", files.path()).with("round_robin_lb_config", slow);
    let proxy = start(program, cluster).await;
    // The first hosts are as cold as each other, and warm when the third comes.
    let begin = Instant::now();
    while begin.elapsed() < window {
        send(&proxy, 2).await;
    }
    files.publish([assignment(&[a, b, c])]);
    proxy.until_stat("cluster.app.membership_total", |count| count == 3).await;
    let before = counts(&hosts);
    send(&proxy, 60).await;
    let cold = c.count();
    let warm = counts(&hosts)[0] - before[0];
    assert!(cold < warm * 3 / 4 && cold > 0, "{cold} against {warm}");
    harness::eventually("the host is warm", async || {
        let before = counts(&hosts);
        send(&proxy, 90).await;
        let [a, _, c] = counts(&hosts);
        ((a - before[0]).abs_diff(c - before[2]) <= 2).then_some(())
    })
    .await;
}
