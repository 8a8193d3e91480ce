//! Slow start: a new endpoint gets a growing share of its weight until it is warm.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::cluster::SlowStart;

/// The share of its weight, at most 1, that an endpoint deserves at this `age`: `(age / window)^(1 / aggression)`,
/// and no less than the minimum. Envoy's formula, to the millisecond.
pub(super) fn warmth(config: &SlowStart, age: Duration) -> f64 {
    if age >= config.window {
        return 1.0;
    }
    let window = config.window.as_millis().max(1) as f64;
    let grown = age.as_millis().max(1) as f64 / window;
    let grown = if config.aggression == 1.0 { grown } else { grown.powf(1.0 / config.aggression) };
    grown.max(config.min_weight).min(1.0)
}

/// Since when an endpoint has been in good use. Read for every request while it is young.
#[derive(Debug)]
pub(super) struct Since(AtomicU64);

/// What moments are counted from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Since {
    /// Since now.
    pub(super) fn now() -> Self {
        Self(AtomicU64::new(millis_since_epoch()))
    }

    /// Begins anew: the endpoint has come back.
    pub(super) fn restart(&self) {
        self.0.store(millis_since_epoch(), Relaxed);
    }

    /// How long that is ago.
    pub(super) fn age(&self) -> Duration {
        // The epoch may be later than what a moment is counted back to.
        Duration::from_millis(millis_since_epoch().wrapping_sub(self.0.load(Relaxed)))
    }
}

#[cfg(test)]
impl Since {
    /// As if that were so long ago.
    pub(super) fn set_age(&self, age: Duration) {
        let age = u64::try_from(age.as_millis()).unwrap();
        self.0.store(millis_since_epoch().wrapping_sub(age), Relaxed);
    }
}

/// Milliseconds since a moment early in the process's life, or a little before it.
pub(super) fn millis_since_epoch() -> u64 {
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn config(aggression: f64, min_weight: f64) -> SlowStart {
        SlowStart { window: Duration::from_secs(60), aggression, min_weight }
    }

    fn at(config: &SlowStart, seconds: u64) -> f64 {
        warmth(config, Duration::from_secs(seconds))
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn it_grows_with_age_as_aggression_says() {
        let linear = config(1.0, 0.1);
        assert!(close(at(&linear, 0), 0.1) && close(at(&linear, 6), 0.1));
        assert!(close(at(&linear, 15), 0.25) && close(at(&linear, 30), 0.5));
        assert!(close(at(&linear, 60), 1.0) && close(at(&linear, 600), 1.0));
        let eager = config(2.0, 0.1);
        assert!(close(at(&eager, 15), 0.5), "the square root");
        let timid = config(0.5, 0.1);
        assert!(close(at(&timid, 30), 0.25), "the square");
        assert!(close(at(&config(1.0, 0.0), 0), 1.0 / 60_000.0), "never nothing");
        assert!(close(at(&config(1.0, 1.0), 0), 1.0));
    }

    #[test]
    fn an_age_can_begin_anew() {
        let since = Since::now();
        assert!(since.age() < Duration::from_secs(30));
        since.set_age(Duration::from_secs(60));
        assert!(since.age() >= Duration::from_secs(60));
        since.restart();
        assert!(since.age() < Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn older_is_never_colder(
            age in 0_u64..70_000,
            more in 0_u64..70_000,
            aggression in 0.01_f64..10.0,
            min_weight in 0.0_f64..1.0,
        ) {
            let config = config(aggression, min_weight);
            let warmth = |age| warmth(&config, Duration::from_millis(age));
            prop_assert!(warmth(age) <= warmth(age + more));
            prop_assert!(warmth(age) > 0.0 && warmth(age) <= 1.0);
            prop_assert!(warmth(age) >= config.min_weight);
        }
    }
}
