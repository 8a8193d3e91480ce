//! A session's bytes carried by HTTP: behind a CONNECT, or as the bodies of a POST and its answer (Envoy
//! `tunneling_config`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::Session;
use crate::cluster::LocalHost;
use crate::config::route::Priority;
use crate::config::tcp::Tunneling;
use crate::net::body::{BoxError, RequestBody};
use crate::pool::{Cause, Lease, Need, ResponseBody, Reuse, SendError, Stage};
use crate::route::mutate::change_request;
use crate::tls::peer::PeerInfo;
use crate::upstream::failure::ConnectError;
use crate::upstream::http::Protocol;

/// Most bytes of a POST's body that wait to be sent.
const BUFFER: usize = 64 * 1024;
/// Most of them in one frame.
const CHUNK: usize = 16 * 1024;
/// Where the head of the answer is kept in the filter state.
const RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";
/// Where the trailers of the answer are kept in the filter state.
const RESPONSE_TRAILERS: &str = "envoy.tcp_proxy.propagate_response_trailers";

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelError {
    /// No connection could be had.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection brought no answer.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The endpoint is against it.
    #[error("tunnel_response:{}", .0.as_u16())]
    Refused(StatusCode),
    /// The endpoint answered, but did not switch.
    #[error("no tunnel after the answer: {0}")]
    Switch(#[source] hyper::Error),
    /// What is to be asked for cannot be written.
    #[error("{0:?} names no host and port")]
    Hostname(String),
}

impl TunnelError {
    /// What access logs say of it; none if it is not the transport's failure.
    pub(super) fn transport_failure(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.transport_failure(),
            Self::Send(error) => error.transport_failure(),
            Self::Refused(_) => Some(self.to_string()),
            Self::Switch(_) | Self::Hostname(_) => None,
        }
    }
}

/// Our end of a connection, the peer's, and what TLS established.
pub(super) type Ends = (Option<SocketAddr>, Option<SocketAddr>, Option<Rc<PeerInfo>>);

fn ends(lease: &Lease) -> Ends {
    (lease.local_address(), lease.remote_address(), lease.peer())
}

/// A tunnel that is open.
#[derive(Debug)]
pub(super) struct Tunnel {
    carrier: Carrier,
    /// Counts as a request under way for as long as it is there.
    answer: ResponseBody,
    /// What came after the answer's body.
    trailers: Option<HeaderMap>,
}

#[derive(Debug)]
enum Carrier {
    /// Behind a CONNECT.
    Connect(TokioIo<Upgraded>),
    /// Within bodies: that of the request, and what was read of that of the answer.
    Post(DuplexStream, Bytes),
}

impl Tunnel {
    /// Where its bytes are written.
    pub(super) fn writer(&mut self) -> &mut (dyn AsyncWrite + Unpin) {
        match &mut self.carrier {
            Carrier::Connect(stream) => stream,
            Carrier::Post(body, _) => body,
        }
    }

