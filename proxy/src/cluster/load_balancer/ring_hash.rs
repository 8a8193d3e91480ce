//! The ring of RING_HASH: every endpoint stands at many places of it, and a hash belongs to the next place.
//! The same ring as Envoy's, so that both send a key to the same endpoint.

use std::fmt::Write as _;

use twox_hash::XxHash64;

use super::hash_table::Entry;
use crate::config::cluster::HashFunction;

/// Seed of `std::hash`, whose results MURMUR_HASH_2 repeats.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// Endpoints on a ring.
#[derive(Debug)]
pub(super) struct Ring {
    /// The places, ascending.
    places: Box<[u64]>,
    /// Which endpoint stands at each place.
    owners: Box<[u32]>,
    /// Places there were meant to be.
    pub(super) size: u64,
    /// Places of the endpoint that has fewest, and of the one that has most.
    pub(super) per_host: (u64, u64),
}

impl Ring {
    /// A ring of about `minimum` places or more, so that the lightest endpoint has a whole number of them, but at
    /// most `maximum`.
    pub(super) fn new(
        entries: &[Entry],
        (minimum, maximum): (u32, u32),
        function: HashFunction,
    ) -> Self {
        let scale = scale(entries, (minimum, maximum));
        let size = scale.ceil() as u64;
        let mut per_host = (size, 0);
        let mut ring: Vec<(u64, u32)> = Vec::with_capacity(size as usize);
        let (mut target, mut text) = (0.0, String::new());
        for (owner, entry) in (0..).zip(entries) {
            // Whole numbers of places that follow the running sum of shares.
            target += scale * entry.weight;
            let mut count = 0;
            while (ring.len() as f64) < target {
                text.clear();
                let _ = write!(text, "{}_{count}", entry.key);
                ring.push((hash(function, text.as_bytes()), owner));
                count += 1;
            }
            per_host = (per_host.0.min(count), per_host.1.max(count));
        }
        ring.sort_unstable();
        let (places, owners): (Vec<u64>, Vec<u32>) = ring.into_iter().unzip();
        Self { places: places.into(), owners: owners.into(), size, per_host }
    }

    /// The endpoint of `hash`, or the one `attempt` places further; none if there are none.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<u32> {
        let place = self.places.partition_point(|place| *place < hash);
        // Past the last place comes the first.
        let place = if place == self.places.len() { 0 } else { place };
        let place = (place + attempt as usize).checked_rem(self.owners.len())?;
        self.owners.get(place).copied()
    }
}

/// How many places a ring of `entries` has.
pub(super) fn scale(entries: &[Entry], (minimum, maximum): (u32, u32)) -> f64 {
    if entries.is_empty() {
        return 0.0;
    }
    let lightest = entries.iter().map(|entry| entry.weight).fold(1.0, f64::min);
    ((lightest * f64::from(minimum)).ceil() / lightest).min(f64::from(maximum))
}

fn hash(function: HashFunction, text: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => XxHash64::oneshot(0, text),
        HashFunction::MurmurHash2 => murmur2(text),
    }
}

/// MurmurHash64A as `std::hash` of 64-bit systems uses it.
fn murmur2(text: &[u8]) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let (words, rest) = text.as_chunks::<8>();
    let mut hash = MURMUR_SEED ^ (text.len() as u64).wrapping_mul(FACTOR);
    for word in words {
        let data = mix(u64::from_le_bytes(*word).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = (hash ^ data).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let data = rest.iter().rev().fold(0, |data, byte| data << 8 | u64::from(*byte));
        hash = (hash ^ data).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::load_balancer::hash_table::tests::entries;

    #[test]
    fn equal_endpoints_have_equal_numbers_of_places() {
        let ring = Ring::new(&entries(&[1, 1, 1]), (1024, 8 << 20), HashFunction::XxHash);
        assert_eq!((ring.places.len(), ring.per_host), (1026, (342, 342)));
        assert!(ring.places.is_sorted());
    }

    #[test]
    fn a_ring_is_no_larger_than_allowed() {
        let ring = Ring::new(&entries(&[1, 1, 1, 1]), (1024, 6), HashFunction::XxHash);
        assert_eq!((ring.size, ring.places.len(), ring.per_host), (6, 6, (1, 2)));
    }

    #[test]
    fn a_hash_belongs_to_the_next_place() {
        let ring = Ring::new(&entries(&[1, 2]), (12, 100), HashFunction::XxHash);
        let (first, last) = (ring.places[0], *ring.places.last().unwrap());
        for hash in [0, first] {
            assert_eq!(ring.pick(hash, 0), Some(ring.owners[0]));
        }
        assert_eq!(ring.pick(first + 1, 0), Some(ring.owners[1]));
        assert_eq!(ring.pick(last, 0), Some(*ring.owners.last().unwrap()));
        assert_eq!(ring.pick(last, 1), Some(ring.owners[0]));
        assert_eq!(ring.pick(u64::MAX, 0), Some(ring.owners[0]));
        assert_eq!(ring.pick(0, 12), ring.pick(0, 0));
        let empty = Ring::new(&[], (12, 100), HashFunction::XxHash);
        assert_eq!((empty.pick(7, 1), empty.size, empty.per_host), (None, 0, (0, 0)));
    }

    #[test]
    fn murmur_hashes_like_the_standard_library_of_cpp() {
        for (text, expected) in [
            ("", 0x553e_9390_1e46_2a6e_u64),
            ("a", 0x454d_dee4_88c1_ed6b),
            ("12345678", 0x8c5b_90a3_3a04_dca5),
            ("hello world", 0x4d66_86d3_6206_7ff9),
        ] {
            assert_eq!(murmur2(text.as_bytes()), expected, "{text}");
        }
    }
}
