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

statistics! {
    /// All collectors that are an `AccessLogService`.
    GrpcAccessLogStats {
        /// Entries about requests that were not dropped before they were to be sent.
        logs_written: SharedCounter = "access_logs.grpc_access_log.logs_written",
        /// Entries that were dropped, as too many were waiting or no collector took them.
        logs_dropped: SharedCounter = "access_logs.grpc_access_log.logs_dropped",
        /// Entries that were handed to a stream.
        grpc_entries_flushed: SharedCounter = "access_logs.grpc_access_log.grpc_entries_flushed",
        /// Entries that no stream took.
        grpc_entries_flush_failed: SharedCounter = "access_logs.grpc_access_log.grpc_entries_flush_failed",
    }
}
