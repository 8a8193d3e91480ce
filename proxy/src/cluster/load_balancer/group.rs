//! Endpoints among which a policy picks by position.

use fastrand::Rng;

use super::least_request::LeastRequest;
use super::round_robin::RoundRobin;
use super::{Candidate, View, peak_ewma};
use crate::config::cluster::{LbPolicy, PeakEwma};

/// Endpoints of like standing, and the policy that picks among them.
#[derive(Debug)]
pub(super) struct Group {
    /// Their numbers.
    members: Vec<usize>,
    policy: Policy,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    PeakEwma(PeakEwma),
    /// Any of them, whatever its weight.
    Random,
}

/// Weight and warmth of each position.
pub(super) type Shares = [(u32, f64)];

/// Whether all shares are alike, so that nothing needs to be weighed.
pub(super) fn are_even(shares: &Shares) -> bool {
    shares.iter().all(|(_, warmth)| *warmth >= 1.0)
        && shares.windows(2).all(|pair| match pair {
            [(a, _), (b, _)] => a == b,
            _ => true,
        })
}

impl Group {
    /// The endpoints with these numbers.
    pub(super) fn new<'a>(
        members: impl Iterator<Item = (usize, &'a Candidate)>,
        policy: LbPolicy,
        random: &mut Rng,
    ) -> Self {
        let (members, shares): (Vec<_>, Vec<_>) = members
            .map(|(index, candidate)| (index, (candidate.weight.max(1), candidate.warmth)))
            .unzip();
        let policy = match policy {
            LbPolicy::RoundRobin { .. } => Policy::RoundRobin(RoundRobin::new(&shares, random)),
            LbPolicy::LeastRequest(config) => {
                Policy::LeastRequest(LeastRequest::new(&shares, &config, random))
            }
            LbPolicy::PeakEwma(config) => Policy::PeakEwma(config),
            // The endpoints of a hashing policy are in tables, not in groups.
            LbPolicy::Random | LbPolicy::Hash(_) => Policy::Random,
        };
        Self { members, policy }
    }

    /// The number of the endpoint to use; none if there is none.
    pub(super) fn pick(&mut self, view: &impl View, random: &mut Rng) -> Option<usize> {
        let members = match self.members.as_slice() {
            [] => return None,
            [only] => return Some(*only),
            members => members,
        };
        let active = |position: usize| members.get(position).map_or(0, |index| view.active(*index));
        let warmth =
            |position: usize| members.get(position).map_or(1.0, |index| view.warmth(*index));
        let position = match &mut self.policy {
            Policy::RoundRobin(policy) => policy.pick(warmth)?,
            Policy::LeastRequest(policy) => policy.pick(random, active, warmth)?,
            Policy::PeakEwma(config) => {
                let latency =
                    |position: usize| members.get(position).and_then(|index| view.latency(*index));
                peak_ewma::pick(members.len(), config, random, active, latency)?
            }
            Policy::Random => random.usize(..members.len()),
        };
        members.get(position).copied()
    }
}
