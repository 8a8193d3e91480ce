//! When a name is looked up again: after its time to live or a fixed time, and ever later while lookups fail.

use std::time::Duration;

use fastrand::Rng;

use crate::config::dns::Refresh;

/// Shortest time between two lookups of one name, whatever chance says.
const SHORTEST: Duration = Duration::from_millis(1);

/// The times of one name.
#[derive(Debug)]
pub struct Schedule {
    refresh: Refresh,
    /// The interval of the next failure, if failures back off.
    interval: Option<Duration>,
}

impl Schedule {
    /// The times as `refresh` says.
    pub fn new(refresh: Refresh) -> Self {
        Self { refresh, interval: refresh.failure.map(|failure| failure.base) }
    }

    /// How long to wait after an answer that may be used for `ttl`; zero if it does not say.
    pub fn after_answer(&mut self, ttl: Duration, random: &mut Rng) -> Duration {
        let after_rate = self.after_nothing(random);
        let Refresh { respect_ttl, min, jitter, .. } = self.refresh;
        let ttl = ttl.max(min);
        if !respect_ttl || ttl.is_zero() {
            return after_rate;
        }
        ttl.saturating_add(below(jitter, random)).max(SHORTEST)
    }

    /// How long to wait after an answer that there is nothing.
    pub fn after_nothing(&mut self, random: &mut Rng) -> Duration {
        let Refresh { rate, jitter, failure, .. } = self.refresh;
        self.interval = failure.map(|failure| failure.base);
        rate.saturating_add(below(jitter, random)).max(SHORTEST)
    }

    /// How long to wait after a failure.
    pub fn after_failure(&mut self, random: &mut Rng) -> Duration {
        let (Some(failure), Some(interval)) = (self.refresh.failure, self.interval) else {
            return self.refresh.rate;
        };
        self.interval = Some(interval.saturating_mul(2).min(failure.max));
        below(interval, random).max(SHORTEST)
    }
}

/// A random time below `limit`, to the millisecond.
fn below(limit: Duration, random: &mut Rng) -> Duration {
    let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    if limit == 0 { Duration::ZERO } else { Duration::from_millis(random.u64(0..limit)) }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::{prop_assert, proptest};

    use super::*;
    use crate::config::dns::BackOff;

    const RATE: Duration = Duration::from_secs(5);

    fn refresh() -> Refresh {
        Refresh {
            rate: RATE,
            respect_ttl: false,
            min: Duration::ZERO,
            jitter: Duration::ZERO,
            failure: None,
        }
    }

    #[test]
    fn a_time_to_live_counts_only_where_it_is_respected() {
        let mut random = Rng::with_seed(1);
        let ttl = Duration::from_secs(60);
        assert_eq!(Schedule::new(refresh()).after_answer(ttl, &mut random), RATE);
        let mut respecting = Schedule::new(Refresh { respect_ttl: true, ..refresh() });
        assert_eq!(respecting.after_answer(ttl, &mut random), ttl);
        assert_eq!(respecting.after_answer(Duration::ZERO, &mut random), RATE);
        let min = Duration::from_secs(90);
        let mut bounded = Schedule::new(Refresh { respect_ttl: true, min, ..refresh() });
        assert_eq!(bounded.after_answer(ttl, &mut random), min);
    }

    #[test]
    fn without_back_off_a_failure_waits_as_an_answer_does() {
        let mut schedule = Schedule::new(refresh());
        assert_eq!(schedule.after_failure(&mut Rng::with_seed(1)), RATE);
    }

    proptest! {
        #[test]
        fn failures_back_off_until_an_answer(
            seed: u64, base in 2_u64..500, longer in 0_u64..5_000, failures in 1_u32..12,
        ) {
            let (base, max) = (Duration::from_millis(base), Duration::from_millis(base + longer));
            let failure = Some(BackOff { base, max });
            let mut schedule = Schedule::new(Refresh { failure, ..refresh() });
            let mut random = Rng::with_seed(seed);
            for nth in 0..failures {
                let wait = schedule.after_failure(&mut random);
                prop_assert!(wait < (base * 2_u32.pow(nth)).min(max) || wait == SHORTEST);
            }
            schedule.after_answer(Duration::ZERO, &mut random);
            prop_assert!(schedule.after_failure(&mut random) < base);
        }

        #[test]
        fn jitter_only_adds(seed: u64, jitter in 0_u64..5_000) {
            let jitter = Duration::from_millis(jitter);
            let mut schedule = Schedule::new(Refresh { jitter, ..refresh() });
            let wait = schedule.after_answer(Duration::ZERO, &mut Rng::with_seed(seed));
            prop_assert!(wait >= RATE && wait <= RATE + jitter);
        }
    }
}
