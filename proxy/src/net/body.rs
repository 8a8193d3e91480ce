//! The body of a request on its way upstream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Any error, as bodies report it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body whose pieces arrive over time. It never leaves its worker, so it need not be `Send`.
pub type BoxBody = Box<dyn Body<Data = Bytes, Error = BoxError> + Unpin>;

/// The body of a request on its way upstream.
#[derive(Default)]
pub enum RequestBody {
    /// Nothing.
    #[default]
    Empty,
    /// Everything is there already.
    Full(Bytes),
    /// Pieces that arrive over time, with trailers if there are any.
    Stream(BoxBody),
}

impl RequestBody {
    /// A body of exactly `bytes`.
    pub fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }

    /// A body read from `body` as it is sent.
    pub fn stream(body: impl Body<Data = Bytes, Error = BoxError> + Unpin + 'static) -> Self {
        Self::Stream(Box::new(body))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Self::Stream(body) = this {
            return Pin::new(body).poll_frame(context);
        }
        match std::mem::take(this) {
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Self::Empty | Self::Stream(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(body) => write!(f, "Stream({:?})", body.size_hint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[test]
    fn sizes_are_exact_where_they_are_known() {
        assert!(RequestBody::Empty.is_end_stream());
        assert!(RequestBody::full(Bytes::new()).is_end_stream());
        let full = RequestBody::full(Bytes::from_static(b"four"));
        assert_eq!(full.size_hint().exact(), Some(4));
        assert!(!full.is_end_stream());
    }

    #[tokio::test]
    async fn every_kind_yields_its_bytes() {
        let full = RequestBody::full(Bytes::from_static(b"four"));
        assert_eq!(full.collect().await.unwrap().to_bytes(), "four");
        let stream = Full::new(Bytes::from_static(b"five!")).map_err(|never| match never {});
        let stream = RequestBody::stream(stream);
        assert_eq!(stream.collect().await.unwrap().to_bytes(), "five!");
        assert_eq!(RequestBody::Empty.collect().await.unwrap().to_bytes(), "");
    }
}
