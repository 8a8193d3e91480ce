//! Distributions, health and panic.

use std::cell::Cell;

use fastrand::Rng;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::config::cluster::LeastRequest;

const ROUND_ROBIN: LbPolicy = LbPolicy::RoundRobin { slow_start: None };

const POLICIES: [LbPolicy; 3] = [
    ROUND_ROBIN,
    LbPolicy::LeastRequest(LeastRequest {
        choices: 2,
        full_scan: false,
        active_request_bias: 1.0,
        slow_start: None,
    }),
    LbPolicy::Random,
];

fn least_request(edit: impl FnOnce(&mut LeastRequest)) -> LbPolicy {
    let mut config = LeastRequest::default();
    edit(&mut config);
    LbPolicy::LeastRequest(config)
}

fn candidate(weight: u32, health: Health) -> Candidate {
    Candidate { weight, warmth: 1.0, health, priority: 0, locality: 0, locality_weight: 0 }
}

fn healthy(weights: &[u32]) -> Vec<Candidate> {
    weights.iter().map(|weight| candidate(*weight, Health::Healthy)).collect()
}

fn with_health(health: &[Health]) -> Vec<Candidate> {
    health.iter().map(|health| candidate(1, *health)).collect()
}

fn rules(policy: LbPolicy) -> Rules {
    Rules { policy, ..Rules::default() }
}

fn balancer(candidates: &[Candidate], policy: LbPolicy) -> Balancer {
    Balancer::new(candidates, &rules(policy), &mut Rng::with_seed(7))
}

fn calm(policy: LbPolicy) -> Rules {
    Rules { panic_threshold: 0, ..rules(policy) }
}

/// Endpoints with `active` requests under way and some to avoid.
struct Hosts<A, V> {
    active: A,
    avoids: V,
    warmth: fn(usize) -> f64,
    panics: Cell<usize>,
}

impl<A: Fn(usize) -> u32, V: Fn(usize) -> bool> Hosts<A, V> {
    fn new(active: A, avoids: V) -> Self {
        Self { active, avoids, warmth: |_| 1.0, panics: Cell::new(0) }
    }
}

impl<A: Fn(usize) -> u32, V: Fn(usize) -> bool> View for Hosts<A, V> {
    fn active(&self, index: usize) -> u32 {
        (self.active)(index)
    }

    fn warmth(&self, index: usize) -> f64 {
        (self.warmth)(index)
    }

    fn avoids(&self, index: usize) -> bool {
        (self.avoids)(index)
    }

    fn notes(&self, event: Event) {
        match event {
            Event::Panic => self.panics.set(self.panics.get() + 1),
            other => panic!("nobody knows of zones: {other:?}"),
        }
    }
}

/// One pick without load; the endpoint, and whether it was made in panic.
fn pick(balancer: &mut Balancer, random: &mut Rng) -> Option<(usize, bool)> {
    let hosts = Hosts::new(|_| 0, |_| false);
    let index = balancer.pick(&hosts, 0, random).unwrap();
    index.map(|index| (index, hosts.panics.get() > 0))
}

/// One pick from endpoints of which each has `active` requests under way.
fn pick_loaded(balancer: &mut Balancer, random: &mut Rng, active: impl Fn(usize) -> u32) -> usize {
    balancer.pick(&Hosts::new(active, |_| false), 0, random).unwrap().unwrap()
}

/// Picks `count` times without load; returns how often each was picked.
fn counts(balancer: &mut Balancer, hosts: usize, count: usize) -> Vec<usize> {
    let mut random = Rng::with_seed(11);
    let mut counts = vec![0; hosts];
    for _ in 0..count {
        counts[pick(balancer, &mut random).unwrap().0] += 1;
    }
    counts
}

#[test]
fn round_robin_is_exact() {
    let mut equal = balancer(&healthy(&[1, 1, 1]), ROUND_ROBIN);
    assert_eq!(counts(&mut equal, 3, 300), [100, 100, 100]);
    let mut weighted = balancer(&healthy(&[1, 2, 7]), ROUND_ROBIN);
    let counts = counts(&mut weighted, 3, 1000);
    for (count, share) in counts.iter().zip([100, 200, 700]) {
        assert!(count.abs_diff(share) <= 1, "{counts:?}");
    }
}

#[test]
fn round_robin_spreads_a_heavy_endpoint_evenly() {
    let mut weighted = balancer(&healthy(&[1, 3]), ROUND_ROBIN);
    let mut random = Rng::with_seed(1);
    let picks: Vec<usize> = (0..40).map(|_| pick(&mut weighted, &mut random).unwrap().0).collect();
    let gaps: Vec<usize> = picks.split(|index| *index == 0).map(<[usize]>::len).collect();
    assert!(gaps[1..gaps.len() - 1].iter().all(|gap| (2..=4).contains(gap)), "{gaps:?}");
}

