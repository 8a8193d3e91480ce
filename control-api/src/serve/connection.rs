//! Connections of proxies: plain ones, and TLS that asks for a client certificate and does without.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::authority::MeshCa;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time; who comes then waits in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Pause after the system refused a connection, which it does when descriptors run out.
const PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection. A request carries it among its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether nobody on the way can listen.
    pub encrypted: bool,
    /// Its certificate (DER), which the mesh's roots vouch for.
    pub certificate: Option<Arc<[u8]>>,
}

impl Peer {
    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }
}

/// A connection of a proxy.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    peer: Peer,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The connections that `listener` accepts, after their TLS handshake if `ca` is given.
///
/// Handshakes take place beside each other: a client that is slow or silent holds up nobody.
pub fn accepted(
    listener: TcpListener,
    ca: Option<Arc<MeshCa>>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(accept(listener, ca, sender));
    futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|connection| (Ok(connection), receiver))
    })
}

async fn accept(listener: TcpListener, ca: Option<Arc<MeshCa>>, to: mpsc::Sender<Connection>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = to.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: check `ulimit -n`");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Small messages must not wait for more.
        let _ = stream.set_nodelay(true);
        let (ca, to) = (ca.clone(), to.clone());
        tokio::spawn(async move {
            let connection = tokio::time::timeout(HANDSHAKE, Connection::new(stream, address, ca));
            match connection.await {
                Ok(Ok(connection)) => drop(to.send(connection).await),
                Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake failed"),
                Err(_) => tracing::info!(%address, "TLS handshake took too long"),
            }
            drop(permit);
        });
    }
}

impl Connection {
    async fn new(
        stream: TcpStream,
        address: SocketAddr,
        ca: Option<Arc<MeshCa>>,
    ) -> io::Result<Self> {
        let Some(ca) = ca else {
            let peer = Peer { address, encrypted: false, certificate: None };
            return Ok(Self { transport: Transport::Plain(stream), peer });
        };
        let acceptor = TlsAcceptor::from(ca.current().server());
        let stream = acceptor.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = certificates.first().map(|leaf| Arc::from(leaf.as_ref()));
        let peer = Peer { address, encrypted: true, certificate };
        Ok(Self { transport: Transport::Tls(Box::new(stream)), peer })
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
