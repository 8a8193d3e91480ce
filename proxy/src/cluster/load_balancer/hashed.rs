//! The endpoints of a priority in a table, by their shares of its traffic.

use std::sync::Arc;

use super::hash_table::{Entry, HashTable, HashTables};
use super::{Candidate, View};
use crate::config::cluster::{HashLb, LocalityLb};

/// Endpoints of one priority that a hash picks among.
#[derive(Debug)]
pub(super) struct Hashed {
    /// The numbers of those in the table, by their places there.
    members: Vec<usize>,
    /// The numbers of all endpoints of the priority.
    all: Vec<usize>,
    table: Arc<HashTable>,
}

impl Hashed {
    /// The endpoints `used` (of `all` of the priority), each by its `key`.
    pub(super) fn new(
        used: &[(usize, &Candidate)],
        all: &[(usize, &Candidate)],
        locality: LocalityLb,
        rules: HashLb,
        key: impl Fn(usize) -> Box<str>,
        tables: &HashTables,
    ) -> Self {
        let weighted = match locality {
            LocalityLb::Weighted => by_locality(used, all),
            LocalityLb::ZoneAware(_) => by_weight(used, 1.0),
        };
        let (members, entries) = weighted
            .into_iter()
            .map(|(index, weight)| (index, Entry { key: key(index), weight }))
            .unzip();
        let all = all.iter().map(|(index, _)| *index).collect();
        Self { members, all, table: tables.get(entries, &rules) }
    }

    /// The number of the endpoint for `hash`; none if there is none. `total` tells the requests under way in the
    /// whole cluster.
    pub(super) fn pick(
        &self,
        hash: u64,
        attempt: u32,
        view: &impl View,
        total: impl FnOnce() -> u32,
    ) -> Option<usize> {
        let active = |place| self.member(place).map_or(0, |index| view.active(index));
        self.member(self.table.pick(hash, attempt, total, active)?)
    }

    fn member(&self, place: u32) -> Option<usize> {
        self.members.get(place as usize).copied()
    }

    /// Requests under way at all endpoints of the priority.
    pub(super) fn active(&self, view: &impl View) -> u32 {
        self.all.iter().map(|index| view.active(*index)).sum()
    }
}

/// Shares of `whole` by weight.
fn by_weight(members: &[(usize, &Candidate)], whole: f64) -> Vec<(usize, f64)> {
    let sum: u64 = members.iter().map(|(_, it)| u64::from(it.weight.max(1))).sum();
    let share = |it: &Candidate| f64::from(it.weight.max(1)) * whole / sum as f64;
    members.iter().map(|(index, it)| (*index, share(it))).collect()
}

/// Shares by the weights of localities, and within them by the endpoints' own. A locality without any endpoint in
/// use keeps its weight, one without weight gets nothing.
fn by_locality(used: &[(usize, &Candidate)], all: &[(usize, &Candidate)]) -> Vec<(usize, f64)> {
    let mut localities: Vec<(usize, u32)> =
        all.iter().map(|(_, it)| (it.locality, it.locality_weight)).collect();
    localities.sort_unstable();
    localities.dedup_by_key(|(locality, _)| *locality);
    let sum: u64 = localities.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut shares = Vec::with_capacity(used.len());
    for (locality, weight) in localities.into_iter().filter(|(_, weight)| *weight > 0) {
        let here: Vec<_> = used.iter().copied().filter(|(_, it)| it.locality == locality).collect();
        shares.extend(by_weight(&here, f64::from(weight) / sum as f64));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::load_balancer::Health;

    fn candidate(weight: u32, locality: usize, locality_weight: u32) -> Candidate {
        let health = Health::Healthy;
        Candidate { weight, warmth: 1.0, health, priority: 0, locality, locality_weight }
    }

    #[test]
    fn shares_are_by_weight() {
        let candidates = [candidate(1, 0, 0), candidate(3, 0, 0)];
        let members: Vec<_> = candidates.iter().enumerate().collect();
        assert_eq!(by_weight(&members, 1.0), [(0, 0.25), (1, 0.75)]);
        assert_eq!(by_locality(&members, &members), []);
    }

    #[test]
    fn localities_divide_the_traffic_first() {
        let candidates =
            [candidate(1, 1, 1), candidate(1, 0, 3), candidate(2, 0, 3), candidate(1, 2, 0)];
        let all: Vec<_> = candidates.iter().enumerate().collect();
        assert_eq!(by_locality(&all, &all), [(1, 0.25), (2, 0.5), (0, 0.25)]);
        assert_eq!(by_locality(&all[1..], &all), [(1, 0.25), (2, 0.5)]);
    }
}
