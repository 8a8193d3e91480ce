//! How a cluster's endpoints are picked: `lb_policy` with what configures it, or `load_balancing_policy`.

mod extension;

use std::sync::Arc;

use prost_types::Duration;
use xds::envoy::config::cluster::v3::LoadBalancingPolicy;
use xds::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use xds::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy as Policy, LeastRequestLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
};
use xds::envoy::config::core::v3::RuntimeDouble;
use xds::envoy::r#type::v3::Percent;

use super::errors::{At, Result, optional, refuse, required};
use super::hash_lb::{self, Consistent, consistent_hashing};
use super::value::{bounded, enumeration, optional_duration, percent, unless_zero};
use crate::config::cluster::{
    HashTableKind, LbPolicy, LeastRequest, LocalityLb, SlowStart, ZoneAware,
};
use crate::config::subset::SubsetLb;

/// Envoy's defaults.
const PANIC_THRESHOLD: u32 = 50;
const MIN_WEIGHT_PERCENT: f64 = 10.0;

/// What a cluster says about load balancing.
pub(super) struct LoadBalancing {
    pub(super) policy: LbPolicy,
    pub(super) locality: LocalityLb,
    pub(super) panic_threshold: u32,
    /// Subsets that `load_balancing_policy` makes.
    pub(super) subsets: Option<Arc<SubsetLb>>,
}

/// What `common_lb_config` says.
struct Common {
    panic_threshold: u32,
    locality: Option<LocalityLb>,
    hashing: Consistent,
}

/// Decodes what is said about load balancing in a cluster's `lb_policy`, its configuration, `common_lb_config` and
/// `load_balancing_policy`. The latter replaces policy and treatment of localities.
pub(super) fn load_balancing(
    policy: i32,
    config: Option<&LbConfig>,
    common_config: &Option<CommonLbConfig>,
    extension: &Option<LoadBalancingPolicy>,
) -> Result<LoadBalancing> {
    let absent = CommonLbConfig::default();
    let common_config = common_config.as_ref().unwrap_or(&absent);
    let Common { panic_threshold, locality, hashing } =
        common(common_config).at("common_lb_config")?;
    let configured = configured(config)?;
    let kind = enumeration("lb_policy", policy)?;
    let field = "load_balancing_policy";
    let extension = match kind {
        Policy::LoadBalancingPolicyConfig => Some(required(field, extension)?),
        _ => extension.as_ref(),
    };
    let Some(proto) = extension else {
        let locality = locality.unwrap_or_default();
        let policy = lb_policy(kind, configured, hashing)?;
        return Ok(LoadBalancing { policy, locality, panic_threshold, subsets: None });
    };
    only_common(common_config).at("common_lb_config")?;
    let ((policy, locality), subsets) = extension::policy(proto).at(field)?;
    Ok(LoadBalancing { policy, locality, panic_threshold, subsets })
}

/// Refuses what a policy of `load_balancing_policy` says itself.
fn only_common(proto: &CommonLbConfig) -> Result<()> {
    let field = match &proto.locality_config_specifier {
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => "zone_aware_lb_config",
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => "locality_weighted_lb_config",
        None if proto.consistent_hashing_lb_config.is_some() => "consistent_hashing_lb_config",
        None => return Ok(()),
    };
    refuse(field, "is the policy's own business when load_balancing_policy is set")
}

fn common(proto: &CommonLbConfig) -> Result<Common> {
    let CommonLbConfig {
        healthy_panic_threshold,
        locality_config_specifier,
        update_merge_window: _,
        // These concern hosts and connections, not the choice among them.
        ignore_new_hosts_until_first_hc: _new,
        close_connections_on_host_set_change: _change,
        override_host_status: _override,
        consistent_hashing_lb_config,
    } = proto;
    let threshold = healthy_panic_threshold.as_ref();
    let locality = match locality_config_specifier {
        None => None,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(proto)) => {
            Some(LocalityLb::ZoneAware(zone_aware(proto).at("zone_aware_lb_config")?))
        }
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            Some(LocalityLb::Weighted)
        }
    };
    Ok(Common {
        panic_threshold: rounded("healthy_panic_threshold", threshold, PANIC_THRESHOLD)?,
        locality,
        hashing: consistent_hashing(consistent_hashing_lb_config.as_ref())
            .at("consistent_hashing_lb_config")?,
    })
}

