//! One worker's shards of what HTTP filters count.

use std::cell::RefCell;
use std::hash::Hash;
use std::sync::Arc;

use crate::config::compression::CompressionScope;
use crate::config::ext_authz::AuthzScope;
use crate::config::http_filter::SessionScope;
use crate::config::jwt::StatsScope;
use crate::config::rbac::StatScope;
use crate::config::{HashMap, Name};
use crate::telemetry::metrics::{
    ClusterAuthzStats, ClusterFaultStats, ClusterRateLimitStats, CompressorShards,
    ConnectionRateStats, CorsStats, CsrfStats, DecompressorShards, ExtAuthzStats, FaultStats,
    GrpcStats, GrpcUpstreamStats, JwtAuthnStats, LocalRateLimitStats, Metrics, NetworkAuthzStats,
    RbacPolicyStats, RbacStats, RouteStats, SessionStats, ShadowRbacStats,
};

/// Most shards of a kind that requests name as they like.
const MOST_NAMED: usize = 1000;

/// A gRPC call as it is counted: the cluster's stat name, the service and the method; these are empty where all
/// methods are counted together.
pub type GrpcKey = (Name, Box<str>, Box<str>);

fn parts((cluster, service, method): &GrpcKey) -> [&str; 3] {
    [cluster, service, method]
}

/// Shards of one kind by what they are counted under.
#[derive(Debug)]
pub struct Shards<S, K = Name>(RefCell<HashMap<K, Arc<S>>>);

impl<S, K> Default for Shards<S, K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<S, K: Clone + Eq + Hash> Shards<S, K> {
    /// The same, but no new one if there are `most` of them.
    fn get_within(&self, most: usize, key: &K, make: impl FnOnce() -> Arc<S>) -> Option<Arc<S>> {
        let known = self.0.borrow().get(key).map(Arc::clone);
        let is_full = || self.0.borrow().len() >= most;
        known.or_else(|| (!is_full()).then(|| self.get(key, make)))
    }

    /// The shard for `key`, which `make` makes if it is new.
    pub fn get(&self, key: &K, make: impl FnOnce() -> Arc<S>) -> Arc<S> {
        let mut known = self.0.borrow_mut();
        if let Some(shard) = known.get(key) {
            return Arc::clone(shard);
        }
        let shard = make();
        known.insert(key.clone(), Arc::clone(&shard));
        shard
    }
}

/// See the module.
#[derive(Debug)]
pub struct FilterStats {
    metrics: Arc<Metrics>,
    cors: Shards<CorsStats>,
    sessions: Shards<SessionStats, SessionScope>,
    faults: Shards<FaultStats>,
    cluster_faults: Shards<ClusterFaultStats, (Name, Box<str>)>,
    rbac: Shards<RbacStats, StatScope>,
    shadow_rbac: Shards<ShadowRbacStats, StatScope>,
    rbac_policies: Shards<RbacPolicyStats, StatScope>,
    jwt_authn: Shards<JwtAuthnStats, StatsScope>,
    ext_authz: Shards<ExtAuthzStats, AuthzScope>,
    network_authz: Shards<NetworkAuthzStats>,
    cluster_authz: Shards<ClusterAuthzStats, (Name, Name)>,
    cluster_rate_limits: Shards<ClusterRateLimitStats, (Name, Name)>,
    local_rate_limits: Shards<LocalRateLimitStats>,
    csrf: Shards<CsrfStats>,
    compressors: Shards<CompressorShards, CompressionScope>,
    decompressors: Shards<DecompressorShards, CompressionScope>,
    grpc: Shards<GrpcStats, GrpcKey>,
    grpc_web: Shards<GrpcStats, GrpcKey>,
    grpc_upstream: Shards<GrpcUpstreamStats, GrpcKey>,
    connection_rates: Shards<ConnectionRateStats>,
    routes: Shards<RouteStats, (Name, Name)>,
    virtual_clusters: Shards<RouteStats, (Name, Name)>,
}

