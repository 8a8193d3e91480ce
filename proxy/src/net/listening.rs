//! Sockets that connections are accepted on: TCP's, and those of the file system.
//!
//! A connection over a Unix socket is served as a [`TcpStream`], too: once it is there, nothing is done with it that
//! needs TCP, and what is said of its addresses is said of [`NOWHERE`].

use std::io;
use std::net::{self, IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix;
use std::task::{Context, Poll, ready};

use tokio::net::{TcpListener, TcpStream, UnixListener};

/// What stands for either end of a connection over a Unix socket wherever addresses are compared (as in Envoy). No
/// client can have it.
pub const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::BROADCAST, 0));

/// The address, unless it is one of [`NOWHERE`].
pub fn known(address: IpAddr) -> Option<IpAddr> {
    (address != NOWHERE.ip()).then_some(address)
}

/// A socket before a worker watches it.
#[derive(Debug)]
pub enum Bound {
    /// Of an IP address.
    Tcp(net::TcpListener),
    /// Of a path or an abstract name.
    Unix(unix::net::UnixListener),
}

impl From<net::TcpListener> for Bound {
    fn from(socket: net::TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

/// A socket that a worker watches.
#[derive(Debug)]
pub enum Listening {
    /// Of an IP address.
    Tcp(TcpListener),
    /// Of a path or an abstract name.
    Unix(UnixListener),
}

impl Listening {
    /// Watches a non-blocking socket.
    ///
    /// # Errors
    /// When the system cannot watch it.
    pub fn new(socket: Bound) -> io::Result<Self> {
        Ok(match socket {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// The next connection, and who made it.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// The same, for one task at a time.
    pub fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        match self {
            Self::Tcp(socket) => socket.poll_accept(context),
            Self::Unix(socket) => {
                let (stream, _) = ready!(socket.poll_accept(context))?;
                let stream = net::TcpStream::from(OwnedFd::from(stream.into_std()?));
                Poll::Ready(Ok((TcpStream::from_std(stream)?, NOWHERE)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::net::socket::{ListenOptions, unix};

    #[tokio::test]
    async fn a_connection_over_a_unix_socket_is_from_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in.sock");
        let options = ListenOptions { backlog: 16, ..ListenOptions::default() };
        let socket = unix::listen(path.to_str().unwrap(), &options).unwrap();
        let listening = Listening::new(Bound::Unix(socket)).unwrap();
        let (accepted, client) =
            tokio::join!(listening.accept(), tokio::net::UnixStream::connect(&path));
        let (mut stream, remote) = accepted.unwrap();
        assert_eq!((remote, known(remote.ip())), (NOWHERE, None));
        let mut client = client.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&said).await.unwrap();
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"ping");
    }
}
