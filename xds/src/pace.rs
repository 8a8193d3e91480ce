//! How long what was refused waits before it may be repeated. The protocol knows no pace, and two halves that answer
//! at once repeat a refused push thousands of times a second.

use std::time::Duration;

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// The wait after `times` refusals in a row: none after the first, so that a correction is not late; then half a second
/// that doubles up to 30 seconds.
pub fn wait(times: u32) -> Duration {
    let Some(doublings) = times.checked_sub(2) else { return Duration::ZERO };
    SHORTEST.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::wait;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let waits: Vec<u128> = (0..10).map(|times| wait(times).as_millis()).collect();
        assert_eq!(waits, [0, 0, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(wait(u32::MAX).as_secs(), 30);
    }
}
