//! Streams that say when bytes wait, without a buffer to put them into.

use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A stream that can be waited on without reading it, so that a silent one needs no buffer.
pub trait Readable: AsyncRead + AsyncWrite + Unpin {
    /// Ready once bytes wait to be read, or the end of the stream.
    ///
    /// # Errors
    /// The stream's own.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Readable for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Looks: the runtime takes a new socket for readable until somebody did.
        self.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map_ok(|_| ())
    }
}

impl<S: Readable> Readable for tokio_rustls::server::TlsStream<S> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.get_ref();
        // The handshake may have taken more than itself out of the socket.
        if session.wants_read() { socket.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }
}
