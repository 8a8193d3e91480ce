//! The response body on its way to the client: counted, timed, and the place where a stream ends.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};

use super::bad_body::Broken;
use super::deadline::{Expired, Timer};
use super::filter::Wraps;
use super::finish::Finish;
use super::router::InFlight;
use super::stream::{Head, Stream};
use crate::net::body::{BoxBody, BoxError};
use crate::pool::ResponseBody;
use crate::telemetry::response_flags::ResponseFlags;

/// A response body as the downstream codec sends it. When it is dropped the stream is over.
#[derive(Debug)]
pub struct DownstreamBody {
    content: Content,
    finish: Option<Finish>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Filtered(Filtered),
    Upstream(Box<Upstream>),
}

/// What filters make of a body.
struct Filtered(BoxBody);

impl fmt::Debug for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filtered({:?})", self.0.size_hint())
    }
}

/// A body that still comes from upstream.
#[derive(Debug)]
struct Upstream {
    body: Source,
    limits: Limits,
    trailers: bool,
    // Held for the permits and counts it gives back when the upstream's part is over.
    in_flight: Option<InFlight>,
}

/// Where it comes from.
#[derive(Debug)]
enum Source {
    Plain(ResponseBody),
    Filtered(Filtered),
}

/// Until when a response may go on.
#[derive(Debug)]
pub struct Limits {
    /// The end of the route's timeout or the stream's longest life, whichever is first, and which it is.
    pub deadline: Option<(Instant, Expired)>,
    /// How long it may stand still.
    pub idle: Option<Duration>,
    timer: Timer,
}

impl Limits {
    /// Limits with no timer running yet: one is made only if the body ever makes us wait.
    pub fn new(deadline: Option<(Instant, Expired)>, idle: Option<Duration>) -> Self {
        Self { deadline, idle, timer: Timer::default() }
    }

    /// Which limit is over now; the task is woken when the next one is.
    fn poll_expired(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<Expired> {
        let Self { deadline, idle, timer } = self;
        timer.poll(cx, || {
            let idle = idle.map(|limit| (stream.quiet_since() + limit, Expired::Idle));
            [*deadline, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
        })
    }
}

/// Why a response is cut short: the codec closes the connection (HTTP/1) or resets the stream (HTTP/2).
#[derive(Debug, thiserror::Error)]
#[error("the response was cut short: {0}")]
pub struct CutShort(String);

impl DownstreamBody {
    /// A body that is all here, unless filters make something else of it.
    pub fn full(content: Bytes, wraps: Wraps, mut finish: Finish) -> Self {
        let content = match content {
            content if !wraps.is_empty() => {
                let body = Full::new(content).map_err(|never| match never {});
                Content::Filtered(Filtered(wraps.wrap(Box::new(body))))
            }
            content if content.is_empty() => Content::Empty,
            content => Content::Full(content),
        };
        if matches!(content, Content::Empty) {
            finish.completed();
        }
        Self { content, finish: Some(finish) }
    }

    /// Nothing: the stream goes on elsewhere, as a tunnel.
    pub fn detached() -> Self {
        Self { content: Content::Empty, finish: None }
    }

    /// A body that comes from upstream, unless filters make something else of it. `trailers` says whether the client may see them.
    pub fn upstream(
        body: ResponseBody,
        wraps: Wraps,
        limits: Limits,
        trailers: bool,
        in_flight: InFlight,
        mut finish: Finish,
    ) -> Self {
        let body = match wraps.is_empty() {
            true => Source::Plain(body),
            false => Source::Filtered(Filtered(wraps.wrap(Box::new(body.map_err(Into::into))))),
        };
        if body.is_end_stream() {
            in_flight.completed();
            finish.completed();
            return Self { content: Content::Empty, finish: Some(finish) };
        }
        let upstream = Upstream { body, limits, trailers, in_flight: Some(in_flight) };
        Self { content: Content::Upstream(Box::new(upstream)), finish: Some(finish) }
    }
}

impl Body for DownstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { content, finish } = &mut *self;
        let Some(finish) = finish else { return Poll::Ready(None) };
        match content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *content = Content::Empty;
                finish.stream().sent(bytes.len());
                finish.completed();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Filtered(Filtered(body)) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if let Some(Ok(frame)) = &frame {
                    finish.stream().sent(frame.data_ref().map_or(0, Bytes::len));
                }
                if frame.is_none() || body.is_end_stream() {
                    *content = Content::Empty;
                    finish.completed();
                }
                Poll::Ready(frame)
            }
            Content::Upstream(upstream) => {
                let (frame, over) = ready!(upstream.poll(finish, cx));
                if over {
                    *content = Content::Empty;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Filtered(Filtered(body)) => body.size_hint(),
            Content::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Plain(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|it| it.map_err(Into::into)))
            }
            Self::Filtered(Filtered(body)) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Filtered(Filtered(body)) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Filtered(Filtered(body)) => body.size_hint(),
        }
    }
}

