//! What clusters say about load balancing, and what is made of it.

use std::time::Duration;

use super::super::cluster;
use super::decode;
use crate::config;
use crate::config::cluster::{LbPolicy, LeastRequest, LocalityLb, PeakEwma, SlowStart, ZoneAware};

fn accepted(fields: &str) -> config::cluster::Cluster {
    decode(&format!("{{name: a, {fields}}}"), cluster).unwrap()
}

/// With one policy of `load_balancing_policy`.
fn extension(policy: &str) -> config::cluster::Cluster {
    accepted(&format!("load_balancing_policy: {{policies: [{}]}}", one(policy)))
}

fn one(policy: &str) -> String {
    let prefix = "type.googleapis.com/envoy.extensions.load_balancing_policies";
    format!("{{typed_extension_config: {{name: p, typed_config: {{'@type': {prefix}.{policy}}}}}}}")
}

const MINUTE: SlowStart =
    SlowStart { window: Duration::from_secs(60), aggression: 1.0, min_weight: 0.1 };

#[test]
fn nothing_said_is_round_robin() {
    let cluster = accepted("type: STATIC");
    assert_eq!(cluster.lb_policy, LbPolicy::RoundRobin { slow_start: None });
    assert_eq!(cluster.locality_lb, LocalityLb::ZoneAware(ZoneAware::default()));
    assert_eq!(cluster.panic_threshold, 50);
    let rounded = accepted("common_lb_config: {healthy_panic_threshold: {value: 33.5}}");
    assert_eq!(rounded.panic_threshold, 34);
}

#[test]
fn a_policy_reads_its_own_configuration() {
    let slow = "slow_start_config: {slow_start_window: 60s}";
    let fields = format!("lb_policy: ROUND_ROBIN, round_robin_lb_config: {{{slow}}}");
    assert_eq!(accepted(&fields).lb_policy, LbPolicy::RoundRobin { slow_start: Some(MINUTE) });

    let fields = "lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5, \
        active_request_bias: {default_value: 0.5, runtime_key: b}, slow_start_config: \
        {slow_start_window: 60s, aggression: {default_value: 2, runtime_key: a}, \
        min_weight_percent: {value: 25}}}";
    let slow_start = SlowStart { aggression: 2.0, min_weight: 0.25, ..MINUTE };
    let expected = LeastRequest {
        choices: 5,
        full_scan: false,
        active_request_bias: 0.5,
        slow_start: Some(slow_start),
    };
    assert_eq!(accepted(fields).lb_policy, LbPolicy::LeastRequest(expected));

    let other = "lb_policy: RANDOM, least_request_lb_config: {choice_count: 5}";
    assert_eq!(
        accepted(other).lb_policy,
        LbPolicy::Random,
        "what is for another policy is not read"
    );
}

#[test]
fn numbers_that_make_no_sense_are_1_as_in_envoy() {
    let fields = "lb_policy: LEAST_REQUEST, least_request_lb_config: {active_request_bias: \
        {default_value: -1, runtime_key: b}, slow_start_config: {slow_start_window: 60s, \
        aggression: {default_value: 0, runtime_key: a}}}";
    let expected = LeastRequest { slow_start: Some(MINUTE), ..LeastRequest::default() };
    assert_eq!(accepted(fields).lb_policy, LbPolicy::LeastRequest(expected));
    let off = "round_robin_lb_config: {slow_start_config: {}}";
    assert_eq!(accepted(off).lb_policy, LbPolicy::default(), "no window is no slow start");
}

#[test]
fn localities_are_weighed_or_zones_are_heeded() {
    let weighted = accepted("common_lb_config: {locality_weighted_lb_config: {}}");
    assert_eq!(weighted.locality_lb, LocalityLb::Weighted);
    let zones = accepted(
        "common_lb_config: {zone_aware_lb_config: {routing_enabled: {value: 20}, \
         min_cluster_size: 0, fail_traffic_on_panic: true}}",
    );
    let expected = ZoneAware {
        routing_enabled: 20,
        min_cluster_size: 0,
        fail_traffic_on_panic: true,
        ..ZoneAware::default()
    };
    assert_eq!(zones.locality_lb, LocalityLb::ZoneAware(expected));
}

