//! Shares of zones, against Envoy's own example, and what balances for any fleet.

use std::cell::RefCell;

use proptest::prelude::{prop_assert, proptest};

use super::*;

const CONFIG: ZoneAware = ZoneAware {
    routing_enabled: 100,
    min_cluster_size: 1,
    fail_traffic_on_panic: false,
    force_local_zone: None,
    by_weight: false,
};

#[derive(Default)]
struct Notes(RefCell<Vec<Event>>);

impl View for Notes {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn warmth(&self, _: usize) -> f64 {
        1.0
    }

    fn avoids(&self, _: usize) -> bool {
        false
    }

    fn notes(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }
}

/// So many healthy endpoints in each locality.
fn endpoints(counts: &[usize]) -> Vec<Candidate> {
    let localities = counts.iter().enumerate();
    let endpoints = localities.flat_map(|(locality, count)| {
        let health = Health::Healthy;
        let candidate =
            Candidate { weight: 1, warmth: 1.0, health, priority: 0, locality, locality_weight: 0 };
        std::iter::repeat_n(candidate, *count)
    });
    endpoints.collect()
}

/// So many proxies in each locality; this one is in the first.
fn fleet(counts: &[u64]) -> Fleet {
    Fleet {
        here: Some(0),
        proxies_here: counts[0],
        localities: counts.iter().filter(|count| **count > 0).count(),
        healthy: counts.to_vec(),
        total: counts.iter().sum(),
        panic: false,
    }
}

fn zones(
    endpoints: &[Candidate],
    fleet: &Fleet,
    config: &ZoneAware,
) -> Result<Zones, Option<Event>> {
    let members: Vec<(usize, &Candidate)> = endpoints.iter().enumerate().collect();
    Zones::new(&members, config, fleet)
}

/// The percentage of requests that each place gets.
fn shares(zones: &Zones) -> Vec<usize> {
    let mut random = Rng::with_seed(1);
    let mut counts = vec![0; zones.localities.len()];
    for _ in 0..10_000 {
        match zones.choose(&Notes::default(), &mut random) {
            Zone::At(place) => counts[place] += 1,
            other => panic!("{other:?}"),
        }
    }
    counts.into_iter().map(|count: usize| (count + 50) / 100).collect()
}

#[test]
fn a_zone_with_endpoints_enough_gets_everything_from_its_proxies() {
    let zones = zones(&endpoints(&[3, 3]), &fleet(&[1, 1]), &CONFIG).unwrap();
    assert_eq!(zones.routing, Routing::Direct);
    assert_eq!(shares(&zones), [100, 0]);
}

#[test]
fn what_a_zone_cannot_take_goes_where_there_are_endpoints_to_spare() {
    // 40 %, 40 %, 20 % of the proxies and 25 %, 50 %, 25 % of the endpoints.
    let zones = zones(&endpoints(&[5, 10, 5]), &fleet(&[4, 4, 2]), &CONFIG).unwrap();
    let capacity = vec![0, 1_000, 1_500];
    assert_eq!(zones.routing, Routing::Residual { local: 6_250, capacity });
    let shares = shares(&zones);
    for (share, expected) in shares.iter().zip([62_usize, 25, 13]) {
        assert!(share.abs_diff(expected) <= 1, "{shares:?}");
    }
}

#[test]
fn a_zone_without_endpoints_sends_everything_away() {
    let elsewhere = endpoints(&[0, 2, 2]);
    let zones = zones(&elsewhere, &fleet(&[2, 1, 1]), &CONFIG).unwrap();
    assert_eq!(zones.localities, [1, 2]);
    assert_eq!(shares(&zones), [50, 50]);
}

#[test]
fn the_own_zone_comes_first_whatever_its_number() {
    let own = Fleet { here: Some(2), ..fleet(&[1, 1, 1]) };
    let zones = zones(&endpoints(&[1, 1, 4]), &own, &CONFIG).unwrap();
    assert_eq!(zones.localities, [2, 0, 1]);
    assert_eq!(zones.routing, Routing::Direct);
}

#[test]
fn zones_are_heeded_only_where_that_makes_sense() {
    let (two, even) = (endpoints(&[3, 3]), fleet(&[1, 1]));
    let why = |endpoints: &[Candidate], fleet: &Fleet, config: &ZoneAware| {
        zones(endpoints, fleet, config).unwrap_err()
    };
    assert_eq!(why(&endpoints(&[6]), &even, &CONFIG), None);
    assert_eq!(why(&two, &fleet(&[2]), &CONFIG), None);
    assert_eq!(why(&two, &fleet(&[0, 1, 1]), &CONFIG), Some(Event::LocalClusterNotOk));
    let large = ZoneAware { min_cluster_size: 7, ..CONFIG };
    assert_eq!(why(&two, &even, &large), Some(Event::ZoneClusterTooSmall));
}

