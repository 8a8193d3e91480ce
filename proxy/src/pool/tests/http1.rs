//! HTTP/1 pools.

use std::cell::{Cell, RefCell};
use std::sync::mpsc;

use futures_util::FutureExt;
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
fn a_connection_that_ended_while_idle_is_not_used() {
    for then in [Then::SayAndClose(OK), Then::SayAndReset(OK)] {
        on_worker(async {
            let server = Server::start(move |_| then).await;
            let fixture = Fixture::new(server.address, |_| {});
            for served in 1..4 {
                assert_eq!(fixture.get().await, "ok");
                fixture.all_closed().await;
                assert_eq!(server.connections.get(), served);
            }
            assert_eq!(fixture.stats.upstream_cx_destroy_remote.get(), 3);
            fixture.assert_nothing_held();
        });
    }
}

/// A server in a thread of its own, so that it can act while the worker is not looking. It answers one
/// request per connection, ends the connection (with a reset, if asked) and says when that is done.
fn abrupt_server(reset: bool) -> (SocketAddr, mpsc::Receiver<()>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            if stream.read(&mut [0; 1024]).is_err() || stream.write_all(OK.as_bytes()).is_err() {
                continue;
            }
            // The worker shall have read the response before the end comes.
            let (_keep, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(Duration::from_millis(30));
            if reset {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(stream);
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    (address, told)
}

#[test]
fn what_the_kernel_knows_is_asked_before_a_request_that_must_not_be_sent_twice() {
    for reset in [false, true] {
        on_worker(async {
            let (address, ended) = abrupt_server(reset);
            let fixture = Fixture::new(address, |_| {});
            for _ in 0..20 {
                let response = fixture.send(Reuse::Verified).await.unwrap();
                assert_eq!(text(response).await, "ok");
                // Blocks the worker: its runtime cannot learn of the end.
                ended.recv().unwrap();
            }
            assert_eq!(fixture.stats.upstream_cx_total.get(), 20);
        });
    }
}

#[test]
fn a_stale_connection_is_reported_as_such() {
    for reset in [false, true] {
        on_worker(async {
            let (address, ended) = abrupt_server(reset);
            let fixture = Fixture::new(address, |_| {});
            assert_eq!(fixture.get().await, "ok");
            ended.recv().unwrap();
            let error = fixture.send(Reuse::Any).await.unwrap_err();
            assert!(error.reused);
            assert_eq!(error.cause, Cause::Closed);
            assert_ne!(error.stage, Stage::Partial, "nothing came back");
            assert_eq!(error.cause.reset_reason(), "connection termination");
            let again = fixture.send(Reuse::Never).await.unwrap();
            assert_eq!(text(again).await, "ok");
            fixture.assert_nothing_held();
        });
    }
}

#[test]
fn a_server_that_closes_without_an_answer_leaves_it_open_what_it_did() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAndClose("")).await;
        let fixture = Fixture::new(server.address, |_| {});
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert_eq!(error.stage, Stage::SentNothingBack);
        assert_eq!((error.cause, error.reused), (Cause::Closed, false));
        assert!(error.request.is_none());
    });
}

#[test]
fn half_a_head_is_a_partial_response() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAndClose("HTTP/1.1 200 OK\r\nconte")).await;
        let fixture = Fixture::new(server.address, |_| {});
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert_eq!(error.stage, Stage::Partial);
    });
}

#[test]
fn what_is_not_http_is_a_protocol_error() {
    on_worker(async {
        let server = Server::start(|_| Then::Say("\0\x01garbage\r\n\r\n")).await;
        let fixture = Fixture::new(server.address, |_| {});
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert_eq!((error.stage, error.cause), (Stage::Partial, Cause::Protocol));
        assert_eq!(error.cause.reset_reason(), "protocol error");
    });
}

#[test]
fn a_body_cut_short_ends_with_an_error() {
    on_worker(async {
        for short in [
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        ] {
            let server = Server::start(move |_| Then::SayAndClose(short)).await;
            let fixture = Fixture::new(server.address, |_| {});
            let response = fixture.send(Reuse::Any).await.unwrap();
            let error = response.into_body().collect().await.unwrap_err();
            assert_eq!(Cause::of(&error), Cause::Closed);
            fixture.all_closed().await;
            fixture.assert_nothing_held();
        }
    });
}

#[test]
fn stray_bytes_close_an_idle_connection() {
    on_worker(async {
        let stray = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n";
        let server = Server::start(move |_| Then::Say(stray)).await;
        let fixture = Fixture::new(server.address, |_| {});
        assert_eq!(fixture.get().await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 2);
    });
}

#[test]
fn a_connection_carries_no_more_requests_than_it_may() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture =
            Fixture::new(server.address, |cluster| cluster.http.max_requests_per_connection = 2);
        for _ in 0..5 {
            assert_eq!(fixture.get().await, "ok");
        }
        assert_eq!(server.connections.get(), 3);
        assert_eq!(fixture.stats.upstream_cx_max_requests.get(), 2);
    });
}

#[test]
fn idle_connections_expire() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.http.idle_timeout = Some(Duration::from_millis(60));
        });
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(fixture.stats.upstream_cx_active.get(), 1);
        fixture.all_closed().await;
        assert_eq!(fixture.stats.upstream_cx_idle_timeout.get(), 1);
        assert_eq!(fixture.stats.upstream_cx_destroy_local.get(), 1);
    });
}

#[test]
fn connections_expire_by_age() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.http.max_connection_duration = Some(Duration::from_millis(60));
        });
        assert_eq!(fixture.get().await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.stats.upstream_cx_max_duration_reached.get(), 1);
    });
}

