//! Backends that speak no HTTP: a script per connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A running TCP backend.
#[derive(Debug)]
pub struct TcpBackend {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl TcpBackend {
    /// Sends back what it receives, up to the client's end.
    pub async fn echo() -> Self {
        Self::echo_at(([127, 0, 0, 1], 0).into()).await
    }

    /// As [`echo`](Self::echo), at a given address.
    pub async fn echo_at(address: SocketAddr) -> Self {
        Self::scripted_at(address, |mut stream| async move {
            let (mut reads, mut writes) = stream.split();
            // A client may break off; that is its affair.
            let _ = tokio::io::copy(&mut reads, &mut writes).await;
        })
        .await
    }

    /// Says `name` to whoever connects, and ends.
    pub async fn named(name: &'static str) -> Self {
        Self::scripted(move |mut stream| async move {
            let _ = stream.write_all(name.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
        .await
    }

    /// Runs `script` with each connection.
    pub async fn scripted<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::scripted_at(([127, 0, 0, 1], 0).into(), script).await
    }

    async fn scripted_at<F>(
        address: SocketAddr,
        script: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Relaxed);
                stream.set_nodelay(true).unwrap();
                running.spawn(script(stream));
            }
        });
        Self { address, connections, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections it has taken.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }
}

impl From<&TcpBackend> for SocketAddr {
    fn from(backend: &TcpBackend) -> Self {
        backend.address
    }
}

impl Drop for TcpBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}
