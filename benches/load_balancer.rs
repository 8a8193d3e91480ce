//! Does picking an endpoint cost more in a large cluster than in a small one, and what do weights cost?
//!
//! Every policy picks among 3, 100 and 10,000 endpoints; "rebuild" is what a worker pays when an endpoint is
//! ejected or comes back.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use proxy::cluster::load_balancer::{Balancer, Candidate, Event, Health, Rules, View};
use proxy::config::cluster::{LbPolicy, LeastRequest};

const SIZES: [usize; 3] = [3, 100, 10_000];

const LEAST_REQUEST: LeastRequest =
    LeastRequest { choices: 2, full_scan: false, active_request_bias: 1.0, slow_start: None };

const POLICIES: [(&str, LbPolicy); 3] = [
    ("round_robin", LbPolicy::RoundRobin { slow_start: None }),
    ("least_request", LbPolicy::LeastRequest(LEAST_REQUEST)),
    ("random", LbPolicy::Random),
];

/// Healthy endpoints, with a weight of 1 or of 1 to 5.
fn candidates(size: usize, weighted: bool) -> Vec<Candidate> {
    let weights = (1..=5).cycle().take(size);
    let weights = weights.map(|weight| if weighted { weight } else { 1 });
    let candidate = |weight| Candidate {
        weight,
        warmth: 1.0,
        health: Health::Healthy,
        priority: 0,
        locality: 0,
        locality_weight: 0,
    };
    weights.map(candidate).collect()
}

fn rules(policy: LbPolicy) -> Rules {
    Rules { policy, ..Rules::default() }
}

/// Endpoints that are unevenly loaded, none to be avoided.
struct Busy;

impl View for Busy {
    fn active(&self, index: usize) -> u32 {
        (index % 7) as u32
    }

    fn warmth(&self, _: usize) -> f64 {
        1.0
    }

    fn avoids(&self, _: usize) -> bool {
        false
    }

    fn notes(&self, _: Event) {}
}

fn pick(criterion: &mut Criterion) {
    for (weighted, suffix) in [(false, ""), (true, "_weighted")] {
        for (name, policy) in POLICIES {
            let mut group = criterion.benchmark_group(format!("pick/{name}{suffix}"));
            for size in SIZES {
                let mut random = Rng::with_seed(1);
                let candidates = candidates(size, weighted);
                let mut balancer = Balancer::new(&candidates, &rules(policy), &mut random);
                group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                    bencher.iter(|| balancer.pick(&Busy, 0, &mut random));
                });
            }
        }
    }
}

fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebuild/round_robin_weighted");
    for size in SIZES {
        let mut random = Rng::with_seed(1);
        let candidates = candidates(size, true);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                let rules = rules(LbPolicy::default());
                Balancer::new(black_box(&candidates), &rules, &mut random)
            });
        });
    }
}

criterion_group!(benches, pick, rebuild);
criterion_main!(benches);
