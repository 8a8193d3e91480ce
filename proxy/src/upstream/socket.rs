//! A connected socket that can be looked at from outside: a pool wants to know whether an idle connection is still
//! what it seems before it entrusts a request to it.

use std::io;
use std::mem::MaybeUninit;
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::client::Origin;
use super::failure::ConnectError;
use crate::config::address::HostAddress;
use crate::config::connecting::{BindConfig, Connecting, TcpKeepalive};
use crate::net::socket::option::State;
use crate::net::socket::{set_keepalive, set_nodelay, unix};

/// A connected socket: TCP, or Unix, which the runtime's type for TCP reads and writes just as well.
#[derive(Debug)]
pub struct Socket(Arc<TcpStream>);

/// A view of a [`Socket`] that does not keep it open.
#[derive(Debug, Clone)]
pub struct Observer(Weak<TcpStream>);

impl Socket {
    /// Connects to `address`, in the way `how` says, and from `origin` if it has to come from there.
    ///
    /// # Errors
    /// When our end cannot be bound as wanted, or the peer cannot be reached.
    pub async fn connect(
        address: &HostAddress,
        how: &Connecting,
        origin: Option<Origin>,
    ) -> Result<Self, ConnectError> {
        let unreachable = |error: io::Error| ConnectError::unreachable(&error);
        let socket = match address {
            HostAddress::Ip(address) => {
                let domain = Domain::for_address(*address);
                let socket = tcp(domain, how.tcp_keepalive).map_err(unreachable)?;
                bind(&socket, *address, how.bind.as_deref(), origin)?;
                socket
            }
            HostAddress::Pipe(_) => new(Domain::UNIX).map_err(unreachable)?,
        };
        Self::finish(socket, address).await.map_err(unreachable)
    }

