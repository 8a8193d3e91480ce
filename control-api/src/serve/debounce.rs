//! When a series of changes is over: after a while without one, or when waiting has been long enough.

use std::time::{Duration, Instant};

/// Istio's `PILOT_DEBOUNCE_AFTER`.
pub const QUIET: Duration = Duration::from_millis(100);
/// Istio's `PILOT_DEBOUNCE_MAX`.
pub const LONGEST: Duration = Duration::from_secs(10);

/// A series of changes that are taken together. No clock of its own.
#[derive(Debug)]
pub struct Debounce {
    quiet: Duration,
    longest: Duration,
    /// The first and the last change of the series.
    series: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Waits for this long without a change, but never longer than `longest` after the first one.
    pub fn new(quiet: Duration, longest: Duration) -> Self {
        Self { quiet, longest, series: None }
    }

    /// Something has changed.
    pub fn note(&mut self, now: Instant) {
        let first = self.series.map_or(now, |(first, _)| first);
        self.series = Some((first, now));
    }

    /// When the series is over; none if nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        self.series.map(|(first, last)| (last + self.quiet).min(first + self.longest))
    }

    /// Ends a series that is over by now, and says when it began.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        self.due().filter(|due| *due <= now)?;
        self.series.take().map(|(first, _)| first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_series_ends_when_it_is_quiet_and_at_the_latest_in_time(gaps in prop::collection::vec(0_u64..300, 1..60)) {
            let start = Instant::now();
            let (quiet, longest) = (Duration::from_millis(100), Duration::from_secs(2));
            let mut debounce = Debounce::new(quiet, longest);
            prop_assert!(debounce.due().is_none() && debounce.take(start).is_none());
            let (mut now, mut first, mut last) = (start, start, start);
            let mut open = false;
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(began) = debounce.take(now) {
                    prop_assert!(open && began == first);
                    prop_assert!(now >= last + quiet || now >= first + longest);
                    open = false;
                } else {
                    prop_assert!(!open || (now < last + quiet && now < first + longest));
                }
                debounce.note(now);
                first = if open { first } else { now };
                (open, last) = (true, now);
                prop_assert!(debounce.due().unwrap() <= first + longest);
            }
        }
    }
}
