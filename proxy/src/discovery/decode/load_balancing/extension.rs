//! `load_balancing_policy`: the first policy of the list that this version has is used.

use std::sync::Arc;

use prost_types::Any;
use xds::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy};
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::zone_aware_lb_config::{
    ForceLocalZone, LocalityBasis,
};
use xds::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use xds::envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
};
use xds::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest as LeastRequestConfig;
use xds::envoy::extensions::load_balancing_policies::least_request::v3::least_request::SelectionMethod;
use xds::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use xds::envoy::extensions::load_balancing_policies::peak_ewma::v3alpha::PeakEwma as PeakEwmaConfig;
use xds::envoy::extensions::load_balancing_policies::random::v3::Random;
use xds::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use xds::envoy::extensions::load_balancing_policies::ring_hash::v3::ring_hash::HashFunction as RingHashFunction;
use xds::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use xds::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use xds::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;

use super::super::errors::{At, Result, optional, refuse, required};
use super::super::extension::{message_name, unpack};
use super::super::hash_lb::{self, Consistent};
use super::super::subset;
use super::super::value::{bounded, enumeration, non_empty, optional_duration, positive_duration};
use super::{bias, rounded, slow_start};
use crate::config::cluster::{
    HashFunction, LbPolicy, LeastRequest, LocalityLb, PeakEwma, SlowStart, ZoneAware,
};
use crate::config::subset::SubsetLb;

/// A policy, and how it treats localities.
type Decoded = (LbPolicy, LocalityLb);

/// Subsets, and what is picked by within them.
type Divided = (Decoded, Option<Arc<SubsetLb>>);

/// The first policy of the list that this version has.
pub(super) fn policy(proto: &LoadBalancingPolicy) -> Result<Divided> {
    first(proto, |any| match unpack::<Subset>(any)? {
        Some(proto) => divided(&proto).map(Some),
        None => Ok(known(any)?.map(|decoded| (decoded, None))),
    })
}

fn divided(proto: &Subset) -> Result<Divided> {
    let field = "subset_lb_policy";
    let within = first(required(field, &proto.subset_lb_policy)?, known).at(field)?;
    Ok((within, subset::policy(proto)?))
}

fn first<T>(proto: &LoadBalancingPolicy, known: impl Fn(&Any) -> Result<Option<T>>) -> Result<T> {
    let LoadBalancingPolicy { policies } = proto;
    let mut unknown = Vec::new();
    for (index, proto) in policies.iter().enumerate() {
        let load_balancing_policy::Policy { typed_extension_config } = proto;
        let path = format!("policies[{index}].typed_extension_config");
        let TypedExtensionConfig { name, typed_config } = required(&path, typed_extension_config)?;
        non_empty("name", name).at(&path)?;
        let any = required("typed_config", typed_config).at(&path)?;
        match known(any).at("typed_config").at(&path)? {
            Some(decoded) => return Ok(decoded),
            None => unknown.push(message_name(any)),
        }
    }
    match unknown.as_slice() {
        [] => refuse("policies", "must not be empty"),
        names => {
            let names = names.join(", ");
            refuse("policies", format!("none of these is supported by this version: {names}"))
        }
    }
}

fn known(any: &Any) -> Result<Option<Decoded>> {
    if let Some(RoundRobin { slow_start_config, locality_lb_config }) = unpack(any)? {
        let policy = LbPolicy::RoundRobin { slow_start: slow_start_of(&slow_start_config)? };
        return Ok(Some((policy, locality(&locality_lb_config)?)));
    }
    if let Some(proto) = unpack::<LeastRequestConfig>(any)? {
        return least_request(&proto).map(Some);
    }
    if let Some(Random { locality_lb_config }) = unpack(any)? {
        return Ok(Some((LbPolicy::Random, locality(&locality_lb_config)?)));
    }
    if let Some(proto) = unpack::<PeakEwmaConfig>(any)? {
        let policy = LbPolicy::PeakEwma(peak_ewma(&proto)?);
        return Ok(Some((policy, LocalityLb::default())));
    }
    if let Some(proto) = unpack::<RingHash>(any)? {
        return ring_hash(&proto).map(Some);
    }
    if let Some(Maglev {
        table_size,
        consistent_hashing_lb_config: hashing,
        locality_weighted_lb_config: weighted,
    }) = unpack(any)?
    {
        let table = hash_lb::maglev_of_size(table_size)?;
        let hashing = consistent(&hashing)?;
        return Ok(Some((LbPolicy::Hash(hashing.into(table)), weighted_if(weighted.as_ref()))));
    }
    if let Some(WrrLocality { endpoint_picking_policy }) = unpack(any)? {
        let field = "endpoint_picking_policy";
        let (policy, locality) =
            first(required(field, &endpoint_picking_policy)?, known).at(field)?;
        if locality != LocalityLb::default() {
            return refuse(field, "localities are picked by weight: it cannot say otherwise");
        }
        return Ok(Some((policy, LocalityLb::Weighted)));
    }
    Ok(None)
}

