//! HTTP/2 pools, against scripted servers of the h2 crate.

use std::cell::Cell;

use h2::Reason;
use h2::server::SendResponse;
use http::HeaderMap;
use tokio::net::TcpListener;

use super::*;

/// What a scripted server does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// Answers after so many milliseconds.
    AnswerAfter(u64),
    /// Answers with a body and trailers.
    Trailers,
    /// Resets the stream.
    Reset(Reason),
    /// Says that it processed nothing after the streams before, and goes.
    GoAway,
    /// Answers, and says that it takes no more requests.
    AnswerAndRetire,
}

/// A server that treats the n-th request of its life (from 0) as `script` says.
struct Server {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
}

impl Server {
    async fn start(streams: u32, script: impl Fn(usize) -> Then + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let server = Self { address, connections: connections.clone() };
        let requests = Rc::new(Cell::new(0));
        let script = Rc::new(script);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(streams);
                let (script, requests) = (script.clone(), requests.clone());
                tokio::task::spawn_local(async move {
                    let mut connection = builder.handshake::<_, Bytes>(stream).await.unwrap();
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        let number = requests.replace(requests.get() + 1);
                        match script(number) {
                            Then::GoAway => connection.abrupt_shutdown(Reason::NO_ERROR),
                            Then::AnswerAndRetire => {
                                answer(Then::AnswerAfter(0), respond).await;
                                connection.graceful_shutdown();
                            }
                            then => drop(tokio::task::spawn_local(answer(then, respond))),
                        }
                    }
                });
            }
        });
        server
    }

    fn fixture(&self, edit: impl FnOnce(&mut Cluster)) -> Fixture {
        Fixture::new(self.address, |cluster| {
            cluster.http.protocol = UpstreamProtocol::Http2;
            edit(cluster);
        })
    }
}

async fn answer(then: Then, mut respond: SendResponse<Bytes>) {
    match then {
        Then::Reset(reason) => respond.send_reset(reason),
        Then::Trailers => {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(trailers).unwrap();
        }
        Then::AnswerAfter(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            // The client may have gone away meanwhile.
            if let Ok(mut body) = respond.send_response(Response::new(()), false) {
                let _ = body.send_data(Bytes::from_static(b"ok"), true);
            }
        }
        Then::GoAway | Then::AnswerAndRetire => {}
    }
}

async fn many(fixture: &Fixture, count: usize) -> Vec<String> {
    futures_util::future::join_all((0..count).map(|_| fixture.get())).await
}

#[test]
fn requests_at_once_share_a_connection() {
    on_worker(async {
        let server = Server::start(100, |_| Then::AnswerAfter(20)).await;
        let fixture = server.fixture(|_| {});
        assert_eq!(many(&fixture, 20).await, ["ok"; 20]);
        assert_eq!(many(&fixture, 20).await, ["ok"; 20]);
        assert_eq!(server.connections.get(), 1);
        assert_eq!(fixture.stats.upstream_cx_http2_total.get(), 1);
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_full_connection_gets_company() {
    on_worker(async {
        let server = Server::start(100, |_| Then::AnswerAfter(20)).await;
        let fixture = server.fixture(|cluster| cluster.http.http2.max_concurrent_streams = 2);
        assert_eq!(many(&fixture, 6).await, ["ok"; 6]);
        assert_eq!(server.connections.get(), 3);
    });
}

#[test]
fn the_peers_limit_is_kept() {
    on_worker(async {
        let server = Server::start(1, |_| Then::AnswerAfter(20)).await;
        let fixture = server.fixture(|_| {});
        assert_eq!(fixture.get().await, "ok");
        assert_eq!(many(&fixture, 3).await, ["ok"; 3]);
        fixture.assert_nothing_held();
    });
}

#[test]
fn trailers_come_through() {
    on_worker(async {
        let server = Server::start(100, |_| Then::Trailers).await;
        let fixture = server.fixture(|_| {});
        let body = fixture.send(Reuse::Any).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "ok");
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_refused_stream_was_not_processed() {
    on_worker(async {
        let server = Server::start(100, |_| Then::Reset(Reason::REFUSED_STREAM)).await;
        let fixture = server.fixture(|_| {});
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert_eq!((error.cause, error.stage), (Cause::RefusedStream, Stage::NotProcessed));
        assert_eq!(error.cause.reset_reason(), "remote refused stream reset");
    });
}

#[test]
fn a_reset_stream_may_have_been_processed() {
    on_worker(async {
        for (reason, cause) in [
            (Reason::CANCEL, Cause::Reset),
            (Reason::INTERNAL_ERROR, Cause::Reset),
            (Reason::PROTOCOL_ERROR, Cause::Protocol),
        ] {
            let server = Server::start(100, move |_| Then::Reset(reason)).await;
            let fixture = server.fixture(|_| {});
            let error = fixture.send(Reuse::Any).await.unwrap_err();
            assert_eq!((error.cause, error.stage), (cause, Stage::SentNothingBack));
            assert_eq!(fixture.stats.upstream_cx_active.get(), 1, "only the stream is reset");
        }
    });
}

#[test]
fn a_connection_that_goes_away_is_replaced() {
    on_worker(async {
        let server = Server::start(100, |_| Then::AnswerAndRetire).await;
        let fixture = server.fixture(|_| {});
        for served in 1..4 {
            assert_eq!(fixture.get().await, "ok");
            fixture.all_closed().await;
            assert_eq!(server.connections.get(), served);
        }
    });
}

#[test]
fn what_a_leaving_server_did_not_process_is_known() {
    on_worker(async {
        let server = Server::start(100, |number| match number {
            0 => Then::AnswerAfter(0),
            _ => Then::GoAway,
        })
        .await;
        let fixture = server.fixture(|_| {});
        assert_eq!(fixture.get().await, "ok");
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert!(error.reused);
        assert_eq!(error.cause.reset_reason(), "connection termination");
    });
}

#[test]
fn an_idle_connection_expires_a_busy_one_does_not() {
    on_worker(async {
        let server = Server::start(100, |_| Then::AnswerAfter(150)).await;
        let fixture =
            server.fixture(|cluster| cluster.http.idle_timeout = Some(Duration::from_millis(60)));
        assert_eq!(fixture.get().await, "ok");
        fixture.all_closed().await;
        assert_eq!(fixture.stats.upstream_cx_idle_timeout.get(), 1);
    });
}

#[test]
fn an_abandoned_exchange_resets_only_its_stream() {
    on_worker(async {
        let server = Server::start(100, |_| Then::AnswerAfter(100)).await;
        let fixture = server.fixture(|_| {});
        let (abandoned, kept) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(30), fixture.send(Reuse::Any)),
            fixture.get(),
        );
        assert!(abandoned.is_err());
        assert_eq!(kept, "ok");
        assert_eq!(server.connections.get(), 1);
        fixture.assert_nothing_held();
    });
}

#[test]
fn a_server_that_speaks_http1_breaks_the_protocol() {
    on_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ =
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
        });
        let fixture = Fixture::new(address, |cluster| {
            cluster.http.protocol = UpstreamProtocol::Http2;
        });
        let error = fixture.send(Reuse::Any).await.unwrap_err();
        assert_eq!(error.cause, Cause::Protocol);
    });
}
