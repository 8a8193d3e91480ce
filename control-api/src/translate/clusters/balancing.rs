//! `loadBalancer` and `outlierDetection`: which endpoint gets a request, and which gets none.

use xds::envoy::config::cluster::v3::OutlierDetection as EnvoyOutlier;
use xds::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use xds::envoy::config::cluster::v3::cluster::{
    DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig,
};
use xds::envoy::config::core::v3::RuntimeDouble;
use xds::envoy::r#type::v3::Percent;

use super::{Draft, Outbound};
use crate::model::istio::destination_rule::{
    ConsistentHash, LoadBalancerSettings, OutlierDetection, SimpleLb, TrafficPolicy,
    WarmupConfiguration,
};
use crate::translate::locality::{self, Preference};
use crate::translate::values;

/// The smallest ring unless a rule says otherwise.
const RING_SIZE: u64 = 1024;

/// Sets what the policy says of endpoints, or Istio's default: those with the fewest requests.
pub(super) fn apply(draft: &mut Draft, outbound: &Outbound<'_>, policy: Option<&TrafficPolicy>) {
    let outlier = policy.and_then(|it| it.outlier_detection.as_ref());
    if let Some(outlier) = outlier {
        draft.cluster.outlier_detection = Some(outlier_detection(outlier));
        if let Ok(percent) = u32::try_from(outlier.min_health_percent) {
            let common = draft.cluster.common_lb_config.get_or_insert_default();
            common.healthy_panic_threshold = Some(Percent { value: percent.into() });
        }
    }
    let none = LoadBalancerSettings::default();
    let settings = policy.and_then(|it| it.load_balancer.as_ref()).unwrap_or(&none);
    prefer_localities(draft, outbound, policy);
    if draft.is(DiscoveryType::OriginalDst) {
        draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
        return;
    }
    simple(draft, settings);
    if let Some(hash) = &settings.consistent_hash {
        consistent(draft, hash);
    }
}

/// Where it counts how near endpoints are.
fn prefer_localities(draft: &mut Draft, outbound: &Outbound<'_>, policy: Option<&TrafficPolicy>) {
    let common = draft.cluster.common_lb_config.get_or_insert_default();
    if locality::preferred_labels(outbound.service).is_some() {
        // Endpoints that are not ready are told of: they must not be asked for want of others.
        common.healthy_panic_threshold = Some(Percent { value: 0.0 });
    }
    let preference = Preference::of(outbound.mesh, outbound.service, policy);
    if preference.is_some_and(|it| it.weighs()) {
        let weighted = LocalityWeightedLbConfig {};
        common.locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted));
    }
}

fn simple(draft: &mut Draft, settings: &LoadBalancerSettings) {
    let slow_start_config = slow_start(settings);
    let (policy, config) = match settings.simple.unwrap_or_default() {
        SimpleLb::Random => (LbPolicy::Random, None),
        SimpleLb::Passthrough => (LbPolicy::ClusterProvided, None),
        SimpleLb::RoundRobin => {
            let config =
                slow_start_config.map(|it| RoundRobinLbConfig { slow_start_config: Some(it) });
            (LbPolicy::RoundRobin, config.map(LbConfig::RoundRobinLbConfig))
        }
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            let config = slow_start_config.map(|it| LeastRequestLbConfig {
                slow_start_config: Some(it),
                ..Default::default()
            });
            (LbPolicy::LeastRequest, config.map(LbConfig::LeastRequestLbConfig))
        }
    };
    draft.cluster.lb_policy = policy.into();
    draft.cluster.lb_config = config;
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    if let Some(WarmupConfiguration { duration, minimum_percent, aggression }) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: duration.map(values::duration),
            aggression: Some(RuntimeDouble {
                default_value: aggression.unwrap_or(1.0),
                // Envoy demands a name; nothing is ever looked up by this one.
                runtime_key: "(".to_owned(),
            }),
            min_weight_percent: Some(Percent { value: minimum_percent.unwrap_or(10.0) }),
        });
    }
    let window = settings.warmup_duration_secs?;
    Some(SlowStartConfig {
        slow_start_window: Some(values::duration(window)),
        ..SlowStartConfig::default()
    })
}

fn consistent(draft: &mut Draft, hash: &ConsistentHash) {
    let given = |size: u64| Some(size).filter(|size| *size != 0);
    if let Some(maglev) = &hash.maglev {
        draft.cluster.lb_policy = LbPolicy::Maglev.into();
        if let Some(size) = given(maglev.table_size) {
            let config = MaglevLbConfig { table_size: Some(size) };
            draft.cluster.lb_config = Some(LbConfig::MaglevLbConfig(config));
        }
        return;
    }
    draft.cluster.lb_policy = LbPolicy::RingHash.into();
    let size = match &hash.ring_hash {
        Some(ring) => given(ring.minimum_ring_size),
        None => given(hash.minimum_ring_size).or(Some(RING_SIZE)),
    };
    if size.is_some() {
        let config = RingHashLbConfig { minimum_ring_size: size, ..Default::default() };
        draft.cluster.lb_config = Some(LbConfig::RingHashLbConfig(config));
    }
}

fn outlier_detection(outlier: &OutlierDetection) -> EnvoyOutlier {
    let enforced = |errors: Option<u32>| errors.map(|errors| if errors > 0 { 100 } else { 0 });
    let split = outlier.split_external_local_origin_errors;
    let local = outlier.consecutive_local_origin_failures.filter(|errors| split && *errors > 0);
    EnvoyOutlier {
        consecutive_5xx: outlier.consecutive_5xx_errors,
        enforcing_consecutive_5xx: enforced(outlier.consecutive_5xx_errors),
        consecutive_gateway_failure: outlier.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforced(outlier.consecutive_gateway_errors),
        // Success rates are not watched.
        enforcing_success_rate: Some(0),
        interval: outlier.interval.map(values::duration),
        base_ejection_time: outlier.base_ejection_time.map(values::duration),
        max_ejection_percent: u32::try_from(outlier.max_ejection_percent).ok().filter(|it| *it > 0),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: local,
        enforcing_consecutive_local_origin_failure: enforced(local),
        enforcing_local_origin_success_rate: split.then_some(0),
        ..EnvoyOutlier::default()
    }
}