fn least_request(proto: &LeastRequestConfig) -> Result<Decoded> {
    let LeastRequestConfig {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = proto;
    let full_scan = match enumeration("selection_method", *selection_method)? {
        SelectionMethod::FullScan => true,
        SelectionMethod::NChoices => enable_full_scan.unwrap_or(false),
    };
    let policy = LeastRequest {
        choices: bounded("choice_count", *choice_count, 2, (2, u32::MAX))?,
        full_scan,
        active_request_bias: bias(active_request_bias.as_ref()),
        slow_start: slow_start_of(slow_start_config)?,
    };
    Ok((LbPolicy::LeastRequest(policy), locality(locality_lb_config)?))
}

fn peak_ewma(proto: &PeakEwmaConfig) -> Result<PeakEwma> {
    let PeakEwmaConfig {
        decay_time,
        aggregation_interval: _,
        max_samples_per_host: _,
        default_rtt,
        penalty_value,
    } = proto;
    let absent = PeakEwma::default();
    let penalty = penalty_value.unwrap_or(absent.penalty);
    if !(0.0..f64::INFINITY).contains(&penalty) {
        return refuse("penalty_value", "must be a number from 0 on");
    }
    Ok(PeakEwma {
        decay: positive_duration("decay_time", decay_time.as_ref())?.unwrap_or(absent.decay),
        default_rtt: optional_duration("default_rtt", default_rtt.as_ref())?
            .unwrap_or(absent.default_rtt),
        penalty,
    })
}

/// The fields that `consistent_hashing_lb_config` has replaced count only without it, as in Envoy.
fn ring_hash(proto: &RingHash) -> Result<Decoded> {
    let RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = proto;
    let function = match enumeration("hash_function", *hash_function)? {
        RingHashFunction::DefaultHash | RingHashFunction::XxHash => HashFunction::XxHash,
        RingHashFunction::MurmurHash2 => HashFunction::MurmurHash2,
    };
    let table = hash_lb::ring_of_size(*minimum_ring_size, *maximum_ring_size, function)?;
    let hashing = match consistent_hashing_lb_config {
        Some(_) => consistent(consistent_hashing_lb_config)?,
        None => Consistent {
            use_hostname: *use_hostname_for_hashing,
            balance_factor: hash_lb::balance_factor(*hash_balance_factor)?,
        },
    };
    Ok((LbPolicy::Hash(hashing.into(table)), weighted_if(locality_weighted_lb_config.as_ref())))
}

fn consistent(proto: &Option<ConsistentHashingLbConfig>) -> Result<Consistent> {
    let decode = |proto: &ConsistentHashingLbConfig| {
        let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } = proto;
        let balance_factor = hash_lb::balance_factor(*hash_balance_factor)?;
        Ok(Consistent { use_hostname: *use_hostname_for_hashing, balance_factor })
    };
    Ok(optional("consistent_hashing_lb_config", proto, decode)?.unwrap_or_default())
}

fn weighted_if(proto: Option<&LocalityWeightedLbConfig>) -> LocalityLb {
    match proto {
        Some(LocalityWeightedLbConfig {}) => LocalityLb::Weighted,
        None => LocalityLb::default(),
    }
}

fn slow_start_of(proto: &Option<SlowStartConfig>) -> Result<Option<SlowStart>> {
    let decode = |proto: &SlowStartConfig| {
        let SlowStartConfig { slow_start_window, aggression, min_weight_percent } = proto;
        slow_start(slow_start_window.as_ref(), aggression.as_ref(), min_weight_percent.as_ref())
    };
    Ok(optional("slow_start_config", proto, decode)?.flatten())
}

fn locality(proto: &Option<LocalityLbConfig>) -> Result<LocalityLb> {
    let decode = |proto: &LocalityLbConfig| match &proto.locality_config_specifier {
        None => Ok(LocalityLb::default()),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            Ok(LocalityLb::Weighted)
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(proto)) => {
            zone_aware(proto).map(LocalityLb::ZoneAware).at("zone_aware_lb_config")
        }
    };
    Ok(optional("locality_lb_config", proto, decode)?.unwrap_or_default())
}

fn zone_aware(proto: &ZoneAwareLbConfig) -> Result<ZoneAware> {
    let ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
        force_locality_direct_routing,
        force_local_zone,
        locality_basis,
    } = proto;
    let absent = ZoneAware::default();
    let forced = match force_local_zone {
        Some(ForceLocalZone { min_size }) => Some(min_size.unwrap_or(1)),
        None => force_locality_direct_routing.then_some(1),
    };
    let enabled = routing_enabled.as_ref();
    Ok(ZoneAware {
        routing_enabled: rounded("routing_enabled", enabled, absent.routing_enabled)?,
        min_cluster_size: min_cluster_size.unwrap_or(absent.min_cluster_size),
        fail_traffic_on_panic: *fail_traffic_on_panic,
        force_local_zone: forced,
        by_weight: match enumeration("locality_basis", *locality_basis)? {
            LocalityBasis::HealthyHostsNum => false,
            LocalityBasis::HealthyHostsWeight => true,
        },
    })
}
