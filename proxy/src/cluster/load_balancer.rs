//! Which endpoint a request goes to. Pure: health, load and randomness are arguments, and a pick allocates
//! nothing.
//!
//! Like Envoy: requests go to healthy endpoints, with their overflow to degraded ones; when too few are
//! available, to all of them (panic), since a few healthy endpoints would only be crushed as well.

mod least_request;
mod random;
mod round_robin;
mod schedule;

use fastrand::Rng;

use crate::config::cluster::LbPolicy;
use least_request::LeastRequest;
use random::Random;
use round_robin::RoundRobin;

/// How much more than its share a healthy endpoint can carry (Envoy's overprovisioning factor).
const OVERPROVISIONING: f64 = 1.4;

/// An endpoint as the balancer sees it. Its place in the list is its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Share of traffic relative to the others, at least 1.
    pub weight: u32,
    /// Whether it can be used.
    pub health: Health,
    /// Its priority; 0 is the highest.
    pub priority: u32,
}

/// Whether an endpoint can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It can, when healthy ones do not suffice.
    Degraded,
    /// It cannot: its checks fail, or it is ejected, or stated to be unhealthy.
    Unhealthy,
    /// It cannot, and does not count when the share of the available ones is figured out: it has not been
    /// checked yet, or is leaving.
    Excluded,
}

/// The endpoints of a cluster, arranged for picking. Rebuilt when membership or health changes.
#[derive(Debug)]
pub struct Balancer {
    healthy: Group,
    degraded: Group,
    all: Group,
    /// Percent of requests that go to healthy endpoints rather than degraded ones.
    healthy_share: u32,
    panic: bool,
}

/// A picked endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its number.
    pub index: usize,
    /// Whether it was picked regardless of health.
    pub panic: bool,
}

impl Balancer {
    /// Arranges `candidates`. Of several priorities, only the first with an available endpoint is used.
    pub fn new(
        candidates: &[Candidate],
        policy: LbPolicy,
        panic_threshold: f64,
        random: &mut Rng,
    ) -> Self {
        let available = |c: &&Candidate| matches!(c.health, Health::Healthy | Health::Degraded);
        let best = candidates.iter().filter(available).map(|c| c.priority).min();
        let priority = best.or_else(|| candidates.iter().map(|c| c.priority).min()).unwrap_or(0);
        let mut group = |accepts: &dyn Fn(Health) -> bool| {
            let members = candidates.iter().enumerate();
            let members = members.filter(|(_, c)| c.priority == priority && accepts(c.health));
            Group::new(members.map(|(index, c)| (index, c.weight.max(1))).collect(), policy, random)
        };
        let all = group(&|_| true);
        let healthy = group(&|health| health == Health::Healthy);
        let degraded = group(&|health| health == Health::Degraded);
        let is_excluded = |c: &&Candidate| c.priority == priority && c.health == Health::Excluded;
        let counted = all.len() - candidates.iter().filter(is_excluded).count();
        let percent = |group: &Group| 100.0 * group.len() as f64 / counted.max(1) as f64;
        let available = percent(&healthy) + percent(&degraded);
        let panic = panic_threshold > 0.0
            && (available == 0.0
                || (available * OVERPROVISIONING < 100.0 && available < panic_threshold));
        let healthy_share = (percent(&healthy) * OVERPROVISIONING).min(100.0) as u32;
        let healthy_share = if degraded.len() == 0 { 100 } else { healthy_share };
        Self { healthy, degraded, all, healthy_share, panic }
    }

    /// Picks an endpoint; none if none is available.
    ///
    /// `active` tells the requests under way at an endpoint. An endpoint that is to be `avoid`ed is passed
    /// over, at most `attempts` times: then the next is taken, whichever it is (Envoy's
    /// `host_selection_retry_max_attempts`).
    pub fn pick(
        &mut self,
        random: &mut Rng,
        active: impl Fn(usize) -> u32,
        avoid: impl Fn(usize) -> bool,
        attempts: u32,
    ) -> Option<Choice> {
        let panic = self.panic;
        let mut index = self.group(random).pick(random, &active)?;
        for _ in 0..attempts {
            if !avoid(index) {
                break;
            }
            index = self.group(random).pick(random, &active)?;
        }
        Some(Choice { index, panic })
    }

    fn group(&mut self, random: &mut Rng) -> &mut Group {
        if self.panic {
            &mut self.all
        } else if self.healthy_share >= 100 || random.u32(..100) < self.healthy_share {
            &mut self.healthy
        } else {
            &mut self.degraded
        }
    }
}

/// Endpoints of like health: their numbers, and the policy that picks among them by position.
#[derive(Debug)]
struct Group {
    members: Vec<usize>,
    policy: Policy,
}

#[derive(Debug)]
enum Policy {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    Random(Random),
}

impl Group {
    fn new(members: Vec<(usize, u32)>, policy: LbPolicy, random: &mut Rng) -> Self {
        let weights: Vec<u32> = members.iter().map(|(_, weight)| *weight).collect();
        let policy = match policy {
            LbPolicy::RoundRobin => Policy::RoundRobin(RoundRobin::new(&weights, random)),
            LbPolicy::LeastRequest { choices } => {
                Policy::LeastRequest(LeastRequest::new(&weights, choices, random))
            }
            LbPolicy::Random => Policy::Random(Random::new(&weights)),
        };
        Self { members: members.into_iter().map(|(index, _)| index).collect(), policy }
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    fn pick(&mut self, random: &mut Rng, active: &impl Fn(usize) -> u32) -> Option<usize> {
        if let [only] = self.members.as_slice() {
            return Some(*only);
        }
        let members = &self.members;
        let active = |position: usize| members.get(position).map_or(0, |index| active(*index));
        let position = match &mut self.policy {
            Policy::RoundRobin(policy) => policy.pick(),
            Policy::LeastRequest(policy) => policy.pick(random, active),
            Policy::Random(policy) => policy.pick(random),
        };
        members.get(position?).copied()
    }
}

/// Whether all weights are alike, so that nothing needs to be weighed.
fn are_equal(weights: &[u32]) -> bool {
    weights.windows(2).all(|pair| pair.first() == pair.last())
}

#[cfg(test)]
mod tests;
