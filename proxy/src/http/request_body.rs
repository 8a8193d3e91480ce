//! The request body on its way from the client: counted, and its end noted.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::stream::Stream;
use crate::net::body::BoxError;
use crate::telemetry::response_flags::ResponseFlags;

/// A client's request body.
#[derive(Debug)]
pub struct RequestStream {
    body: Incoming,
    stream: Rc<Stream>,
    trailers: bool,
}

impl RequestStream {
    /// The body of `stream`'s request. `trailers` says whether they are passed on.
    pub fn new(body: Incoming, stream: Rc<Stream>, trailers: bool) -> Self {
        Self { body, stream, trailers }
    }
}

impl Body for RequestStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
            self.stream.touch();
            match polled {
                Some(Ok(frame)) => {
                    self.stream.received(frame.data_ref().map_or(0, Bytes::len));
                    if self.body.is_end_stream() {
                        self.stream.request_arrived(Instant::now());
                    }
                    if frame.is_data() || self.trailers {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Some(Err(error)) => {
                    self.stream.flag(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    self.stream.request_arrived(Instant::now());
                    return Poll::Ready(None);
                }
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
