//! A server on every loopback address at once, that answers with the address it was reached at: many endpoints for
//! the price of one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A running server of HTTP/1.1 requests without body. `/fail…` is answered with 503, `/hold…` never, anything else
/// with 200; the body is the address. Dropping it closes everything.
#[derive(Debug)]
pub struct Everywhere {
    port: u16,
    arrivals: Arc<Mutex<Vec<IpAddr>>>,
    task: JoinHandle<()>,
}

impl Everywhere {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let arrivals = Arc::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&arrivals)));
        Self { port, arrivals, task }
    }

    /// Its address `127.0.77.number`.
    pub fn address(&self, number: u8) -> SocketAddr {
        (Ipv4Addr::new(127, 0, 77, number), self.port).into()
    }

    /// Where the requests so far have arrived, in their order.
    pub fn arrivals(&self) -> Vec<IpAddr> {
        self.arrivals.lock().clone()
    }
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, arrivals: Arc<Mutex<Vec<IpAddr>>>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let arrivals = Arc::clone(&arrivals);
        connections.spawn(async move {
            let _ = serve(tcp, &arrivals).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut tcp: TcpStream, arrivals: &Mutex<Vec<IpAddr>>) -> std::io::Result<()> {
    let ip = tcp.local_addr()?.ip();
    let body = ip.to_string();
    tcp.set_nodelay(true)?;
    let (mut unread, mut answers) = (Vec::new(), Vec::new());
    while tcp.read_buf(&mut unread).await? > 0 {
        while let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = unread.drain(..end + 4).collect();
            arrivals.lock().push(ip);
            let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            let status = match path {
                path if path.starts_with(b"/hold") => continue,
                path if path.starts_with(b"/fail") => "503 Service Unavailable",
                _ => "200 OK",
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            answers.extend_from_slice(answer.as_bytes());
        }
        tcp.write_all(&answers).await?;
        answers.clear();
    }
    Ok(())
}
