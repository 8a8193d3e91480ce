//! What is known of an endpoint's health: Envoy's flags, and what they come to for balancing.

use std::fmt;
use std::ops::BitOr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::load_balancer::Health;
use crate::config::endpoint::HealthStatus;

/// A set of Envoy's health flags; empty for an endpoint of which nothing bad is known.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct HealthFlags(u32);

/// All flags in Envoy's order, as `/clusters` names them.
const NAMES: [(HealthFlags, &str); 10] = [
    (HealthFlags::FAILED_ACTIVE_HC, "failed_active_hc"),
    (HealthFlags::FAILED_OUTLIER_CHECK, "failed_outlier_check"),
    (HealthFlags::FAILED_EDS_HEALTH, "failed_eds_health"),
    (HealthFlags::DEGRADED_ACTIVE_HC, "degraded_active_hc"),
    (HealthFlags::DEGRADED_EDS_HEALTH, "degraded_eds_health"),
    (HealthFlags::PENDING_DYNAMIC_REMOVAL, "pending_dynamic_removal"),
    (HealthFlags::PENDING_ACTIVE_HC, "pending_active_hc"),
    (HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "excluded_via_immediate_hc_fail"),
    (HealthFlags::ACTIVE_HC_TIMEOUT, "active_hc_timeout"),
    (HealthFlags::EDS_STATUS_DRAINING, "eds_status_draining"),
];

impl HealthFlags {
    /// Active health checks say so, or have not said otherwise yet.
    pub const FAILED_ACTIVE_HC: Self = Self(1);
    /// Outlier detection has ejected it.
    pub const FAILED_OUTLIER_CHECK: Self = Self(1 << 1);
    /// The configuration says UNHEALTHY or TIMEOUT.
    pub const FAILED_EDS_HEALTH: Self = Self(1 << 2);
    /// It passes active health checks with `x-envoy-degraded`.
    pub const DEGRADED_ACTIVE_HC: Self = Self(1 << 3);
    /// The configuration says DEGRADED.
    pub const DEGRADED_EDS_HEALTH: Self = Self(1 << 4);
    /// No longer in the configuration, but active health checks still pass.
    pub const PENDING_DYNAMIC_REMOVAL: Self = Self(1 << 5);
    /// Not checked yet, in a cluster with `ignore_new_hosts_until_first_hc`.
    pub const PENDING_ACTIVE_HC: Self = Self(1 << 6);
    /// It has said `x-envoy-immediate-health-check-fail`.
    pub const EXCLUDED_VIA_IMMEDIATE_HC_FAIL: Self = Self(1 << 7);
    /// The last failed check got no answer in time.
    pub const ACTIVE_HC_TIMEOUT: Self = Self(1 << 8);
    /// The configuration says DRAINING.
    pub const EDS_STATUS_DRAINING: Self = Self(1 << 9);

    const UNHEALTHY: Self =
        Self(Self::FAILED_ACTIVE_HC.0 | Self::FAILED_OUTLIER_CHECK.0 | Self::FAILED_EDS_HEALTH.0);
    const DEGRADED: Self = Self(Self::DEGRADED_ACTIVE_HC.0 | Self::DEGRADED_EDS_HEALTH.0);
    const EXCLUDED: Self = Self(
        Self::PENDING_ACTIVE_HC.0
            | Self::EXCLUDED_VIA_IMMEDIATE_HC_FAIL.0
            | Self::EDS_STATUS_DRAINING.0,
    );
    /// What active checks decide about.
    pub(super) const ACTIVE: Self = Self(
        Self::FAILED_ACTIVE_HC.0
            | Self::DEGRADED_ACTIVE_HC.0
            | Self::PENDING_ACTIVE_HC.0
            | Self::EXCLUDED_VIA_IMMEDIATE_HC_FAIL.0
            | Self::ACTIVE_HC_TIMEOUT.0,
    );
    const STATED: Self =
        Self(Self::FAILED_EDS_HEALTH.0 | Self::DEGRADED_EDS_HEALTH.0 | Self::EDS_STATUS_DRAINING.0);

    /// What a stated health comes to.
    pub fn stated(status: HealthStatus) -> Self {
        match status {
            HealthStatus::Unknown | HealthStatus::Healthy => Self::default(),
            HealthStatus::Unhealthy | HealthStatus::Timeout => Self::FAILED_EDS_HEALTH,
            HealthStatus::Draining => Self::EDS_STATUS_DRAINING,
            HealthStatus::Degraded => Self::DEGRADED_EDS_HEALTH,
        }
    }

