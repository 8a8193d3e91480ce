//! HTTP over a connection: the one seam behind which a codec stands (hyper, for both versions).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::cluster::Cluster;
use crate::net::body::RequestBody;

/// The protocol of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time.
    Http1,
    /// HTTP/2: many at once.
    Http2,
}

/// Sends requests on one connection.
#[derive(Debug)]
pub enum Sender {
    /// HTTP/1.1
    Http1(http1::SendRequest<RequestBody>),
    /// HTTP/2
    Http2(http2::SendRequest<RequestBody>),
}

/// What a request came to: a response, or why there is none, with the request if it was never begun.
pub type Outcome = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

impl Sender {
    /// Whether a request can be sent at once.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Waits until the connection has finished one exchange and can take the next; false if it never will.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        match self {
            Self::Http1(sender) => sender.poll_ready(context).map(|ready| ready.is_ok()),
            Self::Http2(sender) => sender.poll_ready(context).map(|ready| ready.is_ok()),
        }
    }

    /// Sends `request`; the future waits for the head of the response.
    pub fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = Outcome> + use<> {
        match self {
            Self::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Self::Http2(sender) => Either::Right(sender.try_send_request(request)),
        }
    }
}

/// Drives one connection until it takes no more requests; nothing happens on it unless this is polled.
/// `streams` is called with the number of concurrent requests the peer allows, whenever it may have changed.
pub async fn drive<IO>(driver: Driver<IO>, mut streams: impl FnMut(usize)) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match driver {
        Driver::Http1(connection) => connection.with_upgrades().await,
        Driver::Http2(mut connection) => {
            std::future::poll_fn(|context| {
                let result = Pin::new(&mut *connection).poll(context);
                streams(connection.current_max_send_streams());
                result
            })
            .await
        }
    }
}

/// The half of a connection that does the work.
#[derive(Debug)]
pub enum Driver<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    /// HTTP/1.1
    Http1(Box<http1::Connection<TokioIo<IO>, RequestBody>>),
    /// HTTP/2
    Http2(Box<http2::Connection<TokioIo<IO>, RequestBody, LocalExecutor>>),
}

/// Begins HTTP on `io`.
///
/// # Errors
/// When the connection breaks while HTTP/2 says hello.
pub async fn handshake<IO>(
    io: IO,
    protocol: Protocol,
    cluster: &Cluster,
) -> hyper::Result<(Sender, Driver<IO>)>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let io = TokioIo::new(io);
    match protocol {
        Protocol::Http1 => {
            let (sender, driver) = http1_builder(cluster).handshake(io).await?;
            Ok((Sender::Http1(sender), Driver::Http1(Box::new(driver))))
        }
        Protocol::Http2 => {
            let (sender, driver) = http2_builder(cluster).handshake(io).await?;
            Ok((Sender::Http2(sender), Driver::Http2(Box::new(driver))))
        }
    }
}

fn http1_builder(cluster: &Cluster) -> http1::Builder {
    let headers = cluster.http.max_response_headers;
    // A head must fit into the buffer, and the codec insists on this much.
    let buffer = cluster.buffer_limit.max(headers).max(8 << 10);
    let mut builder = http1::Builder::new();
    builder
        .max_headers(cluster.http.max_headers_count as usize)
        .max_header_size(headers as usize)
        .max_buf_size(buffer as usize);
    builder
}

fn http2_builder(cluster: &Cluster) -> http2::Builder<LocalExecutor> {
    let http2 = &cluster.http.http2;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(http2.initial_stream_window)
        .initial_connection_window_size(http2.initial_connection_window)
        .initial_max_send_streams(http2.max_concurrent_streams as usize)
        // Less than a frame would never let one out.
        .max_send_buf_size(cluster.buffer_limit.max(16 << 10) as usize)
        .max_header_list_size(cluster.http.max_response_headers);
    if let Some((interval, timeout)) = http2.keepalive {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true);
    }
    builder
}

/// Spawns what a connection needs on the worker it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
