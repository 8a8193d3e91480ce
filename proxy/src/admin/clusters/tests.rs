//! Against the dump of a real Envoy, after its one host had refused six connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cluster::ClusterSpec;
use crate::cluster::host::Totals;
use crate::config::HashMap;
use crate::config::cluster::{
    Cluster, Discovery, HostPolicy, LbPolicy, OutlierDetection, RateDetection, Thresholds,
    UpstreamHttp, UpstreamProtocol,
};
use crate::config::endpoint::{Endpoint, LoadAssignment};

fn cluster(outlier_detection: Option<OutlierDetection>) -> Cluster {
    let limits = Thresholds {
        max_connections: 10,
        max_pending_requests: 10,
        max_requests: 10,
        ..Thresholds::default()
    };
    Cluster {
        name: "c1".into(),
        stat_name: "c1".into(),
        discovery: Discovery::Static(Arc::new(LoadAssignment::default())),
        connect_timeout: Duration::from_millis(250),
        lb_policy: LbPolicy::default(),
        subsets: None,
        panic_threshold: 50,
        locality_lb: Default::default(),
        buffer_limit: 1 << 20,
        circuit_breakers: [limits, Thresholds::default()].into(),
        outlier_detection: outlier_detection.map(Into::into),
        http: UpstreamHttp {
            protocol: UpstreamProtocol::Http1,
            http2: Default::default(),
            idle_timeout: None,
            max_connection_duration: None,
            max_requests_per_connection: 0,
            max_stream_duration: None,
            auto_sni: false,
            override_auto_sni_header: None,
            auto_san_validation: false,
            enable_trailers: false,
            max_headers_count: 100,
            max_response_headers: 60 << 10,
        }
        .into(),
        tls: None,
        transport_socket_matches: Vec::new(),
        hosts: HostPolicy::default(),
        connecting: Default::default(),
        metadata: None,
        keeps_alpn: false,
    }
}

fn host(port: u16) -> HostView {
    let mut totals = Totals::default();
    totals.cx_connect_fail = 6;
    totals.cx_total = 6;
    totals.rq_error = 6;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let endpoint = Endpoint {
        address: address.into(),
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
    let (success_rate, local_success_rate) = (None, None);
    let health = HealthFlags::default();
    HostView { endpoint, address: address.into(), health, totals, success_rate, local_success_rate }
}

fn view(config: Cluster, hosts: Vec<HostView>) -> ClusterView {
    let assignment = Arc::default();
    let spec = ClusterSpec { config: Arc::new(config), assignment, tls: None, match_tls: vec![] };
    ClusterView { spec: Arc::new(spec), hosts }
}

#[test]
fn lines_are_envoys() {
    let view = view(cluster(None), vec![host(19803)]);
    let mut text = String::new();
    Listed { view: &view, added_via_api: false }.text(&mut text).unwrap();
    let reference = include_str!("../reference/clusters.txt");
    // Requests waiting are not counted by host here.
    let reference = reference.lines().filter(|line| !line.contains("::rq_pending_active::"));
    assert!(text.lines().eq(reference), "{text}");
}

#[test]
fn json_is_envoys() {
    let view = view(cluster(None), vec![host(19803)]);
    let json = Listed { view: &view, added_via_api: true }.json();
    let stat = |name: &str| json!({"name": name, "value": "6"});
    let limits = |n: u32| {
        json!({
            "max_connections": n, "max_pending_requests": n, "max_requests": n, "max_retries": 3,
        })
    };
    let mut high = limits(1024);
    high["priority"] = json!("HIGH");
    let host = json!({
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 19803}},
        "stats": [
            stat("cx_connect_fail"), stat("cx_total"), stat("rq_error"),
            {"name": "rq_success"}, {"name": "rq_timeout"}, {"name": "rq_total"},
            {"type": "GAUGE", "name": "cx_active"}, {"type": "GAUGE", "name": "rq_active"},
        ],
        "health_status": {"eds_health_status": "HEALTHY"},
        "weight": 1,
        "locality": {},
    });
    let wanted = json!({
        "name": "c1",
        "added_via_api": true,
        "observability_name": "c1",
        "circuit_breakers": {"thresholds": [limits(10), high]},
        "host_statuses": [host],
    });
    assert_eq!(json, wanted);
}

#[test]
fn an_unhealthy_host_says_why() {
    let mut host = host(1);
    host.endpoint.health = HealthStatus::Unhealthy;
    host.health = HealthFlags::FAILED_ACTIVE_HC | HealthFlags::FAILED_EDS_HEALTH;
    assert_eq!(health_flags(&host), "/failed_active_hc/failed_eds_health");
    let wanted = json!({"failed_active_health_check": true, "eds_health_status": "UNHEALTHY"});
    assert_eq!(health_status(&host), wanted);
    host.health = HealthFlags::FAILED_OUTLIER_CHECK;
    assert_eq!(health_flags(&host), "/failed_outlier_check");
}

#[test]
fn rates_are_shown_once_enough_hosts_have_one() {
    let success_rate = RateDetection { minimum_hosts: 2, request_volume: 1, enforcing: 100 };
    let detection = OutlierDetection {
        consecutive_5xx: 5,
        consecutive_gateway_failure: 5,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_5xx: 100,
        enforcing_consecutive_gateway_failure: 0,
        enforcing_consecutive_local_origin_failure: 100,
        split_external_local_origin_errors: false,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 10,
        success_rate,
        success_rate_stdev_factor: 1900,
        failure_percentage: success_rate,
        failure_percentage_threshold: 85,
        always_eject_one_host: false,
        uneject_on_active_success: true,
    };
    let mut hosts = vec![host(1), host(2)];
    hosts[0].success_rate = Some(100.0);
    let one = view(cluster(Some(detection.clone())), hosts.clone());
    let (_, rate) = RATES[0];
    assert_eq!(Listed { view: &one, added_via_api: false }.rates(rate), None);
    hosts[1].success_rate = Some(80.0);
    let two = view(cluster(Some(detection)), hosts);
    assert_eq!(Listed { view: &two, added_via_api: false }.rates(rate), Some((90.0, 71.0)));
}
