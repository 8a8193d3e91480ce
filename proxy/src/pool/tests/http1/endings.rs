//! Connections that end when they should not.

use std::sync::mpsc;

use super::*;

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
