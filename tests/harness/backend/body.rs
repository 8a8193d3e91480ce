//! A body that arrives as a script says: pieces, pauses, trailers, a cut.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

/// A scripted body.
pub type Body = UnsyncBoxBody<Bytes, Aborted>;

/// The script says that the connection, or the stream, breaks here.
#[derive(Debug, Clone, Copy)]
pub struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("aborted by the script")
    }
}

impl std::error::Error for Aborted {}

/// One step of a body.
#[derive(Debug, Clone)]
pub struct Step {
    after: Duration,
    event: Event,
}

#[derive(Debug, Clone)]
enum Event {
    Data(Bytes),
    Trailers(HeaderMap),
    Abort,
}

impl Step {
    /// Bytes, `after` the step before.
    pub fn data(after: Duration, bytes: Bytes) -> Self {
        Self { after, event: Event::Data(bytes) }
    }

    /// The end, with one trailer.
    pub fn trailer(name: &'static str, value: &'static str) -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert(name, HeaderValue::from_static(value));
        Self { after: Duration::ZERO, event: Event::Trailers(trailers) }
    }

    /// Breaks the message.
    pub fn abort(after: Duration) -> Self {
        Self { after, event: Event::Abort }
    }
}

/// The body that these steps make; a single piece without delay has a known length.
pub fn scripted(steps: Vec<Step>) -> Body {
    if steps.is_empty() {
        return whole(Bytes::new());
    }
    if let [Step { after: Duration::ZERO, event: Event::Data(bytes) }] = steps.as_slice() {
        return whole(bytes.clone());
    }
    StreamBody::new(stream::unfold(steps.into_iter(), |mut steps| async {
        let step = steps.next()?;
        if !step.after.is_zero() {
            tokio::time::sleep(step.after).await;
        }
        let frame = match step.event {
            Event::Data(bytes) => Ok(Frame::data(bytes)),
            Event::Trailers(trailers) => Ok(Frame::trailers(trailers)),
            Event::Abort => Err(Aborted),
        };
        Some((frame, steps))
    }))
    .boxed_unsync()
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