fn zone_aware(proto: &ZoneAwareLbConfig) -> Result<ZoneAware> {
    let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic } = proto;
    let absent = ZoneAware::default();
    let enabled = routing_enabled.as_ref();
    Ok(ZoneAware {
        routing_enabled: rounded("routing_enabled", enabled, absent.routing_enabled)?,
        min_cluster_size: min_cluster_size.unwrap_or(absent.min_cluster_size),
        fail_traffic_on_panic: *fail_traffic_on_panic,
        ..absent
    })
}

/// What is said in `lb_config` to each policy; the defaults to all but one.
#[derive(Clone, Copy)]
struct Configured {
    round_robin: Option<SlowStart>,
    least_request: LeastRequest,
    ring: HashTableKind,
    maglev: HashTableKind,
}

/// Whatever policy is configured is looked at, even if the cluster has another: a mistake is one, as in Envoy.
fn configured(config: Option<&LbConfig>) -> Result<Configured> {
    Ok(Configured {
        round_robin: match config {
            Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config })) => {
                legacy_slow_start(slow_start_config).at("round_robin_lb_config")?
            }
            _ => None,
        },
        least_request: match config {
            Some(LbConfig::LeastRequestLbConfig(proto)) => {
                least_request(proto).at("least_request_lb_config")?
            }
            _ => LeastRequest::default(),
        },
        ring: hash_lb::ring(config)?,
        maglev: hash_lb::maglev(config)?,
    })
}

fn lb_policy(kind: Policy, configured: Configured, hashing: Consistent) -> Result<LbPolicy> {
    Ok(match kind {
        Policy::RoundRobin => LbPolicy::RoundRobin { slow_start: configured.round_robin },
        Policy::LeastRequest => LbPolicy::LeastRequest(configured.least_request),
        Policy::Random => LbPolicy::Random,
        Policy::RingHash => LbPolicy::Hash(hashing.into(configured.ring)),
        Policy::Maglev => LbPolicy::Hash(hashing.into(configured.maglev)),
        Policy::ClusterProvided | Policy::LoadBalancingPolicyConfig => {
            let policy = kind.as_str_name();
            return refuse("lb_policy", format!("{policy} is not supported for this cluster"));
        }
    })
}

fn least_request(proto: &LeastRequestLbConfig) -> Result<LeastRequest> {
    let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = proto;
    Ok(LeastRequest {
        choices: bounded("choice_count", *choice_count, 2, (2, u32::MAX))?,
        full_scan: false,
        active_request_bias: bias(active_request_bias.as_ref()),
        slow_start: legacy_slow_start(slow_start_config)?,
    })
}

/// What Envoy takes for no bias, it replaces by 1.
fn bias(proto: Option<&RuntimeDouble>) -> f64 {
    let value = proto.map_or(1.0, double);
    if value >= 0.0 { value } else { 1.0 }
}

fn double(proto: &RuntimeDouble) -> f64 {
    let RuntimeDouble { default_value, runtime_key: _ } = proto;
    *default_value
}

fn legacy_slow_start(proto: &Option<SlowStartConfig>) -> Result<Option<SlowStart>> {
    let decode = |proto: &SlowStartConfig| {
        let SlowStartConfig { slow_start_window, aggression, min_weight_percent } = proto;
        slow_start(slow_start_window.as_ref(), aggression.as_ref(), min_weight_percent.as_ref())
    };
    Ok(optional("slow_start_config", proto, decode)?.flatten())
}

/// A window of zero turns it off, and an aggression that is none is 1, as in Envoy.
fn slow_start(
    window: Option<&Duration>,
    aggression: Option<&RuntimeDouble>,
    min_weight_percent: Option<&Percent>,
) -> Result<Option<SlowStart>> {
    let min_weight = percent("min_weight_percent", min_weight_percent, MIN_WEIGHT_PERCENT)? / 100.0;
    let aggression = aggression.map_or(1.0, double);
    let aggression = if aggression > 0.0 { aggression } else { 1.0 };
    let window = optional_duration("slow_start_window", window)?.and_then(unless_zero);
    Ok(window.map(|window| SlowStart { window, aggression, min_weight }))
}

/// The percentage in `field`, or `default`, as the whole number Envoy makes of it.
fn rounded(field: &str, proto: Option<&Percent>, default: u32) -> Result<u32> {
    Ok(percent(field, proto, f64::from(default))?.round() as u32)
}
