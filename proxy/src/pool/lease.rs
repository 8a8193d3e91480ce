//! One request on one connection, from the head it sends to the last byte it gets back.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::UPGRADE;
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Common;
use super::circuit_breaker::Permit;
use super::connections::Grant;
use super::load::Active;
use super::send_error::{Cause, Exchange, SendError, Stage};
use super::server_idle;
use crate::net::body::RequestBody;
use crate::tls::peer::PeerInfo;
use crate::upstream::http::Protocol;
use crate::upstream::request;

/// The right to send one request, with everything that is held while it is under way.
#[derive(Debug)]
pub struct Lease {
    held: Held,
}

/// What is given back when an exchange is over.
#[derive(Debug)]
struct Held {
    grant: Grant,
    common: Rc<Common>,
    state: State,
    _permit: Permit,
    _active: Active,
}

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is sent.
    Before,
    /// It is under way: who lets go of it now breaks it off.
    During,
    /// It has come to an end, good or bad.
    Over,
}

impl Lease {
    pub(super) fn new(grant: Grant, common: Rc<Common>, permit: Permit, active: Active) -> Self {
        common.stats.upstream_rq_total.inc();
        common.stats.upstream_rq_active.inc();
        common.counts.rq_total.inc();
        common.counts.rq_active.inc();
        let state = State::Before;
        Self { held: Held { grant, common, state, _permit: permit, _active: active } }
    }

    /// Whether the connection has carried other requests.
    pub fn reused(&self) -> bool {
        self.held.grant.reused
    }

    /// What is spoken on the connection.
    pub fn protocol(&self) -> Protocol {
        self.held.grant.connection.facts.protocol
    }

    /// Our end of the connection (`%UPSTREAM_LOCAL_ADDRESS%`).
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.held.grant.connection.facts.local_address
    }

    /// The peer's end of the connection (`%UPSTREAM_REMOTE_ADDRESS%`).
    pub fn remote_address(&self) -> Option<SocketAddr> {
        self.held.grant.connection.facts.remote_address
    }

    /// What the TLS handshake said; none for plain text.
    pub fn peer(&self) -> Option<Rc<PeerInfo>> {
        self.held.grant.connection.facts.peer.clone()
    }

    /// Sends `request` and waits for the head of the response.
    ///
    /// The request may name its authority in the URI or in `Host`; it is put where the protocol wants it.
    /// Hop-by-hop headers are the caller's to remove. Dropping the future abandons the exchange.
    ///
    /// # Errors
    /// When no response head came back; the error says what may be done about it.
    pub async fn send(
        self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, SendError> {
        let Self { mut held } = self;
        let asks_upgrade =
            request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
        let exchange = {
            let connection = &held.grant.connection;
            let facts = &connection.facts;
            match facts.protocol {
                Protocol::Http1 => request::for_http1(&mut request),
                Protocol::Http2 if facts.peer.is_some() => {
                    request::for_http2(&mut request, Scheme::HTTPS);
                }
                Protocol::Http2 => request::for_http2(&mut request, Scheme::HTTP),
            }
            connection.sender.borrow_mut().send(request)
        };
        let mark = held.grant.connection.facts.wire.mark();
        held.begin();
        match exchange.await {
            Ok(response) => held.receive(response, asks_upgrade),
            Err(mut error) => {
                let facts = &held.grant.connection.facts;
                let request = error.take_message();
                let exchange = Exchange {
                    wire: &facts.wire,
                    mark,
                    protocol: facts.protocol,
                    reused: held.grant.reused,
                };
                let error = SendError::new(exchange, error.into_error(), request);
                held.broken_off(error.cause);
                Err(error)
            }
        }
    }
}

impl Held {
    fn begin(&mut self) {
        self.grant.begin();
        self.state = State::During;
    }

    fn receive(
        mut self,
        response: Response<Incoming>,
        asks_upgrade: bool,
    ) -> Result<Response<ResponseBody>, SendError> {
        let facts = &self.grant.connection.facts;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !asks_upgrade {
            self.broken_off(Cause::Protocol);
            return Err(SendError {
                stage: Stage::Partial,
                reused: self.grant.reused,
                cause: Cause::Protocol,
                request: None,
                source: None,
            });
        }
        if facts.protocol == Protocol::Http1
            && let Some(told) = server_idle::told(response.headers())
        {
            facts.told_idle.set(Some(told));
        }
        // An upgraded connection belongs to the exchange until both sides are done with it.
        let tunnel = switches || (asks_upgrade && hyper_upgrade(&response));
        Ok(response.map(|incoming| ResponseBody::new(incoming, self, tunnel)))
    }

    /// The exchange came to its proper end.
    fn complete(mut self) {
        self.grant.complete();
        self.state = State::Over;
    }

    /// The other side broke the exchange off, or the request's own body did.
    fn broken_off(&mut self, cause: Cause) {
        let stats = &self.common.stats;
        match cause {
            Cause::Reset => stats.upstream_rq_rx_reset.inc(),
            Cause::Protocol => stats.upstream_cx_protocol_error.inc(),
            // That was this side.
            Cause::RequestBody => return,
            Cause::Closed | Cause::RefusedStream | Cause::GoAway | Cause::Timeout => {}
        }
        self.state = State::Over;
    }

    /// This side breaks the exchange off, which costs an HTTP/1 connection.
    fn break_off(&self) {
        let facts = &self.grant.connection.facts;
        match facts.protocol {
            Protocol::Http1 => facts.wire.abandon(),
            Protocol::Http2 => self.common.stats.upstream_rq_tx_reset.inc(),
        }
    }
}

/// Whether the codec has prepared a tunnel (a successful `CONNECT`).
fn hyper_upgrade(response: &Response<Incoming>) -> bool {
    response.extensions().get::<hyper::upgrade::OnUpgrade>().is_some()
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.state == State::During {
            self.break_off();
        }
        self.common.stats.upstream_rq_active.dec();
        self.common.counts.rq_active.dec();
    }
}

/// The body of a response, trailers included. At its end the connection goes back to the pool; dropped before,
/// an HTTP/1 connection is closed and an HTTP/2 stream reset.
///
/// A body that was cut short ends with an error, never as if it were whole. After a 101 or a successful
/// `CONNECT`, [`hyper::upgrade::on`] yields the tunnel; keep the body for as long as the tunnel lives, since
/// the request counts as active until it is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    held: Option<Held>,
    tunnel: bool,
}

impl ResponseBody {
    fn new(incoming: Incoming, mut held: Held, tunnel: bool) -> Self {
        if tunnel {
            // Both sides end it as they like.
            held.state = State::Over;
        }
        let mut body = Self { incoming, held: Some(held), tunnel };
        body.complete_at_end();
        body
    }

    fn complete_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.complete();
        }
    }

    fn broken_off(&mut self, error: &hyper::Error) {
        let Some(mut held) = self.held.take() else { return };
        held.broken_off(match held.grant.connection.facts.protocol {
            // A body that ends too early breaks its message's rules.
            Protocol::Http1 => Cause::Protocol,
            Protocol::Http2 => Cause::of(error),
        });
    }

    fn complete(&mut self) {
        if !self.tunnel
            && let Some(held) = self.held.take()
        {
            held.complete();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(context));
        match &frame {
            Some(Ok(_)) => this.complete_at_end(),
            Some(Err(error)) => this.broken_off(error),
            None => this.complete(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
