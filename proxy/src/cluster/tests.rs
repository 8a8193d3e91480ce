//! Clusters as workers see them: what is shared, what survives a change, who is ejected.

use std::net::SocketAddr;

use super::host::Outcome::{Failed, Response, Timeout};
use super::*;
use crate::config::cluster::{LbPolicy, OutlierDetection, SlowStart};
use crate::config::endpoint::{Endpoint, HealthStatus};
use crate::config::route::Priority;
use crate::telemetry::metrics::{Scope, Value};

/// A cluster of endpoints 127.0.0.1 with `ports`; nothing listens there, for nothing is sent.
pub(super) fn spec(ports: &[u16], edit: impl FnOnce(&mut Cluster)) -> Arc<ClusterSpec> {
    let endpoint = |port: &u16| Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], *port)).into(),
        additional_addresses: Arc::default(),
        hostname: "".into(),
        weight: 1,
        locality: Arc::default(),
        health: HealthStatus::Healthy,
        health_check: None,
        hash_key: None,
        metadata: None,
        transport_socket_match: HashMap::default(),
        is_leaving: false,
    };
    let endpoints = ports.iter().map(endpoint).collect();
    let mut config = crate::pool::tests::cluster("shop");
    edit(&mut config);
    Arc::new(ClusterSpec {
        config: Arc::new(config),
        assignment: Arc::new(LoadAssignment {
            cluster_name: "shop".into(),
            endpoints,
            ..LoadAssignment::default()
        }),
        tls: None,
        match_tls: Vec::new(),
    })
}

fn detecting(edit: impl FnOnce(&mut OutlierDetection)) -> impl FnOnce(&mut Cluster) {
    let mut detection = outlier_detection::tests::config();
    edit(&mut detection);
    move |cluster| cluster.outlier_detection = Some(detection.into())
}

fn snapshot(spec: &Arc<ClusterSpec>) -> HashMap<Name, Arc<ClusterSpec>> {
    [(Arc::clone(&spec.config.name), Arc::clone(spec))].into_iter().collect()
}

struct Fixture {
    metrics: Arc<Metrics>,
    clusters: Arc<Clusters>,
    worker: LocalClusters,
}

impl Fixture {
    fn new(spec: &Arc<ClusterSpec>) -> Self {
        let metrics = Arc::new(Metrics::default());
        let clusters = Arc::new(Clusters::new(Arc::clone(&metrics)));
        metrics.register(Arc::clone(&clusters) as Arc<_>);
        clusters.publish(&snapshot(spec));
        Self { worker: LocalClusters::new(Arc::clone(&clusters)), metrics, clusters }
    }

    fn reading(&self, name: &str) -> i64 {
        let name = format!("cluster.shop.{name}");
        let sample = self
            .metrics
            .collect(&Default::default())
            .into_iter()
            .find(|sample| sample.to_string() == name);
        match sample.map(|sample| sample.value) {
            Some(Value::Counter(count)) => count as i64,
            Some(Value::Gauge(value)) => value,
            other => panic!("{name} is {other:?}"),
        }
    }
}

