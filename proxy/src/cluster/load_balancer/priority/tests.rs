//! The arithmetic, against Envoy's own examples, and what holds for any number of hosts.

use proptest::prelude::{ProptestConfig, Strategy, prop_assert, prop_assert_eq, proptest};

use super::*;

/// A priority of so many hosts, so many of them healthy and degraded, all of weight 1.
fn census(hosts: u64, healthy: u64, degraded: u64) -> Census {
    let amount = |count| Amount { count, weight: count };
    Census { hosts, counted: amount(hosts), healthy: amount(healthy), degraded: amount(degraded) }
}

/// Shares of healthy and degraded hosts, and panic, by priority.
fn loads(priorities: &[Census], panic_threshold: u32) -> Vec<(u32, u32, bool)> {
    let loads = Loads::new(priorities, &AssignmentPolicy::default(), panic_threshold);
    loads.get().iter().map(|load| (load.healthy, load.degraded, load.panic)).collect()
}

fn healthy(priorities: &[(u64, u64)]) -> Vec<u32> {
    let priorities: Vec<Census> =
        priorities.iter().map(|(hosts, healthy)| census(*hosts, *healthy, 0)).collect();
    loads(&priorities, 50).into_iter().map(|(healthy, _, _)| healthy).collect()
}

#[test]
fn a_priority_carries_40_percent_more_than_its_healthy_share() {
    // The table of Envoy's documentation.
    let expected = [
        (100, [100, 0]),
        (72, [100, 0]),
        (71, [99, 1]),
        (50, [70, 30]),
        (25, [35, 65]),
        (0, [0, 100]),
    ];
    for (percent, shares) in expected {
        assert_eq!(healthy(&[(100, percent), (100, 100)]), shares, "{percent} % healthy");
    }
    let three = [
        ([100, 100, 100], [100, 0, 0]),
        ([72, 72, 100], [100, 0, 0]),
        ([71, 71, 100], [99, 1, 0]),
        ([50, 50, 100], [70, 30, 0]),
        ([25, 100, 100], [35, 65, 0]),
        ([25, 25, 100], [35, 35, 30]),
    ];
    for (percents, shares) in three {
        assert_eq!(healthy(&percents.map(|percent| (100, percent))), shares, "{percents:?}");
    }
}

#[test]
fn too_little_health_is_scaled_up_to_100() {
    // 28 % and 28 % available: each is half of all there is, and both are in panic.
    let scarce = [census(10, 2, 0), census(10, 2, 0)];
    assert_eq!(loads(&scarce, 0), [(50, 0, false), (50, 0, false)]);
    assert_eq!(loads(&scarce, 50), [(50, 0, true), (50, 0, true)]);
    let thirds = [census(10, 1, 0); 3];
    assert_eq!(loads(&thirds, 0), [(34, 0, false), (33, 0, false), (33, 0, false)]);
}

#[test]
fn degraded_hosts_take_what_all_healthy_ones_leave() {
    let priorities = [census(10, 2, 5), census(10, 3, 0)];
    assert_eq!(loads(&priorities, 50), [(28, 30, false), (42, 0, false)]);
    let only_degraded = [census(4, 0, 4)];
    assert_eq!(loads(&only_degraded, 50), [(0, 100, false)]);
    let rounding = [census(3, 0, 1), census(3, 0, 1)];
    assert_eq!(loads(&rounding, 0), [(0, 50, false), (0, 50, false)]);
}

#[test]
fn panic_is_each_priority_s_own_and_needs_a_lack_of_capacity() {
    let enough = [census(10, 1, 0), census(10, 9, 0)];
    assert_eq!(loads(&enough, 50), [(14, 0, false), (86, 0, false)]);
    // 14 % and 84 % make 98.
    let one = [census(10, 1, 0), census(10, 6, 0)];
    assert_eq!(loads(&one, 50), [(15, 0, true), (85, 0, false)]);
    let none = [census(3, 0, 0), census(1, 0, 0)];
    assert_eq!(loads(&none, 50), [(75, 0, true), (25, 0, true)], "by hosts");
    assert_eq!(loads(&none, 0), [(100, 0, false), (0, 0, false)]);
    assert_eq!(loads(&[Census::default()], 50), [(100, 0, true)]);
    let gap = [census(2, 2, 0), Census::default(), census(2, 2, 0)];
    assert_eq!(loads(&gap, 50), [(100, 0, false), (0, 0, false), (0, 0, false)]);
}

