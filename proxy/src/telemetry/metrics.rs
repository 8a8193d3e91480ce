//! Statistics with Envoy's names: counted in per-worker shards, summed when somebody asks.
//!
//! A worker asks [`Metrics`] once for its shard of a scope ([`ClusterStats`], [`HttpStats`],
//! [`ListenerStats`]) and keeps it; from then on counting touches no lock and no memory of another worker.

mod cell;
mod compression;
mod discovery;
mod prometheus;
mod rbac;
mod sample;
mod stats;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::process;
use crate::config::rbac::Part;
use stats::Group;

pub use cell::{
    BUCKET_BOUNDS, Counter, Distribution, Gauge, Histogram, SharedCounter, SharedGauge,
    SparseCounter, SparseStatusCodes, StatusClasses, StatusCodes,
};
pub use compression::{
    Compression, CompressorShards, DecompressorShards, compressor_scopes, decompressor_scopes,
};
pub use prometheus::{CONTENT_TYPE as PROMETHEUS_CONTENT_TYPE, prometheus};
pub use sample::{FilterScope, FilterStatistics, Sample, Samples, Scope, Tag, Value};
pub use stats::{
    AcceptEncodingStats, AccessLogStats, ClusterAuthzStats, ClusterFaultStats,
    ClusterRateLimitStats, ClusterStats, CompressorStats, ConfigCacheStats, ConnectionLimitStats,
    ConnectionRateStats, ControlPlaneStats, CorsStats, CsrfStats, DecompressionErrorStats,
    DecompressorStats, DnsCacheStats, DnsStats, ExtAuthzStats, FaultStats, GrpcAccessLogStats,
    GrpcStats, GrpcUpstreamStats, HttpInspectorStats, HttpStats, JwtAuthnStats, ListenerStats,
    ListenerWorkerStats, LocalRateLimitStats, NetworkAuthzStats, OpenTelemetryStats,
    ProxyProtocolStats, ProxyProtocolVersionStats, RbacPolicyStats, RbacStats, ResolutionStats,
    RouteStats, ServerStats, SessionStats, ShadowRbacStats, SubscriptionStats, TcpStats,
    TlsInspectorStats, ZipkinStats,
};
pub use text::{Buckets, json, text};

/// All statistics of the process.
#[derive(Default)]
pub struct Metrics {
    clusters: Sharded<ClusterStats>,
    http: Sharded<HttpStats>,
    listeners: Sharded<ListenerStats>,
    listener_workers: Sharded<ListenerWorkerStats>,
    tcp: Sharded<TcpStats>,
    connection_limits: Sharded<ConnectionLimitStats>,
    access_logs: Common<AccessLogStats>,
    grpc_access_logs: Common<GrpcAccessLogStats>,
    sessions: Sharded<SessionStats>,
    cors: Sharded<CorsStats>,
    faults: Common<FaultStats>,
    ext_authz: Sharded<ExtAuthzStats>,
    network_authz: Sharded<NetworkAuthzStats>,
    cluster_authz: Sharded<ClusterAuthzStats>,
    cluster_rate_limits: Sharded<ClusterRateLimitStats>,
    cluster_faults: Common<ClusterFaultStats>,
    csrf: Sharded<CsrfStats>,
    compression: Compression,
    routes: Sharded<RouteStats>,
    grpc: Sharded<GrpcStats>,
    grpc_web: Sharded<GrpcStats>,
    grpc_upstream: Sharded<GrpcUpstreamStats>,
    rbac: Sharded<RbacStats>,
    shadow_rbac: Sharded<ShadowRbacStats>,
    rbac_policies: Sharded<RbacPolicyStats>,
    jwt_authn: Sharded<JwtAuthnStats>,
    local_rate_limits: Sharded<LocalRateLimitStats>,
    connection_rates: Sharded<ConnectionRateStats>,
    tls_inspector: Sharded<TlsInspectorStats>,
    http_inspector: Sharded<HttpInspectorStats>,
    proxy_protocol: Sharded<ProxyProtocolStats>,
    proxy_protocol_versions: Sharded<ProxyProtocolVersionStats>,
    subscriptions: Common<SubscriptionStats>,
    resolutions: Common<ResolutionStats>,
    control_plane: Common<ControlPlaneStats>,
    config_cache: Common<ConfigCacheStats>,
    lookups: Common<DnsStats>,
    dns_caches: Common<DnsCacheStats>,
    open_telemetry: Common<OpenTelemetryStats>,
    zipkin: Common<ZipkinStats>,
    server: ServerStats,
    probes: Mutex<Vec<Arc<dyn Probe>>>,
    reset: Mutex<Baseline>,
}

