//! The endpoints of a priority in a table, by their shares of its traffic.

use std::sync::Arc;

use super::hash_table::{Entry, HashTable, HashTables, Unready};
use super::{Candidate, View};
use crate::config::HashMap;
use crate::config::cluster::{HashLb, LocalityLb};

/// Endpoints of one priority that a hash picks among.
#[derive(Debug)]
pub(super) struct Hashed {
    /// The numbers of those in the table, by their places there.
    members: Vec<usize>,
    /// The numbers of all endpoints of the priority.
    all: Vec<usize>,
    table: Arc<HashTable>,
    /// What is used until the table is built.
    stand_in: Option<StandIn>,
}

/// An older table, and the numbers of the endpoints at its places; those that are gone have none.
#[derive(Debug)]
struct StandIn {
    table: Arc<HashTable>,
    members: Vec<Option<usize>>,
}

/// How many places of an older table are looked at for an endpoint that is still there.
const LOOKS: u32 = 8;

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
        let (members, entries): (Vec<_>, Vec<_>) = weighted
            .into_iter()
            .map(|(index, weight)| (index, Entry { key: key(index), weight }))
            .unzip();
        let all = all.iter().map(|(index, _)| *index).collect();
        let table = tables.get(entries, &rules);
        let stand_in =
            if table.is_built() { None } else { StandIn::find(&table, &members, tables) };
        Self { members, all, table, stand_in }
    }

    /// The number of the endpoint for `hash`; none if there is none. `total` tells the requests under way in the
    /// whole cluster.
    ///
    /// # Errors
    /// If there is no table yet.
    pub(super) fn pick(
        &self,
        hash: u64,
        attempt: u32,
        view: &impl View,
        total: impl Fn() -> u32,
    ) -> Result<Option<usize>, Unready> {
        if !self.table.is_built() {
            let Some(stand_in) = &self.stand_in else {
                return Err(Unready(Arc::clone(&self.table)));
            };
            let any = || {
                let place = hash.checked_rem(self.members.len() as u64)?;
                self.members.get(place as usize).copied()
            };
            return Ok(stand_in.pick(hash, attempt, view, total).or_else(any));
        }
        let active = |place| self.member(place).map_or(0, |index| view.active(index));
        let place = self.table.pick(hash, attempt, total, active);
        Ok(place.and_then(|place| self.member(place)))
    }

    /// Lets go of the older table once the new one is there.
    pub(super) fn settle(&mut self) {
        if self.stand_in.is_some() && self.table.is_built() {
            self.stand_in = None;
        }
    }

    fn member(&self, place: u32) -> Option<usize> {
        self.members.get(place as usize).copied()
    }

    /// Requests under way at all endpoints of the priority.
    pub(super) fn active(&self, view: &impl View) -> u32 {
        self.all.iter().map(|index| view.active(*index)).sum()
    }
}

impl StandIn {
    /// The newest of `tables` that has any endpoint of `table`, whose entries are `members`.
    fn find(table: &HashTable, members: &[usize], tables: &HashTables) -> Option<Self> {
        let keys = table.entries().iter().map(|entry| &*entry.key);
        let numbers: HashMap<&str, usize> = keys.zip(members.iter().copied()).collect();
        let number = |entry: &Entry| numbers.get(&*entry.key).copied();
        let table = tables.newest(|old| old.entries().iter().any(|it| number(it).is_some()))?;
        let members = table.entries().iter().map(number).collect();
        Some(Self { table, members })
    }

    /// Where `hash` belonged; if that is gone, where it would have gone next.
    fn pick(
        &self,
        hash: u64,
        attempt: u32,
        view: &impl View,
        total: impl Fn() -> u32,
    ) -> Option<usize> {
        let member = |place: u32| self.members.get(place as usize).copied().flatten();
        let active = |place| member(place).map_or(u32::MAX, |index| view.active(index));
        (attempt..=attempt.saturating_add(LOOKS))
            .find_map(|attempt| member(self.table.pick(hash, attempt, &total, active)?))
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
    use crate::config::cluster::HashTableKind;

    fn candidate(weight: u32, locality: usize, locality_weight: u32) -> Candidate {
        let health = Health::Healthy;
        Candidate { weight, warmth: 1.0, health, priority: 0, locality, locality_weight }
    }

    /// Endpoints 0, 1, … with these keys in a table that is large enough to be built elsewhere.
    fn hashed(keys: &[&str], tables: &HashTables) -> Hashed {
        let candidates = vec![candidate(1, 0, 0); keys.len()];
        let members: Vec<_> = candidates.iter().enumerate().collect();
        let table = HashTableKind::Maglev { size: 1_000_003 };
        let rules = HashLb { table, use_hostname: false, balance_factor: None };
        let key = |index: usize| keys[index].into();
        Hashed::new(&members, &members, LocalityLb::default(), rules, key, tables)
    }

    struct Idle;

    impl View for Idle {
        fn active(&self, _: usize) -> u32 {
            0
        }

        fn warmth(&self, _: usize) -> f64 {
            1.0
        }

        fn avoids(&self, _: usize) -> bool {
            false
        }

        fn notes(&self, _: crate::cluster::load_balancer::Event) {}
    }

    fn pick(hashed: &Hashed, hash: u64) -> Result<Option<usize>, Unready> {
        hashed.pick(hash, 0, &Idle, || 0)
    }

    #[tokio::test]
    async fn an_older_table_stands_in_until_the_new_one_is_built() {
        let tables = HashTables::default();
        let before = hashed(&["a", "b", "c"], &tables);
        pick(&before, 0).unwrap_err().ready().await;
        let mut after = hashed(&["c", "a", "d"], &tables);
        let hashes = || (0..300_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for hash in hashes() {
            let now = pick(&after, hash).unwrap().unwrap();
            match pick(&before, hash).unwrap().unwrap() {
                0 => assert_eq!(now, 1),
                2 => assert_eq!(now, 0),
                _ => assert!(now < 2, "it was at one that is gone"),
            }
        }
        assert!(!after.table.is_built(), "all that was done by the older one");
        Unready(Arc::clone(&after.table)).ready().await;
        after.settle();
        assert!(after.stand_in.is_none());
        assert!(hashes().any(|hash| pick(&after, hash).unwrap() == Some(2)));
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
