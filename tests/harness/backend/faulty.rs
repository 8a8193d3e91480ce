//! Backends that break HTTP/1.1 in one particular way each.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// An orderly FIN.
    Fin,
    /// A reset.
    Rst,
}

/// In which way a backend breaks.
#[derive(Debug, Clone, Copy)]
enum Fault {
    ClosesAfter { requests: u32, how: Close },
    ClosesOnNext { requests: u32, how: Close },
    Hangs,
    Garbage,
    Truncates,
}

/// A running faulty backend.
#[derive(Debug)]
pub struct FaultyBackend {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicU32,
    deliveries: Mutex<HashMap<String, u32>>,
}

impl FaultyBackend {
    /// Promises keep-alive, but closes each connection right after `requests` answers.
    pub async fn closing_after(requests: u32, how: Close) -> Self {
        Self::start(Fault::ClosesAfter { requests, how }).await
    }

    /// Answers `requests` requests per connection and closes when the next one arrives, unanswered:
    /// what a client meets when its request crosses the server's idle timeout.
    pub async fn closing_on_next_after(requests: u32, how: Close) -> Self {
        Self::start(Fault::ClosesOnNext { requests, how }).await
    }

    /// Reads and never answers.
    pub async fn hanging() -> Self {
        Self::start(Fault::Hangs).await
    }

    /// Answers with bytes that are no HTTP.
    pub async fn talking_garbage() -> Self {
        Self::start(Fault::Garbage).await
    }

    /// Announces 100 bytes of body, sends ten and closes.
    pub async fn truncating() -> Self {
        Self::start(Fault::Truncates).await
    }

    async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(accept(listener, fault, seen.clone()));
        Self { address, seen, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of connections accepted so far.
    pub fn connections(&self) -> u32 {
        self.seen.connections.load(Relaxed)
    }

    /// How often a request with each `x-delivery` header was read whole.
    pub fn deliveries(&self) -> HashMap<String, u32> {
        self.seen.deliveries.lock().clone()
    }
}

impl From<&FaultyBackend> for SocketAddr {
    fn from(backend: &FaultyBackend) -> Self {
        backend.address
    }
}

impl Drop for FaultyBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, fault: Fault, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Relaxed);
        let seen = seen.clone();
        connections.spawn(async move { drop(serve(tcp, fault, &seen).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(tcp: TcpStream, fault: Fault, seen: &Seen) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut tcp = BufReader::new(tcp);
    match fault {
        Fault::ClosesAfter { requests, how } => {
            for _ in 0..requests {
                answer(&mut tcp, seen).await?;
            }
            close(tcp, how)
        }
        Fault::ClosesOnNext { requests, how } => {
            for _ in 0..requests {
                answer(&mut tcp, seen).await?;
            }
            match how {
                // Reads what came, so that closing sends a FIN: the request was delivered.
                Close::Fin => drop(receive(&mut tcp, seen).await?),
                // Closes over unread bytes, which resets: the application never saw the request.
                Close::Rst => tcp.get_ref().readable().await?,
            }
            close(tcp, how)
        }
        Fault::Hangs => tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await.map(drop),
        Fault::Garbage => {
            receive(&mut tcp, seen).await?;
            tcp.write_all(b"220 mail.example ESMTP ready\r\n\r\n").await?;
            tcp.shutdown().await
        }
        Fault::Truncates => {
            receive(&mut tcp, seen).await?;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789").await?;
            tcp.shutdown().await
        }
    }
}

fn close(tcp: BufReader<TcpStream>, how: Close) -> io::Result<()> {
    if how == Close::Rst {
        socket2::SockRef::from(tcp.get_ref()).set_linger(Some(Duration::ZERO))?;
    }
    drop(tcp);
    Ok(())
}

async fn answer(tcp: &mut BufReader<TcpStream>, seen: &Seen) -> io::Result<()> {
    receive(tcp, seen).await?;
    tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok").await
}

/// Reads one request with its `Content-Length` body, and counts it as delivered.
async fn receive(tcp: &mut BufReader<TcpStream>, seen: &Seen) -> io::Result<()> {
    let head = read_head(tcp).await?;
    let length = field(&head, "content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    tcp.read_exact(&mut body).await?;
    if let Some(id) = field(&head, "x-delivery") {
        *seen.deliveries.lock().entry(id.to_owned()).or_default() += 1;
    }
    Ok(())
}

/// Reads up to the blank line and nothing beyond it.
pub(super) async fn read_head(tcp: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if tcp.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// The value of field `name` in a message head.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
