//! HTTP/1 pools.

mod endings;
mod lifetime;
mod limits;

use std::cell::{Cell, RefCell};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a scripted server does once it has read a request.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Sends these bytes and waits for the next request.
    Say(&'static str),
    /// Sends these bytes and closes.
    SayAndClose(&'static str),
    /// Sends these bytes and resets the connection.
    SayAndReset(&'static str),
    /// Sends these bytes after so many milliseconds.
    SayAfter(u64, &'static str),
    /// Says nothing.
    Hang,
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that treats the n-th request of its life (from 0) as `script` says.
struct Server {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    heads: Rc<RefCell<Vec<String>>>,
}

impl Server {
    async fn start(script: impl Fn(usize) -> Then + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let server = Self { address, connections: connections.clone(), heads: heads.clone() };
        let script = Rc::new(script);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                tokio::task::spawn_local(converse(stream, Rc::clone(&script), heads.clone()));
            }
        });
        server
    }
}

async fn converse(
    mut stream: TcpStream,
    script: Rc<impl Fn(usize) -> Then + 'static>,
    heads: Rc<RefCell<Vec<String>>>,
) {
    while let Some(head) = read_head(&mut stream).await {
        let number = heads.borrow().len();
        heads.borrow_mut().push(head);
        let say = match script(number) {
            Then::Say(say) | Then::SayAndClose(say) | Then::SayAndReset(say) => say,
            Then::SayAfter(millis, say) => {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                say
            }
            Then::Hang => "",
        };
        if stream.write_all(say.as_bytes()).await.is_err() {
            return;
        }
        match script(number) {
            Then::SayAndClose(_) => return,
            Then::SayAndReset(_) => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            _ => {}
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

#[test]
fn requests_in_a_row_share_a_connection() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        for _ in 0..3 {
            assert_eq!(fixture.get().await, "ok");
        }
        assert_eq!(server.connections.get(), 1);
        assert_eq!(fixture.stats.upstream_cx_total.get(), 1);
        assert_eq!(fixture.stats.upstream_cx_http1_total.get(), 1);
        assert_eq!(fixture.stats.upstream_rq_total.get(), 3);
        assert_eq!(fixture.stats.upstream_rq_pending_total.get(), 1);
        let head = server.heads.borrow()[0].clone();
        assert!(head.starts_with("GET / HTTP/1.1\r\nhost: shop.example\r\n"), "{head}");
        fixture.assert_nothing_held();
    });
}

#[test]
fn verified_requests_share_a_quiet_connection() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        for _ in 0..3 {
            assert_eq!(text(fixture.send(Reuse::Verified).await.unwrap()).await, "ok");
        }
        assert_eq!(server.connections.get(), 1);
        assert_eq!(text(fixture.send(Reuse::Never).await.unwrap()).await, "ok");
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn a_tunnel_carries_bytes_and_counts_as_a_request() {
    on_worker(async {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nhi";
        let server = Server::start(move |_| Then::Say(switch)).await;
        let fixture = Fixture::new(server.address, |_| {});
        let mut request = get("/");
        request.headers_mut().insert("upgrade", "echo".parse().unwrap());
        request.headers_mut().insert("connection", "upgrade".parse().unwrap());
        let lease = fixture.lease(Reuse::Any).await.unwrap();
        let mut response = lease.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let tunnel = hyper::upgrade::on(&mut response).await.unwrap();
        let mut tunnel = hyper_util::rt::TokioIo::new(tunnel);
        let mut hi = [0; 2];
        tunnel.read_exact(&mut hi).await.unwrap();
        assert_eq!(&hi, b"hi");
        tunnel.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        eventually(|| server.heads.borrow().len() == 2).await;
        assert_eq!(fixture.load.active(), 1);
        drop((tunnel, response));
        fixture.all_closed().await;
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_switch_of_protocols_nobody_asked_for_is_refused() {
    on_worker(async {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n\r\n";
        let server = Server::start(move |_| Then::Say(switch)).await;
        let fixture = Fixture::new(server.address, |_| {});
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert_eq!((error.cause, error.stage), (Cause::Protocol, Stage::Partial));
        fixture.all_closed().await;
    });
}

#[test]
fn a_connection_answered_early_is_used_again_once_the_request_is_out() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        let (mut sender, body) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let builder = Request::post("/").header("host", "shop.example").header("content-length", 4);
        let request = builder.body(RequestBody::stream(Pieces(body))).unwrap();
        let lease = fixture.lease(Reuse::Verified).await.unwrap();
        // The script answers as soon as it has read the head.
        assert_eq!(text(lease.send(request).await.unwrap()).await, "ok");
        sender.send(Bytes::from_static(b"\r\n\r\n")).unwrap();
        sender = tokio::sync::mpsc::unbounded_channel().0;
        drop(sender);
        eventually(|| server.heads.borrow().len() == 2).await;
        fixture.assert_nothing_held();
    });
}

/// A body whose pieces come through a channel.
struct Pieces(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = crate::net::body::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }
}
