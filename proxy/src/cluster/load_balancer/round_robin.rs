//! ROUND_ROBIN: each endpoint in turn, more often the larger its weight.

use fastrand::Rng;

use super::group::{Shares, are_even};
use super::schedule::Schedule;

#[derive(Debug)]
pub(super) enum RoundRobin {
    /// All weights alike: count through the positions.
    Equal { next: usize, count: usize },
    /// Weights differ, or some endpoints are not warm yet.
    Weighted { schedule: Schedule, weights: Vec<u32> },
}

impl RoundRobin {
    /// Begins at a random place, so that workers do not march in step.
    pub(super) fn new(shares: &Shares, random: &mut Rng) -> Self {
        if are_even(shares) {
            let count = shares.len();
            return Self::Equal { next: random.usize(..count.max(1)), count };
        }
        let now = shares.iter().map(|(weight, warmth)| f64::from(*weight) * warmth);
        let schedule = Schedule::new(now, random);
        Self::Weighted { schedule, weights: shares.iter().map(|(weight, _)| *weight).collect() }
    }

    /// `warmth` tells which share of its weight the endpoint at a position deserves.
    pub(super) fn pick(&mut self, warmth: impl Fn(usize) -> f64) -> Option<usize> {
        match self {
            Self::Equal { next, count } => {
                let position = *next;
                *next = if position + 1 < *count { position + 1 } else { 0 };
                (*count > 0).then_some(position)
            }
            Self::Weighted { schedule, weights } => schedule.next(|position| {
                weights.get(position).map_or(1.0, |weight| f64::from(*weight)) * warmth(position)
            }),
        }
    }
}
