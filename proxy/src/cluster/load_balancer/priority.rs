//! How much of the traffic each priority gets, and from which of its hosts. Integer arithmetic to the same
//! percent as Envoy's, so that two proxies of one mesh shift traffic alike.
//!
//! A priority's health is its share of healthy hosts, times the overprovisioning factor, at most 100. Traffic
//! goes to priority 0 as far as its health reaches, then to the next, then to degraded hosts in the same order.
//! When all of that does not make 100, it is scaled to 100, and a priority with too few available hosts is in
//! panic: health is then ignored, since the few would only be crushed as well.

use super::Health;
use crate::config::endpoint::AssignmentPolicy;

/// The hosts of one priority, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// All of them.
    pub hosts: u64,
    /// Those that are not excluded from the reckoning.
    pub counted: Amount,
    /// Those that are healthy.
    pub healthy: Amount,
    /// Those that are degraded.
    pub degraded: Amount,
}

/// So many hosts, with so much weight together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Sum of their weights.
    pub weight: u64,
}

/// Which hosts of a priority are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
}

/// What each priority gets, and what percentage of it could be used: healthy, and degraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loads(Vec<Load>, Vec<(u32, u32)>);

/// What one priority gets. The percentages of all priorities together are 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Percent of traffic for its healthy hosts (in panic: for any of its hosts).
    pub healthy: u32,
    /// Percent of traffic for its degraded hosts.
    pub degraded: u32,
    /// Whether health is ignored in it.
    pub panic: bool,
}

impl Census {
    /// Counts one more host.
    pub fn add(&mut self, weight: u32, health: Health) {
        self.hosts += 1;
        match health {
            Health::Healthy => self.healthy.add(weight),
            Health::Degraded => self.degraded.add(weight),
            Health::Unhealthy => {}
            Health::Excluded => return,
        }
        self.counted.add(weight);
    }

    /// Whether less than so many percent are available.
    pub(in crate::cluster) fn is_below(&self, percent: u32) -> bool {
        let available = self.healthy.share(self.counted) + self.degraded.share(self.counted);
        available < f64::from(percent.min(100))
    }
}

impl Amount {
    /// Counts one more host.
    pub(super) fn add(&mut self, weight: u32) {
        self.count += 1;
        self.weight += u64::from(weight);
    }

    /// The percentage of `whole` that this is, times the overprovisioning factor, at most 100.
    fn availability(self, whole: Self, policy: &AssignmentPolicy) -> u32 {
        let (part, whole) = match policy.weighted_priority_health {
            true => (self.weight, whole.weight),
            false => (self.count, whole.count),
        };
        let percent = u64::from(policy.overprovisioning_factor).saturating_mul(part);
        percent.checked_div(whole).unwrap_or(0).min(100) as u32
    }

    fn share(self, whole: Self) -> f64 {
        if whole.count == 0 { 0.0 } else { 100.0 * self.count as f64 / whole.count as f64 }
    }
}

impl Loads {
    /// Divides traffic among priorities, of which there is at least one. `panic_threshold` is in percent; 0
    /// turns panic off.
    pub fn new(priorities: &[Census], policy: &AssignmentPolicy, panic_threshold: u32) -> Self {
        let healthy: Vec<u32> =
            priorities.iter().map(|it| it.healthy.availability(it.counted, policy)).collect();
        let degraded: Vec<u32> =
            priorities.iter().map(|it| it.degraded.availability(it.counted, policy)).collect();
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        let available = healthy.iter().copied().zip(degraded.iter().copied()).collect();
        let mut loads = Self(vec![Load::default(); priorities.len().max(1)], available);
        if total > 0 {
            loads.divide(&healthy, &degraded, total);
        } else if let Some(first) = loads.0.first_mut() {
            // Without panic nobody answers; the percentages still have to be 100.
            first.healthy = 100;
        }
        if total < 100 {
            for (load, census) in loads.0.iter_mut().zip(priorities) {
                load.panic = census.is_below(panic_threshold);
            }
            if loads.0.iter().all(|load| load.panic) {
                loads.divide_by_hosts(priorities);
            }
        }
        loads
    }

    /// The same with nothing for the priorities `excluded`; none if nothing could be used then.
    pub(super) fn without(&self, excluded: &[u32]) -> Option<Self> {
        let left = |(priority, available): (usize, &(u32, u32))| {
            let excluded = u32::try_from(priority).is_ok_and(|it| excluded.contains(&it));
            if excluded { (0, 0) } else { *available }
        };
        let (healthy, degraded): (Vec<_>, Vec<_>) = self.1.iter().enumerate().map(left).unzip();
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        let mut loads = Self(vec![Load::default(); self.0.len()], self.1.clone());
        (total > 0).then(|| {
            loads.divide(&healthy, &degraded, total);
            loads
        })
    }

    fn divide(&mut self, healthy: &[u32], degraded: &[u32], total: u32) {
        let mut left = 100;
        let mut take = |availability: u32| {
            let share = (availability * 100 / total).min(left);
            left -= share;
            share
        };
        for (load, availability) in self.0.iter_mut().zip(healthy) {
            load.healthy = take(*availability);
        }
        for (load, availability) in self.0.iter_mut().zip(degraded) {
            load.degraded = take(*availability);
        }
        // What is left comes from rounding; the first that is available takes it.
        let first = |availabilities: &[u32]| availabilities.iter().position(|it| *it > 0);
        if let Some(load) = first(healthy).and_then(|index| self.0.get_mut(index)) {
            load.healthy += left;
        } else if let Some(load) = first(degraded).and_then(|index| self.0.get_mut(index)) {
            load.degraded += left;
        }
    }

    /// All priorities are in panic: each gets its share of the hosts.
    fn divide_by_hosts(&mut self, priorities: &[Census]) {
        let total: u64 = priorities.iter().map(|census| census.hosts).sum();
        let mut left = 100;
        for (load, census) in self.0.iter_mut().zip(priorities) {
            let share = (100 * census.hosts).checked_div(total).unwrap_or(0) as u32;
            *load = Load { healthy: share, degraded: 0, panic: true };
            left -= share;
        }
        let first = priorities.iter().position(|census| census.hosts > 0).unwrap_or(0);
        if let Some(load) = self.0.get_mut(first) {
            load.healthy += left;
        }
    }

    /// What each priority gets, by priority.
    pub fn get(&self) -> &[Load] {
        &self.0
    }

    /// The one priority and kind of hosts that gets everything, if there is one.
    pub(super) fn only(&self) -> Option<(usize, Availability)> {
        let full = |load: &Load| load.healthy >= 100;
        self.0.iter().position(full).map(|priority| (priority, Availability::Healthy))
    }

    /// The priority that `hash` (any number, evenly spread) falls to, and which of its hosts.
    pub fn choose(&self, hash: u64) -> (usize, Availability) {
        let point = (hash % 100) as u32;
        let mut sum = 0;
        let mut falls = |share: u32| {
            sum += share;
            point < sum
        };
        if let Some(priority) = self.0.iter().position(|load| falls(load.healthy)) {
            return (priority, Availability::Healthy);
        }
        let degraded = self.0.iter().position(|load| falls(load.degraded));
        degraded.map_or((0, Availability::Healthy), |priority| (priority, Availability::Degraded))
    }
}

#[cfg(test)]
mod tests;
