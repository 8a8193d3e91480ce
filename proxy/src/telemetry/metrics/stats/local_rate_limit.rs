//! What is counted of limits that this process counts by itself.

use super::super::cell::{Cell, Counter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `PREFIX.http_local_rate_limit.*`.
    LocalRateLimitStats {
        /// Requests that were counted against the limit.
        enabled: Counter = "enabled",
        /// Requests that were refused.
        enforced: Counter = "enforced",
        /// Requests within the limit.
        ok: Counter = "ok",
        /// Requests beyond the limit, refused or not.
        rate_limited: Counter = "rate_limited",
    }
}

statistics! {
    /// One worker's share of `local_rate_limit.PREFIX.*`.
    ConnectionRateStats {
        /// Connections that were closed because they were beyond the limit.
        rate_limited: Counter = "rate_limited",
    }
}
