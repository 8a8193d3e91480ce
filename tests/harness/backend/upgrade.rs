//! A backend that accepts any upgrade and then sends back every byte it gets.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::faulty::{field, read_head};

/// RFC 6455's sample key, which the tests send.
pub const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer it gives for that key.
pub const SAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A running upgrade backend.
#[derive(Debug)]
pub struct UpgradeBackend {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl UpgradeBackend {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(async move { drop(serve(tcp).await) });
            }
        });
        Self { address, task }
    }
}

impl From<&UpgradeBackend> for SocketAddr {
    fn from(backend: &UpgradeBackend) -> Self {
        backend.address
    }
}

impl Drop for UpgradeBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(tcp: TcpStream) -> io::Result<()> {
    let mut tcp = BufReader::new(tcp);
    let head = read_head(&mut tcp).await?;
    let Some(protocol) = field(&head, "upgrade") else {
        let refusal = "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n";
        return tcp.write_all(refusal.as_bytes()).await;
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\
         sec-websocket-accept: {SAMPLE_ACCEPT}\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = tcp.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        tcp.write_all(&buffer[..count]).await?;
    }
}
