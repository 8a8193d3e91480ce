//! Replacing a root: trust both, then sign with the new one, then forget the old one.

use std::time::{Duration, SystemTime};

use crate::Error;

/// How far the replacement of a root has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RootRotation {
    /// One root, which is trusted and signs.
    #[default]
    Settled,
    /// Both roots are told to everyone; the old one signs.
    Trusting,
    /// The new one signs, both are trusted.
    Signing {
        /// When the old one signed for the last time.
        since: SystemTime,
    },
}

impl RootRotation {
    /// Begins: from now on both roots are to be trusted.
    pub fn trust(self) -> Result<Self, Error> {
        match self {
            Self::Settled => Ok(Self::Trusting),
            _ => Err(Error::Early("another root is being replaced; finish that first")),
        }
    }

    /// Lets the new root sign, once `everyone` has confirmed to trust both.
    pub fn sign(self, everyone: bool, now: SystemTime) -> Result<Self, Error> {
        match self {
            Self::Trusting if everyone => Ok(Self::Signing { since: now }),
            Self::Trusting => Err(Error::Early("not everyone trusts the new root yet")),
            _ => Err(Error::Early("no new root is trusted yet")),
        }
    }

    /// Forgets the old root, once nothing that it signed is valid: `longest` is the longest
    /// lifetime of a workload's certificate.
    pub fn forget(self, longest: Duration, now: SystemTime) -> Result<Self, Error> {
        match self {
            Self::Signing { since } if now > since + longest => Ok(Self::Settled),
            Self::Signing { .. } => {
                Err(Error::Early("certificates of the old root are still valid"))
            }
            _ => Err(Error::Early("the new root does not sign yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn each_step_waits_for_the_one_before() {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let settled = RootRotation::default();
        settled.sign(true, now).unwrap_err();
        settled.forget(DAY, now).unwrap_err();
        let trusting = settled.trust().unwrap();
        trusting.trust().unwrap_err();
        trusting.forget(DAY, now).unwrap_err();
        trusting.sign(false, now).unwrap_err();
        let signing = trusting.sign(true, now).unwrap();
        signing.trust().unwrap_err();
        signing.forget(DAY, now + DAY).unwrap_err();
        signing.forget(DAY, now - DAY).unwrap_err();
        assert_eq!(signing.forget(DAY, now + DAY + DAY).unwrap(), RootRotation::Settled);
    }

    proptest! {
        /// Whatever is tried in whatever order, a root is forgotten only after what it signed.
        #[test]
        fn no_order_of_steps_forgets_early(
            steps in proptest::collection::vec((0..3_u8, any::<bool>(), 0..100_u32), 0..60)
        ) {
            let mut now = SystemTime::UNIX_EPOCH + 1000 * DAY;
            let (mut state, mut confirmed, mut signed) = (RootRotation::Settled, false, None);
            for (step, everyone, hours) in steps {
                now += Duration::from_secs(3600) * hours;
                let next = match step {
                    0 => state.trust(),
                    1 => state.sign(everyone, now),
                    _ => state.forget(DAY, now),
                };
                let Ok(next) = next else { continue };
                match next {
                    RootRotation::Trusting => prop_assert_eq!(state, RootRotation::Settled),
                    RootRotation::Signing { .. } => (confirmed, signed) = (everyone, Some(now)),
                    RootRotation::Settled => {
                        prop_assert!(confirmed && now > signed.unwrap() + DAY);
                    }
                }
                state = next;
            }
        }
    }
}
