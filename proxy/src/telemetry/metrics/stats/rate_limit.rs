//! What is counted of rate limits that a service counts.

use super::super::cell::{Cell, SparseCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `cluster.NAME.ratelimit.[PREFIX.]*`.
    ClusterRateLimitStats {
        /// Requests for the cluster within their limits.
        ok: SparseCounter = "ok",
        /// Requests for the cluster beyond them.
        over_limit: SparseCounter = "over_limit",
        /// Requests for the cluster that the service could not be asked about.
        error: SparseCounter = "error",
        /// Requests for the cluster that went on although the service could not be asked.
        failure_mode_allowed: SparseCounter = "failure_mode_allowed",
    }
}
