//! The TCP proxy.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde_json::{Map, Value};
use xds::envoy::config::core::v3::BackoffStrategy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TcpAccessLogOptions, TunnelingConfig, WeightedCluster,
};
use xds::envoy::r#type::v3::HashPolicy;
use xds::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};

use super::access_log::access_log;
use super::errors::{At, Result, each, optional, refuse, required};
use super::value::{
    duration_in_ms, limit, name, non_empty, percent, positive_duration, unless_empty,
};
use super::{header, subset};
use crate::config::format::Format;
use crate::config::header::HeaderChange;
use crate::config::subset::MetadataMatch;
use crate::config::tcp::{self, Backoff, TcpCluster, TcpWeighted, Tunneling};

/// Envoy's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A TCP proxy.
pub(super) fn tcp_proxy(proto: &TcpProxy) -> Result<tcp::TcpProxy> {
    let TcpProxy {
        stat_prefix,
        cluster_specifier,
        metadata_match,
        idle_timeout,
        access_log: logs,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration: max_duration,
        max_downstream_connection_duration_jitter_percentage: jitter,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
    } = proto;
    let flush = LogOptions::decode(
        access_log_options.as_ref(),
        access_log_flush_interval.as_ref(),
        *flush_access_log_on_connected,
    )?;
    let Some(max_connect_attempts) = NonZeroU32::new(max_connect_attempts.unwrap_or(1)) else {
        return refuse("max_connect_attempts", "must be at least 1");
    };
    if hash_policy.len() > 1 {
        return refuse("hash_policy", "there may be only one");
    }
    let wanted = subset::wanted(metadata_match.as_ref());
    Ok(tcp::TcpProxy {
        stat_prefix: name("stat_prefix", stat_prefix)?,
        cluster: match required("cluster", cluster_specifier)? {
            ClusterSpecifier::Cluster(cluster) => TcpCluster::Name(name("cluster", cluster)?),
            ClusterSpecifier::WeightedClusters(clusters) => {
                TcpCluster::Weighted(weighted(clusters, wanted.as_ref()).at("weighted_clusters")?)
            }
        },
        metadata_match: wanted.as_ref().map(|wanted| Arc::new(MetadataMatch::new(wanted))),
        idle_timeout: limit("idle_timeout", idle_timeout.as_ref(), Some(IDLE_TIMEOUT))?,
        max_duration: duration_in_ms("max_downstream_connection_duration", max_duration.as_ref())?,
        max_duration_jitter: percent(
            "max_downstream_connection_duration_jitter_percentage",
            jitter.as_ref(),
            0.0,
        )?,
        max_connect_attempts,
        backoff: optional("backoff_options", backoff_options, backoff)?,
        tunneling: optional("tunneling_config", tunneling_config, tunneling)?.map(Box::new),
        hash_source_ip: !each("hash_policy", hash_policy, source_ip)?.is_empty(),
        access_logs: each("access_log", logs, |log| access_log(log).map(Arc::new))?,
        log_on_connected: flush.on_connected,
        log_interval: flush.interval,
    })
}

fn tunneling(proto: &TunnelingConfig) -> Result<Tunneling> {
    let TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
    } = proto;
    if !use_post && !post_path.is_empty() {
        return refuse("post_path", "a CONNECT has no path: set use_post, or leave it out");
    }
    if !use_post && *propagate_response_trailers {
        return refuse(
            "propagate_response_trailers",
            "those after a CONNECT are not seen by this version: set use_post, or leave it out",
        );
    }
    let path = unless_empty(post_path).unwrap_or_else(|| "/".into());
    let path = PathAndQuery::try_from(&*path).map_err(|_| format!("{path:?} is no path"));
    Ok(Tunneling {
        hostname: Format::parse(non_empty("hostname", hostname)?).at("hostname")?,
        post_path: Some(path.at("post_path")?).filter(|_| *use_post),
        headers_to_add: each("headers_to_add", headers_to_add, |header| {
            header::to_add(header).map(HeaderChange::Add)
        })?,
        propagate_response_headers: *propagate_response_headers,
        propagate_response_trailers: *propagate_response_trailers,
    })
}

/// When a line is written before the end.
struct LogOptions {
    on_connected: bool,
    interval: Option<Duration>,
}

impl LogOptions {
    /// The options may stand in a message of their own, or, as before it existed, beside it; not both.
    fn decode(
        options: Option<&TcpAccessLogOptions>,
        interval: Option<&prost_types::Duration>,
        on_connected: bool,
    ) -> Result<Self> {
        let Some(options) = options else {
            let interval = duration_in_ms("access_log_flush_interval", interval)?;
            return Ok(Self { on_connected, interval });
        };
        if interval.is_some() || on_connected {
            let reason = "access_log_flush_interval and flush_access_log_on_connected belong into \
                access_log_options where that is given";
            return refuse("access_log_options", reason);
        }
        let TcpAccessLogOptions {
            access_log_flush_interval: interval,
            flush_access_log_on_connected,
        } = options;
        let interval = duration_in_ms("access_log_flush_interval", interval.as_ref())
            .at("access_log_options")?;
        Ok(Self { on_connected: *flush_access_log_on_connected, interval })
    }
}

fn weighted(
    proto: &WeightedCluster,
    wanted: Option<&Map<String, Value>>,
) -> Result<Vec<TcpWeighted>> {
    let WeightedCluster { clusters } = proto;
    if clusters.is_empty() {
        return refuse("clusters", "must not be empty");
    }
    each("clusters", clusters, |proto| {
        let ClusterWeight { name: cluster, weight, metadata_match } = proto;
        if *weight == 0 {
            return refuse("weight", "must be at least 1");
        }
        let metadata_match = subset::over(wanted, metadata_match.as_ref());
        Ok(TcpWeighted { name: name("name", cluster)?, weight: *weight, metadata_match })
    })
}

/// Pauses between attempts.
pub(super) fn backoff(proto: &BackoffStrategy) -> Result<Backoff> {
    let BackoffStrategy { base_interval, max_interval } = proto;
    let base = duration_in_ms("base_interval", base_interval.as_ref())?;
    let base = *required("base_interval", &base)?;
    let max = positive_duration("max_interval", max_interval.as_ref())?;
    let max = max.unwrap_or(base.saturating_mul(10));
    if max < base {
        return refuse("max_interval", "must not be shorter than base_interval");
    }
    Ok(Backoff { base, max })
}

fn source_ip(proto: &HashPolicy) -> Result<()> {
    let HashPolicy { policy_specifier } = proto;
    let PolicySpecifier::SourceIp(SourceIp {}) = required("source_ip", policy_specifier)?;
    Ok(())
}
