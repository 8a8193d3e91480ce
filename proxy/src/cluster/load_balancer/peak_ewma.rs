//! PEAK_EWMA: of two random endpoints the one that should answer sooner, given how long it has taken of late and
//! how many requests are waiting there. Weights do not matter.

use fastrand::Rng;

use crate::config::cluster::PeakEwma as Config;

/// Picks a position below `count`. `active` tells the requests under way there, `latency` the milliseconds that an
/// answer takes, if that is known.
pub(super) fn pick(
    count: usize,
    config: &Config,
    random: &mut Rng,
    active: impl Fn(usize) -> u32,
    latency: impl Fn(usize) -> Option<f64>,
) -> Option<usize> {
    if count < 2 {
        return (count == 1).then_some(0);
    }
    let first = random.usize(..count);
    let second = match random.usize(..count - 1) {
        position if position >= first => position + 1,
        position => position,
    };
    let cost = |position| cost(config, latency(position), active(position));
    // Of equals the first wins, and that is random.
    Some(if cost(second) < cost(first) { second } else { first })
}

/// What it costs to wait for an endpoint. One that has requests and has never answered may never answer.
fn cost(config: &Config, latency: Option<f64>, active: u32) -> f64 {
    let queue = f64::from(active) + 1.0;
    match latency {
        Some(millis) => millis * queue,
        None if active > 0 => config.penalty + f64::from(active),
        None => config.default_rtt.as_secs_f64() * 1000.0 * queue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn winner(latencies: [Option<f64>; 2], active: [u32; 2]) -> Option<usize> {
        let mut random = Rng::with_seed(3);
        let mut pick = || {
            pick(
                2,
                &Config::default(),
                &mut random,
                |position| active[position],
                |position| latencies[position],
            )
        };
        let first = pick();
        (0..20).all(|_| pick() == first).then_some(first).flatten()
    }

    #[test]
    fn latency_times_queue_decides() {
        assert_eq!(winner([Some(10.0), Some(20.0)], [0, 0]), Some(0));
        assert_eq!(winner([Some(10.0), Some(20.0)], [2, 0]), Some(1));
        assert_eq!(winner([Some(10.0), Some(20.0)], [1, 0]), None, "equal, so either");
    }

    #[test]
    fn the_unknown_is_tried_but_not_twice_at_the_same_time() {
        assert_eq!(winner([None, Some(20.0)], [0, 0]), Some(0), "10 ms by default");
        assert_eq!(winner([None, Some(20.0)], [1, 100]), Some(1));
        assert_eq!(winner([None, None], [2, 1]), Some(1), "the least busy of those unknown");
    }

    #[test]
    fn there_need_not_be_two() {
        let alone =
            |count| pick(count, &Config::default(), &mut Rng::with_seed(3), |_| 0, |_| None);
        assert_eq!((alone(0), alone(1)), (None, Some(0)));
    }
}