/// The ports picked in `count` picks, sorted.
fn picked(cluster: &LocalCluster, count: usize) -> Vec<u16> {
    let mut random = Rng::with_seed(1);
    let mut ports: Vec<u16> = (0..count)
        .map(|_| {
            cluster
                .pick(&PickContext::default(), &mut random)
                .unwrap()
                .unwrap()
                .address()
                .ip()
                .unwrap()
                .port()
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn host(cluster: &LocalCluster, port: u16) -> Rc<LocalHost> {
    let mut random = Rng::with_seed(1);
    let mut picks =
        (0..100).map(|_| cluster.pick(&PickContext::default(), &mut random).unwrap().unwrap());
    picks.find(|host| host.address().ip().unwrap().port() == port).unwrap()
}

#[test]
fn a_cluster_is_made_once_and_renewed_when_it_changes() {
    let first = spec(&[1, 2], |_| {});
    let Fixture { clusters, worker, .. } = Fixture::new(&first);
    let cluster = worker.get(&first);
    assert!(Rc::ptr_eq(&cluster, &worker.get(&first)));
    let (one, two) = (host(&cluster, 1).id(), host(&cluster, 2).id());

    let second = spec(&[2, 3], |_| {});
    clusters.publish(&snapshot(&second));
    let renewed = worker.get(&second);
    assert_eq!(picked(&renewed, 20), [2, 3]);
    assert_eq!(host(&renewed, 2).id(), two, "the endpoint that stays is the same");
    assert_eq!(picked(&cluster, 20), [1, 2], "who still has the old one keeps it");

    let third = spec(&[1, 2], |_| {});
    clusters.publish(&snapshot(&third));
    assert_eq!(host(&worker.get(&third), 1).id(), one, "and one that comes back is recognised");
}

#[test]
fn an_endpoint_that_joins_starts_slowly() {
    let slow_start =
        SlowStart { window: Duration::from_secs(3600), aggression: 1.0, min_weight: 0.2 };
    let spec = |ports: &[u16]| {
        spec(ports, |cluster| {
            cluster.lb_policy = LbPolicy::RoundRobin { slow_start: Some(slow_start) };
        })
    };
    let first = spec(&[1, 2]);
    let Fixture { clusters, worker, .. } = Fixture::new(&first);
    let shares = |cluster: &LocalCluster| {
        let mut random = Rng::with_seed(1);
        let mut shares = [0_u32; 3];
        for _ in 0..1100 {
            let host = cluster.pick(&PickContext::default(), &mut random).unwrap().unwrap();
            shares[usize::from(host.address().ip().unwrap().port()) - 1] += 1;
        }
        shares
    };
    let cluster = worker.get(&first);
    let [one, two, _] = shares(&cluster);
    assert!(one.abs_diff(two) <= 2, "all are equally cold: {one} and {two}");

    for port in [1, 2] {
        host(&cluster, port).shared.since.set_age(Duration::from_secs(3600));
    }
    let second = spec(&[1, 2, 3]);
    clusters.publish(&snapshot(&second));
    let [one, two, three] = shares(&worker.get(&second));
    assert!(one.abs_diff(500) <= 2 && two.abs_diff(500) <= 2, "{one} and {two}");
    assert!(three.abs_diff(100) <= 2, "a fifth of the others: {three}");

    // Somebody still holds the cluster that has 3; that it left and came back counts all the same.
    host(&worker.get(&second), 3).shared.since.set_age(Duration::from_secs(3600));
    let held = worker.get(&second);
    clusters.publish(&snapshot(&first));
    clusters.publish(&snapshot(&second));
    assert!(host(&held, 3).shared.since.age() < Duration::from_secs(3000));
}

#[test]
fn endpoints_with_one_address_are_still_two() {
    let twice = spec(&[1, 1], |_| {});
    let fixture = Fixture::new(&twice);
    let cluster = fixture.worker.get(&twice);
    let mut random = Rng::with_seed(1);
    let first = cluster.pick(&PickContext::default(), &mut random).unwrap().unwrap().id();
    let second = cluster
        .pick(&PickContext { avoid: &[first], attempts: 9, ..PickContext::default() }, &mut random)
        .unwrap()
        .unwrap()
        .id();
    assert_ne!(first, second);
    assert_eq!(fixture.reading("membership_total"), 2);
}

#[test]
fn workers_share_breakers_and_ejections() {
    let shared = spec(&[1, 2], detecting(|detection| detection.consecutive_5xx = 4));
    let Fixture { clusters, worker, .. } = &Fixture::new(&shared);
    let other = LocalClusters::new(Arc::clone(clusters));
    let (here, there) = (worker.get(&shared), other.get(&shared));
    let permit = here.breaker(Priority::Default).try_retry().unwrap();
    let both: Vec<_> =
        (0..2).map(|_| there.breaker(Priority::Default).try_retry().unwrap()).collect();
    assert!(there.breaker(Priority::Default).try_retry().is_none(), "three for both");
    assert!(there.breaker(Priority::High).try_retry().is_some());
    drop((permit, both));

    let (bad_here, bad_there) = (host(&here, 1), host(&there, 1));
    for cluster_and_host in [(&here, &bad_here), (&there, &bad_there), (&here, &bad_here)] {
        cluster_and_host.0.report(cluster_and_host.1, Response(500));
    }
    assert_eq!(picked(&there, 20), [1, 2]);
    there.report(&bad_there, Response(500));
    assert_eq!(picked(&there, 20), [2]);
    assert_eq!(picked(&here, 20), [2]);
}

#[test]
fn every_threshold_is_reached_once_however_many_workers_count() {
    let shared = spec(
        &[1, 2],
        detecting(|detection| {
            detection.consecutive_5xx = 100;
            detection.enforcing_consecutive_5xx = 0;
        }),
    );
    let fixture = Fixture::new(&shared);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let worker = LocalClusters::new(Arc::clone(&fixture.clusters));
                let cluster = worker.get(&shared);
                let host = host(&cluster, 1);
                for _ in 0..24 {
                    cluster.report(&host, Response(503));
                }
            });
        }
    });
    let name = "outlier_detection.ejections_detected_consecutive_5xx";
    assert_eq!(fixture.reading(name), 0, "96 of 100");
    let cluster = fixture.worker.get(&shared);
    let host = host(&cluster, 1);
    for _ in 0..4 {
        cluster.report(&host, Response(503));
    }
    assert_eq!(fixture.reading(name), 1);
    assert_eq!(fixture.reading("outlier_detection.ejections_enforced_total"), 0);
}

