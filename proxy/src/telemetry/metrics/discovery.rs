//! What is counted of the ways by which configuration and addresses come.

use std::sync::Arc;

use super::{
    ConfigCacheStats, ControlPlaneStats, DnsCacheStats, DnsStats, Metrics, ResolutionStats,
    Samples, Scope, SubscriptionStats,
};

impl Metrics {
    /// The statistics of one subscription, shared by all that ask for the same `scope`.
    pub fn subscription(&self, scope: Scope) -> Arc<SubscriptionStats> {
        self.subscriptions.get(scope)
    }

    /// The statistics of the lookups for one cluster, shared by all that ask for the same `scope`.
    pub fn resolution(&self, scope: Scope) -> Arc<ResolutionStats> {
        self.resolutions.get(scope)
    }

    /// The statistics of the aggregated stream, shown while somebody holds them.
    pub fn control_plane(&self) -> Arc<ControlPlaneStats> {
        self.control_plane.get(Scope::Root)
    }

    /// The statistics of the configuration on disk, shown while somebody holds them.
    pub fn config_cache(&self) -> Arc<ConfigCacheStats> {
        self.config_cache.get(Scope::Root)
    }

    /// The statistics of all lookups of names, shown while somebody holds them.
    pub fn dns(&self) -> Arc<DnsStats> {
        self.lookups.get(Scope::Root)
    }

    /// The statistics of the cache of names called `name`, shown while somebody holds them.
    pub fn dns_cache(&self, name: &str) -> Arc<DnsCacheStats> {
        self.dns_caches.get(Scope::dns_cache(name))
    }

    /// What is discovered, and how.
    pub(super) fn read_discovery(&self, out: &mut Samples) {
        self.subscriptions.collect(out);
        self.control_plane.collect(out);
        self.config_cache.collect(out);
        self.resolutions.collect(out);
        self.lookups.collect(out);
        self.dns_caches.collect(out);
    }
}
