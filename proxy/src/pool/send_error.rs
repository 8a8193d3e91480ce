//! Why a request that had a connection got no response, and how far it had come: what decides whether it may
//! be sent again.

use std::error::Error as _;
use std::io;

use http::Request;

use super::wire::{Mark, Wire};
use crate::net::body::RequestBody;
use crate::upstream::failure::tls_failure;
use crate::upstream::http::Protocol;

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.cause.reset_reason())]
pub struct SendError {
    /// How far it came.
    pub stage: Stage,
    /// Whether the connection had carried other requests before.
    pub reused: bool,
    /// What happened.
    pub cause: Cause,
    /// The request, if not a byte of it was written nor of its body consumed.
    pub request: Option<Box<Request<RequestBody>>>,
    /// The codec's own words.
    #[source]
    pub source: Option<hyper::Error>,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The upstream has certainly not acted on it: no byte was sent, or it said so (`REFUSED_STREAM`,
    /// `GOAWAY` below this stream). Any request may be sent again.
    NotProcessed,
    /// Bytes were sent and nothing came back. Only an idempotent request may be sent again.
    SentNothingBack,
    /// Part of a response came back.
    Partial,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The connection ended or broke.
    Closed,
    /// The upstream reset the stream.
    Reset,
    /// The upstream refused the stream.
    RefusedStream,
    /// The upstream was closing the connection.
    GoAway,
    /// The upstream did not answer a keepalive ping.
    Timeout,
    /// The upstream broke the protocol.
    Protocol,
    /// The request's own body failed: the client went away, or broke the protocol.
    RequestBody,
}

impl Cause {
    /// Envoy's reset reason, for example `connection termination`. Local replies print it as it is,
    /// response code details with underscores.
    pub fn reset_reason(self) -> &'static str {
        match self {
            Self::Closed | Self::GoAway | Self::Timeout => "connection termination",
            Self::Reset => "remote reset",
            Self::RefusedStream => "remote refused stream reset",
            Self::Protocol => "protocol error",
            Self::RequestBody => "local reset",
        }
    }

    /// Reads the codec's error.
    pub fn of(error: &hyper::Error) -> Self {
        if let Some(error) = source::<h2::Error>(error) {
            return Self::of_http2(error);
        }
        if error.is_user() {
            Self::RequestBody
        } else if error.is_timeout() {
            Self::Timeout
        } else if error.is_canceled()
            || error.is_closed()
            || error.is_incomplete_message()
            || error.is_shutdown()
            || source::<io::Error>(error)
                .is_some_and(|error| is_disconnect(error) || alert(error).is_some())
        {
            Self::Closed
        } else {
            Self::Protocol
        }
    }

    fn of_http2(error: &h2::Error) -> Self {
        if error.is_io() {
            return Self::Closed;
        }
        match (error.is_remote(), error.reason()) {
            (true, _) if error.is_go_away() => Self::GoAway,
            (true, Some(h2::Reason::REFUSED_STREAM)) => Self::RefusedStream,
            (true, Some(h2::Reason::PROTOCOL_ERROR)) => Self::Protocol,
            (true, _) => Self::Reset,
            (false, Some(h2::Reason::CANCEL)) => Self::RequestBody,
            (false, _) => Self::Protocol,
        }
    }
}

/// An exchange on one connection, as far as it explains an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) wire: &'a Wire,
    /// Where the byte counts were when the request was handed over.
    pub(super) mark: Mark,
    pub(super) protocol: Protocol,
    pub(super) reused: bool,
}

impl SendError {
    /// Envoy's `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, without spaces; none if the transport did not fail.
    /// Under TLS 1.3 a server refuses our certificate only after the handshake.
    pub fn transport_failure(&self) -> Option<String> {
        let error = source::<io::Error>(self.source.as_ref()?)?;
        alert(error).map(|error| tls_failure(error))
    }

    /// The error of an exchange that ended with the codec's `source`.
    pub(super) fn new(
        exchange: Exchange<'_>,
        source: hyper::Error,
        request: Option<Request<RequestBody>>,
    ) -> Self {
        let cause = Cause::of(&source);
        Self {
            stage: stage(exchange, cause, request.is_some()),
            reused: exchange.reused,
            cause,
            request: request.map(Box::new),
            source: Some(source),
        }
    }
}

/// On HTTP/2 other requests share the bytes, so only silence in both directions, or the upstream's word,
/// proves anything; the answer errs towards "may have been processed".
fn stage(exchange: Exchange<'_>, cause: Cause, returned: bool) -> Stage {
    let Exchange { wire, mark, protocol, .. } = exchange;
    let disclaimed = matches!(cause, Cause::RefusedStream | Cause::GoAway);
    if returned || disclaimed || !wire.sent_since(mark) {
        Stage::NotProcessed
    } else if protocol == Protocol::Http2 || !wire.received_since(mark) {
        // Without response headers an HTTP/2 request has had nothing back, whatever else arrived.
        Stage::SentNothingBack
    } else {
        Stage::Partial
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut, UnexpectedEof,
        WriteZero,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | NotConnected
            | TimedOut
            | UnexpectedEof
            | WriteZero
    )
}

/// The TLS error that broke a connection.
fn alert(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The first error of type `E` among the reasons of `error`.
fn source<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}
