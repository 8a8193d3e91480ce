//! Earliest deadline first: a weighted round robin in which every member comes up evenly spaced.
//!
//! A member of weight w is due every 1/w. The first deadlines are spread at random, so that workers (and
//! proxies) that start together do not all send to the same endpoint at the same time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use fastrand::Rng;

/// Members by the time they are due.
#[derive(Debug)]
pub(super) struct Schedule(BinaryHeap<Reverse<Due>>);

#[derive(Debug, Clone, Copy)]
struct Due {
    deadline: f64,
    position: usize,
}

impl Schedule {
    /// Members with the positions and shares of `weights`, which are larger than 0.
    pub(super) fn new(weights: impl IntoIterator<Item = f64>, random: &mut Rng) -> Self {
        let due = weights
            .into_iter()
            .enumerate()
            .map(|(position, weight)| Reverse(Due { deadline: random.f64() / weight, position }));
        Self(due.collect())
    }

    /// The member that is due, which is then due again after the inverse of `weight` of it.
    pub(super) fn next(&mut self, weight: impl Fn(usize) -> f64) -> Option<usize> {
        let mut first = self.0.peek_mut()?;
        let Reverse(due) = &mut *first;
        let position = due.position;
        due.deadline += 1.0 / weight(position);
        Some(position)
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.deadline.total_cmp(&other.deadline).then(self.position.cmp(&other.position))
    }
}
