//! A bucket of tokens that fills evenly, taken from by all workers without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::local_rate_limit::TokenBucket as Config;

/// Less than this is lost to rounding.
const ROUNDING: f64 = 1e-9;

/// See the module. One number says it all: when the bucket was, or would have been, empty.
#[derive(Debug)]
pub struct TokenBucket {
    config: Config,
    begin: Instant,
    /// In seconds after `begin`, as the bits of a float.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(config: Config, now: Instant) -> Self {
        let bucket = Self { config, begin: now, empty_at: AtomicU64::new(0) };
        let empty_at = -f64::from(config.max_tokens) / bucket.rate();
        bucket.empty_at.store(empty_at.to_bits(), Relaxed);
        bucket
    }

    /// As configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokens per second.
    pub fn rate(&self) -> f64 {
        f64::from(self.config.tokens_per_fill) / self.config.fill_interval.as_secs_f64()
    }

    /// Takes so many tokens, if they are there. None at all cannot be taken, as in Envoy.
    pub fn take(&self, tokens: u64, now: Instant) -> bool {
        let tokens = tokens as f64;
        let taken = self.empty_at.fetch_update(Relaxed, Relaxed, |empty_at| {
            let there = self.tokens(empty_at, now);
            let left = there - tokens;
            (left >= -ROUNDING).then(|| (self.seconds(now) - left / self.rate()).to_bits())
        });
        taken.is_ok() && tokens > 0.0
    }

    /// Whole tokens that are there.
    pub fn remaining(&self, now: Instant) -> u64 {
        (self.tokens(self.empty_at.load(Relaxed), now) + ROUNDING) as u64
    }

    /// How long until there is a token; no time at all if there is one.
    pub fn until_next(&self, now: Instant) -> Duration {
        let missing = 1.0 - self.tokens(self.empty_at.load(Relaxed), now);
        if missing <= ROUNDING {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.rate()).unwrap_or(Duration::MAX)
    }

    fn tokens(&self, empty_at: u64, now: Instant) -> f64 {
        let tokens = (self.seconds(now) - f64::from_bits(empty_at)) * self.rate();
        tokens.min(self.config.max_tokens.into())
    }

    fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.begin).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(max_tokens: u32, tokens_per_fill: u32, seconds: u64, now: Instant) -> TokenBucket {
        let fill_interval = Duration::from_secs(seconds);
        TokenBucket::new(Config { max_tokens, tokens_per_fill, fill_interval }, now)
    }

    #[test]
    fn what_is_there_can_be_taken_and_comes_back_evenly() {
        let now = Instant::now();
        let bucket = bucket(4, 4, 60, now);
        for left in [3, 2, 1, 0] {
            assert!(bucket.take(1, now));
            assert_eq!(bucket.remaining(now), left);
        }
        assert!(!bucket.take(1, now));
        assert_eq!(bucket.until_next(now).as_secs_f64().round(), 15.0);
        let later = now + Duration::from_secs(15);
        assert_eq!((bucket.remaining(later), bucket.until_next(later)), (1, Duration::ZERO));
        assert!(bucket.take(1, later) && !bucket.take(1, later));
        let much_later = now + Duration::from_secs(100_000);
        assert_eq!(bucket.remaining(much_later), 4);
        assert!(bucket.take(4, much_later) && !bucket.take(1, much_later));
    }

    #[test]
    fn nothing_cannot_be_taken() {
        let now = Instant::now();
        let bucket = bucket(1, 1, 1, now);
        assert!(!bucket.take(0, now) && !bucket.take(2, now));
        assert_eq!(bucket.remaining(now), 1);
    }

    proptest! {
        #[test]
        fn no_more_is_taken_than_was_put_in(
            max in 1_u32..1000,
            fill in 1_u32..1000,
            seconds in 1_u64..1000,
            takes in prop::collection::vec((0_u64..5_000, 1_u64..20), 1..200),
        ) {
            let begin = Instant::now();
            let bucket = bucket(max, fill, seconds, begin);
            let (mut now, mut taken) = (begin, 0);
            for (pause, tokens) in takes {
                now += Duration::from_millis(pause);
                taken += if bucket.take(tokens, now) { tokens } else { 0 };
                let put_in = f64::from(max) + bucket.rate() * (now - begin).as_secs_f64();
                prop_assert!(taken as f64 <= put_in + 1e-3, "{} {}", taken, put_in);
            }
        }
    }
}
