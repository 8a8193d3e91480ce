//! The byte stream under one downstream connection: sniffed bytes given back, traffic counted, activity noted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::telemetry::metrics::HttpStats;

/// First bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A downstream byte stream as the codec sees it.
#[derive(Debug)]
pub struct ServerIo<S> {
    stream: S,
    sniffed: Bytes,
    stats: Arc<HttpStats>,
    heard: Heard,
}

/// Whether the client sent anything since the flag was last cleared; shared with the connection's watchdog.
/// Atomic only because an upgraded stream must be `Send`: one thread uses it.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<AtomicBool>);

impl Heard {
    /// Whether bytes came since the last [`Heard::clear`].
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Forgets what came.
    pub fn clear(&self) {
        self.0.store(false, Relaxed);
    }
}

impl<S> ServerIo<S> {
    /// A stream whose first bytes `sniffed` were already read from `stream`.
    pub fn new(stream: S, sniffed: Bytes, stats: Arc<HttpStats>, heard: Heard) -> Self {
        stats.downstream_cx_rx_bytes_total.add(sniffed.len() as u64);
        if !sniffed.is_empty() {
            heard.0.store(true, Relaxed);
        }
        Self { stream, sniffed, stats, heard }
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
        let read = buf.filled().len() - before;
        if read > 0 {
            self.stats.downstream_cx_rx_bytes_total.add(read as u64);
            self.heard.0.store(true, Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> ServerIo<S> {
    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
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
        Pin::new(&mut self.stream).poll_flush(cx)
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