/// One worker's shards of the statistics of PROXY filters with the same prefix.
#[derive(Debug)]
pub struct ProxyProtocolShards {
    /// Of connections without a header.
    pub general: Arc<ProxyProtocolStats>,
    /// Of headers of version 1.
    pub v1: Arc<ProxyProtocolVersionStats>,
    /// Of headers of version 2.
    pub v2: Arc<ProxyProtocolVersionStats>,
}

/// Something whose statistics are computed when they are read, such as circuit breakers.
pub trait Probe: Send + Sync {
    /// Writes the readings of this moment.
    fn collect(&self, out: &mut Samples);
}

/// What counters read at the last reset.
type Baseline = BTreeMap<(Scope, &'static str, Tag), u64>;

impl Metrics {
    /// A fresh shard of `cluster.STAT_NAME.*` for the calling worker, counted until it is dropped.
    pub fn cluster(&self, stat_name: &str) -> Arc<ClusterStats> {
        self.clusters.shard(Scope::cluster(stat_name))
    }

    /// A fresh shard of `http.STAT_PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn http(&self, stat_prefix: &str) -> Arc<HttpStats> {
        self.http.shard(Scope::http(stat_prefix))
    }

    /// A fresh shard of `listener.STAT_PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn listener(&self, stat_prefix: &str) -> Arc<ListenerStats> {
        self.listeners.shard(Scope::listener(stat_prefix))
    }

    /// The statistics `listener.STAT_PREFIX.worker_ID.*` for that worker.
    pub fn listener_worker(&self, stat_prefix: &str, id: usize) -> Arc<ListenerWorkerStats> {
        self.listener_workers.shard(Scope::listener_worker(stat_prefix, id))
    }

    /// A fresh shard of `tls_inspector.*` for the calling worker.
    pub fn tls_inspector(&self) -> Arc<TlsInspectorStats> {
        self.tls_inspector.shard(Scope::TlsInspector)
    }

    /// A fresh shard of `http_inspector.*` for the calling worker.
    pub fn http_inspector(&self) -> Arc<HttpInspectorStats> {
        self.http_inspector.shard(Scope::HttpInspector)
    }

    /// Fresh shards of `proxy_proto.[PREFIX.]*` for the calling worker.
    pub fn proxy_protocol(&self, stat_prefix: &str) -> ProxyProtocolShards {
        let [general, v1, v2] = Scope::proxy_protocol(stat_prefix);
        ProxyProtocolShards {
            general: self.proxy_protocol.shard(general),
            v1: self.proxy_protocol_versions.shard(v1),
            v2: self.proxy_protocol_versions.shard(v2),
        }
    }

    /// A fresh shard of `tcp.STAT_PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn tcp(&self, stat_prefix: &str) -> Arc<TcpStats> {
        self.tcp.shard(Scope::tcp(stat_prefix))
    }

    /// A fresh shard of `connection_limit.STAT_PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn connection_limit(&self, stat_prefix: &str) -> Arc<ConnectionLimitStats> {
        self.connection_limits.shard(Scope::connection_limit(stat_prefix))
    }

    /// A fresh shard of `[http.MANAGER.]stateful_session.PREFIX.*` for the calling worker, counted until it is
    /// dropped.
    pub fn session(&self, manager: &str, prefix: &str) -> Arc<SessionStats> {
        self.sessions.shard(Scope::session(manager, prefix))
    }

    /// A fresh shard of `http.STAT_PREFIX.cors.*` for the calling worker, counted until it is dropped.
    pub fn cors(&self, stat_prefix: &str) -> Arc<CorsStats> {
        self.cors.shard(Scope::cors(stat_prefix))
    }

    /// A fresh shard of `http.MANAGER.ext_authz.[PREFIX.]*` for the calling worker, counted until it is dropped.
    pub fn ext_authz(&self, manager: &str, prefix: &str) -> Arc<ExtAuthzStats> {
        self.ext_authz.shard(Scope::Filter(FilterScope::ext_authz(manager, prefix)))
    }

    /// A fresh shard of `ext_authz.PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn network_authz(&self, prefix: &str) -> Arc<NetworkAuthzStats> {
        self.network_authz.shard(Scope::Filter(FilterScope::network_authz(prefix)))
    }

    /// A fresh shard of `cluster.STAT_NAME.ext_authz.[PREFIX.]*` for the calling worker, counted until it is dropped.
    pub fn cluster_authz(&self, cluster: &str, prefix: &str) -> Arc<ClusterAuthzStats> {
        self.cluster_authz.shard(Scope::Filter(FilterScope::cluster_authz(cluster, prefix)))
    }

    /// A fresh shard of `cluster.STAT_NAME.ratelimit.[PREFIX.]*` for the calling worker, counted until it is dropped.
    pub fn cluster_rate_limit(&self, cluster: &str, prefix: &str) -> Arc<ClusterRateLimitStats> {
        let scope = FilterScope::cluster_rate_limit(cluster, prefix);
        self.cluster_rate_limits.shard(Scope::Filter(scope))
    }

    /// The statistics `access_logs.open_telemetry_access_log.[STAT_PREFIX.]*`, of all workers.
    pub fn open_telemetry_access_log(&self, stat_prefix: &str) -> Arc<AccessLogStats> {
        self.access_logs.get(Scope::access_log(stat_prefix))
    }

    /// The statistics `access_logs.grpc_access_log.*`, of all workers.
    pub fn grpc_access_log(&self) -> Arc<GrpcAccessLogStats> {
        self.grpc_access_logs.get(Scope::Root)
    }

    /// The statistics `http.STAT_PREFIX.fault.*`, of all workers.
    pub fn faults(&self, stat_prefix: &str) -> Arc<FaultStats> {
        self.faults.get(Scope::Filter(FilterScope::fault(stat_prefix)))
    }

    /// The statistics `http.STAT_PREFIX.fault.CLUSTER.*`, of all workers, shown while somebody holds them.
    pub fn cluster_faults(&self, stat_prefix: &str, cluster: &str) -> Arc<ClusterFaultStats> {
        self.cluster_faults.get(Scope::Filter(FilterScope::cluster_fault(stat_prefix, cluster)))
    }

    /// A fresh shard of `http.MANAGER.jwt_authn.[PREFIX.]*` for the calling thread, counted until it is dropped.
    pub fn jwt_authn(&self, manager: &str, prefix: &str) -> Arc<JwtAuthnStats> {
        self.jwt_authn.shard(Scope::Filter(FilterScope::jwt_authn(manager, prefix)))
    }

    /// A fresh shard of `STAT_PREFIX.http_local_rate_limit.*` for the calling worker, counted until it is dropped.
    pub fn local_rate_limit(&self, stat_prefix: &str) -> Arc<LocalRateLimitStats> {
        self.local_rate_limits.shard(Scope::Filter(FilterScope::local_rate_limit(stat_prefix)))
    }

    /// A fresh shard of `local_rate_limit.STAT_PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn connection_rate(&self, stat_prefix: &str) -> Arc<ConnectionRateStats> {
        self.connection_rates.shard(Scope::Filter(FilterScope::connection_rate(stat_prefix)))
    }

    /// A fresh shard of `http.STAT_PREFIX.csrf.*` for the calling worker, counted until it is dropped.
    pub fn csrf(&self, stat_prefix: &str) -> Arc<CsrfStats> {
        self.csrf.shard(Scope::Filter(FilterScope::csrf(stat_prefix)))
    }

    /// What filters that compress and decompress count.
    pub fn compression(&self) -> &Compression {
        &self.compression
    }

    /// A fresh shard of `vhost.HOST.route.PREFIX.*` for the calling worker, counted until it is dropped.
    pub fn route(&self, host: &str, prefix: &str) -> Arc<RouteStats> {
        self.routes.shard(Scope::Filter(FilterScope::route(host, prefix)))
    }

    /// A fresh shard of `vhost.HOST.vcluster.NAME.*` for the calling worker, counted until it is dropped.
    pub fn virtual_cluster(&self, host: &str, name: &str) -> Arc<RouteStats> {
        self.routes.shard(Scope::Filter(FilterScope::virtual_cluster(host, name)))
    }

    /// A fresh shard of `cluster.NAME.grpc.[SERVICE.METHOD.]*` for the calling worker, counted until it is dropped.
    pub fn grpc(&self, call: [&str; 3]) -> Arc<GrpcStats> {
        self.grpc.shard(Scope::Filter(FilterScope::grpc(call)))
    }

    /// The same for calls of browsers, `grpc-web`.
    pub fn grpc_web(&self, call: [&str; 3]) -> Arc<GrpcStats> {
        self.grpc_web.shard(Scope::Filter(FilterScope::grpc_web(call)))
    }

    /// A fresh shard of the times of the same calls as [`Metrics::grpc`].
    pub fn grpc_upstream(&self, call: [&str; 3]) -> Arc<GrpcUpstreamStats> {
        self.grpc_upstream.shard(Scope::Filter(FilterScope::grpc(call)))
    }

    /// The statistics of collectors that speak OTLP, shown while somebody holds them.
    pub fn open_telemetry(&self) -> Arc<OpenTelemetryStats> {
        self.open_telemetry.get(Scope::Root)
    }

    /// The statistics of collectors that speak Zipkin's protocol, shown while somebody holds them.
    pub fn zipkin(&self) -> Arc<ZipkinStats> {
        self.zipkin.get(Scope::Root)
    }

    /// Rare events and states of the process.
    pub fn server(&self) -> &ServerStats {
        &self.server
    }

    /// Asks `probe` for its readings from now on.
    pub fn register(&self, probe: Arc<dyn Probe>) {
        self.probes.lock().push(probe);
    }

    /// Reads every statistic. Counters show what they counted since the last [`Metrics::reset`].
    ///
    /// A worker takes a shard when it first needs one; scopes that are `configured` are there from the
    /// start, with zeros, and stay while they are, whatever becomes of their shards.
    pub fn collect(&self, configured: &BTreeSet<Scope>) -> Vec<Sample> {
        let mut samples = self.read(configured);
        let reset = self.reset.lock();
        if reset.is_empty() {
            return samples;
        }
        for sample in &mut samples {
            if let Value::Counter(count) = &mut sample.value {
                let key = (sample.scope.clone(), sample.name, sample.tag);
                *count = count.saturating_sub(reset.get(&key).copied().unwrap_or(0));
            }
        }
        samples
    }

    /// Lets every counter start from zero (Envoy `/reset_counters`). The workers' counters stay as they
    /// are, for only their owner may write them; their readings are subtracted from now on.
    pub fn reset(&self) {
        let counters =
            self.read(&BTreeSet::new()).into_iter().filter_map(|sample| match sample.value {
                Value::Counter(count) => Some(((sample.scope, sample.name, sample.tag), count)),
                Value::Gauge(_) | Value::Histogram(_) => None,
            });
        *self.reset.lock() = counters.collect();
    }

    fn read(&self, configured: &BTreeSet<Scope>) -> Vec<Sample> {
        let mut out = Samples::default();
        let kind = |is: fn(&Scope) -> bool| configured.iter().filter(move |scope| is(scope));
        self.clusters.collect(kind(|scope| matches!(scope, Scope::Cluster(_))), &mut out);
        self.http.collect(kind(|scope| matches!(scope, Scope::Http(_))), &mut out);
        self.listeners.collect(kind(|scope| matches!(scope, Scope::Listener(_))), &mut out);
        let workers = kind(|scope| matches!(scope, Scope::ListenerWorker(..)));
        self.listener_workers.collect(workers, &mut out);
        self.tls_inspector.collect(kind(|scope| *scope == Scope::TlsInspector), &mut out);
        self.http_inspector.collect(kind(|scope| *scope == Scope::HttpInspector), &mut out);
        self.proxy_protocol
            .collect(kind(|scope| matches!(scope, Scope::ProxyProtocol(_))), &mut out);
        let is_version: fn(&Scope) -> bool =
            |scope| matches!(scope, Scope::ProxyProtocolVersion(..));
        self.proxy_protocol_versions.collect(kind(is_version), &mut out);
        self.read_discovery(&mut out);
        let limits = kind(|scope| matches!(scope, Scope::ConnectionLimit(_)));
        self.connection_limits.collect(limits, &mut out);
        self.sessions.collect(kind(|scope| matches!(scope, Scope::Session(..))), &mut out);
        self.cors.collect(kind(|scope| matches!(scope, Scope::Cors(_))), &mut out);
        let filter =
            |kind| move |scope: &&Scope| matches!(scope, Scope::Filter(it) if it.kind() == kind);
        self.faults
            .collect_all(configured.iter().filter(filter(FilterStatistics::Fault)), &mut out);
        self.cluster_faults.collect(&mut out);
        let csrf = filter(FilterStatistics::Csrf);
        self.csrf.collect(configured.iter().filter(csrf), &mut out);
        self.compression.collect(configured, &mut out);
        self.routes.collect(kind(is_of_host), &mut out);
        self.grpc.collect(std::iter::empty(), &mut out);
        self.grpc_web.collect(std::iter::empty(), &mut out);
        self.grpc_upstream.collect(std::iter::empty(), &mut out);
        self.access_logs.collect(&mut out);
        self.grpc_access_logs.collect(&mut out);
        let part = |part| configured.iter().filter(move |scope| is_rbac(scope, part));
        self.rbac.collect(part(&Part::Rules), &mut out);
        self.shadow_rbac.collect(part(&Part::Shadow), &mut out);
        self.rbac_policies.collect(std::iter::empty(), &mut out);
        let tokens = configured.iter().filter(filter(FilterStatistics::JwtAuthn));
        self.jwt_authn.collect(tokens, &mut out);
        let own = |kind| configured.iter().filter(filter(kind));
        self.ext_authz.collect(own(FilterStatistics::ExtAuthz), &mut out);
        self.network_authz.collect(own(FilterStatistics::NetworkAuthz), &mut out);
        self.cluster_authz.collect(own(FilterStatistics::ClusterAuthz), &mut out);
        self.cluster_rate_limits.collect(own(FilterStatistics::ClusterRateLimit), &mut out);
        let limits = filter(FilterStatistics::LocalRateLimit);
        self.local_rate_limits.collect(configured.iter().filter(limits), &mut out);
        let rates = filter(FilterStatistics::ConnectionRate);
        self.connection_rates.collect(configured.iter().filter(rates), &mut out);
        self.tcp.collect(kind(|scope| matches!(scope, Scope::Tcp(_))), &mut out);
        self.open_telemetry.collect(&mut out);
        self.zipkin.collect(&mut out);
        self.refresh(&out);
        self.server.sample(&Scope::Root, &mut out);
        for probe in &*self.probes.lock() {
            probe.collect(&mut out);
        }
        out.into_vec()
    }
}

