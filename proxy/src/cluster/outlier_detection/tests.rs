//! Ejection, its time, its limits, and the comparison of rates.

use fastrand::Rng;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::config::cluster::RateDetection;

const SECOND: Duration = Duration::from_secs(1);

/// Envoy's defaults, except that any share of endpoints may be ejected.
pub(crate) fn config() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        consecutive_gateway_failure: 5,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_5xx: 100,
        enforcing_consecutive_gateway_failure: 0,
        enforcing_consecutive_local_origin_failure: 100,
        split_external_local_origin_errors: false,
        interval: 10 * SECOND,
        base_ejection_time: 30 * SECOND,
        max_ejection_time: 300 * SECOND,
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        success_rate: RateDetection { minimum_hosts: 5, request_volume: 100, enforcing: 100 },
        success_rate_stdev_factor: 1900,
        failure_percentage: RateDetection { minimum_hosts: 5, request_volume: 50, enforcing: 0 },
        failure_percentage_threshold: 85,
        always_eject_one_host: false,
        uneject_on_active_success: true,
    }
}

struct Case {
    monitor: Monitor,
    config: OutlierDetection,
    random: Rng,
    start: Instant,
}

impl Case {
    fn new(edit: impl FnOnce(&mut OutlierDetection)) -> Self {
        let mut config = config();
        edit(&mut config);
        Self {
            monitor: Monitor::default(),
            config,
            random: Rng::with_seed(1),
            start: Instant::now(),
        }
    }

    fn detected(&mut self, hosts: usize, ejected: usize, after: Duration) -> Verdict {
        let population = Population { hosts, ejected };
        let now = self.start + after;
        let detector = Detector::Consecutive5xx;
        self.monitor.detected(detector, &self.config, population, now, &mut self.random)
    }

    fn sweep(&mut self, after: Duration) -> bool {
        self.monitor.sweep(&self.config, self.start + after)
    }
}

#[test]
fn an_ejection_ends_with_the_first_sweep_after_its_time() {
    let mut case = Case::new(|_| {});
    assert_eq!(case.detected(10, 0, Duration::ZERO), Verdict::Ejected);
    assert_eq!(case.detected(10, 1, SECOND), Verdict::AlreadyEjected);
    assert!(!case.sweep(29 * SECOND));
    assert!(case.monitor.is_ejected());
    assert!(case.sweep(30 * SECOND));
    assert!(!case.monitor.is_ejected());
}

#[test]
fn ejections_grow_longer_up_to_the_limit_and_shorter_with_good_behaviour() {
    let mut case = Case::new(|config| config.max_ejection_time = 70 * SECOND);
    let mut now = Duration::ZERO;
    for expected in [30, 60, 70, 70] {
        assert_eq!(case.detected(10, 0, now), Verdict::Ejected);
        assert!(!case.sweep(now + (expected - 1) * SECOND));
        assert!(case.sweep(now + expected * SECOND), "after {expected} s");
        now += expected * SECOND;
    }
    for _ in 0..10 {
        assert!(!case.sweep(now));
    }
    assert_eq!(case.detected(10, 0, now), Verdict::Ejected);
    assert!(case.sweep(now + 30 * SECOND), "as short as the first");
}

#[test]
fn jitter_lengthens_an_ejection() {
    let mut case = Case::new(|config| config.max_ejection_time_jitter = 10 * SECOND);
    let mut plain = 0;
    for seed in 0..20 {
        case.monitor = Monitor::default();
        case.random = Rng::with_seed(seed);
        assert_eq!(case.detected(10, 0, Duration::ZERO), Verdict::Ejected);
        plain += u32::from(case.sweep(30 * SECOND + Duration::from_millis(100)));
        assert!(!case.monitor.is_ejected() || case.sweep(40 * SECOND));
    }
    assert!(plain < 5, "{plain} of 20 without jitter");
}

