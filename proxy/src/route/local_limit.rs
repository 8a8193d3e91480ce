//! What this process counts requests against by itself: a bucket for all of them, and buckets for some descriptions.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::rate_limit::Descriptor;
use crate::config::HashMap;
use crate::config::local_rate_limit::{DescriptorLimit, LocalRateLimit};
use crate::overload::TokenBucket;

/// The buckets of one [`LocalRateLimit`].
#[derive(Debug)]
pub struct LocalLimiter {
    bucket: Option<Arc<TokenBucket>>,
    descriptors: Vec<Described>,
    always_takes_from_bucket: bool,
}

/// The buckets of requests with some description.
#[derive(Debug)]
struct Described {
    limit: DescriptorLimit,
    buckets: Buckets,
}

#[derive(Debug)]
enum Buckets {
    One(Arc<TokenBucket>),
    Many(Mutex<Recent>),
}

/// One bucket for each value met, up to a limit: beyond it the one that was not asked for the longest is forgotten.
#[derive(Debug)]
struct Recent {
    most: usize,
    asked: u64,
    all: HashMap<Values, Met>,
}

type Values = Box<[Box<str>]>;

/// A value's bucket, and when it was last asked for.
#[derive(Debug)]
struct Met {
    bucket: Arc<TokenBucket>,
    asked: u64,
}

/// Whether a request may pass.
#[derive(Debug)]
pub struct Verdict {
    /// Whether it may.
    pub allowed: bool,
    /// The bucket that it is told of, if there is any.
    pub bucket: Option<Arc<TokenBucket>>,
}

impl LocalLimiter {
    /// Full buckets.
    pub fn new(config: &LocalRateLimit, now: Instant) -> Self {
        let described = |limit: &DescriptorLimit| {
            let is_many = limit.entries.iter().any(|(_, value)| value.is_none());
            let most = config.max_dynamic_descriptors;
            let buckets = match is_many {
                true => {
                    Buckets::Many(Mutex::new(Recent { most, asked: 0, all: HashMap::default() }))
                }
                false => Buckets::One(Arc::new(TokenBucket::new(limit.bucket, now))),
            };
            Described { limit: limit.clone(), buckets }
        };
        let mut descriptors: Vec<_> = config.descriptors.iter().map(described).collect();
        // Exact values before those that stand for many.
        descriptors.sort_by_key(|it| matches!(it.buckets, Buckets::Many(_)));
        Self {
            bucket: config.bucket.map(|bucket| Arc::new(TokenBucket::new(bucket, now))),
            descriptors,
            always_takes_from_bucket: config.always_takes_from_bucket,
        }
    }

    /// Takes tokens for a request of these descriptions: first from the buckets that fill most slowly.
    pub fn take(&self, descriptors: &[Descriptor<'_>], now: Instant) -> Verdict {
        let mut matched = Vec::new();
        for descriptor in descriptors {
            let found = self.descriptors.iter().find(|it| it.matches(descriptor));
            let bucket = found.map(|found| found.bucket(descriptor, now));
            matched.extend(bucket.map(|bucket| (bucket, descriptor.hits.unwrap_or(1))));
        }
        matched.sort_by(|(a, _), (b, _)| a.rate().total_cmp(&b.rate()));
        if let Some((refusing, _)) = matched.iter().find(|(bucket, hits)| !bucket.take(*hits, now))
        {
            return Verdict { allowed: false, bucket: Some(Arc::clone(refusing)) };
        }
        let first = matched.into_iter().next().map(|(bucket, _)| bucket);
        let own = self.bucket.as_ref();
        match own.filter(|_| first.is_none() || self.always_takes_from_bucket) {
            Some(own) if !own.take(1, now) => {
                Verdict { allowed: false, bucket: Some(Arc::clone(own)) }
            }
            own => Verdict { allowed: true, bucket: first.or_else(|| own.map(Arc::clone)) },
        }
    }
}

impl Described {
    fn matches(&self, descriptor: &Descriptor<'_>) -> bool {
        self.limit.entries.len() == descriptor.entries.len()
            && self.limit.entries.iter().zip(&descriptor.entries).all(|((key, value), entry)| {
                **key == *entry.key && value.as_ref().is_none_or(|value| **value == *entry.value)
            })
    }

