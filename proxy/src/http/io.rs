//! The byte stream under one downstream connection: sniffed bytes given back, traffic counted, activity noted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::head_guard::{HeadGuard, Offence};
use crate::telemetry::metrics::HttpStats;

/// First bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A downstream byte stream as the codec sees it.
#[derive(Debug)]
pub struct ServerIo<S> {
    stream: S,
    sniffed: Bytes,
    stats: Arc<HttpStats>,
    signals: Signals,
    /// None for HTTP/2, whose frames leave nothing to guess.
    guard: Option<HeadGuard>,
}

/// What the stream and its connection tell each other.
/// Atomic only because an upgraded stream must be `Send`: one thread uses it.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    heard: AtomicBool,
    answered: AtomicBool,
    unsent: AtomicBool,
    offence: AtomicU8,
}

impl Signals {
    /// Whether bytes came since the last request began or ended.
    pub fn heard(&self) -> bool {
        self.0.heard.load(Relaxed)
    }

    /// Whether everything written has left this process.
    pub fn all_sent(&self) -> bool {
        !self.0.unsent.load(Relaxed)
    }

    /// A request begins: what came was its head. Returns what was wrong with it.
    pub fn request_begins(&self) -> Option<Offence> {
        self.0.heard.store(false, Relaxed);
        match self.0.offence.load(Relaxed) {
            0 => None,
            number => {
                self.0.offence.store(0, Relaxed);
                Offence::from_number(number)
            }
        }
    }

    /// The last request ended: what comes next is a head.
    pub fn request_ends(&self) {
        // What was heard since was this request's body, not the next one's headers.
        self.0.heard.store(false, Relaxed);
        self.0.answered.store(true, Relaxed);
    }
}

impl<S> ServerIo<S> {
    /// A stream whose first bytes `sniffed` were already read from `stream`. With `guard` its heads are looked at.
    pub fn new(
        stream: S,
        sniffed: Bytes,
        stats: Arc<HttpStats>,
        signals: Signals,
        guard: Option<HeadGuard>,
    ) -> Self {
        let mut io = Self { stream, sniffed, stats, signals, guard };
        let sniffed = io.sniffed.clone();
        io.note(&sniffed);
        io
    }

    /// Notes bytes that the client sent.
    fn note(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.stats.downstream_cx_rx_bytes_total.add(bytes.len() as u64);
        let flags = &self.signals.0;
        flags.heard.store(true, Relaxed);
        let Some(guard) = &mut self.guard else { return };
        if flags.answered.load(Relaxed) {
            flags.answered.store(false, Relaxed);
            guard.restart();
        }
        if let Some(offence) = guard.feed(bytes) {
            flags.offence.store(offence as u8, Relaxed);
        }
    }

    /// Gives back bytes that the codec took and made nothing of: the begin of a request. They were noted
    /// when they came.
    pub fn give_back(&mut self, bytes: &[u8]) {
        // A copy: the codec's buffer is larger, and goes.
        self.sniffed = Bytes::copy_from_slice(bytes);
        self.signals.0.heard.store(!bytes.is_empty(), Relaxed);
    }

    /// Whether bytes wait here that the codec has not taken yet.
    pub fn holds_bytes(&self) -> bool {
        !self.sniffed.is_empty()
    }

    /// The stream underneath.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream underneath.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

/// What the first bytes of a connection say it speaks.
#[derive(Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// The HTTP/2 preface.
    Http2(Bytes),
    /// Anything else, to be read as HTTP/1.
    Http1(Bytes),
}

/// Reads just enough to tell HTTP/2's preface from anything else. At the end of the stream what came
/// counts as HTTP/1.
///
/// # Errors
/// The stream's own.
pub async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Sniffed> {
    let mut head = BytesMut::new();
    loop {
        let read = stream.read_buf(&mut head).await?;
        let compared = head.len().min(HTTP2_PREFACE.len());
        let same = head.iter().zip(HTTP2_PREFACE).all(|(a, b)| a == b);
        if !same || read == 0 {
            return Ok(Sniffed::Http1(head.freeze()));
        }
        if compared == HTTP2_PREFACE.len() {
            return Ok(Sniffed::Http2(head.freeze()));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ServerIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.sniffed.is_empty() {
            let length = self.sniffed.len().min(buf.remaining());
            buf.put_slice(&self.sniffed.chunk()[..length]);
            self.sniffed.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(read) = buf.filled().get(before..) {
            self.note(read);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> ServerIo<S> {
    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.signals.0.unsent.store(true, Relaxed);
        if let Poll::Ready(Ok(written)) = &result {
            self.stats.downstream_cx_tx_bytes_total.add(*written as u64);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ServerIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, data);
        self.count(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The codec flushes once it has written all it has.
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.signals.0.unsent.store(result.is_pending(), Relaxed);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn sniff_in_pieces(pieces: &[&[u8]]) -> Sniffed {
        let (mut client, mut server) = tokio::io::duplex(64);
        let (sniffed, ()) = tokio::join!(async { sniff(&mut server).await.unwrap() }, async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        });
        sniffed
    }

    #[tokio::test]
    async fn the_preface_is_found_however_it_is_cut() {
        for cut in 1..HTTP2_PREFACE.len() {
            let (a, b) = HTTP2_PREFACE.split_at(cut);
            assert!(matches!(sniff_in_pieces(&[a, b]).await, Sniffed::Http2(_)), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_request_that_begins_alike_is_http1_and_loses_no_byte() {
        let sniffed = sniff_in_pieces(&[b"PR", b"OPFIND / HTTP/1.1\r\n"]).await;
        let Sniffed::Http1(bytes) = sniffed else { panic!("HTTP/2 seen") };
        assert!(b"PROPFIND / HTTP/1.1\r\n".starts_with(&bytes) && bytes.len() > 2);
    }
}
