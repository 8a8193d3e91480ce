//! ROUND_ROBIN: each endpoint in turn, more often the larger its weight.

use fastrand::Rng;

use super::are_equal;
use super::schedule::Schedule;

#[derive(Debug)]
pub(super) enum RoundRobin {
    /// All weights alike: count through the positions.
    Equal { next: usize, count: usize },
    /// Weights differ.
    Weighted { schedule: Schedule, weights: Vec<u32> },
}

impl RoundRobin {
    /// Begins at a random place, so that workers do not march in step.
    pub(super) fn new(weights: &[u32], random: &mut Rng) -> Self {
        if are_equal(weights) {
            let count = weights.len();
            Self::Equal { next: random.usize(..count.max(1)), count }
        } else {
            let schedule = Schedule::new(weights.iter().map(|weight| f64::from(*weight)), random);
            Self::Weighted { schedule, weights: weights.to_vec() }
        }
    }

    pub(super) fn pick(&mut self) -> Option<usize> {
        match self {
            Self::Equal { next, count } => {
                let position = *next;
                *next = if position + 1 < *count { position + 1 } else { 0 };
                (*count > 0).then_some(position)
            }
            Self::Weighted { schedule, weights } => {
                schedule.next(|position| weights.get(position).map_or(1.0, |w| f64::from(*w)))
            }
        }
    }
}
