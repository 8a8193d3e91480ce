//! Thresholds, edges and intervals.

use fastrand::Rng;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

use super::*;
use crate::config::health_check::{Checker, TcpCheck};

pub(in super::super) fn config(healthy: u32, unhealthy: u32) -> HealthCheck {
    let seconds = Duration::from_secs;
    HealthCheck {
        timeout: seconds(1),
        intervals: Intervals {
            healthy: seconds(1),
            unhealthy: seconds(2),
            healthy_edge: seconds(3),
            unhealthy_edge: seconds(4),
            no_traffic: seconds(5),
            no_traffic_healthy: seconds(6),
            initial_jitter: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_percent: 0,
        },
        unhealthy_threshold: unhealthy,
        healthy_threshold: healthy,
        reuse_connection: true,
        checker: Checker::Tcp(TcpCheck { send: Vec::new(), receive: Vec::new() }),
        event_logs: Vec::new(),
        log_failures: false,
        log_successes: false,
        alpn: Vec::new(),
        socket_criteria: None,
    }
}

const PASSED: CheckResult = CheckResult::Passed { degraded: false };
const FAILED: HealthFlags = HealthFlags::FAILED_ACTIVE_HC;

/// One host with its flags.
struct Subject {
    progress: Progress,
    flags: HealthFlags,
    config: HealthCheck,
}

impl Subject {
    fn new(config: HealthCheck) -> Self {
        Self { progress: Progress::default(), flags: FAILED, config }
    }

    fn takes(&mut self, result: CheckResult) -> Verdict {
        let verdict = self.progress.judge(self.flags, result, &self.config);
        self.flags = verdict.flags;
        verdict
    }

    fn fails(&mut self, kind: FailureKind) -> Verdict {
        self.takes(CheckResult::Failed(Failure::of(kind)))
    }

    fn is_healthy(&self) -> bool {
        !self.flags.has(FAILED)
    }
}

#[test]
fn the_first_success_suffices_and_later_ones_are_counted() {
    let mut host = Subject::new(config(3, 2));
    let verdict = host.takes(PASSED);
    assert_eq!(verdict.events[..], [Event::AddHealthy { first: true }]);
    assert_eq!(verdict.transition, Transition::Changed);
    assert!(host.is_healthy());

    assert_eq!(host.fails(FailureKind::Network).transition, Transition::Pending);
    assert!(host.is_healthy());
    assert_eq!(host.fails(FailureKind::Network).transition, Transition::Changed);
    assert!(!host.is_healthy());

    for _ in 0..2 {
        assert_eq!(host.takes(PASSED).transition, Transition::Pending);
    }
    assert_eq!(host.takes(PASSED).events[..], [Event::AddHealthy { first: false }]);
    assert!(host.is_healthy());
}

#[test]
fn a_wrong_answer_counts_at_once_unless_it_is_retriable() {
    let mut host = Subject::new(config(1, 3));
    host.takes(PASSED);
    let retriable = Failure { retriable: true, ..Failure::of(FailureKind::Active) };
    assert_eq!(host.takes(CheckResult::Failed(retriable)).transition, Transition::Pending);
    assert!(host.is_healthy());
    let verdict = host.fails(FailureKind::Active);
    let failure = Failure::of(FailureKind::Active);
    assert_eq!(verdict.events[..], [Event::EjectUnhealthy(failure)]);
    assert!(!host.is_healthy());
}

#[test]
fn a_failed_first_check_is_told_and_the_next_success_is_counted() {
    let mut host = Subject::new(config(2, 2));
    let verdict = host.fails(FailureKind::NetworkTimeout);
    let failure = Failure::of(FailureKind::NetworkTimeout);
    assert_eq!(verdict.events[..], [Event::Failed { failure, first: true }]);
    assert!(host.flags.has(HealthFlags::ACTIVE_HC_TIMEOUT));
    assert!(host.fails(FailureKind::Network).events.is_empty());
    assert!(!host.flags.has(HealthFlags::ACTIVE_HC_TIMEOUT), "it failed for another reason");
    assert_eq!(host.takes(PASSED).transition, Transition::Pending);
    host.takes(PASSED);
    assert!(host.is_healthy());
}

#[test]
fn everything_is_logged_on_demand() {
    let mut host = Subject::new(config(1, 1));
    host.config.log_failures = true;
    host.config.log_successes = true;
    host.takes(PASSED);
    assert_eq!(host.takes(PASSED).events[..], [Event::Passed]);
    assert_eq!(host.fails(FailureKind::Active).events.len(), 2);
    assert_eq!(host.fails(FailureKind::Active).events.len(), 1);
}

#[test]
fn a_host_may_be_healthy_and_not_at_its_best() {
    let mut host = Subject::new(config(1, 1));
    let degraded = CheckResult::Passed { degraded: true };
    let verdict = host.takes(degraded);
    assert_eq!(verdict.events[..], [Event::AddHealthy { first: true }, Event::Degraded]);
    assert!(host.flags.has(HealthFlags::DEGRADED_ACTIVE_HC));
    assert_eq!(host.takes(degraded).transition, Transition::Unchanged);
    assert_eq!(host.takes(PASSED).events[..], [Event::NoLongerDegraded]);
    assert_eq!(host.flags, HealthFlags::default());
}

