//! What is counted of connection limits with one stat prefix.

use super::super::cell::{Cell, Counter, Gauge};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `connection_limit.PREFIX.*`.
    ConnectionLimitStats {
        /// Connections open now, those included that are about to be closed for the limit.
        active_connections: Gauge = "active_connections",
        /// Connections closed for the limit.
        limited_connections: Counter = "limited_connections",
    }
}
