//! When to renew a certificate, and when a root may be replaced: pure functions of validity, now
//! and chance.

mod root;

use std::time::{Duration, SystemTime};

pub use self::root::RootRotation;

use crate::Validity;

/// How a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// The part of its life, 0 to 1, after which a certificate is renewed.
    pub renew_at: f64,
    /// By how much of its life, 0 to 1, that moment moves to either side, so that workloads that
    /// started together do not renew together.
    pub jitter: f64,
    /// The pause after the first attempt; it doubles with each one that fails.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// The longest sleep. A machine that was suspended or whose clock was set finds out this late,
    /// since sleeping does not follow the clock on the wall.
    pub longest_sleep: Duration,
}

impl Default for Rotation {
    /// Half of life ± 5 %, pauses from 1 second to 5 minutes, a look at the clock each minute.
    fn default() -> Self {
        Self {
            renew_at: 0.5,
            jitter: 0.05,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
            longest_sleep: Duration::from_secs(60),
        }
    }
}

/// What has been tried since the certificate in use was got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// How many in a row failed.
    pub failed: u32,
    /// When the last one, successful or not, began. It paces even success: an authority whose clock
    /// is wrong may sign what is due for renewal at once.
    pub last: Option<SystemTime>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether to ask for a new certificate now.
    pub renew: bool,
    /// Whether peers can still accept the certificate in use. It is served in any case: nothing is
    /// better than it, and a peer's clock may differ.
    pub valid: bool,
    /// When to decide again at the latest.
    pub sleep: Duration,
}

impl Rotation {
    /// When a certificate with this validity is due. `chance` is 0 to 1, chosen once for each
    /// certificate.
    pub fn due(&self, validity: Validity, chance: f64) -> SystemTime {
        let part = self.renew_at + self.jitter * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
        validity.not_before + validity.length().mul_f64(part.clamp(0.0, 1.0))
    }

    /// What to do at `now`.
    pub fn decide(
        &self,
        validity: Validity,
        attempts: Attempts,
        now: SystemTime,
        chance: f64,
    ) -> Decision {
        let left = validity.not_after.duration_since(now).unwrap_or_default();
        let until = |moment: SystemTime| moment.duration_since(now).unwrap_or_default();
        let paced = attempts.last.map_or(Duration::ZERO, |last| {
            let pause = self.pause(attempts.failed, left, chance);
            // An attempt in the future was before the clock was set back; it paces nothing.
            if last > now { Duration::ZERO } else { until(last + pause) }
        });
        let wait = until(self.due(validity, chance)).max(paced);
        Decision {
            renew: wait.is_zero(),
            valid: validity.contains(now),
            sleep: wait.min(self.longest_sleep),
        }
    }

    /// The pause after `failed` attempts: doubled each time, between half and all of it by chance,
    /// and never so long that fewer than eight more fit into what is left of the certificate's life.
    fn pause(&self, failed: u32, left: Duration, chance: f64) -> Duration {
        let doubled = self.first_pause.saturating_mul(2_u32.saturating_pow(failed.min(31)));
        let longest = self.longest_pause.min((left / 8).max(self.first_pause));
        let pause =
            if left.is_zero() { doubled.min(self.longest_pause) } else { doubled.min(longest) };
        pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests;