impl Metrics {
    /// Brings what is derived from elsewhere up to date, given the listeners' samples.
    fn refresh(&self, samples: &Samples) {
        let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let memory = process::memory();
        self.server.memory_allocated.set(bytes(memory.anonymous));
        self.server.memory_heap_size.set(bytes(memory.anonymous + memory.swapped));
        self.server.memory_physical_size.set(bytes(memory.resident));
        let open = samples
            .gauge_total("downstream_cx_active", |scope| matches!(scope, Scope::Listener(_)));
        self.server.total_connections.set(open);
    }
}

/// Whether it belongs to a route or a virtual cluster.
fn is_of_host(scope: &Scope) -> bool {
    use FilterStatistics::{Route, VirtualCluster};
    matches!(scope, Scope::Filter(it) if matches!(it.kind(), Route | VirtualCluster))
}

fn is_rbac(scope: &Scope, part: &Part) -> bool {
    matches!(scope, Scope::Rbac(scope) if scope.part == *part)
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Statistics of one kind that are written from any thread, by scope.
struct Common<S>(Mutex<BTreeMap<Scope, Arc<S>>>);

impl<S> Default for Common<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Group> Common<S> {
    fn get(&self, scope: Scope) -> Arc<S> {
        Arc::clone(self.0.lock().entry(scope).or_default())
    }

    fn collect(&self, out: &mut Samples) {
        self.collect_all(std::iter::empty(), out);
    }

    /// The same, with those that are `configured` whether or not somebody holds them.
    fn collect_all<'a>(&self, configured: impl Iterator<Item = &'a Scope>, out: &mut Samples) {
        let mut all = self.0.lock();
        let configured: BTreeSet<_> = configured.collect();
        // Only the registry still holds it: the resource is gone.
        all.retain(|scope, stats| Arc::strong_count(stats) > 1 || configured.contains(scope));
        for scope in configured {
            all.entry(scope.clone()).or_default();
        }
        for (scope, stats) in &*all {
            stats.sample(scope, out);
        }
    }
}