impl FilterStats {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            cors: Shards::default(),
            sessions: Shards::default(),
            faults: Shards::default(),
            cluster_faults: Shards::default(),
            rbac: Shards::default(),
            shadow_rbac: Shards::default(),
            rbac_policies: Shards::default(),
            jwt_authn: Shards::default(),
            ext_authz: Shards::default(),
            network_authz: Shards::default(),
            cluster_authz: Shards::default(),
            cluster_rate_limits: Shards::default(),
            local_rate_limits: Shards::default(),
            csrf: Shards::default(),
            compressors: Shards::default(),
            decompressors: Shards::default(),
            grpc: Shards::default(),
            grpc_web: Shards::default(),
            grpc_upstream: Shards::default(),
            connection_rates: Shards::default(),
            routes: Shards::default(),
            virtual_clusters: Shards::default(),
        }
    }

    /// Of `cors` filters of connection managers with this stat prefix.
    pub fn cors(&self, stat_prefix: &Name) -> Arc<CorsStats> {
        self.cors.get(stat_prefix, || self.metrics.cors(stat_prefix))
    }

    /// Of `ext_authz` filters.
    pub fn ext_authz(&self, scope: &AuthzScope) -> Arc<ExtAuthzStats> {
        self.ext_authz.get(scope, || self.metrics.ext_authz(&scope.manager, &scope.prefix))
    }

    /// Of network filters `ext_authz` with this stat prefix.
    pub fn network_authz(&self, stat_prefix: &Name) -> Arc<NetworkAuthzStats> {
        self.network_authz.get(stat_prefix, || self.metrics.network_authz(stat_prefix))
    }

    /// Of what `ext_authz` filters with this `prefix` decide about requests for the cluster with this stat name.
    pub fn cluster_authz(&self, cluster: &Name, prefix: &Name) -> Arc<ClusterAuthzStats> {
        let key = (Arc::clone(cluster), Arc::clone(prefix));
        self.cluster_authz.get(&key, || self.metrics.cluster_authz(cluster, prefix))
    }

    /// Of what `ratelimit` filters with this `prefix` hear about requests for the cluster with this stat name.
    pub fn cluster_rate_limit(&self, cluster: &Name, prefix: &Name) -> Arc<ClusterRateLimitStats> {
        let key = (Arc::clone(cluster), Arc::clone(prefix));
        self.cluster_rate_limits.get(&key, || self.metrics.cluster_rate_limit(cluster, prefix))
    }

    /// Of `fault` filters of connection managers with this stat prefix.
    pub fn faults(&self, stat_prefix: &Name) -> Arc<FaultStats> {
        self.faults.get(stat_prefix, || self.metrics.faults(stat_prefix))
    }

    /// Of the same, for requests of one downstream cluster; none if there are too many of these.
    pub fn cluster_faults(&self, prefix: &Name, cluster: &str) -> Option<Arc<ClusterFaultStats>> {
        let key = (Arc::clone(prefix), cluster.into());
        self.cluster_faults
            .get_within(MOST_NAMED, &key, || self.metrics.cluster_faults(prefix, cluster))
    }

    /// Of verdicts of rules.
    pub fn rbac(&self, scope: &StatScope) -> Arc<RbacStats> {
        self.rbac.get(scope, || self.metrics.rbac(scope))
    }

    /// Of verdicts of shadow rules.
    pub fn shadow_rbac(&self, scope: &StatScope) -> Arc<ShadowRbacStats> {
        self.shadow_rbac.get(scope, || self.metrics.shadow_rbac(scope))
    }

    /// Of one policy.
    pub fn rbac_policy(&self, scope: &StatScope) -> Arc<RbacPolicyStats> {
        self.rbac_policies.get(scope, || self.metrics.rbac_policy(scope))
    }

    /// Of `csrf` filters of connection managers with this stat prefix.
    pub fn csrf(&self, stat_prefix: &Name) -> Arc<CsrfStats> {
        self.csrf.get(stat_prefix, || self.metrics.csrf(stat_prefix))
    }

    /// Of `compressor` filters.
    pub fn compressor(&self, scope: &CompressionScope) -> Arc<CompressorShards> {
        self.compressors.get(scope, || self.metrics.compression().compressor(scope))
    }

    /// Of `decompressor` filters.
    pub fn decompressor(&self, scope: &CompressionScope) -> Arc<DecompressorShards> {
        self.decompressors.get(scope, || self.metrics.compression().decompressor(scope))
    }

    /// Of gRPC calls; none if there are too many methods.
    pub fn grpc(&self, call: &GrpcKey) -> Option<Arc<GrpcStats>> {
        self.grpc.get_within(MOST_NAMED, call, || self.metrics.grpc(parts(call)))
    }

    /// Of the same calls of browsers.
    pub fn grpc_web(&self, call: &GrpcKey) -> Option<Arc<GrpcStats>> {
        self.grpc_web.get_within(MOST_NAMED, call, || self.metrics.grpc_web(parts(call)))
    }

    /// Of the times that gRPC calls take.
    pub fn grpc_upstream(&self, call: &GrpcKey) -> Option<Arc<GrpcUpstreamStats>> {
        self.grpc_upstream.get_within(MOST_NAMED, call, || self.metrics.grpc_upstream(parts(call)))
    }

    /// Of `local_ratelimit` filters with this stat prefix.
    pub fn local_rate_limit(&self, stat_prefix: &Name) -> Arc<LocalRateLimitStats> {
        self.local_rate_limits.get(stat_prefix, || self.metrics.local_rate_limit(stat_prefix))
    }

    /// Of network filters of the same name.
    pub fn connection_rate(&self, stat_prefix: &Name) -> Arc<ConnectionRateStats> {
        self.connection_rates.get(stat_prefix, || self.metrics.connection_rate(stat_prefix))
    }

    /// Of routes with this stat prefix in the virtual host called `host`.
    pub fn route(&self, host: &Name, prefix: &Name) -> Arc<RouteStats> {
        let key = (Arc::clone(host), Arc::clone(prefix));
        self.routes.get(&key, || self.metrics.route(host, prefix))
    }

    /// Of a virtual cluster of the virtual host called `host`.
    pub fn virtual_cluster(&self, host: &Name, name: &Name) -> Arc<RouteStats> {
        let key = (Arc::clone(host), Arc::clone(name));
        self.virtual_clusters.get(&key, || self.metrics.virtual_cluster(host, name))
    }

    /// Of sessions.
    pub fn sessions(&self, scope: &SessionScope) -> Arc<SessionStats> {
        self.sessions.get(scope, || self.metrics.session(&scope.manager, &scope.prefix))
    }

    /// Of `jwt_authn` filters.
    pub fn jwt_authn(&self, scope: &StatsScope) -> Arc<JwtAuthnStats> {
        self.jwt_authn.get(scope, || self.metrics.jwt_authn(&scope.manager, &scope.prefix))
    }
}