#[test]
fn a_zone_may_be_forced_to_serve_itself() {
    let forced = |minimum| ZoneAware { force_local_zone: Some(minimum), ..CONFIG };
    let endpoints = endpoints(&[2, 8]);
    // It has 20 % of the endpoints and half of the proxies.
    let even = fleet(&[1, 1]);
    assert_eq!(zones(&endpoints, &even, &forced(2)).unwrap().routing, Routing::Direct);
    assert_ne!(zones(&endpoints, &even, &forced(3)).unwrap().routing, Routing::Direct);
    assert!(zones(&endpoints, &fleet(&[1]), &forced(1)).is_ok(), "a fleet of one zone will do");
}

#[test]
fn weights_may_count_instead_of_heads() {
    let mut endpoints = endpoints(&[2, 2]);
    endpoints[2].weight = 7;
    let by_weight = ZoneAware { by_weight: true, ..CONFIG };
    let even = fleet(&[1, 1]);
    assert_eq!(zones(&endpoints, &even, &CONFIG).unwrap().routing, Routing::Direct);
    let Routing::Residual { local, .. } = zones(&endpoints, &even, &by_weight).unwrap().routing
    else {
        panic!("2 of 10 for half of the proxies")
    };
    assert_eq!(local, 4_000);
}

#[test]
fn a_fleet_in_panic_says_nothing() {
    let panicking = Fleet { panic: true, ..fleet(&[1, 1]) };
    let mut random = Rng::with_seed(1);
    let notes = Notes::default();
    let open = zones(&endpoints(&[3, 3]), &panicking, &CONFIG).unwrap();
    assert_eq!(open.choose(&notes, &mut random), Zone::Any);
    let failing = ZoneAware { fail_traffic_on_panic: true, ..CONFIG };
    let failing = zones(&endpoints(&[3, 3]), &panicking, &failing).unwrap();
    assert_eq!(failing.choose(&notes, &mut random), Zone::None);
    assert_eq!(*notes.0.borrow(), [Event::LocalClusterNotOk; 2]);
}

#[test]
fn zones_matter_for_the_share_of_requests_they_are_enabled_for() {
    let some = ZoneAware { routing_enabled: 30, ..CONFIG };
    let zones = zones(&endpoints(&[3, 3]), &fleet(&[1, 1]), &some).unwrap();
    let mut random = Rng::with_seed(1);
    let notes = Notes::default();
    let heeded = (0..1000).filter(|_| zones.choose(&notes, &mut random) != Zone::Any).count();
    assert!(heeded.abs_diff(300) < 50, "{heeded}");
    assert_eq!(notes.0.borrow().len(), heeded);
}

proptest! {
    /// If every proxy of every zone routes like this, all endpoints get the same.
    #[test]
    fn every_endpoint_gets_its_share_of_the_fleet_s_traffic(
        counts in proptest::collection::vec((1_usize..9, 1_u64..9), 2..5),
    ) {
        let (hosts, proxies): (Vec<usize>, Vec<u64>) = counts.into_iter().unzip();
        let all: u64 = proxies.iter().sum();
        let mut load = vec![0.0; hosts.len()];
        for here in 0..hosts.len() {
            let fleet = Fleet { here: Some(here), proxies_here: proxies[here], ..fleet(&proxies) };
            let zones = zones(&endpoints(&hosts), &fleet, &CONFIG).unwrap();
            let sent = proxies[here] as f64 / all as f64;
            match &zones.routing {
                Routing::Direct => load[here] += sent,
                Routing::Residual { local, capacity } => {
                    let local = *local as f64 / WHOLE as f64;
                    load[here] += sent * local;
                    let total = *capacity.last().unwrap() as f64;
                    let mut before = 0;
                    for (locality, sum) in zones.localities.iter().zip(capacity) {
                        load[*locality] += sent * (1.0 - local) * (sum - before) as f64 / total.max(1.0);
                        before = *sum;
                    }
                }
            }
        }
        let total: usize = hosts.iter().sum();
        for (load, count) in load.iter().zip(&hosts) {
            let fair = *count as f64 / total as f64;
            prop_assert!((load - fair).abs() < 0.01, "{} instead of {}", load, fair);
        }
    }
}
