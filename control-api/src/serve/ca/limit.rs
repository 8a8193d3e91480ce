//! How many certificates one workload gets in a span of time. Pure: `now` is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use certs::SpiffeId;

/// Workloads that are remembered before those of past spans are forgotten.
const REMEMBERED: usize = 1024;

/// Counts what workloads got.
#[derive(Debug)]
pub(super) struct Limit {
    span: Duration,
    most: u32,
    got: HashMap<SpiffeId, (Instant, u32)>,
    /// When to forget what is past.
    forget_at: usize,
}

impl Limit {
    /// At most `most` for each workload in a span of this length.
    pub(super) fn new(span: Duration, most: u32) -> Self {
        Self { span, most, got: HashMap::new(), forget_at: REMEMBERED }
    }

    /// Counts one more for `id`.
    ///
    /// # Errors
    /// How long to wait, if it has got as many as it may.
    pub(super) fn admit(&mut self, id: &SpiffeId, now: Instant) -> Result<(), Duration> {
        let span = self.span;
        let is_past = |began: Instant| now.saturating_duration_since(began) >= span;
        if self.got.len() >= self.forget_at {
            self.got.retain(|_, (began, _)| !is_past(*began));
            self.forget_at = REMEMBERED.max(2 * self.got.len());
        }
        let (began, count) = self.got.entry(id.clone()).or_insert((now, 0));
        if is_past(*began) {
            (*began, *count) = (now, 0);
        }
        if *count >= self.most {
            return Err(span.saturating_sub(now.saturating_duration_since(*began)));
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> SpiffeId {
        SpiffeId::of_service_account("cluster.local", "shop", &format!("a{number}")).unwrap()
    }

    #[test]
    fn each_workload_has_a_limit_of_its_own() {
        let minute = Duration::from_secs(60);
        let mut limit = Limit::new(minute, 2);
        let start = Instant::now();
        assert_eq!([0, 1].map(|_| limit.admit(&id(1), start)), [Ok(()), Ok(())]);
        assert_eq!(limit.admit(&id(1), start + minute / 2), Err(minute / 2));
        assert_eq!(limit.admit(&id(2), start), Ok(()));
        assert_eq!(limit.admit(&id(1), start + minute), Ok(()));
    }

    #[test]
    fn what_is_past_is_forgotten() {
        let mut limit = Limit::new(Duration::from_secs(1), 1);
        let start = Instant::now();
        for number in 0..10 * REMEMBERED {
            let later = start + Duration::from_millis(10) * u32::try_from(number).unwrap();
            limit.admit(&id(number), later).unwrap();
        }
        assert!(limit.got.len() <= 2 * REMEMBERED, "{}", limit.got.len());
    }
}
