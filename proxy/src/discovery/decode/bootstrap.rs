//! The bootstrap: node, admin listener, static resources, and the files of dynamic ones.

use std::collections::HashSet;
use std::sync::Arc;

use xds::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use xds::envoy::config::bootstrap::v3::{Admin, Bootstrap, ClusterManager, LayeredRuntime};
use xds::envoy::config::core::v3::{Locality, Node, TypedExtensionConfig};
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::metrics::v3::{StatsConfig, StatsSink};
use xds::envoy::config::overload::v3::OverloadManager;
use xds::envoy::config::trace::v3::Tracing;
use xds::envoy::extensions::bootstrap::internal_listener::v3::InternalListener;
use xds::json::to_json;

use super::access_log::{access_log, default_file};
use super::address::listening;
use super::cluster::cluster;
use super::connecting::bind_config;
use super::dns::ResolverFields;
use super::errors::{At, Result, both, each, optional, refuse, required};
use super::extension::{carried, unpack, unsupported};
use super::listener::listener;
use super::overload::overload_manager;
use super::runtime::layered_runtime;
use super::source::{ads_config, config_source};
use super::statistics::shown_stats;
use super::tls::secret;
use super::tracing::default_provider;
use super::value::{non_empty, unless_empty};
use crate::config::cluster::Cluster;
use crate::config::connecting::BindConfig;
use crate::config::sharing::Parts;
use crate::config::source::{ConfigSource, GrpcSource};
use crate::config::statistics::ShownStats;
use crate::config::{self, Name};

/// A bootstrap file.
pub(super) fn bootstrap(proto: &Bootstrap) -> Result<config::bootstrap::Bootstrap> {
    let Bootstrap {
        node: identity,
        static_resources,
        dynamic_resources,
        stats_sinks: sinks,
        stats_config: stats,
        stats_flush_interval: _,
        stats_eviction: _,
        tracing: traces,
        layered_runtime: runtime,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        admin: admin_api,
        cluster_manager: manager,
        overload_manager: overload,
        bootstrap_extensions: added,
        application_log_config: _,
        enable_dispatcher_stats: _,
    } = proto;
    let resolver = ResolverFields {
        typed: typed_dns_resolver_config.as_ref(),
        resolution: dns_resolution_config.as_ref(),
        servers: &[],
        tcp: *use_tcp_for_dns_lookups,
    };
    let process = ProcessFields { runtime, overload, manager, traces };
    let around = both(AdminFields { api: admin_api, stats, sinks }.decode(), resolver.decode());
    let (_, (resources, (sources, (((admin, shown_stats), resolver), process)))) = both(
        each("bootstrap_extensions", added, extension),
        both(
            statics(static_resources.as_ref().unwrap_or(&StaticResources::default()))
                .at("static_resources"),
            both(
                optional("dynamic_resources", dynamic_resources, dynamics),
                both(around, process.decode()),
            ),
        ),
    )?;
    let Dynamics { lds, cds, ads } = sources.unwrap_or_default();
    let Statics { listeners, clusters, secrets } = resources;
    defined(process.local_cluster.as_ref(), &clusters)?;
    Ok(config::bootstrap::Bootstrap {
        node: identity.as_ref().map(node).unwrap_or_default(),
        admin,
        listeners,
        clusters,
        secrets,
        resolver: resolver.unwrap_or_default(),
        shown_stats,
        lds,
        cds,
        ads,
        ..process
    })
}

/// What says how the process as a whole behaves.
struct ProcessFields<'a> {
    runtime: &'a Option<LayeredRuntime>,
    overload: &'a Option<OverloadManager>,
    manager: &'a Option<ClusterManager>,
    traces: &'a Option<Tracing>,
}

impl ProcessFields<'_> {
    /// A bootstrap that says this and nothing else.
    fn decode(&self) -> Result<config::bootstrap::Bootstrap> {
        let ((runtime, overload), (manager, traces)) = both(
            both(
                optional("layered_runtime", self.runtime, layered_runtime),
                optional("overload_manager", self.overload, overload_manager),
            ),
            both(
                optional("cluster_manager", self.manager, cluster_manager),
                optional("tracing", self.traces, default_provider),
            ),
        )?;
        let mut runtime = runtime.unwrap_or_default();
        let Manager { local_cluster, bind } = manager.unwrap_or_default();
        let provider = traces.flatten().map(Arc::new);
        Ok(config::bootstrap::Bootstrap {
            local_cluster,
            upstream_bind_config: bind.map(Arc::new),
            overload: runtime.limit(overload.unwrap_or_default()),
            tracing: config::tracing::Defaults { provider, ..runtime.tracing },
            strip_fragments: runtime.strip_fragments,
            ..Default::default()
        })
    }
}

/// What says how the process is looked at from outside.
struct AdminFields<'a> {
    api: &'a Option<Admin>,
    stats: &'a Option<StatsConfig>,
    sinks: &'a [StatsSink],
}