#[test]
fn a_host_that_wants_out_is_excluded_until_it_passes() {
    let mut host = Subject::new(config(1, 3));
    host.takes(PASSED);
    let out = Failure { excluded: true, ..Failure::of(FailureKind::Passive) };
    host.takes(CheckResult::Failed(out));
    assert_eq!(host.flags, FAILED | HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL);
    host.takes(PASSED);
    assert_eq!(host.flags, HealthFlags::default());
}

#[test]
fn a_first_result_ends_the_wait_whatever_it_is() {
    let mut host = Subject::new(config(1, 1));
    host.flags = FAILED | HealthFlags::PENDING_ACTIVE_HC;
    assert_eq!(host.fails(FailureKind::Network).transition, Transition::Changed);
    assert_eq!(host.flags, FAILED);
}

#[test]
fn the_next_check_is_due_by_health_and_traffic() {
    let intervals = config(1, 1).intervals;
    let mut random = Rng::with_seed(1);
    let mut seconds = |passed, transition, used| {
        wait(&intervals, passed, transition, used, &mut random).as_secs()
    };
    assert_eq!(seconds(true, Transition::Unchanged, true), 1);
    assert_eq!(seconds(true, Transition::Changed, true), 1);
    assert_eq!(seconds(false, Transition::Changed, true), 2);
    assert_eq!(seconds(true, Transition::Pending, true), 3);
    assert_eq!(seconds(false, Transition::Pending, true), 4);
    assert_eq!(seconds(false, Transition::Unchanged, false), 5);
    assert_eq!(seconds(true, Transition::Pending, false), 5);
    assert_eq!(seconds(true, Transition::Unchanged, false), 6);
}

fn results() -> impl Strategy<Value = CheckResult> {
    let kinds = prop_oneof![
        Just(FailureKind::Active),
        Just(FailureKind::Passive),
        Just(FailureKind::Network),
        Just(FailureKind::NetworkTimeout),
    ];
    let failure = (kinds, any::<bool>(), any::<bool>()).prop_map(|(kind, retriable, excluded)| {
        CheckResult::Failed(Failure { kind, retriable, excluded, status: 0 })
    });
    prop_oneof![any::<bool>().prop_map(|degraded| CheckResult::Passed { degraded }), failure]
}

proptest! {
    #[test]
    fn health_only_changes_after_enough_results_in_a_row(
        (healthy, unhealthy) in (1_u32..5, 1_u32..5),
        sequence in proptest::collection::vec(results(), 1..60),
    ) {
        let mut host = Subject::new(config(healthy, unhealthy));
        let (mut passed, mut failed) = (0, 0);
        for (number, result) in sequence.into_iter().enumerate() {
            let before = host.is_healthy();
            host.takes(result);
            match result {
                CheckResult::Passed { .. } => (passed, failed) = (passed + 1, 0),
                CheckResult::Failed(_) => (passed, failed) = (0, failed + 1),
            }
            if host.is_healthy() && !before {
                prop_assert!(number == 0 || passed >= healthy);
                prop_assert!(!host.flags.has(HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL));
            }
            if !host.is_healthy() && before {
                let CheckResult::Failed(failure) = result else { panic!("a success") };
                let at_once = !failure.kind.is_network() && !failure.retriable;
                prop_assert!(at_once || failed >= unhealthy);
            }
            if passed >= healthy {
                prop_assert!(host.is_healthy());
            }
            if failed >= unhealthy {
                prop_assert!(!host.is_healthy());
            }
            prop_assert!(!host.flags.has(HealthFlags::PENDING_ACTIVE_HC));
        }
    }

    #[test]
    fn jitter_only_lengthens_an_interval(seed: u64, percent in 0_u32..100, millis in 0_u64..1000) {
        let mut intervals = config(1, 1).intervals;
        intervals.jitter_percent = percent;
        intervals.jitter = Duration::from_millis(millis);
        let mut random = Rng::with_seed(seed);
        let wait = wait(&intervals, true, Transition::Unchanged, true, &mut random);
        let longest = intervals.healthy + intervals.jitter
            + intervals.healthy.mul_f64(f64::from(percent) / 100.0);
        prop_assert!(intervals.healthy <= wait && wait <= longest);
    }
}

#[test]
fn a_host_that_asked_to_be_left_out_is_back_with_the_next_success() {
    const EXCLUDED: HealthFlags = HealthFlags::EXCLUDED_VIA_IMMEDIATE_HC_FAIL;
    let mut host = Subject::new(config(2, 3));
    host.takes(PASSED);
    let once = Failure { retriable: true, excluded: true, ..Failure::of(FailureKind::Active) };
    host.takes(CheckResult::Failed(once));
    assert!(host.is_healthy() && host.flags.has(EXCLUDED));
    assert_eq!(host.takes(PASSED).transition, Transition::Changed);
    assert!(!host.flags.has(EXCLUDED));

    // One that has failed besides comes back with the threshold.
    host.takes(CheckResult::Failed(Failure { retriable: false, ..once }));
    assert!(!host.is_healthy());
    assert_eq!(host.takes(PASSED).transition, Transition::Pending);
    assert!(host.flags.has(EXCLUDED));
    host.takes(PASSED);
    assert_eq!(host.flags, HealthFlags::default());
}