/// What the codec gets, and whether it is the last.
type Polled = (Option<Result<Frame<Bytes>, BoxError>>, bool);

impl Upstream {
    fn poll(&mut self, finish: &mut Finish, cx: &mut Context<'_>) -> Poll<Polled> {
        let stream = Rc::clone(finish.stream());
        loop {
            let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else {
                return match self.limits.poll_expired(&stream, cx) {
                    Poll::Ready(expired) => Poll::Ready(self.expire(expired, &stream)),
                    Poll::Pending => Poll::Pending,
                };
            };
            stream.touch();
            match polled {
                None => {
                    self.complete(finish);
                    return Poll::Ready((None, true));
                }
                Some(Ok(frame)) => {
                    let over = self.body.is_end_stream();
                    if let Some(frame) = self.forward(frame, &stream) {
                        if over {
                            self.complete(finish);
                        }
                        return Poll::Ready((Some(Ok(frame)), over));
                    }
                }
                Some(Err(error)) => return Poll::Ready(self.fail(&*error, &stream)),
            }
        }
    }

    /// The frame as the client may see it; none for trailers it may not.
    fn forward(&self, frame: Frame<Bytes>, stream: &Stream) -> Option<Frame<Bytes>> {
        match frame.into_data() {
            Ok(data) => {
                stream.sent(data.len());
                Some(Frame::data(data))
            }
            Err(frame) => {
                let trailers: HeaderMap = frame.into_trailers().ok()?;
                stream.keep_trailers(&trailers);
                self.trailers.then(|| Frame::trailers(trailers))
            }
        }
    }

    fn complete(&mut self, finish: &mut Finish) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.completed();
        }
        finish.completed();
    }

    fn expire(&mut self, expired: Expired, stream: &Stream) -> Polled {
        let http = &stream.served.stats;
        let (flags, details) = match expired {
            Expired::Route => (ResponseFlags::UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
            Expired::Idle => {
                http.downstream_rq_idle_timeout.inc();
                (ResponseFlags::STREAM_IDLE_TIMEOUT, "stream_idle_timeout")
            }
            Expired::UpstreamDuration => (
                ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
                "upstream_max_stream_duration_reached",
            ),
            _ => {
                http.downstream_rq_max_duration_reached.inc();
                (ResponseFlags::DURATION_TIMEOUT, "max_duration_timeout")
            }
        };
        match (expired, &self.in_flight) {
            (Expired::Route, Some(in_flight)) => in_flight.expired(),
            (Expired::UpstreamDuration, Some(in_flight)) => in_flight.lived_too_long(),
            _ => {}
        }
        stream.flag(flags);
        self.cut(details, stream)
    }

    fn fail(&mut self, error: &(dyn std::error::Error + 'static), stream: &Stream) -> Polled {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.failed();
        }
        // Only of gRPC, whose verdict comes last.
        if stream.head().is_some_and(Head::is_grpc) {
            stream.served.stats.rq_reset_after_downstream_response_started.inc();
        }
        if error.is::<Broken>() {
            tracing::debug!(%error, "a filter can make nothing of the upstream's response");
            stream.flag(ResponseFlags::UPSTREAM_PROTOCOL_ERROR);
            return self.cut("upstream_reset_after_response_started{protocol_error}", stream);
        }
        tracing::debug!(%error, "the upstream broke off its response");
        stream.flag(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
        self.cut("upstream_reset_after_response_started{connection_termination}", stream)
    }

    fn cut(&mut self, details: &'static str, stream: &Stream) -> Polled {
        stream.served.stats.downstream_rq_tx_reset.inc();
        stream.set_details(details);
        stream.set_ended();
        self.in_flight = None;
        (Some(Err(Box::new(CutShort(details.to_owned())))), true)
    }
}
