//! How long a stream may wait: every timeout that can run before the response's headers are there, as one timer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::stream::Stream;

/// Which timeout is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// `route.timeout`: from the end of the request.
    Route,
    /// `retry_policy.per_try_timeout`: from the start of the attempt.
    PerTry,
    /// `retry_policy.per_try_idle_timeout`: nothing moved during the attempt.
    PerTryIdle,
    /// `stream_idle_timeout` or the route's: nothing moved in either direction.
    Idle,
    /// `request_timeout`: the request did not arrive whole.
    Request,
    /// `max_stream_duration`
    Duration,
    /// `max_stream_duration` of the cluster: from the moment the attempt was sent.
    UpstreamDuration,
}

/// The timeouts of one stream; none means no limit.
#[derive(Debug, Clone, Default)]
pub struct Deadlines {
    /// See [`Expired::Route`].
    pub route: Option<Duration>,
    /// See [`Expired::PerTry`].
    pub per_try: Option<Duration>,
    /// See [`Expired::PerTryIdle`].
    pub per_try_idle: Option<Duration>,
    /// See [`Expired::Idle`].
    pub idle: Option<Duration>,
    /// See [`Expired::Request`].
    pub request: Option<Duration>,
    /// See [`Expired::Duration`].
    pub duration: Option<Duration>,
    /// See [`Expired::UpstreamDuration`].
    pub upstream_duration: Option<Duration>,
}

impl Deadlines {
    /// The next timeout of `stream`, whose current attempt began at `attempt` and was sent at `sent`, if any is running.
    fn next(
        &self,
        stream: &Stream,
        attempt: Option<Instant>,
        sent: Option<Instant>,
    ) -> Option<(Instant, Expired)> {
        let arrived = stream.timeline.request_end.get();
        let start = stream.start.instant;
        let after = |from: Option<Instant>, limit: Option<Duration>, what| {
            Some((from?.checked_add(limit?)?, what))
        };
        let request = if arrived.is_some() { None } else { self.request };
        // An attempt's clock does not run while the client is still sending.
        let attempt_begin = attempt.zip(arrived).map(|(attempt, arrived)| attempt.max(arrived));
        let quiet = stream.quiet_since();
        [
            after(arrived, self.route, Expired::Route),
            after(attempt_begin, self.per_try, Expired::PerTry),
            after(attempt.map(|begin| begin.max(quiet)), self.per_try_idle, Expired::PerTryIdle),
            after(Some(quiet), self.idle, Expired::Idle),
            after(Some(start), request, Expired::Request),
            after(Some(start), self.duration, Expired::Duration),
            after(sent, self.upstream_duration, Expired::UpstreamDuration),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// The limits that go on once the response has begun.
    pub fn after_headers(&self, stream: &Stream) -> Option<(Instant, Expired)> {
        let Self { route, duration, upstream_duration, .. } = *self;
        let rest = Self { route, duration, upstream_duration, ..Self::default() };
        rest.next(stream, None, stream.timeline.upstream_begin.get())
    }

    /// Waits for `work`, unless a timeout of `stream` is over first.
    ///
    /// # Errors
    /// The timeout that was over; `work` is dropped.
    pub async fn within<T>(
        &self,
        stream: &Stream,
        attempt: Option<Instant>,
        work: impl Future<Output = T>,
    ) -> Result<T, Expired> {
        let mut work = pin!(work);
        let mut timer = stream.connection.take_timer();
        let result = poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            stream.wake_on_arrival(cx);
            let sent = stream.timeline.upstream_begin.get();
            let sent = sent.filter(|sent| attempt.is_some_and(|attempt| *sent >= attempt));
            timer.poll(cx, || self.next(stream, attempt, sent)).map(Err)
        })
        .await;
        stream.connection.return_timer(timer);
        result
    }
}

/// A timer that is made when first needed and moved only when an earlier moment comes up. It may outlive what
/// it was made for: at worst it wakes a task that then looks again.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready with what `next` names once its moment has come; otherwise the task is woken then.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        next: impl Fn() -> Option<(Instant, T)>,
    ) -> Poll<T> {
        while let Some((at, what)) = next() {
            if at <= Instant::now() {
                return Poll::Ready(what);
            }
            let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
            if sleep.deadline() > at.into() || sleep.is_elapsed() {
                sleep.as_mut().reset(at.into());
            }
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
        }
        Poll::Pending
    }
}
