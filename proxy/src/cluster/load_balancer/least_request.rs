//! LEAST_REQUEST: of a few random endpoints the one with the fewest requests under way; with weights, a
//! weighted round robin in which load counts against an endpoint.

use fastrand::Rng;

use super::group::{Shares, are_even};
use super::schedule::Schedule;
use crate::config::cluster::LeastRequest as Config;

#[derive(Debug)]
pub(super) enum LeastRequest {
    /// All weights alike: the least busy of `choices` random ones.
    Sampled { count: usize, choices: u32 },
    /// All weights alike: the least busy of all.
    Scanned { count: usize },
    /// Weights differ, or some endpoints are not warm yet: an endpoint is due the later the busier it is.
    Weighted { schedule: Schedule, weights: Vec<u32>, bias: f64 },
}

impl LeastRequest {
    pub(super) fn new(shares: &Shares, config: &Config, random: &mut Rng) -> Self {
        let count = shares.len();
        match are_even(shares) {
            true if config.full_scan => Self::Scanned { count },
            true => Self::Sampled { count, choices: config.choices.max(2) },
            false => {
                let now = shares.iter().map(|(weight, warmth)| f64::from(*weight) * warmth);
                Self::Weighted {
                    schedule: Schedule::new(now, random),
                    weights: shares.iter().map(|(weight, _)| *weight).collect(),
                    bias: config.active_request_bias,
                }
            }
        }
    }

    /// `active` tells the requests under way at a position, `warmth` which share of its weight the endpoint there
    /// deserves.
    pub(super) fn pick(
        &mut self,
        random: &mut Rng,
        active: impl Fn(usize) -> u32,
        warmth: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        match self {
            Self::Sampled { count: 0, .. } => None,
            Self::Sampled { count, choices } => {
                // Of equals the first drawn wins, and the draws are random.
                (0..*choices)
                    .map(|_| random.usize(..*count))
                    .min_by_key(|position| active(*position))
            }
            Self::Scanned { count } => least(*count, random, active),
            Self::Weighted { schedule, weights, bias } => schedule.next(|position| {
                let weight = weights.get(position).map_or(1.0, |weight| f64::from(*weight));
                let busy = f64::from(active(position)) + 1.0;
                let busy = if *bias == 1.0 { busy } else { busy.powf(*bias) };
                weight / busy * warmth(position)
            }),
        }
    }
}

/// The least busy position, each of equals with the same chance.
fn least(count: usize, random: &mut Rng, active: impl Fn(usize) -> u32) -> Option<usize> {
    let (mut best, mut fewest, mut equals) = (None, u32::MAX, 0);
    for position in 0..count {
        let active = active(position);
        if best.is_none() || active < fewest {
            (best, fewest, equals) = (Some(position), active, 1);
        } else if active == fewest {
            equals += 1;
            if random.usize(..equals) == 0 {
                best = Some(position);
            }
        }
    }
    best
}