    /// Reads its bytes.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = match &mut self.carrier {
            Carrier::Connect(stream) => return Pin::new(stream).poll_read(context, buffer),
            Carrier::Post(_, rest) => rest,
        };
        while rest.is_empty() {
            match ready!(Pin::new(&mut self.answer).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => *rest = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let part = rest.split_to(rest.len().min(buffer.remaining()));
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

/// What a session sees of an answer that broke off: a reset, whatever it was.
fn broken(error: &hyper::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error.to_string())
}

impl Session {
    /// Opens a tunnel through `host`.
    ///
    /// # Errors
    /// When there is no connection to it, or it is against the tunnel.
    pub(super) async fn tunnel(
        &self,
        config: &Tunneling,
        host: &LocalHost,
    ) -> Result<(Tunnel, Ends), TunnelError> {
        let mut hostname = Vec::new();
        config.hostname.render(self, "-", &mut hostname);
        let authority = Authority::try_from(&*hostname)
            .map_err(|_| TunnelError::Hostname(String::from_utf8_lossy(&hostname).into_owned()))?;
        let (ours, theirs) = match config.post_path {
            Some(_) => {
                let (ours, theirs) = tokio::io::duplex(BUFFER);
                (Some(ours), RequestBody::stream(Sent { from: theirs, room: BytesMut::new() }))
            }
            None => (None, RequestBody::Empty),
        };
        let request = self.request(config, &authority, theirs);
        let (mut response, ends) = self.ask(host, request).await?;
        if !response.status().is_success() {
            return Err(TunnelError::Refused(response.status()));
        }
        if config.propagate_response_headers {
            let (status, headers) = (response.status(), response.headers());
            self.keep(RESPONSE_HEADERS, Some(status), headers);
        }
        let carrier = match ours {
            Some(ours) => Carrier::Post(ours, Bytes::new()),
            None => {
                let switched = hyper::upgrade::on(&mut response).await;
                Carrier::Connect(TokioIo::new(switched.map_err(TunnelError::Switch)?))
            }
        };
        Ok((Tunnel { carrier, answer: response.into_body(), trailers: None }, ends))
    }

    fn request(
        &self,
        config: &Tunneling,
        authority: &Authority,
        body: RequestBody,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        if let Some(path) = &config.post_path {
            *request.method_mut() = Method::POST;
            *request.uri_mut() = PathAndQuery::clone(path).into();
            if let Ok(host) = authority.as_str().parse() {
                request.headers_mut().insert(http::header::HOST, host);
            }
        } else {
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = Uri::from(authority.clone());
        }
        change_request(&config.headers_to_add, request.headers_mut(), self);
        request
    }

    /// Sends `request` to `host`; once more, on a fresh connection, if the first was gone before it got anything.
    async fn ask(
        &self,
        host: &LocalHost,
        request: Request<RequestBody>,
    ) -> Result<(Response<ResponseBody>, Ends), TunnelError> {
        let client = self.downstream.client();
        let mut need = Need {
            priority: Priority::Default,
            downstream: Protocol::Http1,
            host: None,
            client: &client,
            presence: &self.downstream.presence,
            alpn: None,
            reuse: Reuse::Verified,
        };
        let lease = host.acquire(need).await?;
        let ends = ends(&lease);
        let mut error = match lease.send(request).await {
            Ok(response) => return Ok((response, ends)),
            Err(error) => error,
        };
        let was_dying = error.reused
            && error.stage == Stage::NotProcessed
            && matches!(error.cause, Cause::Closed | Cause::GoAway);
        let Some(request) = error.request.take().filter(|_| was_dying) else {
            return Err(error.into());
        };
        need.reuse = Reuse::Never;
        let lease = host.acquire(need).await?;
        let ends = self::ends(&lease);
        Ok((lease.send(*request).await?, ends))
    }

    /// Notes what has come after everything else.
    pub(super) fn note_end(&self, tunnel: &Tunnel) {
        let wanted = |it: &&Tunneling| it.propagate_response_trailers;
        if let Some(_) = self.proxy.tunneling.as_deref().filter(wanted)
            && let Some(trailers) = &tunnel.trailers
        {
            self.keep(RESPONSE_TRAILERS, None, trailers);
        }
    }

    /// Keeps a head or trailers in the filter state, for whoever reads that.
    fn keep(&self, name: &'static str, status: Option<StatusCode>, headers: &HeaderMap) {
        let pair = |key: &str, value: &str| json!({"key": key, "value": value});
        let status = status.map(|status| pair(":status", status.as_str()));
        let fields = headers
            .iter()
            .map(|(key, value)| pair(key.as_str(), &String::from_utf8_lossy(value.as_bytes())));
        let fields: Vec<Value> = status.into_iter().chain(fields).collect();
        let mut dynamic = self.downstream.dynamic.borrow_mut();
        dynamic.set_state(name, json!({"headers": fields}));
    }
}

/// What a session sends, as the body of a POST.
struct Sent {
    from: DuplexStream,
    room: BytesMut,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.room.resize(CHUNK, 0);
        let mut buffer = ReadBuf::new(&mut this.room);
        ready!(Pin::new(&mut this.from).poll_read(context, &mut buffer))?;
        let read = buffer.filled().len();
        Poll::Ready((read > 0).then(|| Ok(Frame::data(this.room.split_to(read).freeze()))))
    }
}
