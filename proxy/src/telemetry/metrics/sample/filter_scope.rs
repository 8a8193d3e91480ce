//! Whose statistics those of HTTP filters are.

use std::fmt;
use std::sync::Arc;

use super::{HTTP, sanitized};

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

    /// Which statistics they are.
    pub fn kind(&self) -> FilterStatistics {
        self.kind
    }

    /// The Prometheus name, without `envoy_`, and its labels.
    pub(super) fn family(&self) -> (&'static str, super::Labels<'_>) {
        let [first, second, _] = &self.parts;
        match self.kind {
            FilterStatistics::Fault => ("http.fault.", [Some((HTTP, first)), None]),
            FilterStatistics::ClusterFault => {
                let cluster = ("envoy_fault_downstream_cluster", &**second);
                ("http.fault.", [Some(cluster), Some((HTTP, first))])
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
        }
    }
}
