//! Whose statistics those of HTTP filters are.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Dotted, HTTP, sanitized};

const CLUSTER: &str = "envoy_cluster_name";

/// What stands before the names of one filter's statistics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterScope {
    kind: FilterStatistics,
    /// What it is counted by, in the order in which the name has it.
    parts: [Arc<str>; 3],
}

/// Which statistics they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterStatistics {
    /// `http.PREFIX.fault.`
    Fault,
    /// `http.PREFIX.fault.CLUSTER.`
    ClusterFault,
    /// `http.PREFIX.jwt_authn.OWN_PREFIX.`; an empty prefix of its own has no dot either.
    JwtAuthn,
    /// `http.MANAGER.ext_authz.[PREFIX.]`
    ExtAuthz,
    /// `ext_authz.PREFIX.`, of connections.
    NetworkAuthz,
    /// `cluster.NAME.ext_authz.[PREFIX.]`
    ClusterAuthz,
    /// `cluster.NAME.ratelimit.[PREFIX.]`
    ClusterRateLimit,
}

impl FilterScope {
    fn new<const N: usize>(kind: FilterStatistics, own: [&str; N]) -> Self {
        let none: Arc<str> = "".into();
        let mut parts = [Arc::clone(&none), Arc::clone(&none), none];
        for (part, own) in parts.iter_mut().zip(own) {
            *part = sanitized(own);
        }
        Self { kind, parts }
    }

    /// Of `fault` filters of connection managers with this stat prefix.
    pub fn fault(prefix: &str) -> Self {
        Self::new(FilterStatistics::Fault, [prefix])
    }

    /// Of the same, for requests of one downstream cluster.
    pub fn cluster_fault(prefix: &str, cluster: &str) -> Self {
        Self::new(FilterStatistics::ClusterFault, [prefix, cluster])
    }

    /// Of `jwt_authn` filters with a prefix of their own, which may be empty, of connection managers with this
    /// stat prefix.
    pub fn jwt_authn(prefix: &str, own: &str) -> Self {
        Self::new(FilterStatistics::JwtAuthn, [prefix, own])
    }

    /// Of `ext_authz` filters with this stat prefix, which may be empty, of connection managers with theirs.
    pub fn ext_authz(manager: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::ExtAuthz, [manager, prefix])
    }

    /// Of network filters `ext_authz` with this stat prefix.
    pub fn network_authz(prefix: &str) -> Self {
        Self::new(FilterStatistics::NetworkAuthz, [prefix])
    }

    /// Of what `ext_authz` filters with this stat prefix decide about requests for one cluster.
    pub fn cluster_authz(cluster: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::ClusterAuthz, [cluster, prefix])
    }

    /// Of what `ratelimit` filters with this stat prefix hear about requests for one cluster.
    pub fn cluster_rate_limit(cluster: &str, prefix: &str) -> Self {
        Self::new(FilterStatistics::ClusterRateLimit, [cluster, prefix])
    }

    /// Which statistics they are.
    pub fn kind(&self) -> FilterStatistics {
        self.kind
    }

    /// The Prometheus name, without `envoy_`, and its labels.
    pub(super) fn family(&self) -> (Cow<'static, str>, super::Labels<'_>) {
        let [first, second, _] = &self.parts;
        // Envoy makes no label of the second part of these.
        let dotted = |name: &str| format!("{name}{}", Dotted(second)).into();
        match self.kind {
            FilterStatistics::Fault => ("http.fault.".into(), [Some((HTTP, first)), None]),
            FilterStatistics::ClusterFault => {
                let cluster = ("envoy_fault_downstream_cluster", &**second);
                ("http.fault.".into(), [Some(cluster), Some((HTTP, first))])
            }
            FilterStatistics::JwtAuthn => {
                let name = match &**second {
                    "" => "http.jwt_authn.".into(),
                    own => format!("http.jwt_authn.{own}.").into(),
                };
                (name, [Some((HTTP, first)), None])
            }
            FilterStatistics::ExtAuthz => (dotted("http.ext_authz."), [Some((HTTP, first)), None]),
            FilterStatistics::NetworkAuthz => {
                ("ext_authz.".into(), [Some(("envoy_ext_authz_prefix", first)), None])
            }
            FilterStatistics::ClusterAuthz => {
                (dotted("cluster.ext_authz."), [Some((CLUSTER, first)), None])
            }
            FilterStatistics::ClusterRateLimit => {
                (dotted("cluster.ratelimit."), [Some((CLUSTER, first)), None])
            }
        }
    }
}

impl fmt::Display for FilterScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, _] = &self.parts;
        match self.kind {
            FilterStatistics::Fault => write!(f, "http.{first}.fault."),
            FilterStatistics::ClusterFault => write!(f, "http.{first}.fault.{second}."),
            FilterStatistics::JwtAuthn if second.is_empty() => write!(f, "http.{first}.jwt_authn."),
            FilterStatistics::JwtAuthn => write!(f, "http.{first}.jwt_authn.{second}."),
            FilterStatistics::ExtAuthz => {
                write!(f, "http.{first}.ext_authz.{}", Dotted(second))
            }
            FilterStatistics::NetworkAuthz => write!(f, "ext_authz.{first}."),
            FilterStatistics::ClusterAuthz => {
                write!(f, "cluster.{first}.ext_authz.{}", Dotted(second))
            }
            FilterStatistics::ClusterRateLimit => {
                write!(f, "cluster.{first}.ratelimit.{}", Dotted(second))
            }
        }
    }
}
