//! Rotation by itself, and below this, roots replaced while workloads talk to each other.

mod handshakes;

use proptest::prelude::*;

use super::*;
use crate::validity::DAY;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

#[test]
fn a_certificate_is_renewed_around_half_of_its_life() {
    let validity = Validity { not_before: start(), not_after: start() + DAY };
    let rotation = Rotation::default();
    assert_eq!(rotation.due(validity, 0.5), start() + DAY / 2);
    let at =
        |hours: u32| rotation.decide(validity, Attempts::default(), start() + HOUR * hours, 0.5);
    assert!(!at(11).renew && at(12).renew && at(23).valid);
    assert!(at(25).renew && !at(25).valid, "an expired certificate is renewed, however late");
    assert_eq!(at(0).sleep, rotation.longest_sleep);
}

#[test]
fn a_certificate_that_is_due_at_once_is_not_asked_for_in_a_loop() {
    let validity = Validity { not_before: start() - DAY, not_after: start() + MINUTE };
    let attempts = Attempts { failed: 0, last: Some(start()) };
    let decision = Rotation::default().decide(validity, attempts, start(), 1.0);
    assert_eq!((decision.renew, decision.sleep), (false, Duration::from_secs(1)));
}

#[test]
fn an_authority_that_is_down_for_45_percent_of_life_harms_nobody() {
    let rotation = Rotation::default();
    let validity = Validity { not_before: start(), not_after: start() + DAY };
    for chance in [0.0, 0.3, 1.0] {
        let back = rotation.due(validity, chance) + DAY.mul_f64(0.44);
        let (mut now, mut attempts, mut asked) = (start(), Attempts::default(), 0);
        loop {
            let decision = rotation.decide(validity, attempts, now, chance);
            assert!(decision.valid, "it expired before the authority was asked again");
            if decision.renew {
                asked += 1;
                if now >= back {
                    break;
                }
                attempts = Attempts { failed: attempts.failed + 1, last: Some(now) };
            }
            now += decision.sleep;
        }
        assert!(now < back + rotation.longest_pause, "it was asked soon after it was back");
        assert!(asked < 400, "{asked} attempts are a flood");
    }
}

proptest! {
    #[test]
    fn no_decision_is_later_than_what_it_waits_for(
        life in 1..10_000_000_u64, at in -1_000_000..20_000_000_i64, failed in any::<u32>(),
        last in proptest::option::of(-1_000_000..20_000_000_i64), chance in 0.0..=1.0_f64,
    ) {
        let moment = |offset: i64| start() + 100 * DAY + Duration::from_secs((offset + 1_000_000).unsigned_abs());
        let validity = Validity { not_before: moment(0), not_after: moment(0) + Duration::from_secs(life) };
        let attempts = Attempts { failed, last: last.map(moment) };
        let (rotation, now) = (Rotation::default(), moment(at));
        let decision = rotation.decide(validity, attempts, now, chance);
        let due = rotation.due(validity, chance);
        prop_assert!(due > validity.not_before && due < validity.not_after);
        prop_assert_eq!(decision.renew, decision.sleep.is_zero());
        prop_assert!(decision.sleep <= rotation.longest_sleep);
        prop_assert!(!decision.renew || now >= due);
        let paced = attempts.last.is_some_and(|last| last <= now && now < last + rotation.longest_pause);
        prop_assert!(decision.renew || now < due || paced);
    }
}