#[test]
fn workers_do_not_march_in_step() {
    let firsts: std::collections::HashSet<usize> = (0..50)
        .map(|seed| {
            let mut random = Rng::with_seed(seed);
            let rules = rules(ROUND_ROBIN);
            let mut balancer = Balancer::new(&healthy(&[1; 10]), &rules, &mut random);
            pick(&mut balancer, &mut random).unwrap().0
        })
        .collect();
    assert!(firsts.len() >= 5, "{firsts:?}");
}

#[test]
fn random_is_even_whatever_the_weights() {
    let mut random = balancer(&healthy(&[1, 0, 3, 6]), LbPolicy::Random);
    let counts = counts(&mut random, 4, 8_000);
    assert!(counts.iter().all(|count| count.abs_diff(2_000) < 200), "{counts:?}");
}

#[test]
fn least_request_prefers_the_idle() {
    let mut balancer = balancer(&healthy(&[1, 1]), least_request(|_| {}));
    let mut random = Rng::with_seed(3);
    let busy = (0..1000)
        .filter(|_| {
            let active = |index: usize| if index == 0 { 9 } else { 1 };
            pick_loaded(&mut balancer, &mut random, active) == 0
        })
        .count();
    assert!((200..300).contains(&busy), "only when drawn twice, a quarter of the time: {busy}");
}

#[test]
fn least_request_evens_out_load_by_weight() {
    let weights = [1, 4];
    let mut balancer = balancer(&healthy(&weights), least_request(|_| {}));
    let mut random = Rng::with_seed(3);
    let idle = counts(&mut balancer, 2, 1000);
    assert!(idle[0].abs_diff(200) <= 2, "without load by weight alone: {idle:?}");
    let busy = (0..1000)
        .filter(|_| {
            let active = |index: usize| if index == 0 { 0 } else { 7 };
            pick_loaded(&mut balancer, &mut random, active) == 1
        })
        .count();
    assert!((300..370).contains(&busy), "4/8 against 1/1: {busy}");
}

#[test]
fn bias_says_how_much_load_counts_against_an_endpoint() {
    let mut random = Rng::with_seed(3);
    let mut share = |bias| {
        let policy = least_request(|config| config.active_request_bias = bias);
        let mut balancer = balancer(&healthy(&[1, 3]), policy);
        // Between the powers of 1 and 4.
        let active = |index: usize| if index == 0 { 0 } else { 3 };
        (0..1200).filter(|_| pick_loaded(&mut balancer, &mut random, active) == 1).count()
    };
    let (none, half, one, two) = (share(0.0), share(0.5), share(1.0), share(2.0));
    assert!(none.abs_diff(900) <= 2, "3 against 1: {none}");
    assert!(half.abs_diff(720) <= 2, "3/2 against 1: {half}");
    assert!(one.abs_diff(514) <= 2, "3/4 against 1: {one}");
    assert!(two.abs_diff(189) <= 2, "3/16 against 1: {two}");
}

#[test]
fn a_full_scan_finds_the_least_busy_and_is_fair_to_equals() {
    let policy = least_request(|config| config.full_scan = true);
    let mut balancer = balancer(&healthy(&[1; 50]), policy);
    let mut random = Rng::with_seed(3);
    let mut counts = [0; 50];
    for _ in 0..3000 {
        let active = |index: usize| if index % 17 == 4 { 1 } else { 2 };
        counts[pick_loaded(&mut balancer, &mut random, active)] += 1;
    }
    let least = [counts[4], counts[21], counts[38]];
    assert_eq!(least.iter().sum::<u32>(), 3000);
    assert!(least.iter().all(|count| count.abs_diff(1000) < 100), "{least:?}");
}

