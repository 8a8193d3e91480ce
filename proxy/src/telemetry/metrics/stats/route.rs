//! What is counted of requests that are forwarded by one route, or belong to one virtual cluster.

use super::super::cell::{Cell, Counter, Histogram, StatusCodes};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `vhost.HOST.route.PREFIX.*` or `vhost.HOST.vcluster.NAME.*`.
    RouteStats {
        /// Requests sent, retries included.
        upstream_rq_total: Counter = "upstream_rq_total",
        /// Responses by status; of several attempts only the last one's.
        responses: StatusCodes = "upstream_rq",
        /// Time from the end of the request to the end of the response, in milliseconds.
        upstream_rq_time: Histogram = "upstream_rq_time",
        /// Requests that took longer than the route's timeout.
        upstream_rq_timeout: Counter = "upstream_rq_timeout",
        /// Retries.
        upstream_rq_retry: Counter = "upstream_rq_retry",
        /// Requests that failed after the last allowed retry.
        upstream_rq_retry_limit_exceeded: Counter = "upstream_rq_retry_limit_exceeded",
        /// Retries refused by the retry circuit breaker or budget.
        upstream_rq_retry_overflow: Counter = "upstream_rq_retry_overflow",
        /// Requests saved by a retry.
        upstream_rq_retry_success: Counter = "upstream_rq_retry_success",
    }
}

impl RouteStats {
    /// Counts a response: `upstream_rq_completed`, `_Nxx` and `_NNN`.
    pub fn response(&self, status: u16) {
        self.responses.record(status);
    }
}
