//! Memory that is no longer needed goes back to the operating system, also in a process with nothing to do.

use std::hint::black_box;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// How often freed memory is given back.
const EVERY: Duration = Duration::from_secs(2);

/// A block of this many bytes is just too large to share a page with others. While it is there, what was freed
/// where it lies cannot be given back: it should be no larger than that.
const LARGE: usize = 1 << 20;

/// Gives freed memory back for as long as it is polled.
///
/// The allocator keeps what was freed for a second, in case it is wanted again, but looks at the time only
/// when it next frees a page; an idle process may not do that for hours. This frees one, never touched, so
/// that it costs next to nothing.
pub(super) async fn keep_giving_back() {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        drop(black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}