#[test]
fn extensions_say_the_same_and_more() {
    let slow = "slow_start_config: {slow_start_window: 60s}";
    let round_robin = extension(&format!("round_robin.v3.RoundRobin, {slow}"));
    assert_eq!(round_robin.lb_policy, LbPolicy::RoundRobin { slow_start: Some(MINUTE) });

    let full =
        |field: &str| extension(&format!("least_request.v3.LeastRequest, {field}")).lb_policy;
    let scanning = LeastRequest { full_scan: true, ..LeastRequest::default() };
    assert_eq!(full("selection_method: FULL_SCAN"), LbPolicy::LeastRequest(scanning));
    assert_eq!(full("enable_full_scan: true"), LbPolicy::LeastRequest(scanning));
    assert_eq!(full("choice_count: 2"), LbPolicy::LeastRequest(LeastRequest::default()));

    let zone = |fields: &str| {
        let config = format!("locality_lb_config: {{zone_aware_lb_config: {{{fields}}}}}");
        match extension(&format!("random.v3.Random, {config}")).locality_lb {
            LocalityLb::ZoneAware(zone) => zone,
            LocalityLb::Weighted => panic!("not by weight"),
        }
    };
    let absent = ZoneAware::default();
    assert_eq!(
        zone("locality_basis: HEALTHY_HOSTS_WEIGHT"),
        ZoneAware { by_weight: true, ..absent }
    );
    let forced = |min_size| ZoneAware { force_local_zone: Some(min_size), ..absent };
    assert_eq!(zone("force_locality_direct_routing: true"), forced(1));
    assert_eq!(zone("force_local_zone: {}"), forced(1));
    assert_eq!(zone("force_local_zone: {min_size: 3}"), forced(3));

    let weighted = "locality_lb_config: {locality_weighted_lb_config: {}}";
    let random = extension(&format!("random.v3.Random, {weighted}"));
    assert_eq!((random.lb_policy, random.locality_lb), (LbPolicy::Random, LocalityLb::Weighted));
    let inner = one("least_request.v3.LeastRequest");
    let wrr =
        format!("wrr_locality.v3.WrrLocality, endpoint_picking_policy: {{policies: [{inner}]}}");
    let wrr = extension(&wrr);
    assert_eq!(wrr.lb_policy, LbPolicy::LeastRequest(LeastRequest::default()));
    assert_eq!(wrr.locality_lb, LocalityLb::Weighted);
}

#[test]
fn the_first_policy_that_is_known_is_used_and_lb_policy_gives_way_to_it() {
    let unknown = "{typed_extension_config: {name: p, typed_config: {'@type': \
        type.googleapis.com/envoy.config.core.v3.Node}}}";
    let policies =
        format!("{unknown}, {}, {}", one("random.v3.Random"), one("round_robin.v3.RoundRobin"));
    let fields = format!(
        "lb_policy: LEAST_REQUEST, load_balancing_policy: {{policies: [{policies}]}}, \
         common_lb_config: {{healthy_panic_threshold: {{value: 7}}}}"
    );
    let cluster = accepted(&fields);
    assert_eq!((cluster.lb_policy, cluster.panic_threshold), (LbPolicy::Random, 7));
}

#[test]
fn peak_ewma_has_envoys_defaults() {
    let cluster = extension("peak_ewma.v3alpha.PeakEwma");
    assert_eq!(cluster.lb_policy, LbPolicy::PeakEwma(PeakEwma::default()));
    let fields = "decay_time: 2s, default_rtt: 0.1s, penalty_value: 5, max_samples_per_host: 9";
    let expected = PeakEwma {
        decay: Duration::from_secs(2),
        default_rtt: Duration::from_millis(100),
        penalty: 5.0,
    };
    let cluster = extension(&format!("peak_ewma.v3alpha.PeakEwma, {fields}"));
    assert_eq!(cluster.lb_policy, LbPolicy::PeakEwma(expected));
}