#[test]
fn a_cold_endpoint_gets_a_part_of_its_weight_until_it_is_warm() {
    for policy in [ROUND_ROBIN, least_request(|_| {})] {
        let mut candidates = healthy(&[1, 1, 1]);
        candidates[2].warmth = 0.1;
        let mut balancer = balancer(&candidates, policy);
        let mut random = Rng::with_seed(3);
        let mut share = |warmth| {
            let hosts = Hosts { warmth, ..Hosts::new(|_| 0, |_| false) };
            (0..2100).filter(|_| balancer.pick(&hosts, 0, &mut random).unwrap() == Some(2)).count()
        };
        let cold = share(|index| if index == 2 { 0.1 } else { 1.0 });
        assert!(cold.abs_diff(100) <= 2, "0.1 of 2.1: {cold}");
        let warm = share(|_| 1.0);
        assert!(warm.abs_diff(700) <= 5, "{warm}");
    }
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
        assert!(pick(&mut panicking, &mut random).unwrap().1);
        assert!(counts(&mut panicking, 3, 300).iter().all(|count| *count > 50));
        let mut calm = Balancer::new(&mostly_gone, &calm(policy), &mut random);
        assert_eq!(counts(&mut calm, 3, 10), [10, 0, 0], "a threshold of 0 turns panic off");
    }
    // Exactly half is not less than half.
    let mut half = balancer(&with_health(&[Healthy, Unhealthy]), LbPolicy::Random);
    assert_eq!(pick(&mut half, &mut random), Some((0, false)));
}

#[test]
fn traffic_may_fail_rather_than_panic() {
    let gone = with_health(&[Health::Healthy, Health::Unhealthy, Health::Unhealthy]);
    let zone = ZoneAware { fail_traffic_on_panic: true, ..ZoneAware::default() };
    let rules = Rules { locality: LocalityLb::ZoneAware(zone), ..Rules::default() };
    let mut random = Rng::with_seed(5);
    let mut failing = Balancer::new(&gone, &rules, &mut random);
    let hosts = Hosts::new(|_| 0, |_| false);
    assert_eq!(failing.pick(&hosts, 3, &mut random).unwrap(), None);
    assert_eq!(hosts.panics.get(), 1, "it is panic all the same");
}

#[test]
fn enough_capacity_is_no_panic_whatever_the_threshold() {
    use Health::{Healthy, Unhealthy};
    let health = with_health(&[Healthy, Healthy, Healthy, Unhealthy]);
    let mut random = Rng::with_seed(5);
    let rules = Rules { panic_threshold: 90, ..rules(LbPolicy::Random) };
    let mut balancer = Balancer::new(&health, &rules, &mut random);
    let (_, panic) = pick(&mut balancer, &mut random).unwrap();
    assert!(!panic, "three of four, at 140 %, carry everything");
}

#[test]
fn without_any_healthy_endpoint_panic_or_nothing() {
    let gone = with_health(&[Health::Unhealthy, Health::Unhealthy]);
    let mut random = Rng::with_seed(5);
    let mut panicking = balancer(&gone, ROUND_ROBIN);
    assert!(pick(&mut panicking, &mut random).unwrap().1);
    let mut calm = Balancer::new(&gone, &calm(ROUND_ROBIN), &mut random);
    assert_eq!(pick(&mut calm, &mut random), None);
    for policy in POLICIES {
        assert_eq!(pick(&mut balancer(&[], policy), &mut random), None);
    }
}

#[test]
fn degraded_endpoints_take_the_overflow() {
    use Health::{Degraded, Healthy};
    let health = with_health(&[Healthy, Degraded, Degraded, Degraded]);
    let mut overflowing = balancer(&health, ROUND_ROBIN);
    let picked = counts(&mut overflowing, 4, 1000);
    assert!((300..400).contains(&picked[0]), "a quarter of them carries 35 %: {picked:?}");
    let health = with_health(&[Healthy, Healthy, Healthy, Degraded]);
    assert_eq!(counts(&mut balancer(&health, ROUND_ROBIN), 4, 300)[3], 0);
}

#[test]
fn a_lower_priority_serves_what_the_higher_cannot_carry() {
    use Health::{Healthy, Unhealthy};
    let mut candidates = healthy(&[1, 1, 1, 1]);
    candidates[2].priority = 1;
    candidates[3].priority = 1;
    let picked =
        |candidates: &[Candidate]| counts(&mut balancer(candidates, ROUND_ROBIN), 4, 10_000);
    assert_eq!(picked(&candidates), [5_000, 5_000, 0, 0]);
    candidates[0].health = Unhealthy;
    let shares = picked(&candidates);
    assert!(shares[0] == 0 && shares[1].abs_diff(7_000) < 200, "{shares:?}");
    assert!(shares[2].abs_diff(1_500) < 100 && shares[3].abs_diff(1_500) < 100, "{shares:?}");
    candidates[1].health = Unhealthy;
    assert_eq!(picked(&candidates), [0, 0, 5_000, 5_000]);
    candidates[2].health = Unhealthy;
    candidates[3].health = Healthy;
    let shares = picked(&candidates);
    assert_eq!(shares[0] + shares[1], 0, "half of priority 1 is not below the threshold");
    assert_eq!(shares[3], 10_000);
}