    fn bucket(&self, descriptor: &Descriptor<'_>, now: Instant) -> Arc<TokenBucket> {
        let recent = match &self.buckets {
            Buckets::One(bucket) => return Arc::clone(bucket),
            Buckets::Many(recent) => recent,
        };
        let values = descriptor.entries.iter().map(|entry| (*entry.value).into()).collect();
        recent.lock().get(values, || Arc::new(TokenBucket::new(self.limit.bucket, now)))
    }
}

impl Recent {
    fn get(&mut self, values: Values, make: impl FnOnce() -> Arc<TokenBucket>) -> Arc<TokenBucket> {
        self.asked += 1;
        if let Some(met) = self.all.get_mut(&values) {
            met.asked = self.asked;
            return Arc::clone(&met.bucket);
        }
        if self.all.len() >= self.most {
            let oldest = self.all.iter().min_by_key(|(_, met)| met.asked);
            if let Some(oldest) = oldest.map(|(values, _)| values.clone()) {
                self.all.remove(&oldest);
            }
        }
        let bucket = make();
        self.all.insert(values, Met { bucket: Arc::clone(&bucket), asked: self.asked });
        bucket
    }
}

/// The buckets of all limits that are configured, shared by all workers. Which they are goes by the identity of the
/// configuration, which outlives every update that leaves it as it is.
#[derive(Debug, Default)]
pub struct LocalLimits(Mutex<Vec<(std::sync::Weak<LocalRateLimit>, Arc<LocalLimiter>)>>);

impl LocalLimits {
    /// The buckets of `config`; new ones are full.
    pub fn get(&self, config: &Arc<LocalRateLimit>, now: Instant) -> Arc<LocalLimiter> {
        let mut all = self.0.lock();
        all.retain(|(config, _)| config.strong_count() > 0);
        let known = all.iter().find(|(known, _)| known.as_ptr() == Arc::as_ptr(config));
        if let Some((_, limiter)) = known {
            return Arc::clone(limiter);
        }
        let limiter = Arc::new(LocalLimiter::new(config, now));
        all.push((Arc::downgrade(config), Arc::clone(&limiter)));
        limiter
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::config::local_rate_limit::TokenBucket as Bucket;
    use crate::config::matcher::Fraction;
    use crate::config::rate_limit::VirtualHostLimits;
    use crate::route::rate_limit::Entry;

    fn bucket(max_tokens: u32, seconds: u64) -> Bucket {
        Bucket { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(seconds) }
    }

    fn config(default: u32, descriptors: &[(&str, Option<&str>, Bucket)]) -> LocalRateLimit {
        let all = Fraction { numerator: 100, denominator: 100 };
        let descriptor = |(key, value, bucket): &(&str, Option<&str>, Bucket)| DescriptorLimit {
            entries: vec![((*key).into(), value.map(Into::into))],
            bucket: *bucket,
        };
        LocalRateLimit {
            stat_prefix: "p".into(),
            status: StatusCode::TOO_MANY_REQUESTS,
            bucket: Some(bucket(default, 1000)),
            enabled: all,
            enforced: all,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            descriptors: descriptors.iter().map(descriptor).collect(),
            stage: 0,
            per_connection: false,
            tells_clients: false,
            host_limits: VirtualHostLimits::Override,
            always_takes_from_bucket: true,
            resource_exhausted: false,
            rate_limits: Vec::new(),
            max_dynamic_descriptors: 2,
        }
    }

    fn descriptor(key: &'static str, value: &'static str) -> Descriptor<'static> {
        let entry = Entry { key, value: value.into() };
        Descriptor { entries: [entry].into_iter().collect(), ..Descriptor::default() }
    }

    /// How many requests of these descriptions pass, up to ten.
    fn passing(limiter: &LocalLimiter, descriptors: &[Descriptor<'_>], now: Instant) -> usize {
        (0..10).take_while(|_| limiter.take(descriptors, now).allowed).count()
    }

    #[test]
    fn descriptions_have_buckets_of_their_own() {
        let now = Instant::now();
        let mut config = config(5, &[("a", Some("1"), bucket(2, 9)), ("a", None, bucket(3, 9))]);
        config.always_takes_from_bucket = false;
        let limiter = LocalLimiter::new(&config, now);
        assert_eq!(passing(&limiter, &[descriptor("a", "1")], now), 2);
        assert_eq!(passing(&limiter, &[descriptor("a", "2")], now), 3);
        assert_eq!(passing(&limiter, &[descriptor("a", "3")], now), 3);
        assert_eq!(passing(&limiter, &[descriptor("b", "1")], now), 5);
        assert_eq!(passing(&limiter, &[], now), 0);
    }

    #[test]
    fn the_slowest_bucket_is_asked_first() {
        let now = Instant::now();
        let limits = [("fast", Some(""), bucket(9, 1)), ("slow", Some(""), bucket(1, 100))];
        let limiter = LocalLimiter::new(&config(9, &limits), now);
        let both = [descriptor("fast", ""), descriptor("slow", "")];
        assert_eq!(passing(&limiter, &both, now), 1);
        let verdict = limiter.take(&both, now);
        assert_eq!(verdict.bucket.unwrap().config().max_tokens, 1);
        let fast = limiter.take(&both[..1], now).bucket.unwrap();
        assert_eq!(fast.remaining(now), 7, "nothing is taken after a refusal");
    }

    #[test]
    fn the_value_that_was_not_met_for_the_longest_is_forgotten() {
        let now = Instant::now();
        let limiter = LocalLimiter::new(&config(100, &[("a", None, bucket(1, 100))]), now);
        let passes = |value| limiter.take(&[descriptor("a", value)], now).allowed;
        assert!(passes("1") && passes("2") && !passes("1"));
        assert!(passes("3"), "which takes the place of 2");
        assert!(!passes("1") && passes("2"));
    }

    #[test]
    fn buckets_go_by_the_identity_of_their_configuration() {
        let now = Instant::now();
        let limits = LocalLimits::default();
        let (a, b) = (Arc::new(config(1, &[])), Arc::new(config(1, &[])));
        assert!(limits.get(&a, now).take(&[], now).allowed);
        assert!(!limits.get(&a, now).take(&[], now).allowed);
        assert!(limits.get(&b, now).take(&[], now).allowed);
        drop(a);
        limits.get(&b, now);
        assert_eq!(limits.0.lock().len(), 1);
    }
}