/// The shards of one kind of statistics, by scope.
struct Sharded<S>(Mutex<BTreeMap<Scope, Shards<S>>>);

impl<S> Default for Sharded<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// The shards of one scope.
struct Shards<S> {
    alive: Vec<Arc<S>>,
    /// What shards counted whose worker has dropped them.
    retired: Option<Arc<S>>,
}

impl<S> Default for Shards<S> {
    fn default() -> Self {
        Self { alive: Vec::new(), retired: None }
    }
}

impl<S: Group> Sharded<S> {
    fn shard(&self, scope: Scope) -> Arc<S> {
        let shard = Arc::new(S::default());
        let mut scopes = self.0.lock();
        let shards = scopes.entry(scope).or_default();
        shards.retire();
        shards.alive.push(Arc::clone(&shard));
        shard
    }

    /// Sums the shards of every scope; one that has none and is not `configured` is gone, and so are its
    /// statistics.
    fn collect<'a>(&self, configured: impl Iterator<Item = &'a Scope>, out: &mut Samples) {
        let mut scopes = self.current(&configured.collect());
        scopes.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (scope, shards) in scopes {
            let sum = S::default();
            for shard in shards {
                sum.absorb(&shard, true);
            }
            sum.sample(&scope, out);
        }
    }

    /// Every scope with its shards. A worker may be waiting for the lock, so nothing is summed under it.
    fn current(&self, configured: &BTreeSet<&Scope>) -> Vec<(Scope, Vec<Arc<S>>)> {
        let mut scopes = self.0.lock();
        scopes.retain(|scope, shards| {
            shards.retire();
            !shards.alive.is_empty() || configured.contains(scope)
        });
        let unmet = configured.iter().filter(|scope| !scopes.contains_key(**scope));
        let unmet = unmet.map(|scope| (Scope::clone(scope), Vec::new()));
        let met = scopes.iter().map(|(scope, shards)| {
            let all = shards.retired.iter().chain(&shards.alive);
            (scope.clone(), all.cloned().collect())
        });
        unmet.chain(met).collect()
    }
}

