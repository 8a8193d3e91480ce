//! A body that goes only so fast, in slices of a sixteenth of a second, as Envoy's does.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::body::{BoxBody, BoxError};

const SLICES: u32 = 16;
const SLICE: Duration = Duration::from_nanos(1_000_000_000 / SLICES as u64);

/// See the module.
pub(super) struct Slowed {
    body: BoxBody,
    /// What came, and has yet to go.
    pending: Bytes,
    ended: bool,
    budget: Budget,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How many slices may go.
struct Budget {
    /// In bytes.
    slice: u64,
    /// Up to a second's worth.
    saved: u32,
    filled: Instant,
}

impl Budget {
    /// Takes one slice; or says when there will be one.
    fn take(&mut self, now: Instant) -> Result<u64, Instant> {
        let passed = now.saturating_duration_since(self.filled).as_nanos() / SLICE.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(SLICES * 2).min(SLICES * 2);
        if passed == SLICES * 2 {
            (self.saved, self.filled) = (SLICES, now);
        } else {
            self.saved = SLICES.min(self.saved + passed);
            self.filled += SLICE * passed;
        }
        match self.saved {
            0 => Err(self.filled + SLICE),
            _ => {
                self.saved -= 1;
                Ok(self.slice)
            }
        }
    }
}

impl Slowed {
    /// `body` at `rate` KiB per second.
    pub(super) fn new(body: BoxBody, rate: u64) -> Self {
        let slice = (rate.saturating_mul(1024) / u64::from(SLICES)).max(1);
        let budget = Budget { slice, saved: 1, filled: Instant::now() };
        Self { body, pending: Bytes::new(), ended: false, budget, sleep: None }
    }
}

impl Body for Slowed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        while !this.pending.has_remaining() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.pending = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => {
                    this.ended = true;
                    return Poll::Ready(other);
                }
            }
        }
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            match this.budget.take(Instant::now()) {
                Ok(slice) => {
                    let length = this.pending.len();
                    let part = usize::try_from(slice).unwrap_or(length).min(length);
                    return Poll::Ready(Some(Ok(Frame::data(this.pending.split_to(part)))));
                }
                Err(at) => this.sleep = Some(Box::pin(sleep_until(at))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_empty() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let pending = self.pending.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(pending));
        }
        hint.set_lower(hint.lower().saturating_add(pending));
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    #[tokio::test]
    async fn a_body_goes_as_fast_as_it_may() {
        let content = Bytes::from(vec![7; 2560]);
        let body = Full::new(content.clone()).map_err(BoxError::from);
        let begin = Instant::now();
        let collected = Slowed::new(Box::new(body), 10).collect().await.unwrap().to_bytes();
        assert_eq!(collected, content);
        // Four slices of 640 bytes, the first of which goes at once.
        let taken = begin.elapsed();
        assert!(taken >= SLICE * 3, "{taken:?}");
    }

    #[test]
    fn what_is_saved_is_a_second_at_most() {
        let now = Instant::now();
        let mut budget = Budget { slice: 64, saved: 1, filled: now };
        assert_eq!(budget.take(now), Ok(64));
        assert_eq!(budget.take(now), Err(now + SLICE));
        let later = now + Duration::from_secs(1000);
        for _ in 0..SLICES {
            assert_eq!(budget.take(later), Ok(64));
        }
        assert!(budget.take(later).is_err());
    }
}
