//! Consistent hashing with bounded loads: an endpoint that has more than its share of requests under way is passed
//! over for another one. Which one depends on the hash, and is the one Envoy would take.

use super::hash_table::Entry;

/// The endpoint to use in place of `first` (its place among `entries`) for `hash`.
///
/// `factor` is the share of the average load, in percent, that an endpoint may carry; `total` the requests under way
/// at all endpoints, `active` those at one.
pub(super) fn relieve(
    first: u32,
    entries: &[Entry],
    factor: u32,
    hash: u64,
    total: u32,
    active: impl Fn(u32) -> u32,
) -> u32 {
    let slots = (u64::from(total) + 1).saturating_mul(u64::from(factor)).div_ceil(100);
    let overload = |place: u32| {
        let weight = entries.get(place as usize).map_or(0.0, |entry| entry.weight);
        f64::from(active(place)) / (slots as f64 * weight).ceil().max(1.0)
    };
    let mut best = (overload(first), first);
    if best.0 <= 1.0 {
        return first;
    }
    let mut places: Vec<u32> = (0..).zip(entries).map(|(place, _)| place).collect();
    let mut random = Mersenne::new(hash as u32);
    for place in 0..places.len() {
        let further = random.below((places.len() - place) as u32);
        places.swap(place, place + further as usize);
        let Some(other) = places.get(place).copied().filter(|other| *other != first) else {
            continue;
        };
        let load = overload(other);
        if load <= 1.0 {
            return other;
        }
        if load < best.0 {
            best = (load, other);
        }
    }
    best.1
}

/// MT19937, the generator of which Envoy takes its shuffle.
struct Mersenne {
    state: Box<[u32; Self::WORDS]>,
    next: usize,
}

impl Mersenne {
    const WORDS: usize = 624;
    const MIDDLE: usize = 397;

    fn new(seed: u32) -> Self {
        let mut state = Box::new([seed; Self::WORDS]);
        let mut last = seed;
        for (index, word) in (0..).zip(state.iter_mut()).skip(1) {
            last = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(index);
            *word = last;
        }
        Self { state, next: Self::WORDS }
    }

    fn twist(&mut self) {
        let state = &mut *self.state;
        for index in 0..Self::WORDS {
            let at = |offset: usize| (index + offset) % Self::WORDS;
            let mixed = (state[at(0)] & 0x8000_0000) | (state[at(1)] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            state[index] = state[at(Self::MIDDLE)] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn next(&mut self) -> u32 {
        if self.next == Self::WORDS {
            self.twist();
        }
        let mut word = self.state.get(self.next).copied().unwrap_or_default();
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number below `limit`, each as likely; `limit` is at least 1.
    fn below(&mut self, limit: u32) -> u32 {
        let width = (1_u64 << 32) / u64::from(limit.max(1));
        loop {
            let number = u64::from(self.next()) / width;
            if number < u64::from(limit.max(1)) {
                return number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::load_balancer::hash_table::tests::entries;

    #[test]
    fn the_generator_is_mt19937() {
        let mut random = Mersenne::new(5489);
        assert_eq!(random.next(), 3_499_211_612);
        for _ in 2..10_000 {
            random.next();
        }
        assert_eq!(random.next(), 4_123_659_995);
    }

    #[test]
    fn an_endpoint_within_its_share_is_kept() {
        let entries = entries(&[1, 1, 1, 1]);
        assert_eq!(relieve(2, &entries, 150, 7, 8, |_| 2), 2);
        assert_eq!(relieve(2, &entries, 150, 7, 8, |place| if place == 2 { 4 } else { 1 }), 2);
    }

    #[test]
    fn an_overloaded_endpoint_is_relieved_by_the_same_other_one() {
        let entries = entries(&[1, 1, 1, 1]);
        let busy = |place| if place == 2 { 5 } else { 1 };
        let other = relieve(2, &entries, 150, 7, 8, busy);
        assert_ne!(other, 2);
        assert_eq!(relieve(2, &entries, 150, 7, 8, busy), other);
        let others: std::collections::HashSet<_> =
            (0..50).map(|hash| relieve(2, &entries, 150, hash, 8, busy)).collect();
        assert_eq!(others.len(), 3);
    }

    #[test]
    fn if_all_are_overloaded_the_least_is_taken() {
        let entries = entries(&[1, 1, 1]);
        let loads = [9, 6, 8];
        assert_eq!(relieve(0, &entries, 100, 3, 10, |place| loads[place as usize]), 1);
    }
}
