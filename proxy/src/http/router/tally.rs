//! What requests come to, counted for their route and their virtual cluster.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::Plan;
use crate::config::format::millis;
use crate::config::route::OTHER_REQUESTS;
use crate::telemetry::metrics::RouteStats;

/// Where one request is counted, besides its cluster: mostly nowhere.
#[derive(Debug, Clone, Default)]
pub struct Tally(SmallVec<[Arc<RouteStats>; 2]>);

impl Tally {
    /// Where the request of `plan` is counted.
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        let Some(host) = plan.table.virtual_host(plan.found) else { return Self::default() };
        let stats = &plan.stream.connection.worker.filter_stats;
        let mut all = SmallVec::new();
        if let Some(prefix) = &plan.route.stat_prefix {
            all.push(stats.route(&host.name, prefix));
        }
        if !host.virtual_clusters.is_empty() {
            let name = plan.table.virtual_cluster(plan.found, &plan.head.view());
            all.push(stats.virtual_cluster(&host.name, name.unwrap_or(&OTHER_REQUESTS)));
        }
        Self(all)
    }

    /// An attempt has a connection.
    pub(super) fn sent(&self) {
        self.each(|stats| stats.upstream_rq_total.inc());
    }

    /// This is what the client gets.
    pub(super) fn answered(&self, status: u16) {
        self.each(|stats| stats.response(status));
    }

    /// The response has come whole to a request that had arrived at `arrived`.
    pub(super) fn completed(&self, arrived: Instant) {
        self.each(|stats| stats.upstream_rq_time.record(millis(arrived.elapsed())));
    }

    /// The route's timeout is over.
    pub(super) fn timed_out(&self) {
        self.each(|stats| stats.upstream_rq_timeout.inc());
    }

    /// There is to be another attempt.
    pub(super) fn retried(&self) {
        self.each(|stats| stats.upstream_rq_retry.inc());
    }

    /// A circuit breaker is against another attempt.
    pub(super) fn retry_overflowed(&self) {
        self.each(|stats| stats.upstream_rq_retry_overflow.inc());
    }

    /// The last attempt that was allowed has failed.
    pub(super) fn retries_exceeded(&self) {
        self.each(|stats| stats.upstream_rq_retry_limit_exceeded.inc());
    }

    /// Another attempt has saved the request.
    pub(super) fn retry_succeeded(&self) {
        self.each(|stats| stats.upstream_rq_retry_success.inc());
    }

    fn each(&self, count: impl Fn(&RouteStats)) {
        self.0.iter().for_each(|stats| count(stats));
    }
}
