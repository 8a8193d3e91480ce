//! The cluster this proxy itself belongs to (Envoy `ClusterManager.local_cluster_name`): the fleet whose distribution
//! zone-aware routing compares with that of endpoints.

use std::sync::Arc;

use super::ClusterSpec;
use super::load_balancer::Health;
use super::load_balancer::priority::Census;
use super::load_balancer::zones::Fleet;
use super::shared::{SharedCluster, keys};
use crate::config::Name;
use crate::config::cluster::{LbPolicy, LocalityLb, ZoneAware};

/// Which cluster this proxy belongs to, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The cluster's name.
    pub cluster: Name,
    /// Region, zone and sub-zone of the node.
    pub locality: [String; 3],
}

/// That cluster, live.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) locality: [String; 3],
    pub(super) shared: Arc<SharedCluster>,
}

impl Home {
    /// A number that changes with its members or their health.
    pub(super) fn version(&self) -> u64 {
        self.shared.health_version()
    }

    /// The fleet as it is now, to the cluster of `target`, whose endpoints are in `localities` (by their numbers).
    /// None if that cluster does not heed zones.
    pub(super) fn fleet(&self, target: &ClusterSpec, localities: &[[&str; 3]]) -> Option<Fleet> {
        let config = &target.config;
        let LocalityLb::ZoneAware(ZoneAware { by_weight, .. }) = config.locality_lb else {
            return None;
        };
        if matches!(config.lb_policy, LbPolicy::Hash(_) | LbPolicy::PeakEwma(_)) {
            return None;
        }
        let (spec, hosts) = self.shared.current();
        let here = self.locality.each_ref().map(String::as_str);
        let mut fleet = Fleet {
            here: localities.iter().position(|locality| *locality == here),
            healthy: vec![0; localities.len()],
            ..Fleet::default()
        };
        let mut census = Census::default();
        let mut seen: Vec<[&str; 3]> = Vec::new();
        for ((index, _), host) in keys(&spec).into_iter().zip(&hosts) {
            let Some(endpoint) = spec.assignment.endpoints.get(index) else { continue };
            // As in Envoy, the fleet is what is in use: those of the first priority.
            if endpoint.locality.priority > 0 {
                continue;
            }
            let name = super::member::locality_name(endpoint);
            if !seen.contains(&name) {
                seen.push(name);
            }
            fleet.proxies_here += u64::from(name == here);
            let health = host.health().health();
            census.add(endpoint.weight, health);
            if health == Health::Healthy {
                let size = if by_weight { u64::from(endpoint.weight) } else { 1 };
                fleet.total += size;
                let place = localities.iter().position(|locality| *locality == name);
                if let Some(healthy) = place.and_then(|place| fleet.healthy.get_mut(place)) {
                    *healthy += size;
                }
            }
        }
        fleet.localities = seen.len();
        fleet.panic = census.is_below(config.panic_threshold);
        Some(fleet)
    }
}
