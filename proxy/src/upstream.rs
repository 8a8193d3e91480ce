//! Reaching an endpoint: connect, secure, agree on a protocol, and speak HTTP over the result.
//!
//! Nothing here knows about clusters or pools: [`dial`] makes one connection, [`http::handshake`] turns it
//! into a sender of requests.

pub mod client;
pub mod failure;
mod happy_eyeballs;
pub mod http;
pub mod request;
pub mod socket;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::config::address::HostAddress;
use crate::config::connecting::{Connecting, ProxyProtocol};
use crate::net::copy::End;
use crate::net::proxy_protocol::{self, Version};
use crate::tls::client::ClientTls;
use crate::tls::peer::PeerInfo;
use client::Client;
use failure::ConnectError;
use socket::{Observer, Socket};

/// Where to connect, and how.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The endpoint.
    pub address: &'a HostAddress,
    /// Its other addresses.
    pub additional_addresses: &'a [SocketAddr],
    /// How sockets are made.
    pub connecting: &'a Connecting,
    /// Limit on everything up to the end of the TLS handshake (Envoy `connect_timeout`).
    pub connect_timeout: Duration,
    /// Whom it is made for.
    pub client: &'a Client,
    /// TLS; none means plain text.
    pub tls: Option<Security<'a>>,
}

/// How a connection is secured.
#[derive(Debug, Clone, Copy)]
pub struct Security<'a> {
    /// The context.
    pub client: &'a ClientTls,
    /// Server name to send.
    pub server_name: Option<&'a str>,
    /// A name the server's certificate must hold, whatever else the context asks of it.
    pub certified_name: Option<&'a str>,
    /// Protocols to offer, best first.
    pub alpn: &'a [&'a str],
}

/// A connection, ready to be spoken on.
#[derive(Debug)]
pub struct Dialed {
    /// The bytes.
    pub stream: Stream,
    /// A view of its socket.
    pub observer: Observer,
    /// Our end of it; none if that is a Unix socket.
    pub local_address: Option<SocketAddr>,
    /// The peer's end; none if that is a Unix socket.
    pub remote_address: Option<SocketAddr>,
    /// What the TLS handshake said; none for plain text.
    pub peer: Option<PeerInfo>,
}

/// Connects to `target`: to one of its addresses, if it has several. `again` is called whenever another one
/// is tried.
///
/// # Errors
/// When the endpoint cannot be reached, does not pass TLS verification, or takes too long.
pub async fn dial(target: Target<'_>, again: impl Fn()) -> Result<Dialed, ConnectError> {
    let connected = async {
        let HostAddress::Ip(first) = *target.address else {
            return Some(connect(&target, target.address.clone()).await);
        };
        let happy = target.connecting.happy_eyeballs;
        let order = happy_eyeballs::order(first, target.additional_addresses, happy);
        let attempt = |address: SocketAddr| connect(&target, address.into());
        happy_eyeballs::race(order, attempt, again).await
    };
    let in_time = tokio::time::timeout(target.connect_timeout, connected).await;
    in_time.ok().flatten().unwrap_or(Err(ConnectError::Timeout))
}

async fn connect(target: &Target<'_>, address: HostAddress) -> Result<Dialed, ConnectError> {
    let mut socket = Socket::connect(&address, target.connecting, target.client.origin).await?;
    if let Some(config) = &target.connecting.proxy_protocol {
        let header = proxy_header(config, &socket, target.client, address.ip());
        let written = socket.write_all(&header).await;
        written.map_err(|error| ConnectError::unreachable(&error))?;
    }
    let remote_address = address.ip();
    let (observer, local_address) = (socket.observer(), socket.local_address());
    let (stream, peer) = match target.tls {
        None => (Stream::Plain(socket), None),
        Some(tls) => {
            let (stream, peer) = tls
                .client
                .connect(socket, tls.server_name, tls.certified_name, tls.alpn)
                .await
                .map_err(|error| ConnectError::tls(&error))?;
            (Stream::Tls(Box::new(stream)), Some(peer))
        }
    };
    Ok(Dialed { stream, observer, local_address, remote_address, peer })
}

/// The PROXY header of a connection made for `client`. Version 1 cannot say that it is made for none: it names
/// the connection's own ends then.
fn proxy_header(
    config: &ProxyProtocol,
    socket: &Socket,
    client: &Client,
    remote: Option<SocketAddr>,
) -> Vec<u8> {
    let own = || socket.local_address().zip(remote).filter(|_| config.version == Version::V1);
    let ends = client.ends.or_else(own);
    let passed = client.tlvs.as_deref().unwrap_or_default();
    proxy_protocol::encode(config.version, ends, &config.tlvs(passed))
}

/// The bytes of a connection, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    /// Plain text.
    Plain(Socket),
    /// TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl End for Stream {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket.tcp()),
            Self::Tls(stream) => Some(stream.get_ref().0.tcp()),
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
