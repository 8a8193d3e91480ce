//! How long an endpoint takes to answer: an average that takes a peak in at once and forgets it slowly, shared
//! by all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::slow_start::millis_since_epoch;

/// An average and when it was last brought up to date, in one word.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

/// The average as it was at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Average {
    /// In milliseconds, larger than 0.
    millis: f32,
    /// In milliseconds of a clock that wraps around.
    at: u32,
}

impl Latency {
    /// Takes in that an answer took `taken`. What is `decay` old counts for a third.
    pub(super) fn record(&self, taken: Duration, decay: Duration) {
        let now = now();
        let update = |word| Some(Average::after(Average::of(word), taken, now, decay).word());
        // The closure always has a value, so this always succeeds.
        let _ = self.0.fetch_update(Relaxed, Relaxed, update);
    }

    /// What to expect now, in milliseconds; none if nothing was ever measured.
    pub(super) fn read(&self, decay: Duration) -> Option<f64> {
        Average::of(self.0.load(Relaxed)).map(|average| average.faded(now(), decay))
    }
}

/// Wraps around after seven weeks, which makes at worst something very old look recent.
#[expect(clippy::cast_possible_truncation, reason = "only differences count")]
fn now() -> u32 {
    millis_since_epoch() as u32
}

impl Average {
    /// A measured time is larger than 0, so that 0 stands for nothing.
    fn of(word: u64) -> Option<Self> {
        let (millis, at) = ((word >> 32) as u32, (word & u64::from(u32::MAX)) as u32);
        (millis != 0).then(|| Self { millis: f32::from_bits(millis), at })
    }

    fn word(self) -> u64 {
        u64::from(self.millis.to_bits()) << 32 | u64::from(self.at)
    }

    /// `before`, and one more measurement.
    fn after(before: Option<Self>, taken: Duration, now: u32, decay: Duration) -> Self {
        let taken = taken.as_secs_f64().max(1e-6) * 1000.0;
        let millis = match before {
            Some(before) if taken < f64::from(before.millis) => {
                let kept = before.kept(now, decay);
                f64::from(before.millis) * kept + taken * (1.0 - kept)
            }
            // A peak, or the first.
            _ => taken,
        };
        Self { millis: millis as f32, at: now }
    }

    /// What is left of it by now. An endpoint that was slow and is left alone for it gets another chance.
    fn faded(self, now: u32, decay: Duration) -> f64 {
        f64::from(self.millis) * self.kept(now, decay)
    }

    fn kept(self, now: u32, decay: Duration) -> f64 {
        let age = f64::from(now.wrapping_sub(self.at));
        (-age / (decay.as_secs_f64() * 1000.0)).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn average(samples: &[(u32, u64)]) -> Average {
        let add = |before, (at, millis): &(u32, u64)| {
            Some(Average::after(before, Duration::from_millis(*millis), *at, DECAY))
        };
        samples.iter().fold(None, add).unwrap()
    }

    #[test]
    fn a_peak_counts_at_once_and_what_is_faster_slowly() {
        assert_eq!(average(&[(0, 10), (5, 200)]).millis, 200.0);
        let recovering = average(&[(0, 200), (10_000, 10)]).millis;
        assert!((79.0..81.0).contains(&recovering), "190 / e + 10, not {recovering}");
    }

    #[test]
    fn it_fades_while_nothing_is_measured() {
        let slow = average(&[(7, 100)]);
        assert_eq!(slow.faded(7, DECAY), 100.0);
        assert!((36.0..37.0).contains(&slow.faded(10_007, DECAY)));
        assert!(slow.faded(100_007, DECAY) < 0.01);
        let late = average(&[(u32::MAX - 4_999, 100)]);
        assert!((36.0..37.0).contains(&late.faded(5_000, DECAY)), "the clock wraps around");
    }

    #[test]
    fn nothing_measured_is_nothing() {
        let latency = Latency::default();
        assert_eq!(latency.read(DECAY), None);
        latency.record(Duration::ZERO, DECAY);
        assert!(latency.read(DECAY).is_some_and(|millis| millis > 0.0));
        latency.record(Duration::from_secs(2), DECAY);
        assert!(latency.read(DECAY).is_some_and(|millis| millis > 1000.0));
    }

    proptest! {
        #[test]
        fn it_lies_among_what_was_measured(samples in proptest::collection::vec((0_u32..60_000, 1_u64..5_000), 1..20)) {
            let mut samples = samples;
            samples.sort_unstable();
            let average = average(&samples);
            let millis = |(_, millis): &(u32, u64)| *millis as f32;
            let least = samples.iter().map(millis).fold(f32::MAX, f32::min);
            let most = samples.iter().map(millis).fold(0.0, f32::max);
            prop_assert!(average.millis >= least * 0.999 && average.millis <= most * 1.001);
            prop_assert_eq!(Average::of(average.word()), Some(average));
        }
    }
}
