//! The healthy endpoints of a priority, or its degraded ones: divided by locality if the cluster wants it.
//!
//! With locality weights, a locality gets its weight, less what its available endpoints cannot carry even at
//! the overprovisioning factor. Among its endpoints the policy picks as ever.

use fastrand::Rng;

use super::group::Group;
use super::schedule::Schedule;
use super::zones::Zone;
use super::{Candidate, Health, Rules, View};
use crate::config::cluster::LocalityLb;

/// Endpoints of one priority and one state of health.
#[derive(Debug)]
pub(super) enum Tier {
    /// One group, wherever the endpoints are.
    Flat(Group),
    /// The same, and a group for each zone, for requests that are to go there.
    Zoned { all: Group, zones: Vec<Group> },
    /// A group for each locality that has a weight.
    Weighted { schedule: Schedule, localities: Vec<(f64, Group)> },
}

/// One locality's share of the traffic.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    locality: usize,
    weight: u32,
    counted: u32,
    eligible: u32,
}

impl Tier {
    /// Those of `members` (all of one priority, in order) that have `health`; also by locality for `zones`.
    pub(super) fn new(
        members: &[(usize, &Candidate)],
        health: Health,
        rules: &Rules,
        zones: &[usize],
        random: &mut Rng,
    ) -> Self {
        let eligible = || members.iter().copied().filter(move |(_, it)| it.health == health);
        let shares = match rules.locality {
            LocalityLb::Weighted => shares(members, health),
            LocalityLb::ZoneAware(_) => Vec::new(),
        };
        let mut localities = Vec::with_capacity(shares.len());
        for share in shares {
            let weight = share.effective(rules.assignment.overprovisioning_factor);
            if weight > 0.0 {
                let here = eligible().filter(|(_, it)| it.locality == share.locality);
                localities.push((weight, Group::new(here, rules.policy, random)));
            }
        }
        if localities.is_empty() {
            let all = Group::new(eligible(), rules.policy, random);
            if zones.is_empty() {
                return Self::Flat(all);
            }
            let zone = |locality: &usize| {
                let here = eligible().filter(|(_, it)| it.locality == *locality);
                Group::new(here, rules.policy, random)
            };
            return Self::Zoned { all, zones: zones.iter().map(zone).collect() };
        }
        let schedule = Schedule::new(localities.iter().map(|(weight, _)| *weight), random);
        Self::Weighted { schedule, localities }
    }

    /// The number of the endpoint to use; none if there is none.
    pub(super) fn pick(&mut self, zone: Zone, view: &impl View, random: &mut Rng) -> Option<usize> {
        match self {
            Self::Flat(group) => group.pick(view, random),
            Self::Zoned { all, zones } => match zone {
                Zone::Any => all.pick(view, random),
                Zone::At(place) => zones.get_mut(place)?.pick(view, random),
                Zone::None => None,
            },
            Self::Weighted { schedule, localities } => {
                let weight =
                    |index: usize| localities.get(index).map_or(1.0, |(weight, _)| *weight);
                let locality = schedule.next(weight)?;
                localities.get_mut(locality)?.1.pick(view, random)
            }
        }
    }
}

/// The localities of `members`, in order.
fn shares(members: &[(usize, &Candidate)], health: Health) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for (_, candidate) in members {
        let place = shares.partition_point(|share| share.locality < candidate.locality);
        if shares.get(place).is_none_or(|share| share.locality != candidate.locality) {
            let (locality, weight) = (candidate.locality, candidate.locality_weight);
            shares.insert(place, Share { locality, weight, ..Share::default() });
        }
        if let Some(share) = shares.get_mut(place) {
            share.counted += u32::from(candidate.health != Health::Excluded);
            share.eligible += u32::from(candidate.health == health);
        }
    }
    shares
}

impl Share {
    fn effective(&self, overprovisioning_factor: u32) -> f64 {
        if self.counted == 0 {
            return 0.0;
        }
        let available = f64::from(self.eligible) / f64::from(self.counted);
        let carried = (available * f64::from(overprovisioning_factor) / 100.0).min(1.0);
        f64::from(self.weight) * carried
    }
}