    /// With `flags`.
    #[must_use]
    pub const fn union(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// Whether it has any of `flags`.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// Those of its flags that are among `flags`.
    #[must_use]
    pub fn only(self, flags: Self) -> Self {
        Self(self.0 & flags.0)
    }

    /// Without `flags`.
    #[must_use]
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    /// With `flags`, or without them.
    #[must_use]
    pub fn set(self, flags: Self, set: bool) -> Self {
        if set { self | flags } else { self.without(flags) }
    }

    /// What the flags come to (Envoy's coarse health).
    pub fn health(self) -> Health {
        if self.has(Self::EXCLUDED) {
            Health::Excluded
        } else if self.has(Self::UNHEALTHY) {
            Health::Unhealthy
        } else if self.has(Self::DEGRADED) {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// The one status that flags and the health `stated` by the configuration come to (Envoy's `healthStatus`).
    pub(super) fn status(self, stated: HealthStatus) -> HealthStatus {
        if self.has(Self::FAILED_ACTIVE_HC | Self::FAILED_OUTLIER_CHECK) {
            return HealthStatus::Unhealthy;
        }
        match stated {
            HealthStatus::Unknown | HealthStatus::Healthy if self.has(Self::DEGRADED_ACTIVE_HC) => {
                HealthStatus::Degraded
            }
            stated => stated,
        }
    }

    /// The names of its flags, as `/clusters` spells them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

impl BitOr for HealthFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Debug for HealthFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// The flags of one endpoint: read for every request, hardly ever written.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct SharedFlags(AtomicU32);

impl SharedFlags {
    pub(super) fn get(&self) -> HealthFlags {
        HealthFlags(self.0.load(Relaxed))
    }

    /// Sets or clears `flags`; returns all flags before and after.
    pub(super) fn set(&self, flags: HealthFlags, set: bool) -> (HealthFlags, HealthFlags) {
        self.update(|now| now.set(flags, set))
    }

    /// Replaces what the configuration states; the rest stays.
    pub(super) fn state(&self, status: HealthStatus) {
        self.update(|now| now.without(HealthFlags::STATED) | HealthFlags::stated(status));
    }

    /// Changes the flags in one step; returns them before and after. `change` may be called repeatedly.
    pub(super) fn update(
        &self,
        change: impl Fn(HealthFlags) -> HealthFlags,
    ) -> (HealthFlags, HealthFlags) {
        let changed = |bits| Some(change(HealthFlags(bits)).0);
        let before = self.0.fetch_update(Relaxed, Relaxed, changed).unwrap_or_else(|bits| bits);
        (HealthFlags(before), change(HealthFlags(before)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_flag_decides() {
        let flags = HealthFlags::DEGRADED_EDS_HEALTH;
        assert_eq!(HealthFlags::default().health(), Health::Healthy);
        assert_eq!(HealthFlags::PENDING_DYNAMIC_REMOVAL.health(), Health::Healthy);
        assert_eq!(HealthFlags::ACTIVE_HC_TIMEOUT.health(), Health::Healthy);
        assert_eq!(flags.health(), Health::Degraded);
        let flags = flags | HealthFlags::FAILED_OUTLIER_CHECK;
        assert_eq!(flags.health(), Health::Unhealthy);
        let flags = flags | HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL;
        assert_eq!(flags.health(), Health::Excluded);
    }

    #[test]
    fn what_the_configuration_states_replaces_only_what_it_stated() {
        let flags = SharedFlags::default();
        flags.set(HealthFlags::FAILED_ACTIVE_HC, true);
        flags.state(HealthStatus::Draining);
        assert_eq!(
            flags.get().names().collect::<Vec<_>>(),
            ["failed_active_hc", "eds_status_draining"]
        );
        flags.state(HealthStatus::Healthy);
        assert_eq!(flags.get(), HealthFlags::FAILED_ACTIVE_HC);
    }

    #[test]
    fn a_change_tells_what_was() {
        let flags = SharedFlags::default();
        let (before, after) = flags.set(HealthFlags::FAILED_ACTIVE_HC, true);
        assert_eq!((before, after), (HealthFlags::default(), HealthFlags::FAILED_ACTIVE_HC));
    }
}