#[test]
fn a_server_that_states_its_patience_is_believed() {
    on_worker(async {
        let patient = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n\r\nok";
        let server = Server::start(move |_| Then::Say(patient)).await;
        let fixture = Fixture::new(server.address, |_| {});
        for _ in 0..2 {
            assert_eq!(text(fixture.send(Reuse::Verified).await.unwrap()).await, "ok");
        }
        assert_eq!(server.connections.get(), 2, "not entrusted to the first");
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 2, "a GET may try");
    });
}

#[test]
fn a_refused_connection_is_told_as_envoy_tells_it() {
    on_worker(async {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let fixture = Fixture::new(address, |_| {});
        let error = fixture.lease(Reuse::Any).await.unwrap_err();
        assert_eq!(error, ConnectError::Unreachable("Connection refused".to_owned()));
        assert_eq!(fixture.stats.upstream_cx_connect_fail.get(), 1);
        assert_eq!(fixture.stats.upstream_rq_pending_failure_eject.get(), 1);
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_connection_that_takes_too_long_is_given_up() {
    on_worker(async {
        // A full queue of connections nobody accepts: the kernel drops what else arrives.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _filler = std::net::TcpStream::connect(address).unwrap();
        let fixture = Fixture::new(address, |cluster| {
            cluster.connect_timeout = Duration::from_millis(100);
        });
        let error = fixture.lease(Reuse::Any).await.unwrap_err();
        assert_eq!(error, ConnectError::Timeout);
        assert_eq!(fixture.stats.upstream_cx_connect_timeout.get(), 1);
        fixture.assert_nothing_held();
    });
}

#[test]
fn at_the_limit_requests_wait_for_a_connection_to_come_free() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAfter(30, OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.circuit_breakers[0].max_connections = 1;
            cluster.circuit_breakers[0].max_pending_requests = 2;
        });
        let all = futures_util::future::join_all([(); 4].map(|()| async {
            match fixture.lease(Reuse::Any).await {
                Ok(lease) => text(lease.send(get("/")).await.unwrap()).await,
                Err(error) => error.reset_reason().to_owned(),
            }
        }));
        assert_eq!(all.await, ["ok", "ok", "overflow", "overflow"]);
        assert_eq!(server.connections.get(), 1);
        assert_eq!(fixture.stats.upstream_rq_pending_overflow.get(), 2);
        assert!(fixture.stats.upstream_cx_overflow.get() > 0);
        fixture.assert_nothing_held();
    });
}

#[test]
fn at_the_limit_an_idle_connection_makes_way_for_a_new_one() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |cluster| {
            cluster.circuit_breakers[0].max_connections = 1;
        });
        for served in 1..4 {
            assert_eq!(text(fixture.send(Reuse::Never).await.unwrap()).await, "ok");
            assert_eq!(server.connections.get(), served);
            assert_eq!(fixture.breaker.read(circuit_breaker::Resource::Connections).taken, 1);
        }
    });
}

#[test]
fn requests_over_the_limit_are_refused() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture =
            Fixture::new(server.address, |cluster| cluster.circuit_breakers[0].max_requests = 1);
        let first = fixture.lease(Reuse::Any).await.unwrap();
        let error = fixture.lease(Reuse::Any).await.unwrap_err();
        assert_eq!(error, ConnectError::Overflow(Limit::Requests));
        assert_eq!(text(first.send(get("/")).await.unwrap()).await, "ok");
        assert_eq!(fixture.get().await, "ok");
    });
}

#[test]
fn a_request_that_gives_up_waiting_leaves_nothing_behind() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        assert!(fixture.lease(Reuse::Any).now_or_never().is_none());
        assert_eq!(fixture.stats.upstream_rq_cancelled.get(), 1);
        eventually(|| server.connections.get() == 1).await;
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 1, "the connection it had asked for is used");
        fixture.assert_nothing_held();
    });
}

#[test]
fn an_abandoned_exchange_closes_its_connection() {
    on_worker(async {
        let server = Server::start(|_| Then::Hang).await;
        let fixture = Fixture::new(server.address, |_| {});
        let send = fixture.send(Reuse::Any);
        assert!(tokio::time::timeout(Duration::from_millis(50), send).await.is_err());
        fixture.all_closed().await;

        let long = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
        let server = Server::start(move |_| Then::Say(long)).await;
        let fixture = Fixture::new(server.address, |_| {});
        drop(fixture.send(Reuse::Any).await.unwrap());
        fixture.all_closed().await;
        fixture.assert_nothing_held();
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
fn a_change_of_settings_lets_requests_finish_and_old_connections_go() {
    on_worker(async {
        let server = Server::start(|_| Then::SayAfter(50, OK)).await;
        let fixture = Fixture::new(server.address, |_| {});
        let lease = fixture.lease(Reuse::Any).await.unwrap();
        let under_way = lease.send(get("/"));
        fixture.pool.reconfigure(fixture.settings.clone());
        assert_eq!(fixture.stats.upstream_cx_active.get(), 1, "nothing has changed");

        let mut changed = Cluster::clone(&fixture.settings.cluster);
        changed.http.max_headers_count = 50;
        let changed = Settings { cluster: Arc::new(changed), ..fixture.settings.clone() };
        fixture.pool.reconfigure(changed);
        assert_eq!(text(under_way.await.unwrap()).await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(server.connections.get(), 2);
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_pool_that_is_dropped_closes_its_connections() {
    on_worker(async {
        let server = Server::start(|_| Then::Say(OK)).await;
        let Fixture { pool, stats, .. } = {
            let fixture = Fixture::new(server.address, |_| {});
            assert_eq!(fixture.get().await, "ok");
            fixture
        };
        assert_eq!(stats.upstream_cx_active.get(), 1);
        drop(pool);
        eventually(|| stats.upstream_cx_active.get() == 0).await;
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
