//! The way to an endpoint, once it is there: a connection of its own, or a tunnel through one that speaks HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tunnel::Tunnel;
use crate::net::copy::End;
use crate::upstream::Stream;

/// See the module.
#[derive(Debug)]
pub(super) enum Line {
    /// A connection.
    Direct(Stream),
    /// A tunnel.
    Tunnel(Box<Tunnel>),
}

impl End for Line {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Direct(stream) => stream.socket(),
            Self::Tunnel(_) => None,
        }
    }

    fn is_plain(&self) -> bool {
        match self {
            Self::Direct(stream) => stream.is_plain(),
            Self::Tunnel(_) => false,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(tunnel) => tunnel.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(tunnel) => Pin::new(tunnel.writer()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(tunnel) => Pin::new(tunnel.writer()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Direct(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(tunnel) => Pin::new(tunnel.writer()).poll_shutdown(context),
        }
    }
}
