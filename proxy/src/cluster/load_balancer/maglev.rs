//! The table of MAGLEV: every slot belongs to one endpoint, and a hash to the slot of its remainder. The same table
//! as Envoy's, so that both send a key to the same endpoint.

use twox_hash::XxHash64;

use super::hash_table::Entry;

/// Endpoints in the slots of a table.
#[derive(Debug)]
pub(super) struct Maglev {
    slots: Slots,
    /// Slots of the endpoint that has fewest, and of the one that has most.
    pub(super) per_host: (u64, u64),
}

/// The endpoint of each slot, in as few bytes as their number allows.
#[derive(Debug)]
enum Slots {
    Bytes(Box<[u8]>),
    Shorts(Box<[u16]>),
    Words(Box<[u32]>),
}

/// One endpoint while the table is filled: the order in which it asks for slots, and how often it may.
struct Applicant {
    owner: u32,
    next: u64,
    skip: u64,
    weight: f64,
    target: f64,
    count: u64,
}

impl Maglev {
    /// A table of `size` slots, which must be a prime number.
    pub(super) fn new(entries: &[Entry], size: u32) -> Self {
        let mut applicants = applicants(entries, u64::from(size));
        let owners = fill(&mut applicants, size);
        let counts = applicants.iter().map(|applicant| applicant.count);
        let per_host = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
        Self { slots: Slots::new(&owners, entries.len()), per_host }
    }

    /// The endpoint of `hash`, another one for each `attempt`; none if there are none.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<u32> {
        // The highest bits change, so that attempts are spread over the table.
        let hash = hash ^ u64::from(attempt).wrapping_neg();
        self.slots.get(hash)
    }
}

/// The endpoints in the order of their keys, whatever order they are listed in.
fn applicants(entries: &[Entry], size: u64) -> Vec<Applicant> {
    let mut sorted: Vec<(u32, &Entry)> = (0..).zip(entries).collect();
    sorted.sort_by(|(_, a), (_, b)| a.key.as_bytes().cmp(b.key.as_bytes()));
    let applicant = |(owner, entry): (u32, &Entry)| {
        let key = entry.key.as_bytes();
        Applicant {
            owner,
            next: XxHash64::oneshot(0, key) % size,
            skip: XxHash64::oneshot(1, key) % (size - 1).max(1) + 1,
            weight: entry.weight,
            target: 0.0,
            count: 0,
        }
    };
    sorted.into_iter().map(applicant).collect()
}

/// Lets the endpoints take slots in turn, those of less weight in fewer rounds, until all are taken.
fn fill(applicants: &mut [Applicant], size: u32) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    if applicants.is_empty() {
        return Vec::new();
    }
    let heaviest = applicants.iter().map(|applicant| applicant.weight).fold(0.0, f64::max);
    let mut owners = vec![FREE; size as usize];
    let mut left = size;
    let mut round = 1.0;
    loop {
        for applicant in &mut *applicants {
            if round * applicant.weight < applicant.target {
                continue;
            }
            applicant.target += heaviest;
            let free = loop {
                let slot = applicant.next;
                applicant.next = (slot + applicant.skip) % u64::from(size);
                if let Some(owner) = owners.get_mut(slot as usize)
                    && *owner == FREE
                {
                    break owner;
                }
            };
            *free = applicant.owner;
            applicant.count += 1;
            left -= 1;
            if left == 0 {
                return owners;
            }
        }
        round += 1.0;
    }
}

impl Slots {
    #[expect(clippy::cast_possible_truncation, reason = "there are only so many endpoints")]
    fn new(owners: &[u32], endpoints: usize) -> Self {
        match endpoints {
            0..=0x100 => Self::Bytes(owners.iter().map(|owner| *owner as u8).collect()),
            0x101..=0x1_0000 => Self::Shorts(owners.iter().map(|owner| *owner as u16).collect()),
            _ => Self::Words(owners.into()),
        }
    }

    fn get(&self, hash: u64) -> Option<u32> {
        let slot = |slots: usize| hash.checked_rem(slots as u64).map(|slot| slot as usize);
        match self {
            Self::Bytes(owners) => owners.get(slot(owners.len())?).map(|owner| u32::from(*owner)),
            Self::Shorts(owners) => owners.get(slot(owners.len())?).map(|owner| u32::from(*owner)),
            Self::Words(owners) => owners.get(slot(owners.len())?).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::load_balancer::hash_table::tests::entries;

    fn owners(table: &Maglev, size: u64) -> Vec<u32> {
        (0..size).map(|slot| table.pick(slot, 0).unwrap()).collect()
    }

    #[test]
    fn slots_are_shared_by_weight() {
        let table = Maglev::new(&entries(&[1, 1, 1]), 65_537);
        assert_eq!(table.per_host, (21_845, 21_846));
        let table = Maglev::new(&entries(&[1, 3]), 1009);
        assert_eq!(table.per_host, (253, 756));
        assert_eq!(Maglev::new(&[], 1009).pick(5, 0), None);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let list = entries(&[1, 2, 3, 4]);
        let reversed: Vec<_> = list.iter().rev().cloned().collect();
        let (table, other) = (Maglev::new(&list, 1009), Maglev::new(&reversed, 1009));
        let other: Vec<u32> = owners(&other, 1009).into_iter().map(|owner| 3 - owner).collect();
        assert_eq!(owners(&table, 1009), other);
    }

    #[test]
    fn many_endpoints_find_their_places_too() {
        for (endpoints, size) in [(300, 1009), (70_000, 100_003)] {
            let table = Maglev::new(&entries(&vec![1; endpoints]), size);
            let mut owners = owners(&table, u64::from(size));
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(owners.len(), endpoints);
        }
    }

    #[test]
    fn an_endpoint_that_leaves_moves_few_of_the_others_keys() {
        let list = entries(&[1; 10]);
        let (before, after) = (Maglev::new(&list, 65_537), Maglev::new(&list[..9], 65_537));
        let pairs = owners(&before, 65_537).into_iter().zip(owners(&after, 65_537));
        let moved = pairs.filter(|(before, after)| *before != 9 && before != after).count();
        assert!(moved < 65_537 / 20, "{moved}");
    }

    #[test]
    fn attempts_look_elsewhere() {
        let table = Maglev::new(&entries(&[1; 10]), 65_537);
        let picks: std::collections::HashSet<_> =
            (0..20).map(|attempt| table.pick(7, attempt)).collect();
        assert!(picks.len() > 5, "{picks:?}");
    }
}
