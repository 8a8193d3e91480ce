//! The buckets of `local_ratelimit` network filters: their own, and those that filters of any chain share.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::config::listener::{self, NetworkFilter};
use crate::config::local_rate_limit::ConnectionRate;
use crate::overload::TokenBucket;

/// The buckets that have a `share_key`.
#[derive(Debug, Default, Clone)]
pub(super) struct Rates(Vec<(Arc<ConnectionRate>, Weak<TokenBucket>)>);

impl Rates {
    /// The limits of a chain; one that did not change goes on with the tokens it has.
    pub(super) fn of(
        &mut self,
        config: &listener::FilterChain,
        old: &[(Arc<ConnectionRate>, Arc<TokenBucket>)],
    ) -> Vec<(Arc<ConnectionRate>, Arc<TokenBucket>)> {
        let rates = config.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::ConnectionRate(rate) if rate.enabled => Some(rate),
            _ => None,
        });
        let bucket = |(index, rate): (usize, &Arc<ConnectionRate>)| {
            let old = old.get(index).filter(|(old, _)| old == rate);
            let bucket = old.map(|(_, bucket)| Arc::clone(bucket));
            (Arc::clone(rate), bucket.unwrap_or_else(|| self.bucket(rate)))
        };
        rates.enumerate().map(bucket).collect()
    }

    /// The bucket that others with the same key and filling use, or a new one.
    fn bucket(&mut self, rate: &Arc<ConnectionRate>) -> Arc<TokenBucket> {
        self.0.retain(|(_, bucket)| bucket.strong_count() > 0);
        let is_same = |known: &ConnectionRate| {
            !rate.share_key.is_empty()
                && (&known.share_key, known.bucket) == (&rate.share_key, rate.bucket)
        };
        let known = self.0.iter().find(|(known, _)| is_same(known));
        if let Some(bucket) = known.and_then(|(_, bucket)| bucket.upgrade()) {
            return bucket;
        }
        let bucket = Arc::new(TokenBucket::new(rate.bucket, Instant::now()));
        self.0.push((Arc::clone(rate), Arc::downgrade(&bucket)));
        bucket
    }
}
