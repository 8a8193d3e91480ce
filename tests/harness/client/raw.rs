//! Bytes on a TCP connection, for what a well-behaved client would never send or hide.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::backend::faulty::Close;
use crate::eventually::within_patience;

/// A TCP connection read and written by hand.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawConnection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connect"))
    }

    /// Connects from an address of this machine, such as `127.0.0.2`.
    pub async fn open_from(source: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        Self::over(socket.connect(address).await.expect("connect"))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Its own address.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends `bytes`.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("write");
    }

    /// Reads up to and including `mark`.
    pub async fn read_until(&mut self, mark: &str) -> String {
        within_patience(&format!("reading until {mark:?}"), async {
            loop {
                let found = find(&self.unread, mark.as_bytes());
                if let Some(at) = found {
                    let rest = self.unread.split_off(at + mark.len());
                    let taken = std::mem::replace(&mut self.unread, rest);
                    return String::from_utf8_lossy(&taken).into_owned();
                }
                let seen = String::from_utf8_lossy(&self.unread).into_owned();
                assert!(self.fill().await, "closed before {mark:?}, after {seen:?}");
            }
        })
        .await
    }

    /// Reads a response head up to its blank line.
    pub async fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Reads exactly `count` bytes.
    pub async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        within_patience(&format!("reading {count} bytes"), async {
            while self.unread.len() < count {
                assert!(self.fill().await, "closed after {} bytes", self.unread.len());
            }
            let rest = self.unread.split_off(count);
            std::mem::replace(&mut self.unread, rest)
        })
        .await
    }

    /// Reads a response with `Content-Length` and returns it whole.
    pub async fn read_response(&mut self) -> String {
        let head = self.read_head().await;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let body = self.read_exactly(length.unwrap_or(0)).await;
        head + &String::from_utf8_lossy(&body)
    }

    /// Reads until the peer closes; a reset counts as closing.
    pub async fn read_to_end(&mut self) -> String {
        within_patience("the peer closing the connection", async {
            while self.fill().await {}
            String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
        })
        .await
    }

    /// Says that nothing more will be sent; reading goes on.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("shutdown");
    }

    /// Reads until the peer ends or resets the connection, and tells which.
    pub async fn read_to_close(&mut self) -> (String, Close) {
        within_patience("the peer ending the connection", async {
            let how = loop {
                match self.try_fill().await {
                    Ok(0) => break Close::Fin,
                    Ok(_) => {}
                    Err(_) => break Close::Rst,
                }
            };
            (String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned(), how)
        })
        .await
    }

    /// Resets the connection.
    pub fn reset(self) {
        let now = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&self.stream).set_linger(now).expect("SO_LINGER");
    }

    /// The connection itself.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn fill(&mut self) -> bool {
        self.try_fill().await.is_ok_and(|count| count > 0)
    }

    async fn try_fill(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer).await?;
        self.unread.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
