//! gRPC over HTTP: messages in frames, timeouts and statuses in headers (gRPC, "gRPC over HTTP2").

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::Message;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// One message in its frame, uncompressed.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows by itself: there is always room.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// The value of `grpc-timeout`; at most eight digits are allowed.
pub fn timeout(timeout: Duration) -> HeaderValue {
    let text = match timeout.as_millis() {
        millis @ 0..100_000_000 => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs().min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0m"))
}

/// Whether a body of this `content-type` holds frames.
pub fn is_grpc(content_type: Option<&HeaderValue>) -> bool {
    let rest = content_type.and_then(|it| it.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// How a call ended if it did not end well: a status of gRPC and its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gRPC status {code}: {message}")]
pub struct Status {
    /// The status, 0 to 16; anything else was sent so.
    pub code: u32,
    /// What the server says of it; may be empty.
    pub message: String,
}

impl Status {
    /// `UNKNOWN`
    pub const UNKNOWN: u32 = 2;
    /// `DEADLINE_EXCEEDED`
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// `RESOURCE_EXHAUSTED`
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// `INTERNAL`
    pub const INTERNAL: u32 = 13;
    /// `UNAVAILABLE`
    pub const UNAVAILABLE: u32 = 14;

    /// This `code` for this reason.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// What `headers` (of a response without messages) or trailers say; none if they say nothing.
    ///
    /// # Errors
    /// Any status but `OK`.
    pub fn of(headers: &HeaderMap) -> Option<Result<(), Self>> {
        let code = headers.get("grpc-status")?;
        let code = code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(Self::UNKNOWN);
        if code == 0 {
            return Some(Ok(()));
        }
        let message = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
        Some(Err(Self { code, message: percent_decoded(message) }))
    }

    /// What a response that is no gRPC says (gRPC, "HTTP to gRPC Status Code Mapping").
    pub fn of_http(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => Self::INTERNAL,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        };
        Self::new(code, format!("the answer has the HTTP status {}", status.as_u16()))
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<2>().and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Messages put together from the pieces of a body.
#[derive(Debug)]
pub struct Frames {
    bytes: BytesMut,
    longest: usize,
}

impl Frames {
    /// No bytes yet; a message is at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { bytes: BytesMut::new(), longest }
    }

    /// Takes in one piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Whether a message has begun that is not whole yet.
    pub fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// It is compressed, too long, or no such message.
    pub fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = prefix;
        if *compressed != 0 {
            return Err(Status::new(Status::INTERNAL, "the message is compressed"));
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.longest {
            return Err(Status::new(Status::RESOURCE_EXHAUSTED, "the message is too long"));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(message)
            .map_err(|error| Status::new(Status::INTERNAL, format!("no such message: {error}")))?;
        self.bytes.advance(PREFIX + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_any_pieces() {
        let mut frames = Frames::new(100);
        let bytes = [frame(&"one".to_owned()), frame(&"two".to_owned())].concat();
        let mut messages = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            messages.extend(frames.message::<String>().unwrap());
        }
        assert_eq!(messages, ["one", "two"]);
        assert!(!frames.is_partial());
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let frames = |bytes: &[u8]| {
            let mut frames = Frames::new(10);
            frames.push(bytes);
            frames.message::<String>().map_err(|status| status.code)
        };
        assert_eq!(frames(&[1, 0, 0, 0, 0]), Err(Status::INTERNAL));
        assert_eq!(frames(&[0, 0, 0, 0, 11]), Err(Status::RESOURCE_EXHAUSTED));
        assert_eq!(frames(&[0, 0, 0, 0, 1, 255]), Err(Status::INTERNAL));
        assert_eq!(frames(&[0, 0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_status_tells_why() {
        let mut headers = HeaderMap::new();
        assert_eq!(Status::of(&headers), None);
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(Status::of(&headers), Some(Ok(())));
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        headers.insert("grpc-message", HeaderValue::from_static("50%25 of%"));
        assert_eq!(Status::of(&headers), Some(Err(Status::new(7, "50% of%"))));
    }

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        assert_eq!(timeout(Duration::from_millis(1500)), "1500m");
        assert_eq!(timeout(Duration::from_secs(200_000)), "200000S");
    }
}