#[test]
fn the_share_of_ejected_endpoints_is_limited() {
    for (percent, hosts, ejected, always, expected) in [
        (10, 10, 0, false, Verdict::Ejected),
        (10, 10, 1, false, Verdict::Overflow),
        (10, 9, 0, false, Verdict::Overflow),
        (10, 9, 0, true, Verdict::Ejected),
        (10, 9, 1, true, Verdict::Overflow),
        (50, 2, 0, false, Verdict::Ejected),
        (50, 3, 1, false, Verdict::Overflow),
        (100, 3, 2, false, Verdict::Ejected),
        (0, 3, 0, false, Verdict::Overflow),
        (0, 3, 0, true, Verdict::Ejected),
    ] {
        let mut case = Case::new(|config| {
            config.max_ejection_percent = percent;
            config.always_eject_one_host = always;
        });
        let verdict = case.detected(hosts, ejected, Duration::ZERO);
        assert_eq!(verdict, expected, "{percent} % of {hosts}, {ejected} ejected, {always}");
    }
}

#[test]
fn enforcing_is_a_matter_of_chance() {
    let mut case = Case::new(|config| config.enforcing_consecutive_5xx = 30);
    let mut ejected = 0;
    for _ in 0..1000 {
        case.monitor = Monitor::default();
        ejected += u32::from(case.detected(10, 0, Duration::ZERO) == Verdict::Ejected);
    }
    assert!((250..350).contains(&ejected), "{ejected}");
    case.config.enforcing_consecutive_5xx = 0;
    case.monitor = Monitor::default();
    assert_eq!(case.detected(10, 0, Duration::ZERO), Verdict::NotEnforced);
    assert!(!case.monitor.is_ejected());
}

#[test]
fn a_rate_needs_enough_requests() {
    assert_eq!(Tally { total: 99, success: 99 }.success_rate(100), None);
    assert_eq!(Tally { total: 100, success: 25 }.success_rate(100), Some(25.0));
    assert_eq!(Tally::default().success_rate(0), None, "nothing divided by nothing");
}

fn found(rates: &[f64], edit: impl FnOnce(&mut OutlierDetection)) -> Vec<(usize, Found)> {
    let mut config = config();
    edit(&mut config);
    let rates: Vec<Option<f64>> = rates.iter().copied().map(Some).collect();
    outliers(&Rates { success: rates.clone(), failure: rates }, &config)
}

#[test]
fn a_success_rate_far_below_the_others_stands_out() {
    let far = [100.0, 100.0, 100.0, 100.0, 50.0];
    assert_eq!(found(&far, |_| {}), [(4, Found::SuccessRate)], "mean 90, deviation 20, bound 52");
    assert_eq!(found(&far, |config| config.success_rate_stdev_factor = 2000), [], "bound 50");
    assert_eq!(found(&[50.0; 5], |_| {}), [], "all alike");
    assert_eq!(found(&far[1..], |_| {}), [], "too few endpoints");
}

#[test]
fn a_failure_percentage_is_compared_with_its_threshold() {
    let rates = [100.0, 100.0, 16.0, 15.0, 14.0];
    let only_failure = |config: &mut OutlierDetection| config.success_rate.minimum_hosts = 99;
    assert_eq!(
        found(&rates, only_failure),
        [(3, Found::FailurePercentage), (4, Found::FailurePercentage)]
    );
}

proptest! {
    /// Whatever happens in whatever order: no more are ejected than allowed, and everyone comes back.
    #[test]
    fn limits_hold_in_any_order(
        percent in 0_u32..=100,
        always: bool,
        events in proptest::collection::vec((0_usize..6, any::<bool>(), 0_u64..20), 0..80),
    ) {
        let mut config = config();
        config.max_ejection_percent = percent;
        config.always_eject_one_host = always;
        let start = Instant::now();
        let mut now = start;
        let mut random = Rng::with_seed(1);
        let mut monitors = [Monitor::default(); 6];
        for (index, failed, seconds) in events {
            now += Duration::from_secs(seconds);
            let ejected = monitors.iter().filter(|monitor| monitor.is_ejected()).count();
            let population = Population { hosts: 6, ejected };
            if failed {
                let _ = monitors[index].detected(
                    Detector::Consecutive5xx, &config, population, now, &mut random,
                );
            } else {
                let _ = monitors[index].sweep(&config, now);
            }
            let ejected = monitors.iter().filter(|monitor| monitor.is_ejected()).count();
            let allowed = (6 * percent as usize / 100).max(usize::from(always));
            prop_assert!(ejected <= allowed, "{} of 6 at {} %", ejected, percent);
        }
        now += config.max_ejection_time;
        for monitor in &mut monitors {
            let was_ejected = monitor.is_ejected();
            prop_assert_eq!(monitor.sweep(&config, now), was_ejected);
            prop_assert!(!monitor.is_ejected());
        }
    }
}
