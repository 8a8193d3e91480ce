//! The bodies of gRPC-Web: base64 of the client, and the trailers as the last message of an answer.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use super::WebCall;
use crate::http::bad_body::BadBody;
use crate::net::body::{BoxBody, BoxError};

/// Marks the message that holds the trailers.
const TRAILERS: u8 = 0x80;

/// What is wrong with a request that is no base64, in Envoy's words.
const BAD: BadBody = BadBody {
    details: "grpc_base_64_decode_failed",
    answer: "Bad gRPC-web request, invalid base64 data.",
};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// A request's body, out of its base64.
pub(super) struct Asked {
    body: BoxBody,
    /// Up to three characters that make no whole group yet.
    rest: BytesMut,
}

impl Asked {
    pub(super) fn new(body: BoxBody) -> Self {
        Self { body, rest: BytesMut::new() }
    }
}

/// Takes all whole groups of `text` and decodes them, one by one: there may be padding amid them.
fn decode(text: &mut BytesMut) -> Result<Bytes, BoxError> {
    let whole = text.len() / 4 * 4;
    let mut decoded = BytesMut::with_capacity(whole / 4 * 3);
    let groups = text.split_to(whole);
    let mut group_of = [0; 3];
    for group in groups.chunks_exact(4) {
        let length = STANDARD.decode_slice(group, &mut group_of).map_err(|_| BAD.error())?;
        decoded.extend_from_slice(group_of.get(..length).unwrap_or_default());
    }
    Ok(decoded.freeze())
}

impl Body for Asked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        loop {
            let this = &mut *self;
            let data = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                None if this.rest.has_remaining() => {
                    this.rest.clear();
                    return Poll::Ready(Some(Err(BAD.error().into())));
                }
                other => return Poll::Ready(other),
            };
            this.rest.extend_from_slice(&data);
            match decode(&mut this.rest) {
                Ok(decoded) if decoded.is_empty() => {}
                decoded => return Poll::Ready(Some(decoded.map(Frame::data))),
            }
        }
    }
}

/// An answer's body, with its trailers in it.
pub(super) struct Answer {
    body: BoxBody,
    call: Rc<WebCall>,
}

impl Answer {
    pub(super) fn new(body: BoxBody, call: Rc<WebCall>) -> Self {
        Self { body, call }
    }

    fn shaped(&self, data: Bytes) -> Frame<Bytes> {
        Frame::data(if self.call.text { STANDARD.encode(&data).into() } else { data })
    }
}

/// The trailers as a message.
fn message(trailers: &HeaderMap) -> Bytes {
    let mut lines = BytesMut::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.put_u8(b':');
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    let mut message = BytesMut::with_capacity(lines.len() + 5);
    message.put_u8(TRAILERS);
    message.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
    message.extend_from_slice(&lines);
    message.freeze()
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(frame.map(|frame| match frame.into_data() {
            Ok(data) => self.shaped(data),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.call.ends(&trailers);
                self.shaped(message(&trailers))
            }
        })))
    }
}

/// Nothing of a body, which is read to its end.
pub(super) struct Dropped(BoxBody);

impl Dropped {
    pub(super) fn new(body: BoxBody) -> Self {
        Self(body)
    }
}

impl Body for Dropped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                Some(Ok(_)) => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trailers_are_a_message() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(&message(&trailers)[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n");
    }

    proptest! {
        #[test]
        fn base64_is_read_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            cut in 1_usize..9,
        ) {
            let text: String = pieces.iter().map(|piece| STANDARD.encode(piece)).collect();
            let (mut rest, mut decoded) = (BytesMut::new(), Vec::new());
            for piece in text.as_bytes().chunks(cut) {
                rest.extend_from_slice(piece);
                decoded.extend_from_slice(&decode(&mut rest).unwrap());
            }
            prop_assert_eq!(decoded, pieces.concat());
            prop_assert!(rest.is_empty());
        }
    }
}
