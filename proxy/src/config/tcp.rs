//! The TCP proxy as configured (Envoy `TcpProxy`).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use super::Name;
use super::access_log::AccessLog;
use super::format::Format;
use super::header::HeaderChange;
use super::subset::MetadataMatch;

/// Envoy `filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: Name,
    /// Where connections go, unless a filter before this one says otherwise.
    pub cluster: TcpCluster,
    /// `metadata_match`: what is wanted of the endpoint, where the cluster has subsets.
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// `idle_timeout`: how long nothing may move in either direction; 1 hour by default, none means forever.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`
    pub max_duration: Option<Duration>,
    /// `max_downstream_connection_duration_jitter_percentage`: by how much that may grow, at random.
    pub max_duration_jitter: f64,
    /// `max_connect_attempts`; 1 by default.
    pub max_connect_attempts: NonZeroU32,
    /// `backoff_options`: the wait between attempts.
    pub backoff: Option<Backoff>,
    /// `tunneling_config`: connections are carried by HTTP.
    pub tunneling: Option<Box<Tunneling>>,
    /// Whether the cluster picks by a hash of the client's address (`hash_policy.source_ip`).
    pub hash_source_ip: bool,
    /// Its access logs.
    pub access_logs: Vec<Arc<AccessLog>>,
    /// `access_log_options.flush_access_log_on_connected`: a line when the endpoint is reached, too.
    pub log_on_connected: bool,
    /// `access_log_options.access_log_flush_interval`: a line that often, too.
    pub log_interval: Option<Duration>,
}

/// Envoy `TcpProxy.TunnelingConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunneling {
    /// `hostname`: host and port that are asked for.
    pub hostname: Format,
    /// `post_path`, with `use_post`: the path of a POST in place of a CONNECT.
    pub post_path: Option<PathAndQuery>,
    /// `headers_to_add` to the request.
    pub headers_to_add: Vec<HeaderChange>,
    /// `propagate_response_headers` into the filter state.
    pub propagate_response_headers: bool,
    /// `propagate_response_trailers` into the filter state.
    pub propagate_response_trailers: bool,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq)]
pub enum TcpCluster {
    /// `cluster`
    Name(Name),
    /// `weighted_clusters`: the sum of the weights is not zero.
    Weighted(Vec<TcpWeighted>),
}

/// Envoy `TcpProxy.WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpWeighted {
    /// `name`
    pub name: Name,
    /// Its share of the sum of the weights.
    pub weight: u32,
    /// `metadata_match` over the proxy's; none means the proxy's.
    pub metadata_match: Option<Arc<MetadataMatch>>,
}

/// Envoy `core.v3.BackoffStrategy`: each wait is a random part of an interval that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// The first interval.
    pub base: Duration,
    /// The longest; ten times the first by default.
    pub max: Duration,
}

impl TcpCluster {
    /// The name of the cluster that `random` falls on, each as often as its weight says, and what is wanted there in
    /// place of the proxy's `metadata_match`.
    pub fn choose(&self, random: u64) -> (&str, Option<&MetadataMatch>) {
        match self {
            Self::Name(name) => (name, None),
            Self::Weighted(clusters) => {
                let total: u64 = clusters.iter().map(|it| u64::from(it.weight)).sum();
                let mut left = random.checked_rem(total).unwrap_or(0);
                let chosen = clusters.iter().find(|it| {
                    let taken = left < u64::from(it.weight);
                    left = left.saturating_sub(u64::from(it.weight));
                    taken
                });
                chosen.map_or(("", None), |it| (&it.name, it.metadata_match.as_deref()))
            }
        }
    }
}

impl Backoff {
    /// The wait before attempt number `attempt`, where 1 is the first that is repeated; `random` is 0 to 1.
    pub fn wait(&self, attempt: u32, random: f64) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_gets_its_weight() {
        let weighted = |(name, weight): (&str, u32)| TcpWeighted {
            name: name.into(),
            weight,
            metadata_match: None,
        };
        let cluster = TcpCluster::Weighted([("a", 1), ("b", 0), ("c", 3)].map(weighted).into());
        let chosen: Vec<&str> = (0..5).map(|random| cluster.choose(random).0).collect();
        assert_eq!(chosen, ["a", "c", "c", "c", "a"]);
        assert_eq!(TcpCluster::Name("only".into()).choose(7).0, "only");
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(3) };
        let waits: Vec<u64> = [1, 2, 3, 40, 99].map(|n| backoff.wait(n, 1.0).as_secs()).into();
        assert_eq!(waits, [1, 2, 3, 3, 3]);
        assert_eq!(backoff.wait(2, 0.5), Duration::from_secs(1));
    }
}
