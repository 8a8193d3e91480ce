//! RANDOM: any endpoint, more likely the larger its weight.
//!
//! Envoy gives every endpoint the same chance whatever its weight; an operator who writes weights wants them.

use fastrand::Rng;

use super::are_equal;

#[derive(Debug)]
pub(super) enum Random {
    /// All weights alike.
    Equal(usize),
    /// Each position's weight added to those before it.
    Weighted(Vec<u64>),
}

impl Random {
    pub(super) fn new(weights: &[u32]) -> Self {
        if are_equal(weights) {
            return Self::Equal(weights.len());
        }
        let sums = weights.iter().scan(0_u64, |sum, weight| {
            *sum += u64::from(*weight);
            Some(*sum)
        });
        Self::Weighted(sums.collect())
    }

    pub(super) fn pick(&self, random: &mut Rng) -> Option<usize> {
        match self {
            Self::Equal(count) => (*count > 0).then(|| random.usize(..*count)),
            Self::Weighted(sums) => {
                let point = random.u64(..*sums.last()?);
                Some(sums.partition_point(|sum| *sum <= point))
            }
        }
    }
}