#[test]
fn which_outcomes_count_for_which_detector() {
    use outlier_detection::Detector::{
        Consecutive5xx, ConsecutiveGatewayFailure, ConsecutiveLocalOriginFailure,
    };
    let detection = |split| OutlierDetection {
        consecutive_5xx: 2,
        consecutive_gateway_failure: 2,
        consecutive_local_origin_failure: 2,
        split_external_local_origin_errors: split,
        ..outlier_detection::tests::config()
    };
    for (split, outcomes, expected) in [
        (false, [Response(500), Response(500)], vec![Consecutive5xx]),
        (false, [Response(503), Response(502)], vec![ConsecutiveGatewayFailure, Consecutive5xx]),
        (false, [Response(503), Response(500)], vec![Consecutive5xx]),
        (false, [Response(500), Response(200)], vec![]),
        (false, [Failed, Timeout], vec![ConsecutiveGatewayFailure, Consecutive5xx]),
        (true, [Failed, Timeout], vec![ConsecutiveLocalOriginFailure]),
        (true, [Failed, Response(500)], vec![]),
        (true, [Response(500), Failed], vec![]),
        (true, [Response(503), Response(503)], vec![ConsecutiveGatewayFailure, Consecutive5xx]),
    ] {
        let host = host::Host::new(SocketAddr::from(([127, 0, 0, 1], 1)).into());
        let shard = host.shard();
        let detected: Vec<_> = outcomes
            .into_iter()
            .flat_map(|outcome| host.observe(&shard, outcome, &detection(split)))
            .flatten()
            .collect();
        assert_eq!(detected, expected, "{outcomes:?}, split: {split}");
    }
}

#[test]
fn an_ejected_endpoint_comes_back_with_a_sweep() {
    let detected = spec(&[1, 2], detecting(|detection| detection.consecutive_5xx = 1));
    let fixture = Fixture::new(&detected);
    let cluster = fixture.worker.get(&detected);
    cluster.report(&host(&cluster, 1), Response(500));
    assert_eq!(picked(&cluster, 20), [2]);
    assert_eq!(fixture.reading("membership_healthy"), 1);
    assert_eq!(fixture.reading("outlier_detection.ejections_active"), 1);
    assert_eq!(fixture.reading("outlier_detection.ejections_enforced_consecutive_5xx"), 1);
    let view = fixture.clusters.view();
    assert_eq!(view[0].hosts[0].health, HealthFlags::FAILED_OUTLIER_CHECK);

    let soon = Instant::now() + Duration::from_secs(15);
    fixture.clusters.sweep(soon);
    assert_eq!(picked(&cluster, 20), [2], "its time is not over");
    fixture.clusters.sweep(soon + Duration::from_secs(30));
    assert_eq!(picked(&cluster, 20), [1, 2]);
    assert_eq!(fixture.reading("outlier_detection.ejections_active"), 0);
}

#[test]
fn ejections_survive_a_change_and_end_when_detection_is_turned_off() {
    let detected = spec(&[1, 2], detecting(|detection| detection.consecutive_5xx = 1));
    let Fixture { clusters, worker, .. } = Fixture::new(&detected);
    let cluster = worker.get(&detected);
    cluster.report(&host(&cluster, 1), Response(500));
    let changed = spec(&[1, 2, 3], detecting(|_| {}));
    clusters.publish(&snapshot(&changed));
    assert_eq!(picked(&worker.get(&changed), 20), [2, 3]);
    let off = spec(&[1, 2, 3], |_| {});
    clusters.publish(&snapshot(&off));
    assert_eq!(picked(&worker.get(&off), 20), [1, 2, 3]);
}

