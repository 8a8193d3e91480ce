//! The codec of a downstream connection: which HTTP version it speaks, and how that is served.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::connection::Connection;
use super::head_guard::HeadGuard;
use super::io::{ServerIo, Sniffed, sniff};
use super::service;
use super::watchdog::{End, Watchdog};
use crate::config::http::{CodecType, HttpConnectionManager};
use crate::drain::Phase;
use crate::net::readable::Readable;
use crate::tls::peer::PeerInfo;
use crate::upstream::http::LocalExecutor;

/// Serves `connection` on `stream` until either side ends it.
pub async fn serve<S>(connection: Rc<Connection>, mut stream: S)
where
    S: Readable + Send + 'static,
{
    let open = &connection.open;
    let mut watchdog = Watchdog::new(&connection);
    // Nothing is set up for a client that sends nothing.
    if !wait(&mut watchdog, &stream).await {
        return close(stream).await;
    }
    // In boxes: a connection need not be as large as what it is only at times.
    match Box::pin(codec_of(&connection, &mut stream)).await {
        Some(Sniffed::Http1(head)) => {
            let stats = open.is_http1();
            let guard = Some(HeadGuard::default());
            let mut io = ServerIo::new(stream, head, stats, connection.signals.clone(), guard);
            watchdog.watch_headers();
            while let Some(idle) = Box::pin(serve_http1(&connection, io, &mut watchdog)).await {
                connection.park();
                if !idle.holds_bytes() && !wait(&mut watchdog, idle.get_ref()).await {
                    return close(idle).await;
                }
                io = idle;
            }
        }
        Some(Sniffed::Http2(head)) => {
            let stats = open.is_http2();
            let io = ServerIo::new(stream, head, stats, connection.signals.clone(), None);
            Box::pin(serve_http2(&connection, io, &mut watchdog)).await;
        }
        None => {}
    }
}

/// Waits for bytes on a connection on which nothing is under way; false if it should end instead.
async fn wait(watchdog: &mut Watchdog, stream: &impl Readable) -> bool {
    poll_fn(|cx| {
        if stream.poll_readable(cx).is_ready() {
            return Poll::Ready(true);
        }
        watchdog.poll(cx).map(|_| false)
    })
    .await
}

/// Ends a connection on which nothing is under way.
async fn close(mut stream: impl AsyncWrite + Unpin) {
    // TLS has a last word; a client that does not take it gets no more than this second.
    let _ = Box::pin(tokio::time::timeout(Duration::from_secs(1), stream.shutdown())).await;
}

/// The HTTP version of the connection; none if it ended or stayed silent before that was clear.
async fn codec_of<S: AsyncRead + Unpin>(
    connection: &Connection,
    stream: &mut S,
) -> Option<Sniffed> {
    let served = connection.served();
    let config = served.config();
    let alpn = connection.downstream.tls.as_ref().and_then(PeerInfo::alpn);
    match (config.codec, alpn) {
        (CodecType::Http1, _) => return Some(Sniffed::Http1(Bytes::new())),
        (CodecType::Http2, _) | (CodecType::Auto, Some(b"h2")) => {
            return Some(Sniffed::Http2(Bytes::new()));
        }
        (CodecType::Auto, Some(b"http/1.1" | b"http/1.0")) => {
            return Some(Sniffed::Http1(Bytes::new()));
        }
        (CodecType::Auto, _) => {}
    }
    // Silence here is an idle connection, not a slow request: the longer limit applies.
    let limit = config.limits.request_headers_timeout.max(config.limits.idle_timeout);
    let sniffing = async {
        match limit {
            Some(limit) => tokio::time::timeout(limit, sniff(stream)).await.ok()?.ok(),
            None => sniff(stream).await.ok(),
        }
    };
    let mut sniffing = std::pin::pin!(sniffing);
    poll_fn(|cx| {
        if connection.control().poll_phase(cx) >= Phase::Draining {
            return Poll::Ready(None);
        }
        sniffing.as_mut().poll(cx)
    })
    .await
}

/// Serves HTTP/1 until the connection ends or has been quiet for a while; then its stream comes back.
async fn serve_http1<S>(
    connection: &Rc<Connection>,
    io: ServerIo<S>,
    watchdog: &mut Watchdog,
) -> Option<ServerIo<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let owner = Rc::clone(connection);
    let service = service_fn(move |request: http::Request<Incoming>| {
        service::serve(Rc::clone(&owner), request)
    });
    let builder = http1_builder(connection.served().config());
    let mut http = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    watchdog.has_codec(true);
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut http).poll(cx) {
                note_protocol_error(connection, ended);
                return Poll::Ready(End::Finished);
            }
            match ready!(watchdog.poll(cx)) {
                End::Drain => Pin::new(&mut http).graceful_shutdown(),
                end => return Poll::Ready(end),
            }
        }
    })
    .await;
    watchdog.has_codec(false);
    match end {
        End::HeadersTimeout => {
            let stream = http.into_parts()?.io.into_inner().into_inner();
            answer_timeout(connection, stream).await;
            None
        }
        End::Park => {
            let parts = http.into_parts()?;
            let mut io = parts.io.into_inner();
            io.give_back(&parts.read_buf);
            Some(io)
        }
        End::Finished | End::Drain | End::Cut => None,
    }
}

fn http1_builder(config: &HttpConnectionManager) -> http1::Builder {
    let limit = config.limits.max_request_headers as usize;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(config.limits.max_headers_count as usize)
        .max_header_size(limit)
        .max_buf_size(limit.max(MIN_BUFFER))
        .auto_date_header(false)
        .title_case_headers(config.http1.proper_case);
    builder
}

/// Counts what the codec refused by itself: it has answered, and closed the connection.
fn note_protocol_error(connection: &Connection, ended: hyper::Result<()>) {
    if ended.is_err_and(|error| error.is_parse()) {
        connection.served().stats.downstream_cx_protocol_error.inc();
    }
}

/// The smallest read buffer the codec takes.
const MIN_BUFFER: usize = 16 * 1024;

/// Tells a client that never finished its headers why the connection ends (RFC 9110, section 15.5.9).
async fn answer_timeout(connection: &Connection, mut stream: impl AsyncWrite + Unpin) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let stats = &connection.served().stats;
    stats.downstream_rq_header_timeout.inc();
    let write = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    // The client may not read either: one second is all it gets.
    let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
}

async fn serve_http2<S>(connection: &Rc<Connection>, io: ServerIo<S>, watchdog: &mut Watchdog)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = connection.served();
    let config = served.config();
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.http2.max_concurrent_streams)
        .initial_stream_window_size(config.http2.initial_stream_window)
        .initial_connection_window_size(config.http2.initial_connection_window)
        .max_header_list_size(config.limits.max_request_headers)
        .max_pending_accept_reset_streams(20)
        .auto_date_header(false);
    if let Some((interval, timeout)) = config.http2.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(timeout);
    }
    if config.http2.allow_connect {
        builder.enable_connect_protocol();
    }
    let owner = Rc::clone(connection);
    let service = service_fn(move |request: http::Request<Incoming>| {
        service::serve(Rc::clone(&owner), request)
    });
    let mut http = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    poll_fn(|cx| {
        loop {
            if http.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            match ready!(watchdog.poll(cx)) {
                End::Drain => http.as_mut().graceful_shutdown(),
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}