impl AdminFields<'_> {
    fn decode(&self) -> Result<(Option<config::bootstrap::Admin>, ShownStats)> {
        if !self.sinks.is_empty() {
            let reason = "statistics are not sent anywhere by this version; fetch /stats/prometheus of the admin API";
            return refuse("stats_sinks", reason);
        }
        let (admin, stats) = both(
            optional("admin", self.api, admin),
            optional("stats_config", self.stats, shown_stats),
        )?;
        Ok((admin.flatten(), stats.unwrap_or_default()))
    }
}

/// Something added to the program: what listens within the process, which is not to be had here but does no harm unused.
fn extension(proto: &TypedExtensionConfig) -> Result<()> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = carried(required("typed_config", typed_config)?).at("typed_config")?;
    let Some(InternalListener { buffer_size_kb: _ }) = unpack(&any).at("typed_config")? else {
        return unsupported(&any).at("typed_config");
    };
    Ok(())
}

fn defined(local_cluster: Option<&Name>, clusters: &[Arc<Cluster>]) -> Result<()> {
    match local_cluster {
        Some(name) if !clusters.iter().any(|cluster| cluster.name == *name) => {
            let reason = format!("{name:?} is no cluster of static_resources");
            refuse("cluster_manager.local_cluster_name", reason)
        }
        _ => Ok(()),
    }
}

/// What `cluster_manager` says.
#[derive(Default)]
struct Manager {
    local_cluster: Option<Name>,
    /// What clusters take if they do not say otherwise.
    bind: Option<BindConfig>,
}

fn cluster_manager(proto: &ClusterManager) -> Result<Manager> {
    let ClusterManager {
        local_cluster_name,
        upstream_bind_config,
        enable_deferred_cluster_creation: _,
    } = proto;
    Ok(Manager {
        local_cluster: unless_empty(local_cluster_name).map(Name::from),
        bind: optional("upstream_bind_config", upstream_bind_config, bind_config)?,
    })
}

/// The static resources.
struct Statics {
    listeners: Vec<Arc<config::listener::Listener>>,
    clusters: Vec<Arc<Cluster>>,
    secrets: Vec<config::tls::Secret>,
}

fn statics(proto: &StaticResources) -> Result<Statics> {
    let StaticResources { listeners, clusters, secrets } = proto;
    let mut parts = Parts::default();
    let (listeners, (clusters, secrets)) = both(
        each("listeners", listeners, |proto: &Listener| listener(proto).map(Arc::new)),
        both(
            each("clusters", clusters, |proto| {
                let mut cluster = cluster(proto)?;
                parts.share(&mut cluster);
                Ok(Arc::new(cluster))
            }),
            each("secrets", secrets, secret),
        ),
    )?;
    unique("listeners", listeners.iter().map(|listener| &listener.name))?;
    unique("clusters", clusters.iter().map(|cluster| &cluster.name))?;
    unique("secrets", secrets.iter().map(|secret| &secret.name))?;
    Ok(Statics { listeners, clusters, secrets })
}

fn unique<'a>(field: &str, names: impl Iterator<Item = &'a Name>) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, name) in names.enumerate() {
        if !seen.insert(name) {
            return refuse(&format!("{field}[{index}].name"), format!("duplicate name {name:?}"));
        }
    }
    Ok(())
}

/// Where listeners, clusters, and whatever else says `ads`, come from.
#[derive(Default)]
struct Dynamics {
    lds: Option<ConfigSource>,
    cds: Option<ConfigSource>,
    ads: Option<Arc<GrpcSource>>,
}

fn dynamics(proto: &DynamicResources) -> Result<Dynamics> {
    let DynamicResources { lds_config, cds_config, ads_config: ads } = proto;
    let (lds, (cds, ads)) = both(
        optional("lds_config", lds_config, config_source),
        both(
            optional("cds_config", cds_config, config_source),
            optional("ads_config", ads, ads_config),
        ),
    )?;
    Ok(Dynamics { lds, cds, ads: ads.map(Arc::new) })
}

fn admin(proto: &Admin) -> Result<Option<config::bootstrap::Admin>> {
    let Admin {
        access_log: logs,
        access_log_path,
        profile_path: _,
        address,
        ignore_global_conn_limit: _,
    } = proto;
    let mut access_logs = each("access_log", logs, |log| access_log(log).map(Arc::new))?;
    if !access_log_path.is_empty() {
        access_logs.push(Arc::new(default_file(access_log_path)?));
    }
    optional("address", address, |proto| {
        let at = listening(proto)?;
        let Some(address) = at.address.ip() else {
            return refuse("pipe", "the admin API is not served on Unix sockets");
        };
        Ok(config::bootstrap::Admin { address, ipv4_compat: at.ipv4_compat, access_logs })
    })
}

fn node(proto: &Node) -> config::bootstrap::Node {
    let Node {
        id,
        cluster,
        metadata: _metadata,
        locality,
        user_agent_name: _,
        client_features: _,
        user_agent_version_type: _,
    } = proto;
    let absent = Locality::default();
    let Locality { region, zone, sub_zone } = locality.as_ref().unwrap_or(&absent);
    config::bootstrap::Node {
        id: id.clone(),
        cluster: cluster.clone(),
        locality: (region.clone(), zone.clone(), sub_zone.clone()),
        metadata: to_json(proto)
            .get_mut("metadata")
            .map(serde_json::Value::take)
            .unwrap_or_default(),
    }
}
