//! Tables by which a hash finds its endpoint, of RING_HASH and MAGLEV. Built once per change of a cluster, and
//! shared by all workers.
//!
//! Small ones are built at once by the worker that wants them first. Large ones take their time elsewhere
//! ([`builder`]): until then an older table stands in, or whoever wants to pick waits.

mod builder;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::SetOnce;

use super::bounded_load::relieve;
use super::maglev::Maglev;
use super::ring_hash::{self, Ring};
use crate::config::cluster::{HashLb, HashTableKind};

/// Steps that a worker may spend on a table while its requests wait: a millisecond at most.
const AT_ONCE: f64 = 4096.0;

/// An endpoint as a table knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What is hashed in its place.
    pub key: Box<str>,
    /// Its share of all traffic, over 0 and up to 1.
    pub weight: f64,
}

/// Endpoints, each found by the hashes that belong to it.
#[derive(Debug)]
pub struct HashTable {
    rules: HashLb,
    entries: Box<[Entry]>,
    kind: SetOnce<Kind>,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

/// A pick cannot be made yet: the table for it is being built.
#[derive(Debug, Clone)]
pub struct Unready(pub(super) Arc<HashTable>);

impl Unready {
    /// Resolves when the pick can be made.
    pub async fn ready(self) {
        self.0.kind.wait().await;
    }
}

impl HashTable {
    /// Puts `entries` into a table.
    pub fn new(entries: Vec<Entry>, rules: HashLb) -> Self {
        let table = Self::of(entries, rules);
        table.build();
        table
    }

    /// A table of `entries`, which is yet to be built.
    fn of(entries: Vec<Entry>, rules: HashLb) -> Self {
        Self { rules, entries: entries.into(), kind: SetOnce::new() }
    }

    fn build(&self) {
        let entries = &self.entries;
        let kind = match self.rules.table {
            HashTableKind::Ring { minimum, maximum, function } => {
                Kind::Ring(Ring::new(entries, (minimum, maximum), function))
            }
            HashTableKind::Maglev { size } => Kind::Maglev(Maglev::new(entries, size)),
        };
        // Whoever was first has built the same.
        let _ = self.kind.set(kind);
    }

    /// About how many steps it takes to build.
    fn effort(&self) -> f64 {
        match self.rules.table {
            HashTableKind::Ring { minimum, maximum, .. } => {
                ring_hash::scale(&self.entries, (minimum, maximum))
            }
            HashTableKind::Maglev { size } => {
                let heaviest = self.entries.iter().map(|entry| entry.weight).fold(0.0, f64::max);
                // In every round all are asked, and the heaviest takes a slot.
                f64::from(size) * heaviest * self.entries.len() as f64
            }
        }
    }

    /// Whether it can be used.
    pub fn is_built(&self) -> bool {
        self.kind.get().is_some()
    }

    /// What it is made of, in the order of places.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The place among the entries of the endpoint for `hash`; none if there are none, or it is not built yet. Each
    /// `attempt` is likely to give another one.
    ///
    /// `total` is the number of requests under way at all endpoints, `active` those at one: an overloaded endpoint
    /// is relieved by another, if the cluster wants that.
    pub fn pick(
        &self,
        hash: u64,
        attempt: u32,
        total: impl FnOnce() -> u32,
        active: impl Fn(u32) -> u32,
    ) -> Option<u32> {
        let place = match self.kind.get()? {
            Kind::Ring(ring) => ring.pick(hash, attempt),
            Kind::Maglev(table) => table.pick(hash, attempt),
        }?;
        Some(match self.rules.balance_factor {
            None => place,
            Some(factor) => relieve(place, &self.entries, factor, hash, total(), active),
        })
    }

    /// Its statistics, by the end of their names; none before it is built.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.kind.get().into_iter().flat_map(|kind| {
            let (size, names, (fewest, most)) = match kind {
                Kind::Ring(ring) => (Some(("ring_hash_lb.size", ring.size)), RING, ring.per_host),
                Kind::Maglev(table) => (None, MAGLEV, table.per_host),
            };
            size.into_iter().chain(names.into_iter().zip([fewest, most]))
        })
    }

    fn is(&self, entries: &[Entry], rules: &HashLb) -> bool {
        *self.entries == *entries && self.rules == *rules
    }
}

const RING: [&str; 2] = ["ring_hash_lb.min_hashes_per_host", "ring_hash_lb.max_hashes_per_host"];
const MAGLEV: [&str; 2] = ["maglev_lb.min_entries_per_host", "maglev_lb.max_entries_per_host"];

