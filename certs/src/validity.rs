//! From when until when a certificate is valid. Every `now` is an argument.

use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

/// How far back validity starts, for peers whose clock is behind.
pub const BACKDATE: Duration = Duration::from_secs(300);
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// Valid for `lifetime` from `now`, and a little before `now` for peers with a slow clock.
    pub fn from(now: SystemTime, lifetime: Duration) -> Self {
        Self { not_before: now - BACKDATE, not_after: now + lifetime }
    }

    /// The part that is also in `other`; its end is before its start if there is none.
    ///
    /// A certificate that outlives what signed it fails at a time nobody expects.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    /// Whether a peer whose clock says `now` accepts the certificate.
    pub fn contains(self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// From the first to the last moment.
    pub fn length(self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { not_before: moment(validity.not_before), not_after: moment(validity.not_after) }
    }
}

impl Default for Validity {
    fn default() -> Self {
        Self::from(SystemTime::now(), DAY)
    }
}

/// Times before 1970 become 1970: they are as far in the past for every purpose here.
fn moment(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_another_validity_is_never_longer() {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let issuer = Validity::from(now, DAY);
        let leaf = Validity::from(now + DAY / 2, DAY).within(issuer);
        assert_eq!(leaf.not_after, issuer.not_after);
        assert!(leaf.contains(now + DAY) && !leaf.contains(now + DAY + BACKDATE));
        let apart = Validity::from(now + 3 * DAY, DAY).within(issuer);
        assert_eq!(apart.length(), Duration::ZERO);
    }
}
