//! What is counted of access logs that services take.

use super::super::cell::{Cell, SharedCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// `access_logs.open_telemetry_access_log.[PREFIX.]*`
    AccessLogStats {
        /// Records that a collector has taken.
        logs_written: SharedCounter = "logs_written",
        /// Records that were dropped, as too many were waiting or no collector took them.
        logs_dropped: SharedCounter = "logs_dropped",
    }
}
