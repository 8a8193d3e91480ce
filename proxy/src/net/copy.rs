//! Carries bytes both ways between a client and an endpoint until both have ended, or one has.
//!
//! Nothing is held while nothing moves: bytes are read into memory that all connections of a thread share and
//! written on at once, and only what the other side does not take is kept, which pauses reading. A flow that
//! proves bulky goes through the kernel by [`splice`](super::splice) if both sides are plain sockets.

mod flow;

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use flow::Flow;

/// How long a client is heard out that has got everything, when nobody is left to hear it. To close over what it
/// has sent would reset it, which may take from it what it has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// One end of a copy.
pub trait End: AsyncRead + AsyncWrite + Unpin {
    /// The socket underneath, if it is known.
    fn socket(&self) -> Option<&TcpStream>;

    /// Whether the stream's bytes are the socket's bytes, neither encrypted nor framed.
    fn is_plain(&self) -> bool;

    /// The socket that can be read and written in place of the stream.
    fn plain_socket(&self) -> Option<&TcpStream> {
        self.socket().filter(|_| self.is_plain())
    }
}

impl End for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn is_plain(&self) -> bool {
        true
    }
}

impl<S: End> End for TlsStream<S> {
    fn socket(&self) -> Option<&TcpStream> {
        self.get_ref().0.socket()
    }

    fn is_plain(&self) -> bool {
        false
    }
}

/// A side of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
}

/// Who is told what moves.
pub trait Meter {
    /// This many bytes came from `side`.
    fn read(&self, side: Side, bytes: usize);

    /// This many bytes went to `side`.
    fn wrote(&self, side: Side, bytes: usize);

    /// Reading from `side` pauses until the other side has taken this many bytes.
    fn paused(&self, side: Side, bytes: usize);

    /// Reading from `side` goes on; `bytes` are those it was paused for.
    fn resumed(&self, side: Side, bytes: usize);
}

/// A copy that was broken off.
#[derive(Debug, thiserror::Error)]
#[error("{side:?}: {error}")]
pub struct Broken {
    /// Whose connection broke.
    pub side: Side,
    /// How.
    pub error: io::Error,
}

impl Broken {
    /// Whether the peer has reset the connection, instead of ending it. One that ended it before is not missed:
    /// then the system speaks of a broken pipe.
    pub fn is_reset(&self) -> bool {
        self.error.kind() == io::ErrorKind::ConnectionReset
    }
}

/// When a copy is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Both sides have ended: one that has can still be sent to.
    BothEnd,
    /// Either side has.
    OneEnds,
}

/// Copies until both sides have ended or one has, and tells which was the last. The end of one side is passed on at
/// once, while bytes the other way go on. At most `limit` bytes are held in either direction.
///
/// # Errors
/// One side broke. What it had sent before has gone to the other one, which has been told its end unless that
/// was a reset.
pub async fn copy<D: End, U: End>(
    downstream: &mut D,
    upstream: &mut U,
    until: Until,
    limit: usize,
    meter: &impl Meter,
) -> Result<Side, Broken> {
    let mut there = Flow::new(Side::Downstream, limit);
    let mut back = Flow::new(Side::Upstream, limit);
    let mut first = None;
    let last = poll_fn(|cx| {
        let ends = (
            there.poll(cx, downstream, upstream, meter)?.is_ready(),
            back.poll(cx, upstream, downstream, meter)?.is_ready(),
        );
        let last = match (ends, first) {
            ((true, true), Some(Side::Upstream)) => Side::Downstream,
            ((true, true), _) => Side::Upstream,
            ((true, false), _) => Side::Downstream,
            ((false, true), _) => Side::Upstream,
            ((false, false), _) => return Poll::Pending,
        };
        let is_over = match last {
            _ if until == Until::OneEnds || ends == (true, true) => true,
            Side::Downstream => back.is_broken(),
            Side::Upstream => there.is_broken(),
        };
        if is_over {
            return Poll::Ready(Ok(last));
        }
        first = Some(last);
        Poll::Pending
    })
    .await?;
    let broken = there.take_broken().or_else(|| back.take_broken());
    if broken.as_ref().is_some_and(Broken::is_reset) {
        return broken.map_or(Ok(last), Err);
    }
    if last == Side::Upstream && !there.is_over() {
        let hearing = poll_fn(|cx| there.poll_discard(cx, downstream, meter));
        let _ = Box::pin(tokio::time::timeout(LINGER, hearing)).await;
    }
    broken.map_or(Ok(last), Err)
}

#[cfg(test)]
mod tests;
