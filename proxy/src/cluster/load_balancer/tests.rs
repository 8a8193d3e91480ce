//! Distributions, health and panic.

use fastrand::Rng;
use proptest::prelude::{any, prop_assert, proptest};

use super::*;

const POLICIES: [LbPolicy; 3] =
    [LbPolicy::RoundRobin, LbPolicy::LeastRequest { choices: 2 }, LbPolicy::Random];

fn healthy(weights: &[u32]) -> Vec<Candidate> {
    let candidate =
        |weight: &u32| Candidate { weight: *weight, health: Health::Healthy, priority: 0 };
    weights.iter().map(candidate).collect()
}

fn with_health(health: &[Health]) -> Vec<Candidate> {
    health.iter().map(|health| Candidate { weight: 1, health: *health, priority: 0 }).collect()
}

fn balancer(candidates: &[Candidate], policy: LbPolicy) -> Balancer {
    Balancer::new(candidates, policy, 50.0, &mut Rng::with_seed(7))
}

/// Picks `count` times without load; returns how often each was picked.
fn counts(balancer: &mut Balancer, hosts: usize, count: usize) -> Vec<usize> {
    let mut random = Rng::with_seed(11);
    let mut counts = vec![0; hosts];
    for _ in 0..count {
        let choice = balancer.pick(&mut random, |_| 0, |_| false, 0).unwrap();
        counts[choice.index] += 1;
    }
    counts
}

#[test]
fn round_robin_is_exact() {
    let mut equal = balancer(&healthy(&[1, 1, 1]), LbPolicy::RoundRobin);
    assert_eq!(counts(&mut equal, 3, 300), [100, 100, 100]);
    let mut weighted = balancer(&healthy(&[1, 2, 7]), LbPolicy::RoundRobin);
    let counts = counts(&mut weighted, 3, 1000);
    for (count, share) in counts.iter().zip([100, 200, 700]) {
        assert!(count.abs_diff(share) <= 1, "{counts:?}");
    }
}

#[test]
fn round_robin_spreads_a_heavy_endpoint_evenly() {
    let mut weighted = balancer(&healthy(&[1, 3]), LbPolicy::RoundRobin);
    let mut random = Rng::with_seed(1);
    let picks: Vec<usize> =
        (0..40).map(|_| weighted.pick(&mut random, |_| 0, |_| false, 0).unwrap().index).collect();
    let gaps: Vec<usize> = picks.split(|index| *index == 0).map(<[usize]>::len).collect();
    assert!(gaps[1..gaps.len() - 1].iter().all(|gap| (2..=4).contains(gap)), "{gaps:?}");
}

#[test]
fn workers_do_not_march_in_step() {
    let firsts: std::collections::HashSet<usize> = (0..50)
        .map(|seed| {
            let mut random = Rng::with_seed(seed);
            let mut balancer =
                Balancer::new(&healthy(&[1; 10]), LbPolicy::RoundRobin, 50.0, &mut random);
            balancer.pick(&mut random, |_| 0, |_| false, 0).unwrap().index
        })
        .collect();
    assert!(firsts.len() >= 5, "{firsts:?}");
}

#[test]
fn random_follows_weights() {
    let mut random = balancer(&healthy(&[1, 0, 3, 6]), LbPolicy::Random);
    let counts = counts(&mut random, 4, 11_000);
    for (count, share) in counts.iter().zip([1_000_usize, 1_000, 3_000, 6_000]) {
        assert!(count.abs_diff(share) < 200, "a weight of 0 counts as 1: {counts:?}");
    }
}

#[test]
fn least_request_prefers_the_idle() {
    let mut balancer = balancer(&healthy(&[1, 1]), LbPolicy::LeastRequest { choices: 2 });
    let mut random = Rng::with_seed(3);
    let busy = (0..1000)
        .filter(|_| {
            let active = |index: usize| if index == 0 { 9 } else { 1 };
            balancer.pick(&mut random, active, |_| false, 0).unwrap().index == 0
        })
        .count();
    assert!((200..300).contains(&busy), "only when drawn twice, a quarter of the time: {busy}");
}

#[test]
fn least_request_evens_out_load_by_weight() {
    let weights = [1, 4];
    let mut balancer = balancer(&healthy(&weights), LbPolicy::LeastRequest { choices: 2 });
    let mut random = Rng::with_seed(3);
    let idle = counts(&mut balancer, 2, 1000);
    assert!(idle[0].abs_diff(200) <= 2, "without load by weight alone: {idle:?}");
    let busy = (0..1000)
        .filter(|_| {
            let active = |index: usize| if index == 0 { 0 } else { 7 };
            balancer.pick(&mut random, active, |_| false, 0).unwrap().index == 1
        })
        .count();
    assert!((300..370).contains(&busy), "4/8 against 1/1: {busy}");
}

#[test]
fn unhealthy_endpoints_get_nothing() {
    use Health::{Healthy, Unhealthy};
    for policy in POLICIES {
        let mut balancer = balancer(&with_health(&[Healthy, Unhealthy, Healthy]), policy);
        let counts = counts(&mut balancer, 3, 100);
        assert_eq!(counts[1], 0);
        assert!(counts[0] > 20 && counts[2] > 20);
    }
}

