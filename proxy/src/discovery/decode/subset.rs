//! Subsets of a cluster's endpoints, and what routes want of them.

use std::sync::Arc;

use serde_json::{Map, Value};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use xds::envoy::config::cluster::v3::cluster::lb_subset_config::lb_subset_selector::LbSubsetSelectorFallbackPolicy as SelectorPolicy;
use xds::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy, LbSubsetMetadataFallbackPolicy, LbSubsetSelector,
};
use xds::envoy::config::core::v3::Metadata;
use xds::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use xds::envoy::extensions::load_balancing_policies::subset::v3::subset::LbSubsetSelector as SubsetSelector;

use super::errors::{Result, each, optional, refuse};
use super::load_balancing::LoadBalancing;
use super::metadata::json;
use super::value::enumeration;
use crate::config::cluster::{Discovery, LocalityLb};
use crate::config::subset::{
    Criteria, Fallback, LOAD_BALANCING, MetadataMatch, Selector, SelectorFallback, SubsetLb,
};

/// The subsets of a cluster, of one source or the other.
pub(super) fn subsets(
    proto: &Cluster,
    discovery: &Discovery,
    lb: &LoadBalancing,
) -> Result<Option<Arc<SubsetLb>>> {
    let field = "lb_subset_config";
    let weighted = lb.locality == LocalityLb::Weighted;
    let decode = |proto: &LbSubsetConfig| {
        if proto.locality_weight_aware && !weighted {
            return refuse("locality_weight_aware", "needs locality_weighted_lb_config");
        }
        subset_lb(proto, false)
    };
    let subsets = optional(field, &proto.lb_subset_config, decode)?.flatten();
    let named_by_requests = discovery.cleanup_interval().is_some();
    if subsets.is_some() && (named_by_requests || proto.load_balancing_policy.is_some()) {
        let reason = "cannot be combined with load_balancing_policy or CLUSTER_PROVIDED";
        return refuse(field, reason);
    }
    Ok(subsets.or_else(|| lb.subsets.clone()))
}

/// The subsets of the policy: the same as those of a cluster, but for `allow_redundant_keys`.
pub(super) fn policy(proto: &Subset) -> Result<Option<Arc<SubsetLb>>> {
    let Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        // Read by the caller.
        subset_lb_policy: _within,
    } = proto;
    let selector = |proto: &SubsetSelector| {
        let SubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } =
            proto;
        LbSubsetSelector {
            keys: keys.clone(),
            single_host_per_subset: *single_host_per_subset,
            fallback_policy: *fallback_policy,
            fallback_keys_subset: fallback_keys_subset.clone(),
        }
    };
    let same = LbSubsetConfig {
        fallback_policy: *fallback_policy,
        default_subset: default_subset.clone(),
        subset_selectors: subset_selectors.iter().map(selector).collect(),
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        metadata_fallback_policy: *metadata_fallback_policy,
    };
    subset_lb(&same, *allow_redundant_keys)
}

/// Subsets; none without selectors, as in Envoy.
fn subset_lb(proto: &LbSubsetConfig, redundant_keys: bool) -> Result<Option<Arc<SubsetLb>>> {
    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = proto;
    let mut selectors: Vec<Selector> = Vec::new();
    for selector in each("subset_selectors", subset_selectors, selector)? {
        // As in Envoy, no keys select nothing, and of several selectors with the same keys the first decides.
        if !selector.keys.is_empty() && selectors.iter().all(|it| it.keys != selector.keys) {
            selectors.push(selector);
        }
    }
    if redundant_keys {
        selectors.sort_by_key(|selector| std::cmp::Reverse(selector.keys.len()));
    }
    let subsets = SubsetLb {
        redundant_keys,
        fallback: match enumeration("fallback_policy", *fallback_policy)? {
            LbSubsetFallbackPolicy::NoFallback => Fallback::None,
            LbSubsetFallbackPolicy::AnyEndpoint => Fallback::Any,
            LbSubsetFallbackPolicy::DefaultSubset => Fallback::Default,
        },
        default_subset: Criteria::new(&default_subset.as_ref().map(json).unwrap_or_default()),
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        fallback_list: match enumeration("metadata_fallback_policy", *metadata_fallback_policy)? {
            LbSubsetMetadataFallbackPolicy::MetadataNoFallback => false,
            LbSubsetMetadataFallbackPolicy::FallbackList => true,
        },
        selectors,
    };
    Ok((!subset_selectors.is_empty()).then(|| Arc::new(subsets)))
}

fn selector(proto: &LbSubsetSelector) -> Result<Selector> {
    let LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } =
        proto;
    let keys = sorted(keys);
    let fewer = sorted(fallback_keys_subset);
    let policy = enumeration("fallback_policy", *fallback_policy)?;
    let proper =
        !fewer.is_empty() && fewer.len() < keys.len() && fewer.iter().all(|key| keys.contains(key));
    match policy {
        SelectorPolicy::KeysSubset if !proper => {
            let reason = "with KEYS_SUBSET, must be some of the keys, and not all";
            return refuse("fallback_keys_subset", reason);
        }
        SelectorPolicy::KeysSubset => {}
        _ if !fewer.is_empty() => {
            return refuse("fallback_keys_subset", "is for fallback_policy KEYS_SUBSET only");
        }
        _ => {}
    }
    let fallback = match policy {
        SelectorPolicy::NotDefined => None,
        SelectorPolicy::NoFallback => Some(SelectorFallback::To(Fallback::None)),
        SelectorPolicy::AnyEndpoint => Some(SelectorFallback::To(Fallback::Any)),
        SelectorPolicy::DefaultSubset => Some(SelectorFallback::To(Fallback::Default)),
        SelectorPolicy::KeysSubset => Some(SelectorFallback::Keys(fewer)),
    };
    Ok(Selector { keys, fallback, single_host: *single_host_per_subset })
}

fn sorted(keys: &[String]) -> Vec<Box<str>> {
    let mut keys: Vec<Box<str>> = keys.iter().map(|key| key.as_str().into()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What a `metadata_match` wants; other namespaces than the load balancers' are read by nothing, as in Envoy.
pub(super) fn wanted(proto: Option<&Metadata>) -> Option<Map<String, Value>> {
    let Metadata { filter_metadata } = proto?;
    filter_metadata.get(LOAD_BALANCING).map(json)
}

/// A weighted cluster's `own` wishes over its route's; none if it has none of its own.
pub(super) fn over(
    route: Option<&Map<String, Value>>,
    own: Option<&Metadata>,
) -> Option<Arc<MetadataMatch>> {
    let own = wanted(own)?;
    let mut merged = route.cloned().unwrap_or_default();
    merged.extend(own);
    Some(Arc::new(MetadataMatch::new(&merged)))
}