/// The tables of one cluster that some worker uses.
#[derive(Debug, Default)]
pub struct HashTables(Mutex<Vec<Weak<HashTable>>>);

impl HashTables {
    /// The table of `entries`: one that exists, or a new one, which may yet have to be built. The lock is held for
    /// no longer than a small one takes to build.
    pub fn get(&self, entries: Vec<Entry>, rules: &HashLb) -> Arc<HashTable> {
        let mut tables = self.0.lock();
        tables.retain(|table| table.strong_count() > 0);
        let mut known = tables.iter().filter_map(Weak::upgrade);
        if let Some(table) = known.find(|table| table.is(&entries, rules)) {
            return table;
        }
        let table = Arc::new(HashTable::of(entries, *rules));
        if table.effort() <= AT_ONCE {
            table.build();
        } else {
            builder::build(&table);
        }
        tables.push(Arc::downgrade(&table));
        table
    }

    /// The newest table that can be used and of which `is_wanted`.
    pub fn newest(&self, is_wanted: impl Fn(&HashTable) -> bool) -> Option<Arc<HashTable>> {
        let tables: Vec<_> = self.0.lock().iter().rev().filter_map(Weak::upgrade).collect();
        tables.into_iter().find(|table| table.is_built() && is_wanted(table))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::cluster::HashFunction;

    /// Endpoints `10.0.0.1:80`, … of these weights.
    pub(in super::super) fn entries(weights: &[u32]) -> Vec<Entry> {
        let sum = f64::from(weights.iter().sum::<u32>());
        let entry = |(number, weight): (u32, &u32)| Entry {
            key: format!("{}:80", std::net::Ipv4Addr::from(0x0a00_0001 + number)).into(),
            weight: f64::from(*weight) / sum,
        };
        (0..).zip(weights).map(entry).collect()
    }

    const RULES: HashLb = HashLb {
        table: HashTableKind::Ring { minimum: 64, maximum: 128, function: HashFunction::XxHash },
        use_hostname: false,
        balance_factor: None,
    };

    #[test]
    fn a_table_is_built_once_for_all_and_goes_with_the_last() {
        let tables = HashTables::default();
        let one = tables.get(entries(&[1, 1]), &RULES);
        let same = tables.get(entries(&[1, 1]), &RULES);
        assert!(Arc::ptr_eq(&one, &same));
        let other = tables.get(entries(&[1, 2]), &RULES);
        assert!(!Arc::ptr_eq(&one, &other));
        assert!(Arc::ptr_eq(&tables.newest(|_| true).unwrap(), &other));
        drop(other);
        assert!(Arc::ptr_eq(&tables.newest(|_| true).unwrap(), &one));
        drop((one, same));
        assert!(tables.newest(|_| true).is_none());
    }

    #[tokio::test]
    async fn a_large_table_is_built_elsewhere() {
        let tables = HashTables::default();
        let rules = HashLb { table: HashTableKind::Maglev { size: 5_000_011 }, ..RULES };
        let large = tables.get(entries(&[1, 2, 3]), &rules);
        assert!(!large.is_built() && large.pick(7, 0, || 0, |_| 0).is_none());
        assert!(tables.newest(|_| true).is_none() && large.figures().next().is_none());
        Unready(Arc::clone(&large)).ready().await;
        assert!(large.is_built());
        assert!(large.pick(7, 0, || 0, |_| 0).is_some());
        assert!(Arc::ptr_eq(&tables.newest(|_| true).unwrap(), &large));
    }

    #[test]
    fn small_tables_are_built_at_once() {
        let tables = HashTables::default();
        assert!(tables.get(entries(&[1; 100]), &RULES).is_built());
        let default = HashLb { table: HashTableKind::Maglev { size: 65_537 }, ..RULES };
        assert!(tables.get(Vec::new(), &default).is_built());
        assert!(!tables.get(entries(&[1, 1]), &default).is_built());
    }

    #[test]
    fn bounded_load_looks_at_what_is_under_way() {
        let table = HashTable::new(entries(&[1, 1]), HashLb { balance_factor: Some(100), ..RULES });
        let free = table.pick(5, 0, || 2, |_| 1).unwrap();
        let relieved = table.pick(5, 0, || 4, |place| if place == free { 9 } else { 0 }).unwrap();
        assert_ne!(free, relieved);
    }
}