impl<S: Group> Shards<S> {
    /// Takes over what shards counted that nobody but this registry holds any more.
    fn retire(&mut self) {
        for shard in std::mem::take(&mut self.alive) {
            match Arc::try_unwrap(shard) {
                Ok(dead) => self.retired.get_or_insert_default().absorb(&dead, false),
                Err(alive) => self.alive.push(alive),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(metrics: &Metrics, name: &str) -> Option<Value> {
        reading_of(metrics, &BTreeSet::new(), name)
    }

    fn reading_of(metrics: &Metrics, configured: &BTreeSet<Scope>, name: &str) -> Option<Value> {
        metrics.collect(configured).into_iter().find(|s| s.to_string() == name).map(|s| s.value)
    }

    #[test]
    fn shards_of_one_scope_are_summed() {
        let metrics = Metrics::default();
        let (a, b) = (metrics.cluster("c1"), metrics.cluster("c1"));
        a.upstream_rq_total.add(2);
        b.upstream_rq_total.inc();
        a.response(503, false);
        b.response(503, true);
        assert_eq!(reading(&metrics, "cluster.c1.upstream_rq_total"), Some(Value::Counter(3)));
        assert_eq!(reading(&metrics, "cluster.c1.upstream_rq_503"), Some(Value::Counter(2)));
        assert_eq!(reading(&metrics, "cluster.c1.upstream_rq_5xx"), Some(Value::Counter(2)));
        assert_eq!(reading(&metrics, "cluster.c1.upstream_rq_completed"), Some(Value::Counter(2)));
    }

    #[test]
    fn counts_outlive_a_shard_and_end_with_the_scope() {
        let metrics = Metrics::default();
        let (a, b) = (metrics.http("ing"), metrics.http("ing"));
        a.downstream_rq_total.add(5);
        a.downstream_rq_active.inc();
        drop(a);
        assert_eq!(reading(&metrics, "http.ing.downstream_rq_total"), Some(Value::Counter(5)));
        assert_eq!(reading(&metrics, "http.ing.downstream_rq_active"), Some(Value::Gauge(0)));
        drop(b);
        assert_eq!(reading(&metrics, "http.ing.downstream_rq_total"), None);
    }

    #[test]
    fn a_configured_scope_shows_zeros_first_and_keeps_its_counts() {
        let metrics = Metrics::default();
        let configured = BTreeSet::from([Scope::cluster("c1"), Scope::http("ing")]);
        let name = "cluster.c1.upstream_rq_total";
        assert_eq!(reading_of(&metrics, &configured, name), Some(Value::Counter(0)));
        let shard = metrics.cluster("c1");
        shard.upstream_rq_total.inc();
        drop(shard);
        assert_eq!(reading_of(&metrics, &configured, name), Some(Value::Counter(1)));
        assert_eq!(reading(&metrics, name), None);
    }

    #[test]
    fn a_reset_subtracts_what_was_read() {
        let metrics = Metrics::default();
        let shard = metrics.listener("127.0.0.1:80");
        shard.downstream_cx_total.add(7);
        shard.downstream_cx_active.add(7);
        metrics.reset();
        shard.downstream_cx_total.add(2);
        let name = "listener.127.0.0.1_80.downstream_cx_total";
        assert_eq!(reading(&metrics, name), Some(Value::Counter(2)));
        let name = "listener.127.0.0.1_80.downstream_cx_active";
        assert_eq!(reading(&metrics, name), Some(Value::Gauge(7)));
    }

    #[test]
    fn probes_are_read_with_the_rest() {
        struct Members;
        impl Probe for Members {
            fn collect(&self, out: &mut Samples) {
                out.gauge(&Scope::cluster("c1"), "membership_total", 3);
            }
        }
        let metrics = Metrics::default();
        metrics.register(Arc::new(Members));
        assert_eq!(reading(&metrics, "cluster.c1.membership_total"), Some(Value::Gauge(3)));
    }
}