#[test]
fn too_few_healthy_ones_are_panic() {
    use Health::{Healthy, Unhealthy};
    let mostly_gone = with_health(&[Healthy, Unhealthy, Unhealthy]);
    let mut random = Rng::with_seed(5);
    for policy in POLICIES {
        let mut panicking = balancer(&mostly_gone, policy);
        let choice = panicking.pick(&mut random, |_| 0, |_| false, 0).unwrap();
        assert!(choice.panic);
        assert!(counts(&mut panicking, 3, 300).iter().all(|count| *count > 50));
        let mut calm = Balancer::new(&mostly_gone, policy, 0.0, &mut random);
        assert_eq!(counts(&mut calm, 3, 10), [10, 0, 0], "a threshold of 0 turns panic off");
    }
    // Exactly half is not less than half.
    let half = balancer(&with_health(&[Healthy, Unhealthy]), LbPolicy::Random);
    assert!(!half.panic);
}

#[test]
fn enough_capacity_is_no_panic_whatever_the_threshold() {
    use Health::{Healthy, Unhealthy};
    let health = with_health(&[Healthy, Healthy, Healthy, Unhealthy]);
    let mut random = Rng::with_seed(5);
    let balancer = Balancer::new(&health, LbPolicy::Random, 90.0, &mut random);
    assert!(!balancer.panic, "three of four, at 140 %, carry everything");
}

#[test]
fn without_any_healthy_endpoint_panic_or_nothing() {
    let gone = with_health(&[Health::Unhealthy, Health::Unhealthy]);
    let mut random = Rng::with_seed(5);
    let mut panicking = balancer(&gone, LbPolicy::RoundRobin);
    assert!(panicking.pick(&mut random, |_| 0, |_| false, 0).unwrap().panic);
    let mut calm = Balancer::new(&gone, LbPolicy::RoundRobin, 0.0, &mut random);
    assert_eq!(calm.pick(&mut random, |_| 0, |_| false, 0), None);
    for policy in POLICIES {
        assert_eq!(balancer(&[], policy).pick(&mut random, |_| 0, |_| false, 3), None);
    }
}

#[test]
fn degraded_endpoints_take_the_overflow() {
    use Health::{Degraded, Healthy};
    let health = with_health(&[Healthy, Degraded, Degraded, Degraded]);
    let mut overflowing = balancer(&health, LbPolicy::RoundRobin);
    let picked = counts(&mut overflowing, 4, 1000);
    assert!((300..400).contains(&picked[0]), "a quarter of them carries 35 %: {picked:?}");
    let health = with_health(&[Healthy, Healthy, Healthy, Degraded]);
    assert_eq!(counts(&mut balancer(&health, LbPolicy::RoundRobin), 4, 300)[3], 0);
}

#[test]
fn a_lower_priority_serves_only_when_the_higher_is_gone() {
    let mut candidates = healthy(&[1, 1]);
    candidates[1].priority = 1;
    assert_eq!(counts(&mut balancer(&candidates, LbPolicy::RoundRobin), 2, 10), [10, 0]);
    candidates[0].health = Health::Unhealthy;
    assert_eq!(counts(&mut balancer(&candidates, LbPolicy::RoundRobin), 2, 10), [0, 10]);
}

#[test]
fn endpoints_to_avoid_are_passed_over_as_often_as_allowed() {
    let mut random = Rng::with_seed(5);
    let mut balancer = balancer(&healthy(&[1, 1, 1]), LbPolicy::RoundRobin);
    for _ in 0..30 {
        let choice = balancer.pick(&mut random, |_| 0, |index| index != 2, 2).unwrap();
        assert_eq!(choice.index, 2);
    }
    let choice = balancer.pick(&mut random, |_| 0, |_| true, 5);
    assert!(choice.is_some(), "the last one is taken, whichever it is");
}

proptest! {
    #[test]
    fn picks_are_members_and_weights_are_kept(
        weights in proptest::collection::vec(1_u32..20, 1..12),
        seed in any::<u64>(),
    ) {
        let mut random = Rng::with_seed(seed);
        let mut balancer =
            Balancer::new(&healthy(&weights), LbPolicy::RoundRobin, 50.0, &mut random);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..total * 10 {
            let choice = balancer.pick(&mut random, |_| 0, |_| false, 0).unwrap();
            counts[choice.index] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!(count.abs_diff(weight * 10) <= 1, "{:?} for {:?}", counts, weights);
        }
    }

    #[test]
    fn without_panic_only_available_endpoints_are_picked(
        health in proptest::collection::vec(0_u8..3, 1..12),
        policy in 0_usize..3,
        seed in any::<u64>(),
    ) {
        let health: Vec<Health> = health
            .into_iter()
            .map(|n| [Health::Healthy, Health::Degraded, Health::Unhealthy][usize::from(n)])
            .collect();
        let mut random = Rng::with_seed(seed);
        let mut balancer =
            Balancer::new(&with_health(&health), POLICIES[policy], 50.0, &mut random);
        for _ in 0..20 {
            let choice = balancer.pick(&mut random, |index| index as u32, |_| false, 0).unwrap();
            prop_assert!(choice.panic || health[choice.index] != Health::Unhealthy);
        }
    }
}