#[test]
fn excluded_hosts_count_in_total_panic_only() {
    let half_excluded = Census { hosts: 4, ..census(2, 2, 0) };
    assert_eq!(loads(&[half_excluded, census(2, 2, 0)], 50)[0], (100, 0, false));
    let all_excluded = Census { hosts: 4, ..Census::default() };
    assert_eq!(loads(&[all_excluded, census(4, 0, 0)], 50), [(50, 0, true), (50, 0, true)]);
}

#[test]
fn the_assignment_decides_how_health_is_reckoned() {
    let heavy = Census {
        hosts: 2,
        counted: Amount { count: 2, weight: 10 },
        healthy: Amount { count: 1, weight: 9 },
        degraded: Amount::default(),
    };
    let share = |policy: AssignmentPolicy| Loads::new(&[heavy, census(1, 1, 0)], &policy, 50).0[0];
    let policy = AssignmentPolicy::default();
    assert_eq!(share(policy).healthy, 70);
    assert_eq!(share(AssignmentPolicy { overprovisioning_factor: 100, ..policy }).healthy, 50);
    assert_eq!(share(AssignmentPolicy { overprovisioning_factor: 200, ..policy }).healthy, 100);
    assert_eq!(share(AssignmentPolicy { weighted_priority_health: true, ..policy }).healthy, 100);
}

#[test]
fn a_hash_falls_to_priorities_as_their_shares_are() {
    let loads = Loads::new(&[census(10, 2, 5), census(10, 3, 0)], &AssignmentPolicy::default(), 50);
    assert_eq!(loads.only(), None);
    let falls = |hash| loads.choose(hash);
    assert_eq!((falls(0), falls(27)), ((0, Availability::Healthy), (0, Availability::Healthy)));
    assert_eq!((falls(28), falls(69)), ((1, Availability::Healthy), (1, Availability::Healthy)));
    assert_eq!((falls(70), falls(99)), ((0, Availability::Degraded), (0, Availability::Degraded)));
    assert_eq!(falls(100), falls(0));
    let calm = Loads::new(&[census(1, 0, 0), census(2, 2, 0)], &AssignmentPolicy::default(), 50);
    assert_eq!(calm.only(), Some((1, Availability::Healthy)));
}

/// Up to five priorities of up to 40 hosts.
fn priorities() -> impl Strategy<Value = Vec<Census>> {
    let priority = (0_u64..40, 0_u64..40, 0_u64..40).prop_map(|(healthy, degraded, unhealthy)| {
        census(healthy + degraded + unhealthy, healthy, degraded)
    });
    proptest::collection::vec(priority, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn shares_make_100(priorities in priorities(), threshold in 0_u32..=100, factor in 1_u32..1000) {
        let policy = AssignmentPolicy { overprovisioning_factor: factor, ..Default::default() };
        let loads = Loads::new(&priorities, &policy, threshold);
        let sum: u32 = loads.get().iter().map(|load| load.healthy + load.degraded).sum();
        prop_assert_eq!(sum, 100);
        for hash in 0..100 {
            let (priority, availability) = loads.choose(hash);
            let load = loads.get()[priority];
            let share = match availability {
                Availability::Healthy => load.healthy,
                Availability::Degraded => load.degraded,
            };
            prop_assert!(share > 0);
        }
    }

    #[test]
    fn nobody_gets_less_for_being_healthier(
        mut priorities in priorities(),
        which in 0_usize..5,
        factor in 1_u32..300,
    ) {
        let policy = AssignmentPolicy { overprovisioning_factor: factor, ..Default::default() };
        let which = which % priorities.len();
        let census = priorities[which];
        if census.healthy.count + census.degraded.count == census.counted.count {
            return Ok(());
        }
        let before = Loads::new(&priorities, &policy, 0).get()[which].healthy;
        priorities[which].healthy.add(1);
        let after = Loads::new(&priorities, &policy, 0).get()[which].healthy;
        // One percent of rounding for each share that was rounded.
        let rounding = 2 * priorities.len() as u32;
        prop_assert!(after + rounding >= before, "{} then {}", before, after);
    }

    #[test]
    fn an_unavailable_priority_gets_nothing_unless_all_panic(
        priorities in priorities(), threshold in 0_u32..=100,
    ) {
        let loads = Loads::new(&priorities, &AssignmentPolicy::default(), threshold);
        let panic = loads.get().iter().all(|load| load.panic);
        let nowhere = priorities.iter().all(|it| it.healthy.count + it.degraded.count == 0);
        for (load, census) in loads.get().iter().zip(&priorities) {
            if !panic && !nowhere && census.healthy.count == 0 {
                prop_assert_eq!(load.healthy, 0);
            }
            if !panic && census.degraded.count == 0 {
                prop_assert_eq!(load.degraded, 0);
            }
        }
    }
}