#[test]
fn a_rate_of_success_far_below_the_others_ejects() {
    let ports = [1, 2, 3, 4, 5];
    let detected = spec(&ports, detecting(|_| {}));
    let fixture = Fixture::new(&detected);
    let cluster = fixture.worker.get(&detected);
    for port in ports {
        let host = host(&cluster, port);
        for request in 0..100 {
            let bad = port == 3 && request % 2 == 0;
            cluster.report(&host, Response(if bad { 500 } else { 200 }));
        }
    }
    fixture.clusters.sweep(Instant::now() + Duration::from_secs(11));
    assert_eq!(picked(&cluster, 50), [1, 2, 4, 5]);
    assert_eq!(fixture.reading("outlier_detection.ejections_enforced_success_rate"), 1);
    let view = &fixture.clusters.view()[0];
    assert_eq!(view.hosts[2].success_rate, Some(50.0));
    assert_eq!(view.hosts[2].totals.rq_error, 50);
    assert_eq!(view.hosts[0].totals.rq_success, 100);
}

#[test]
fn panic_is_counted_and_nothing_is_picked_from_nothing() {
    let detected = spec(&[1, 2, 3], detecting(|detection| detection.consecutive_5xx = 1));
    let fixture = Fixture::new(&detected);
    let cluster = fixture.worker.get(&detected);
    for port in [1, 2] {
        cluster.report(&host(&cluster, port), Response(500));
    }
    assert_eq!(picked(&cluster, 30), [1, 2, 3]);
    assert_eq!(cluster.stats.lb_healthy_panic.get(), 30);

    let empty = spec(&[], |_| {});
    fixture.clusters.publish(&snapshot(&empty));
    let cluster = fixture.worker.get(&empty);
    assert!(cluster.pick(&PickContext::default(), &mut Rng::with_seed(1)).unwrap().is_none());
}

#[test]
fn breakers_follow_the_configuration() {
    let first = spec(&[1], |cluster| cluster.circuit_breakers[0].max_retries = 1);
    let fixture = Fixture::new(&first);
    let cluster = fixture.worker.get(&first);
    let _retry = cluster.breaker(Priority::Default).try_retry().unwrap();
    assert_eq!(fixture.reading("circuit_breakers.default.rq_retry_open"), 1);
    let second = spec(&[1], |cluster| {
        cluster.circuit_breakers[0].max_retries = 2;
        cluster.circuit_breakers[0].track_remaining = true;
    });
    fixture.clusters.publish(&snapshot(&second));
    assert_eq!(fixture.reading("circuit_breakers.default.rq_retry_open"), 0);
    assert_eq!(fixture.reading("circuit_breakers.default.remaining_retries"), 1);
    assert_eq!(fixture.reading("circuit_breakers.high.rq_retry_open"), 0);
}

#[test]
fn clusters_nobody_uses_are_seen_too_and_removed_ones_are_not() {
    let unused = spec(&[1, 2], |cluster| cluster.lb_policy = LbPolicy::Random);
    let fixture = Fixture::new(&unused);
    assert_eq!(fixture.reading("membership_total"), 2);
    assert_eq!(fixture.reading("membership_change"), 1);
    let view = fixture.clusters.view();
    assert_eq!((view.len(), view[0].hosts.len()), (1, 2));
    fixture.worker.get(&unused);
    fixture.clusters.publish(&HashMap::default());
    fixture.worker.follow(&HashMap::default());
    assert!(fixture.clusters.view().is_empty());
}

