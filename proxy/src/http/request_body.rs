//! The request body on its way from the client: counted, its end noted, kept or changed by filters.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::bad_body::Broken;
use super::stream::Stream;
use crate::net::body::{BoxBody, BoxError};
use crate::telemetry::response_flags::ResponseFlags;

/// A request's body, as filters have left it.
#[derive(Debug)]
pub struct ClientBody {
    source: Source,
    /// Where it is noted if a filter can make nothing of it.
    stream: Option<Rc<Stream>>,
    /// What filters wanted to see before it goes on, and has yet to go on.
    kept: VecDeque<Bytes>,
    kept_trailers: Option<HeaderMap>,
    passes_trailers: bool,
}

/// What is still to be read.
enum Source {
    Nothing,
    Client(RequestStream),
    Filtered(BoxBody),
}

/// How much of a body was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All of it.
    Whole,
    /// Its beginning: the rest is more than may be kept.
    Beginning,
}

impl ClientBody {
    /// The body of `stream`'s request.
    pub fn new(body: Incoming, stream: Rc<Stream>) -> Self {
        let noted = Some(Rc::clone(&stream));
        let source = match body.is_end_stream() {
            true => Source::Nothing,
            false => Source::Client(RequestStream { body, stream }),
        };
        Self {
            source,
            stream: noted,
            kept: VecDeque::new(),
            kept_trailers: None,
            passes_trailers: true,
        }
    }

    /// A body that is all there.
    pub fn whole(data: Vec<Bytes>, trailers: Option<HeaderMap>) -> Self {
        Self {
            source: Source::Nothing,
            stream: None,
            kept: data.into(),
            kept_trailers: trailers,
            passes_trailers: true,
        }
    }

    /// Says whether trailers are passed on; they are unless somebody says otherwise.
    pub fn pass_trailers(&mut self, passes: bool) {
        self.passes_trailers = passes;
    }

    /// Reads the body until its end, or until more than `limit` bytes are there. What is read goes on later.
    ///
    /// # Errors
    /// The client broke it off.
    pub async fn keep(&mut self, limit: u64) -> Result<Kept, BoxError> {
        while self.kept_length() <= limit {
            if self.kept_trailers.is_some() {
                return Ok(Kept::Whole);
            }
            let Some(frame) = self.source.frame().await else { return Ok(Kept::Whole) };
            match frame.map_err(|error| self.noted(error))?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => self.kept.push_back(data),
                Err(frame) => self.kept_trailers = frame.into_trailers().ok(),
            }
            if self.kept_length() <= limit && self.source.is_end_stream() {
                return Ok(Kept::Whole);
            }
        }
        Ok(Kept::Beginning)
    }

    /// An error, noted if it is that of a filter.
    fn noted(&self, error: BoxError) -> BoxError {
        if let (Some(stream), Some(broken)) = (&self.stream, error.downcast_ref::<Broken>()) {
            stream.set_bad_body(broken.body);
        }
        error
    }

    /// How many bytes are kept.
    pub fn kept_length(&self) -> u64 {
        self.kept.iter().map(|data| data.len() as u64).sum()
    }

    /// A copy of what is kept, up to `limit` bytes.
    pub fn kept(&self, limit: usize) -> Bytes {
        if let (1, Some(only)) = (self.kept.len(), self.kept.front()) {
            return only.slice(..only.len().min(limit));
        }
        let mut all = BytesMut::new();
        for data in &self.kept {
            let room = limit - all.len();
            all.extend_from_slice(data.get(..room).unwrap_or(data));
        }
        all.freeze()
    }

    /// Puts what `wrap` makes of the body in its place.
    pub fn wrap(&mut self, wrap: impl FnOnce(BoxBody) -> BoxBody) {
        let passes_trailers = self.passes_trailers;
        let nothing = Self {
            source: Source::Nothing,
            stream: self.stream.clone(),
            kept: VecDeque::new(),
            kept_trailers: None,
            passes_trailers,
        };
        let mut before = std::mem::replace(self, nothing);
        before.passes_trailers = true;
        self.source = Source::Filtered(wrap(Box::new(before)));
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(data) = this.kept.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = this.kept_trailers.take() {
            this.source = Source::Nothing;
            return Poll::Ready(this.passes_trailers.then(|| Ok(Frame::trailers(trailers))));
        }
        loop {
            match ready!(Pin::new(&mut this.source).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_trailers() && !this.passes_trailers => {}
                frame => {
                    return Poll::Ready(frame.map(|it| it.map_err(|error| this.noted(error))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.kept_trailers.is_none() && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.source.size_hint();
        let kept = self.kept_length();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(hint.lower().saturating_add(kept));
        hint
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
            Self::Nothing => Poll::Ready(None),
            Self::Client(body) => Pin::new(body).poll_frame(cx),
            Self::Filtered(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Client(body) => body.is_end_stream(),
            Self::Filtered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
            Self::Filtered(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Client(_) => "Client",
            Self::Filtered(_) => "Filtered",
        })
    }
}

/// A client's request body as it comes.
#[derive(Debug)]
struct RequestStream {
    body: Incoming,
    stream: Rc<Stream>,
}

impl Body for RequestStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.stream.touch();
        match polled {
            Some(Ok(frame)) => {
                self.stream.received(frame.data_ref().map_or(0, Bytes::len));
                if self.body.is_end_stream() {
                    self.stream.request_arrived(Instant::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.stream.flag(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.stream.request_arrived(Instant::now());
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn body(frames: Vec<Frame<Bytes>>) -> ClientBody {
        let frames = frames.into_iter().map(Ok::<_, BoxError>);
        ClientBody {
            source: Source::Filtered(Box::new(StreamBody::new(futures_util::stream::iter(frames)))),
            stream: None,
            kept: VecDeque::new(),
            kept_trailers: None,
            passes_trailers: true,
        }
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn what_is_kept_goes_on() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        let mut body = body(vec![data("one"), data(""), data("two"), Frame::trailers(trailers)]);
        assert_eq!(body.keep(6).await.unwrap(), Kept::Whole);
        assert_eq!(body.kept(4), "onet");
        assert_eq!(body.kept(100), "onetwo");
        assert!(!body.is_end_stream());
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["x-end"], "1");
        assert_eq!(whole.to_bytes(), "onetwo");
    }

    #[tokio::test]
    async fn no_more_is_read_than_may_be_kept() {
        let mut body = body(vec![data("one"), data("two"), data("three")]);
        assert_eq!(body.keep(5).await.unwrap(), Kept::Beginning);
        assert_eq!(body.kept(100), "onetwo");
        assert_eq!(body.keep(5).await.unwrap(), Kept::Beginning);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "onetwothree");
    }

    #[tokio::test]
    async fn trailers_may_be_left_behind() {
        let mut body = body(vec![data("one"), Frame::trailers(HeaderMap::new())]);
        body.wrap(|body| body);
        body.pass_trailers(false);
        assert_eq!(body.keep(100).await.unwrap(), Kept::Whole);
        let whole = body.collect().await.unwrap();
        assert!(whole.trailers().is_none());
        assert_eq!(whole.to_bytes(), "one");
    }
}
