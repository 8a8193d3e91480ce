//! What only the bootstrap file says: node, admin address, where dynamic resources come from (Envoy `config.bootstrap.v3.Bootstrap`).

use std::net::SocketAddr;
use std::sync::Arc;

use super::Name;
use super::access_log::AccessLog;
use super::cluster::Cluster;
use super::connecting::BindConfig;
use super::dns::Resolver;
use super::listener::Listener;
use super::overload::Overload;
use super::source::{ConfigSource, GrpcSource};
use super::statistics::ShownStats;
use super::tls::Secret;
use super::tracing;

/// Envoy `Bootstrap`, validated.
#[derive(Debug, Clone, Default)]
pub struct Bootstrap {
    /// Who this proxy is.
    pub node: Node,
    /// `cluster_manager.local_cluster_name`: the static cluster this proxy belongs to, for zone-aware routing.
    pub local_cluster: Option<Name>,
    /// The admin listener; none means no admin API.
    pub admin: Option<Admin>,
    /// `static_resources.listeners`
    pub listeners: Vec<Arc<Listener>>,
    /// `static_resources.clusters`
    pub clusters: Vec<Arc<Cluster>>,
    /// `static_resources.secrets`
    pub secrets: Vec<Secret>,
    /// `cluster_manager.upstream_bind_config`, for clusters without their own.
    pub upstream_bind_config: Option<Arc<BindConfig>>,
    /// `typed_dns_resolver_config`: who is asked for names unless a cluster says otherwise.
    pub resolver: Arc<Resolver>,
    /// `overload_manager`, and the limits of single listeners; without one, what protects every process.
    pub overload: Overload,
    /// `tracing`, and what run-time values say of it.
    pub tracing: tracing::Defaults,
    /// `http_reject_path_with_fragment: false` of the runtime: the fragment of a path is taken off, rather than the
    /// request refused.
    pub strip_fragments: bool,
    /// `stats_config.stats_matcher`
    pub shown_stats: ShownStats,
    /// `dynamic_resources.lds_config`
    pub lds: Option<ConfigSource>,
    /// `dynamic_resources.cds_config`
    pub cds: Option<ConfigSource>,
    /// `dynamic_resources.ads_config`
    pub ads: Option<Arc<GrpcSource>>,
}

/// Envoy `core.v3.Node`, as far as a proxy without management server needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// `id`
    pub id: String,
    /// `cluster`
    pub cluster: String,
    /// `locality`: region, zone, sub-zone
    pub locality: (String, String, String),
    /// `metadata` as JSON
    pub metadata: serde_json::Value,
}

/// Envoy `Admin`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether an IPv6 wildcard address also takes IPv4 (`ipv4_compat`).
    pub ipv4_compat: bool,
    /// `access_log`, and after it `access_log_path` with Envoy's own format.
    pub access_logs: Vec<Arc<AccessLog>>,
}
