//! The `connection_limit` filter: connections of one chain over all workers, and what becomes of those beyond.

use std::sync::Arc;

use crate::snapshot::{ConnectionLimiter, FilterChain, OneConnection};
use crate::telemetry::metrics::ConnectionLimitStats;
use crate::worker::Worker;

/// A connection's places within the limits of its chain, given back when it ends.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Place>);

/// A connection that one filter counts.
#[derive(Debug)]
struct Place {
    stats: Arc<ConnectionLimitStats>,
    _within: Option<OneConnection>,
}

impl Places {
    /// Takes a place at every limit of `chain`; none if one is reached, after its `delay`.
    pub(super) async fn take(worker: &Worker, chain: &FilterChain) -> Option<Self> {
        let mut places = Self::default();
        for limiter in &chain.limiters {
            let config = limiter.config();
            let stats = worker.connection_limit_stats(&config.stat_prefix);
            let within = ConnectionLimiter::try_take(limiter);
            let is_within = within.is_some();
            stats.active_connections.inc();
            if !is_within {
                stats.limited_connections.inc();
            }
            places.0.push(Place { stats, _within: within });
            if !is_within {
                if let Some(delay) = config.delay {
                    tokio::time::sleep(delay).await;
                }
                return None;
            }
        }
        Some(places)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.active_connections.dec();
    }
}