#[test]
fn tls_that_was_not_built_is_not_replaced_by_plain_text() {
    use crate::config::tls::{CommonTls, TlsVersion, UpstreamTls};
    let common = CommonTls {
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: Vec::new(),
        certificates: Vec::new(),
        validation: None,
        key_log: None,
    };
    let secured = spec(&[1], |cluster| {
        cluster.tls = Some(Arc::new(UpstreamTls {
            common,
            sni: None,
            auto_host_sni: false,
            auto_sni_san_validation: false,
        }));
    });
    let fixture = Fixture::new(&secured);
    assert!(
        fixture
            .worker
            .get(&secured)
            .pick(&PickContext::default(), &mut Rng::with_seed(1))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_worker_forgets_clusters_that_are_not_used_and_nothing_that_was_counted() {
    let spec = spec(&[1], |_| {});
    let Fixture { metrics, worker, .. } = Fixture::new(&spec);
    let configured = [Scope::cluster("shop")].into();
    let total = |name: &str| {
        let mut samples = metrics.collect(&configured).into_iter();
        let name = format!("cluster.shop.{name}");
        samples.find(|sample| sample.to_string() == name).map(|sample| sample.value)
    };
    let cluster = worker.get(&spec);
    cluster.stats.upstream_rq_total.add(3);
    let host = host(&cluster, 1);
    cluster.report(&host, Response(200));
    let (id, weak) = (host.id(), Rc::downgrade(&cluster));
    drop(host);

    after_minutes(20, &worker);
    assert!(Rc::ptr_eq(&cluster, &worker.get(&spec)), "somebody has it");
    drop(cluster);
    after_minutes(8, &worker);
    assert!(weak.upgrade().is_some());
    worker.get(&spec);
    after_minutes(8, &worker);
    assert!(weak.upgrade().is_some(), "it was used in between");
    after_minutes(8, &worker);
    assert!(weak.upgrade().is_none());

    assert_eq!(total("upstream_rq_total"), Some(Value::Counter(3)));
    let again = worker.get(&spec);
    again.stats.upstream_rq_total.add(1);
    assert_eq!(total("upstream_rq_total"), Some(Value::Counter(4)));
    let host = self::host(&again, 1);
    assert_eq!(host.id(), id, "what is known of its hosts is still known");
    assert_eq!(host.shared.totals().rq_success, 1);
}

#[test]
fn a_worker_keeps_clusters_with_connections() {
    let spec = spec(&[1], |_| {});
    let Fixture { worker, .. } = Fixture::new(&spec);
    let cluster = Rc::downgrade(&worker.get(&spec));
    let connections = Arc::clone(&host(&cluster.upgrade().unwrap(), 1).shard.counts);
    connections.cx_active.inc();
    after_minutes(60, &worker);
    assert!(cluster.upgrade().is_some());
    connections.cx_active.dec();
    after_minutes(60, &worker);
    assert!(cluster.upgrade().is_none());
}

/// Lets so many minutes pass for `worker`.
fn after_minutes(minutes: u32, worker: &LocalClusters) {
    for _ in 0..minutes {
        worker.forget_unused();
    }
}

#[test]
fn a_removed_cluster_keeps_no_endpoint_that_is_named_late() {
    use crate::config::cluster::{Discovery, OriginalDst};
    let named = spec(&[], |cluster| {
        let cleanup_interval = Duration::from_secs(5);
        let original = OriginalDst { http_header: None, port_override: None, cleanup_interval };
        cluster.discovery = Discovery::OriginalDst(original);
    });
    let fixture = Fixture::new(&named);
    let cluster = fixture.worker.get(&named);
    fixture.worker.follow(&HashMap::default());
    let wanted = DynamicHost {
        address: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        additional_addresses: Arc::default(),
        hostname: "".into(),
    };
    let context = PickContext { dynamic: Some(&wanted), ..PickContext::default() };
    let host = cluster.pick(&context, &mut Rng::with_seed(1)).unwrap().unwrap();
    let kept = Rc::downgrade(&host);
    drop(host);
    assert!(kept.upgrade().is_none());
}

#[test]
fn who_depends_on_a_host_misses_no_failure() {
    use futures_util::FutureExt;
    let failing = spec(&[1, 2], detecting(|detection| detection.consecutive_5xx = 1));
    let fixture = Fixture::new(&failing);
    let cluster = fixture.worker.get(&failing);
    let host = cluster.pick(&PickContext::default(), &mut Rng::with_seed(1)).unwrap().unwrap();
    let watch = host.watch();
    assert!(host.watch().failure().now_or_never().is_none());
    cluster.report(&host, Response(500));
    assert!(host.watch().failure().now_or_never().is_none(), "it had failed before");
    assert!(watch.failure().now_or_never().is_some());
}