    async fn finish(socket: socket2::Socket, address: &HostAddress) -> io::Result<Self> {
        let target = match address {
            HostAddress::Ip(address) => (*address).into(),
            HostAddress::Pipe(path) => unix::address(path)?,
        };
        match socket.connect(&target) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(net::TcpStream::from(OwnedFd::from(socket)))?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(Self(Arc::new(stream))),
        }
    }

    /// Our end of the connection; none if that is a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// The runtime's own type, for what this one cannot do.
    pub fn tcp(&self) -> &TcpStream {
        &self.0
    }

    /// A view of it for others.
    pub fn observer(&self) -> Observer {
        Observer(Arc::downgrade(&self.0))
    }

    /// Tells the runtime that a short transfer has exhausted the socket, which saves the system call that
    /// would find this out.
    fn exhausted(&self, interest: Interest) {
        let _ = self.0.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    fn poll_send(
        &self,
        context: &mut Context<'_>,
        length: usize,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match send(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(sent) if 0 < sent && sent < length => {
                    self.exhausted(Interest::WRITABLE);
                    return Poll::Ready(Ok(sent));
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

fn new(domain: Domain) -> io::Result<socket2::Socket> {
    socket2::Socket::new(domain, Type::STREAM.nonblocking(), None)
}

fn tcp(domain: Domain, keepalive: Option<TcpKeepalive>) -> io::Result<socket2::Socket> {
    let socket = new(domain)?;
    set_nodelay(&socket)?;
    if let Some(TcpKeepalive { probes, time, interval }) = keepalive {
        set_keepalive(&socket, time, interval, probes)?;
    }
    Ok(socket)
}

/// Binds our end of a connection to `target`, and sets the options that come with it.
fn bind(
    socket: &socket2::Socket,
    target: SocketAddr,
    config: Option<&BindConfig>,
    origin: Option<Origin>,
) -> Result<(), ConnectError> {
    let set = |state| {
        let options = config.into_iter().flat_map(|config| &config.socket_options);
        let set = options.filter(|it| it.state == state).try_for_each(|it| it.set(socket));
        set.map_err(|error| ConnectError::unreachable(&error))
    };
    set(State::Prebind)?;
    let bound = match (origin, config) {
        (Some(origin), _) => Some((origin.address, take_over(socket, origin))),
        (None, Some(config)) => config.source(target).map(|source| {
            let freed = match config.freebind {
                true if source.is_ipv4() => socket.set_freebind_v4(true),
                true => socket.set_freebind_v6(true),
                false => Ok(()),
            };
            (source, freed)
        }),
        (None, None) => None,
    };
    if let Some((source, ready)) = bound {
        let bound = ready.and_then(|()| bind_address(socket, source));
        bound.map_err(|error| ConnectError::bind(source, &error))?;
    }
    set(State::Bound)
}

/// Binds the socket to an address. A port is left to the moment when it is known what it connects to, for one port
/// will do for many peers; where the system does not know how, it is chosen now.
fn bind_address(socket: &socket2::Socket, source: SocketAddr) -> io::Result<()> {
    if source.port() == 0 {
        let _ = setsockopt(socket, sockopt::IpBindAddressNoPort, &true);
    }
    socket.bind(&source.into())
}

/// Lets the socket be bound to an address that is not this machine's.
fn take_over(socket: &socket2::Socket, origin: Origin) -> io::Result<()> {
    if origin.mark != 0 {
        socket.set_mark(origin.mark)?;
    }
    // On an IPv6 socket this means IPv6, too.
    socket.set_ip_transparent_v4(true)
}

impl Observer {
    /// Whether the socket is open and the kernel holds nothing from the peer: no byte, no end, no error.
    /// Asks the kernel, for what arrived a moment ago is not known to the runtime yet.
    pub fn is_quiet(&self) -> bool {
        let Some(stream) = self.0.upgrade() else { return false };
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(&*stream).peek(&mut byte);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            let room = buffer.remaining();
            match self.0.try_read_buf(buffer) {
                Ok(read) => {
                    if 0 < read && read < room {
                        self.exhausted(Interest::READABLE);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, bytes.len(), |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.poll_send(context, length, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match SockRef::from(&*self.0).shutdown(Shutdown::Write) {
            // The peer has reset it: then there is nothing to end any more.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let how = Connecting::default();
        let (client, server) =
            tokio::join!(Socket::connect(&address, &how, None), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// Waits until the kernel has delivered what the peer just did.
    async fn becomes_noisy(socket: &Socket) -> bool {
        let observer = socket.observer();
        for _ in 0..200 {
            if !observer.is_quiet() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_whatever_the_buffer() {
        let (mut client, mut server) = pair().await;
        let sent = vec![7_u8; 1 << 20];
        let (wrote, read) = tokio::join!(client.write_all(&sent), async {
            let mut all = vec![0; 1 << 20];
            server.read_exact(&mut all).await.map(|_| all)
        });
        wrote.unwrap();
        assert_eq!(read.unwrap(), sent);
        server.write_all(b"hello").await.unwrap();
        let mut five = [0; 5];
        client.read_exact(&mut five[..2]).await.unwrap();
        client.read_exact(&mut five[2..]).await.unwrap();
        assert_eq!(&five, b"hello");
    }

    #[test]
    fn a_source_takes_no_port_before_it_connects() {
        let source: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config =
            BindConfig { sources: vec![source], freebind: false, socket_options: Vec::new() };
        let socket = new(Domain::IPV4).unwrap();
        bind(&socket, "127.0.0.1:80".parse().unwrap(), Some(&config), None).unwrap();
        assert_eq!(socket.local_addr().unwrap().as_socket(), Some(source));
    }

    #[tokio::test]
    async fn a_byte_an_end_and_a_reset_are_noise() {
        let (client, mut server) = pair().await;
        assert!(client.observer().is_quiet());
        server.write_all(b"x").await.unwrap();
        assert!(becomes_noisy(&client).await);

        let (client, server) = pair().await;
        drop(server);
        assert!(becomes_noisy(&client).await);

        let (client, server) = pair().await;
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        assert!(becomes_noisy(&client).await);
    }

    #[tokio::test]
    async fn looking_does_not_keep_a_socket_open() {
        let (client, mut server) = pair().await;
        let observer = client.observer();
        drop(client);
        assert!(!observer.is_quiet());
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn our_end_can_be_closed_alone() {
        let (mut client, mut server) = pair().await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        server.write_all(b"late").await.unwrap();
        let mut late = [0; 4];
        client.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"late");
    }
}
