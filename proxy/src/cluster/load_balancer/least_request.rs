//! LEAST_REQUEST: of a few random endpoints the one with the fewest requests under way; with weights, a
//! weighted round robin in which load counts against an endpoint.

use fastrand::Rng;

use super::are_equal;
use super::schedule::Schedule;

#[derive(Debug)]
pub(super) enum LeastRequest {
    /// All weights alike: the least busy of `choices` random ones.
    Equal { count: usize, choices: u32 },
    /// Weights differ: an endpoint is due the later the busier it is.
    Weighted { schedule: Schedule, weights: Vec<u32> },
}

impl LeastRequest {
    pub(super) fn new(weights: &[u32], choices: u32, random: &mut Rng) -> Self {
        if are_equal(weights) {
            Self::Equal { count: weights.len(), choices: choices.max(2) }
        } else {
            let schedule = Schedule::new(weights.iter().map(|weight| f64::from(*weight)), random);
            Self::Weighted { schedule, weights: weights.to_vec() }
        }
    }

    pub(super) fn pick(
        &mut self,
        random: &mut Rng,
        active: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        match self {
            Self::Equal { count: 0, .. } => None,
            Self::Equal { count, choices } => {
                // Of equals the first drawn wins, and the draws are random.
                (0..*choices)
                    .map(|_| random.usize(..*count))
                    .min_by_key(|position| active(*position))
            }
            Self::Weighted { schedule, weights } => schedule.next(|position| {
                let weight = weights.get(position).map_or(1.0, |weight| f64::from(*weight));
                weight / (f64::from(active(position)) + 1.0)
            }),
        }
    }
}