#[test]
fn endpoints_to_avoid_are_passed_over_as_often_as_allowed() {
    let mut random = Rng::with_seed(5);
    let mut balancer = balancer(&healthy(&[1, 1, 1]), ROUND_ROBIN);
    for _ in 0..30 {
        let choice = balancer.pick(&Hosts::new(|_| 0, |index| index != 2), 2, &mut random).unwrap();
        assert_eq!(choice, Some(2));
    }
    let choice = balancer.pick(&Hosts::new(|_| 0, |_| true), 5, &mut random).unwrap();
    assert!(choice.is_some(), "the last one is taken, whichever it is");
}

/// Endpoints of two localities of weights 1 and 3, then one of a locality without weight.
fn localities(health: &[Health]) -> Vec<Candidate> {
    let places = [(0, 1), (0, 1), (1, 3), (1, 3), (2, 0)];
    let endpoints = places.into_iter().zip(health).map(|((locality, locality_weight), health)| {
        Candidate { locality, locality_weight, ..candidate(1, *health) }
    });
    endpoints.collect()
}

fn by_locality(candidates: &[Candidate]) -> Balancer {
    let rules = Rules { locality: LocalityLb::Weighted, ..calm(ROUND_ROBIN) };
    Balancer::new(candidates, &rules, &mut Rng::with_seed(7))
}

#[test]
fn localities_get_their_weight_as_far_as_they_can_carry_it() {
    use Health::{Healthy, Unhealthy};
    let all = localities(&[Healthy; 5]);
    assert_eq!(counts(&mut by_locality(&all), 5, 800), [100, 100, 300, 300, 0]);
    assert_eq!(
        counts(&mut balancer(&all, ROUND_ROBIN), 5, 500),
        [100; 5],
        "weights of localities mean nothing unless asked for"
    );
    // Half of it is healthy: the second locality is worth 3 × 0.7.
    let half = localities(&[Healthy, Healthy, Healthy, Unhealthy, Healthy]);
    let shares = counts(&mut by_locality(&half), 5, 3_100);
    for (share, expected) in shares.iter().zip([500_usize, 500, 2_100, 0, 0]) {
        assert!(share.abs_diff(expected) <= 1, "{shares:?}");
    }
    let none = localities(&[Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy]);
    assert_eq!(counts(&mut by_locality(&none), 5, 10), [0, 0, 0, 0, 10], "no weight is left");
}

#[test]
fn degraded_endpoints_are_divided_by_locality_too() {
    use Health::{Degraded, Unhealthy};
    let degraded = localities(&[Degraded, Unhealthy, Degraded, Degraded, Unhealthy]);
    let shares = counts(&mut by_locality(&degraded), 5, 3_700);
    for (share, expected) in shares.iter().zip([700_usize, 0, 1_500, 1_500, 0]) {
        assert!(share.abs_diff(expected) <= 1, "{shares:?}");
    }
}

proptest! {
    #[test]
    fn picks_are_members_and_weights_are_kept(
        weights in proptest::collection::vec(1_u32..20, 1..12),
        seed in any::<u64>(),
    ) {
        let mut random = Rng::with_seed(seed);
        let rules = rules(ROUND_ROBIN);
        let mut balancer = Balancer::new(&healthy(&weights), &rules, &mut random);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..total * 10 {
            counts[pick(&mut balancer, &mut random).unwrap().0] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!(count.abs_diff(weight * 10) <= 1, "{:?} for {:?}", counts, weights);
        }
    }

    #[test]
    fn without_panic_only_available_endpoints_are_picked(
        health in proptest::collection::vec((0_u8..4, 0_u32..3), 1..12),
        policy in 0_usize..3,
        seed in any::<u64>(),
    ) {
        use Health::{Degraded, Excluded, Healthy, Unhealthy};
        let health = health.into_iter().map(|(n, priority)| {
            let health = [Healthy, Degraded, Unhealthy, Excluded][usize::from(n)];
            Candidate { priority, ..candidate(1, health) }
        });
        let candidates: Vec<Candidate> = health.collect();
        let available = |index: usize| matches!(candidates[index].health, Healthy | Degraded);
        let mut random = Rng::with_seed(seed);
        let mut panicking = Balancer::new(&candidates, &rules(POLICIES[policy]), &mut random);
        let mut calm = Balancer::new(&candidates, &calm(POLICIES[policy]), &mut random);
        for _ in 0..20 {
            let (index, panic) = pick(&mut panicking, &mut random).unwrap();
            prop_assert!(panic || available(index));
            let found = pick(&mut calm, &mut random);
            prop_assert_eq!(found.is_some(), (0..candidates.len()).any(available));
            prop_assert!(found.is_none_or(|(index, panic)| !panic && available(index)));
        }
    }
}
