//! How a cluster's endpoints are picked.

use xds::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use xds::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy as Policy, LeastRequestLbConfig, RoundRobinLbConfig,
};

use super::errors::{At, Result, refuse};
use super::value::{bounded, enumeration, percent};
use crate::config::cluster::{LbPolicy, LocalityLb};

/// Envoy's default.
const PANIC_THRESHOLD: u32 = 50;

/// What a cluster says about load balancing, in several fields.
pub(super) struct LoadBalancing {
    pub(super) policy: LbPolicy,
    pub(super) locality: LocalityLb,
    pub(super) panic_threshold: u32,
}

/// Decodes `lb_policy`, `lb_config` and `common_lb_config`.
pub(super) fn load_balancing(
    policy: i32,
    config: Option<&LbConfig>,
    common: Option<&CommonLbConfig>,
) -> Result<LoadBalancing> {
    let policy = lb_policy(policy, config)?;
    let absent = CommonLbConfig::default();
    let CommonLbConfig {
        healthy_panic_threshold,
        locality_config_specifier,
        update_merge_window: _,
    } = common.unwrap_or(&absent);
    let threshold = healthy_panic_threshold.as_ref();
    let threshold = percent("healthy_panic_threshold", threshold, f64::from(PANIC_THRESHOLD))
        .at("common_lb_config")?;
    let locality = match locality_config_specifier {
        None => LocalityLb::Plain,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            LocalityLb::Weighted
        }
    };
    Ok(LoadBalancing { policy, locality, panic_threshold: threshold.round() as u32 })
}

fn lb_policy(proto: i32, config: Option<&LbConfig>) -> Result<LbPolicy> {
    let choices = match config {
        Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig { choice_count })) => {
            bounded("least_request_lb_config.choice_count", *choice_count, 2, (2, u32::MAX))?
        }
        Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {})) | None => 2,
    };
    Ok(match enumeration("lb_policy", proto)? {
        Policy::RoundRobin => LbPolicy::RoundRobin,
        Policy::LeastRequest => LbPolicy::LeastRequest { choices },
        Policy::Random => LbPolicy::Random,
        other @ (Policy::RingHash
        | Policy::Maglev
        | Policy::ClusterProvided
        | Policy::LoadBalancingPolicyConfig) => {
            let policy = other.as_str_name();
            return refuse("lb_policy", format!("{policy} is not supported by this version"));
        }
    })
}
