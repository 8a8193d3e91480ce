//! What is counted of gRPC calls to one cluster, for one method or for all others.

use super::super::cell::{Cell, Histogram, SparseCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `cluster.NAME.grpc.[SERVICE.METHOD.]*`.
    GrpcStats {
        /// Calls that ended with OK.
        status_0: SparseCounter = "0",
        /// Calls that ended with CANCELLED.
        status_1: SparseCounter = "1",
        /// Calls that ended with UNKNOWN.
        status_2: SparseCounter = "2",
        /// Calls that ended with INVALID_ARGUMENT.
        status_3: SparseCounter = "3",
        /// Calls that ended with DEADLINE_EXCEEDED.
        status_4: SparseCounter = "4",
        /// Calls that ended with NOT_FOUND.
        status_5: SparseCounter = "5",
        /// Calls that ended with ALREADY_EXISTS.
        status_6: SparseCounter = "6",
        /// Calls that ended with PERMISSION_DENIED.
        status_7: SparseCounter = "7",
        /// Calls that ended with RESOURCE_EXHAUSTED.
        status_8: SparseCounter = "8",
        /// Calls that ended with FAILED_PRECONDITION.
        status_9: SparseCounter = "9",
        /// Calls that ended with ABORTED.
        status_10: SparseCounter = "10",
        /// Calls that ended with OUT_OF_RANGE.
        status_11: SparseCounter = "11",
        /// Calls that ended with UNIMPLEMENTED.
        status_12: SparseCounter = "12",
        /// Calls that ended with INTERNAL.
        status_13: SparseCounter = "13",
        /// Calls that ended with UNAVAILABLE.
        status_14: SparseCounter = "14",
        /// Calls that ended with DATA_LOSS.
        status_15: SparseCounter = "15",
        /// Calls that ended with UNAUTHENTICATED.
        status_16: SparseCounter = "16",
        /// Calls that ended with OK.
        success: SparseCounter = "success",
        /// Calls that ended with another status.
        failure: SparseCounter = "failure",
        /// Calls that ended with any status.
        total: SparseCounter = "total",
        /// Messages from clients.
        request_message_count: SparseCounter = "request_message_count",
        /// Messages to clients.
        response_message_count: SparseCounter = "response_message_count",
    }
}

impl GrpcStats {
    /// A call ended with this status; none if it is no number.
    pub fn ended(&self, status: Option<u32>) {
        let by_status = match status {
            Some(0) => Some(&self.status_0),
            Some(1) => Some(&self.status_1),
            Some(2) => Some(&self.status_2),
            Some(3) => Some(&self.status_3),
            Some(4) => Some(&self.status_4),
            Some(5) => Some(&self.status_5),
            Some(6) => Some(&self.status_6),
            Some(7) => Some(&self.status_7),
            Some(8) => Some(&self.status_8),
            Some(9) => Some(&self.status_9),
            Some(10) => Some(&self.status_10),
            Some(11) => Some(&self.status_11),
            Some(12) => Some(&self.status_12),
            Some(13) => Some(&self.status_13),
            Some(14) => Some(&self.status_14),
            Some(15) => Some(&self.status_15),
            Some(16) => Some(&self.status_16),
            _ => None,
        };
        if let Some(counter) = by_status {
            counter.inc();
        }
        if status == Some(0) {
            self.success.inc();
        } else {
            self.failure.inc();
        }
        self.total.inc();
    }
}

statistics! {
    /// One worker's share of the times of the same calls.
    GrpcUpstreamStats {
        /// Milliseconds until they had ended.
        upstream_rq_time: Histogram = "upstream_rq_time",
    }
}
