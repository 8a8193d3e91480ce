//! The `local_ratelimit` network filter: connections beyond a rate are closed at once.

use std::time::Instant;

use crate::snapshot::FilterChain;
use crate::worker::Worker;

/// Takes a token for a new connection from each limit of `chain`; false if there is one that has none.
pub(super) fn admits(worker: &Worker, chain: &FilterChain) -> bool {
    let now = Instant::now();
    chain.rates.iter().all(|(config, bucket)| {
        let admits = bucket.take(1, now);
        if !admits {
            worker.filter_stats.connection_rate(&config.stat_prefix).rate_limited.inc();
        }
        admits
    })
}
