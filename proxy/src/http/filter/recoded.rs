//! A body that a library compresses or decompresses, piece by piece as it passes.

mod brotli;
mod gzip;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::config::compression::{Compression, Decompression};
use crate::http::bad_body::BadBody;
use crate::net::body::{BoxBody, BoxError};

/// Most bytes that are made at a time, and so most that wait to be sent.
pub(super) const PIECE: usize = 16 * 1024;
/// A buffer with less room than this is left to what is in it.
const LEAST_ROOM: usize = 1024;

/// A library at work on one body.
trait Coder {
    /// Takes what it can from `input` and writes what comes of it to `output`.
    ///
    /// # Errors
    /// The input cannot be decompressed.
    fn code(
        &mut self,
        input: &mut Bytes,
        until: Until,
        output: &mut [u8],
    ) -> Result<Coded, Undecodable>;
}

/// How far a library is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Whoever gets what was made can read all that was given so far.
    Flushed,
    /// There is no more input.
    Ended,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Coded {
    /// Bytes of its output.
    written: usize,
    /// Whether it came as far as it was to go; if not, it needs room for more output.
    done: bool,
}

/// Why a body cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// It is not what it says.
    Malformed,
    /// It ends amid what it says.
    Truncated,
    /// It becomes too large.
    TooLarge,
}

impl Undecodable {
    /// What a client is told of its request.
    fn bad_body(self) -> BadBody {
        let answer = match self {
            Self::Malformed => "Bad request, invalid compressed data.",
            Self::Truncated => "Bad request, truncated compressed data.",
            Self::TooLarge => "Bad request, compressed data becomes too large.",
        };
        BadBody { details: "request_decompression_failed", answer }
    }
}

/// Who keeps count of a body.
pub(super) trait Ledger {
    /// Bytes went in.
    fn took(&mut self, bytes: u64);

    /// Bytes came out.
    ///
    /// # Errors
    /// There are too many of them.
    fn made(&mut self, bytes: u64) -> Result<(), Undecodable>;

    /// The body cannot be decompressed.
    fn failed(&self, error: Undecodable);

    /// All has come out; `trailers` are what follows it.
    fn ended(&self, trailers: &mut Option<HeaderMap>);
}

/// See the module.
pub(super) struct Recoded<L> {
    body: BoxBody,
    coder: Box<dyn Coder>,
    ledger: L,
    /// What the library has yet to take.
    input: Bytes,
    /// How far it is to go before there is more input; none if it has done so.
    until: Option<Until>,
    /// Room for what comes out.
    room: BytesMut,
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl<L: Ledger> Recoded<L> {
    /// `body`, compressed.
    pub(super) fn compressed(body: BoxBody, library: Compression, ledger: L) -> Self {
        let coder: Box<dyn Coder> = match library {
            Compression::Gzip { level, window_bits } => {
                Box::new(gzip::Deflate::new(level, window_bits))
            }
            Compression::Brotli { quality, window_bits, mode } => {
                Box::new(brotli::Encoder::new(quality, window_bits, mode))
            }
        };
        Self::new(body, coder, ledger)
    }

    /// `body`, decompressed.
    pub(super) fn decompressed(body: BoxBody, library: Decompression, ledger: L) -> Self {
        let coder: Box<dyn Coder> = match library {
            Decompression::Gzip { window_bits, .. } => Box::new(gzip::Inflate::new(window_bits)),
            Decompression::Brotli => Box::new(brotli::Decoder::new()),
        };
        Self::new(body, coder, ledger)
    }

    fn new(body: BoxBody, coder: Box<dyn Coder>, ledger: L) -> Self {
        let (input, room) = (Bytes::new(), BytesMut::new());
        Self { body, coder, ledger, input, until: None, room, ended: false, trailers: None }
    }

    /// Makes one piece, which is empty if more input is needed for it.
    fn piece(&mut self, until: Until) -> Result<Bytes, Undecodable> {
        if self.room.len() < LEAST_ROOM {
            self.room = BytesMut::zeroed(PIECE);
        }
        let Coded { written, done } = self.coder.code(&mut self.input, until, &mut self.room)?;
        if !done && written == 0 {
            return Err(Undecodable::Malformed);
        }
        self.ledger.made(written as u64)?;
        if done {
            self.until = None;
            self.ended = until == Until::Ended;
        }
        if self.ended {
            self.ledger.ended(&mut self.trailers);
        }
        Ok(self.room.split_to(written).freeze())
    }

    /// Takes what came of the body.
    fn take(&mut self, frame: Option<Frame<Bytes>>) {
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.ledger.took(data.len() as u64);
                self.until = match self.body.is_end_stream() {
                    true => Some(Until::Ended),
                    false => (!data.is_empty()).then_some(Until::Flushed),
                };
                self.input = data;
            }
            Some(Err(frame)) => {
                self.trailers = frame.into_trailers().ok();
                self.until = Some(Until::Ended);
            }
            None => self.until = Some(Until::Ended),
        }
    }
}

impl<L: Ledger + Unpin> Body for Recoded<L> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            if let Some(until) = this.until {
                match this.piece(until) {
                    Ok(piece) if piece.is_empty() => continue,
                    Ok(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Err(error) => {
                        this.ledger.failed(error);
                        (this.until, this.ended, this.trailers) = (None, true, None);
                        return Poll::Ready(Some(Err(error.bad_body().error().into())));
                    }
                }
            }
            if this.ended {
                return Poll::Ready(this.trailers.take().map(|it| Ok(Frame::trailers(it))));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose() {
                Ok(frame) => this.take(frame),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests;
