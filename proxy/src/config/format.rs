//! Envoy's format strings: parsed once, used for header values and access-log lines.

mod metadata;
mod names;
mod parse;
mod time;

use std::time::Duration;

use http::header::HeaderName;
use serde_json::Value;

pub use metadata::MetadataPath;
pub(crate) use metadata::write_json;
pub use time::TimeFormat;

use super::expression::Expression;
use super::metadata::{Metadata, MetadataOf};

/// A parsed format string: literals and command operators in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Format {
    /// The pieces, in output order.
    pub pieces: Vec<Piece>,
}

/// One piece of a [`Format`].
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text as it stands (`%%` already became `%`).
    Literal(Box<str>),
    /// A command operator, with the longest length its value may have in bytes.
    Operator(Operator, Option<usize>),
}

/// A header name, and the one to try when it is absent: `%REQ(A?B)%`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderChoice {
    /// First choice.
    pub first: super::matcher::HeaderRef,
    /// Second choice.
    pub second: Option<super::matcher::HeaderRef>,
}

/// Which certificate, of which side, a TLS operator speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The client of this proxy.
    Downstream,
    /// The server this proxy dialled.
    Upstream,
}

/// Envoy's command operators (docs: configuration/observability/access_log/usage).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is Envoy's operator of the same name")]
pub enum Operator {
    Req(HeaderChoice),
    Resp(HeaderChoice),
    Trailer(HeaderName),
    StartTime(TimeFormat),
    /// The time at which the line is written.
    EmitTime(TimeFormat),
    Path {
        query: bool,
        of: PathOf,
    },
    QueryParam(Box<str>),
    /// The query without `?`, as it stands on the wire.
    QueryParams,
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    /// Of the response trailers, else of the response headers.
    GrpcStatus(GrpcStatusStyle),
    BytesReceived,
    BytesSent,
    RequestHeadersBytes,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    CommonDuration {
        from: TimePoint,
        to: TimePoint,
        unit: TimeUnit,
    },
    UpstreamHost,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    /// Also `UPSTREAM_CLUSTER_RAW`.
    UpstreamCluster,
    UpstreamLocalAddress {
        with_port: bool,
    },
    UpstreamLocalPort,
    UpstreamRemoteAddress {
        with_port: bool,
    },
    UpstreamRemotePort,
    UpstreamRequestAttemptCount,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    DownstreamDirectRemotePort,
    DownstreamDirectLocalAddress {
        with_port: bool,
    },
    DownstreamDirectLocalPort,
    RequestedServerName,
    FilterChainName,
    RouteName,
    VirtualClusterName,
    ConnectionId,
    StreamId,
    TraceId,
    SpanId,
    Hostname,
    UniqueId,
    PeerSubject(Peer),
    PeerIssuer(Peer),
    PeerUriSan(Peer),
    PeerDnsSan(Peer),
    PeerIpSan(Peer),
    PeerEmailSan(Peer),
    PeerFingerprint1(Peer),
    PeerFingerprint256(Peer),
    PeerCertStart(Peer, TimeFormat),
    PeerCertEnd(Peer, TimeFormat),
    PeerSerial(Peer),
    PeerCert(Peer),
    LocalSubject(Peer),
    LocalUriSan(Peer),
    LocalDnsSan(Peer),
    LocalIpSan(Peer),
    LocalEmailSan(Peer),
    TlsVersion(Peer),
    TlsCipher(Peer),
    TlsGroup(Peer),
    /// `METADATA`, and under older names `DYNAMIC_METADATA`, `CLUSTER_METADATA` and `UPSTREAM_METADATA`.
    Metadata(MetadataPath),
    FilterState {
        key: Box<str>,
        /// `PLAIN`: as text; `TYPED`, the default, is as JSON.
        plain: bool,
    },
    /// `CEL`, or if it keeps its type in JSON `TYPED_CEL`.
    Cel {
        expression: Expression,
        typed: bool,
    },
    /// Why a line is written; only of lines.
    AccessLogType,
    /// What this proxy counts none of, as Envoy does none over TCP: `BYTES_RETRANSMITTED`, `PACKETS_RETRANSMITTED`.
    Zero,
    /// The flags as a set of bits; only for expressions.
    ResponseFlagsNumber,
    /// The cipher suite of the client's connection by its number; only for gRPC logs.
    TlsCipherNumber,
    /// Only for expressions.
    VirtualHostName,
    /// 0, or 1 inbound, or 2 outbound; only for expressions.
    ListenerDirection,
    /// The first of them that has a value.
    Coalesce(Box<[Piece]>),
    /// Values that nothing here sets: always absent.
    Absent(Box<str>),
}

impl Operator {
    /// Whether the value is a number, which JSON logs write without quotes.
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Self::ResponseCode
                | Self::GrpcStatus(GrpcStatusStyle::Number)
                | Self::BytesReceived
                | Self::BytesSent
                | Self::RequestHeadersBytes
                | Self::ResponseHeadersBytes
                | Self::ResponseTrailersBytes
                | Self::Duration
                | Self::RequestDuration
                | Self::RequestTxDuration
                | Self::ResponseDuration
                | Self::ResponseTxDuration
                | Self::CommonDuration { .. }
                | Self::UpstreamRequestAttemptCount
                | Self::UpstreamLocalPort
                | Self::UpstreamRemotePort
                | Self::DownstreamLocalPort
                | Self::DownstreamRemotePort
                | Self::DownstreamDirectRemotePort
                | Self::DownstreamDirectLocalPort
                | Self::ConnectionId
                | Self::Zero
        )
    }
}

/// Which path `%PATH%` speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathOf {
    /// `x-envoy-original-path`, else `:path`
    OriginalOrPath,
    /// `x-envoy-original-path`
    Original,
    /// `:path`
    Path,
}

/// How `%GRPC_STATUS%` is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatusStyle {
    /// `DeadlineExceeded`
    Camel,
    /// `DEADLINE_EXCEEDED`
    Snake,
    /// `4`
    Number,
}

impl GrpcStatusStyle {
    /// Appends `status`; a status gRPC does not know is written as a number.
    pub fn write(self, status: u16, out: &mut Vec<u8>) {
        const NAMES: [(&str, &str); 17] = [
            ("OK", "OK"),
            ("Canceled", "CANCELLED"),
            ("Unknown", "UNKNOWN"),
            ("InvalidArgument", "INVALID_ARGUMENT"),
            ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
            ("NotFound", "NOT_FOUND"),
            ("AlreadyExists", "ALREADY_EXISTS"),
            ("PermissionDenied", "PERMISSION_DENIED"),
            ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
            ("FailedPrecondition", "FAILED_PRECONDITION"),
            ("Aborted", "ABORTED"),
            ("OutOfRange", "OUT_OF_RANGE"),
            ("Unimplemented", "UNIMPLEMENTED"),
            ("Internal", "INTERNAL"),
            ("Unavailable", "UNAVAILABLE"),
            ("DataLoss", "DATA_LOSS"),
            ("Unauthenticated", "UNAUTHENTICATED"),
        ];
        match (self, NAMES.get(usize::from(status))) {
            (Self::Camel, Some((camel, _))) => out.extend_from_slice(camel.as_bytes()),
            (Self::Snake, Some((_, snake))) => out.extend_from_slice(snake.as_bytes()),
            _ => out.extend_from_slice(status.to_string().as_bytes()),
        }
    }
}

/// A moment of a request's life, as `%COMMON_DURATION%` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePoint {
    /// `DS_RX_BEG`: the request began to arrive.
    DownstreamRxBegin,
    /// `DS_RX_END`: the request had arrived.
    DownstreamRxEnd,
    /// `US_CX_BEG`: the upstream connection was begun.
    UpstreamConnectBegin,
    /// `US_CX_END`: the upstream connection stood.
    UpstreamConnectEnd,
    /// `US_HS_END`: its TLS handshake was done.
    UpstreamHandshakeEnd,
    /// `US_TX_BEG`: the first byte was sent upstream.
    UpstreamTxBegin,
    /// `US_TX_END`: the last byte was sent upstream.
    UpstreamTxEnd,
    /// `US_RX_BEG`: the first byte came from upstream.
    UpstreamRxBegin,
    /// `US_RX_END`: the last byte came from upstream.
    UpstreamRxEnd,
    /// `DS_TX_BEG`: the first byte was sent downstream.
    DownstreamTxBegin,
    /// `DS_TX_END`: the last byte was sent downstream.
    DownstreamTxEnd,
}

/// The unit of `%COMMON_DURATION%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// `ms`
    Milliseconds,
    /// `us`
    Microseconds,
    /// `ns`
    Nanoseconds,
}

impl TimeUnit {
    /// `duration` in this unit, rounded down.
    pub fn of(self, duration: Duration) -> u64 {
        let count = match self {
            Self::Milliseconds => duration.as_millis(),
            Self::Microseconds => duration.as_micros(),
            Self::Nanoseconds => duration.as_nanos(),
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

/// Values a [`Format`] draws on. A method returns none where Envoy prints `-`.
///
/// Implemented by the facts gathered about one request; bytes are written to `out` without copying.
pub trait Facts {
    /// Appends the value of `operator` to `out`; false (and nothing written) if there is none.
    ///
    /// Never asked for metadata, filter state and expressions: those are made of other facts, by [`Operator::write`].
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool;

    /// Has the metadata read that is meant by `of`, if there is any.
    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        let _ = (of, read);
    }

    /// Has the filter state called `key` read, if there is any.
    fn with_filter_state(&self, key: &str, read: &mut dyn FnMut(&Value)) {
        let _ = (key, read);
    }
}

impl Operator {
    /// Appends its value as text; false (and nothing written) if there is none.
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Metadata(path) => path.write(facts, out),
            Self::FilterState { key, plain } => {
                let mut present = false;
                facts.with_filter_state(key, &mut |value| {
                    present = true;
                    match value {
                        Value::String(text) if *plain => out.extend_from_slice(text.as_bytes()),
                        value => write_json(value, out),
                    }
                });
                present
            }
            Self::Cel { expression, .. } => expression.write(facts, out),
            // Never absent, as in Envoy: without a flag they are `-`, whatever is said of absent values.
            Self::ResponseFlags | Self::ResponseFlagsLong => {
                if !facts.write(self, out) {
                    out.push(b'-');
                }
                true
            }
            Self::Coalesce(pieces) => pieces.iter().any(|piece| piece.write(facts, out)),
            _ => facts.write(self, out),
        }
    }

    /// Whether its value keeps its type in JSON, whatever it is.
    pub fn is_structured(&self) -> bool {
        matches!(
            self,
            Self::Metadata(_)
                | Self::FilterState { plain: false, .. }
                | Self::Cel { typed: true, .. }
                | Self::Coalesce(_)
        )
    }

    /// Its value as JSON; none if there is none. What is neither structured nor a number is text.
    pub fn json(&self, facts: &dyn Facts, limit: Option<usize>) -> Option<Value> {
        match self {
            Self::Metadata(path) => path.json(facts),
            Self::FilterState { key, plain: false } => {
                let mut found = None;
                facts.with_filter_state(key, &mut |value| found = Some(value.clone()));
                found
            }
            Self::Cel { expression, typed: true } => expression.json(facts),
            Self::Coalesce(pieces) => pieces.iter().find_map(|piece| match piece {
                Piece::Literal(text) => Some((**text).into()),
                Piece::Operator(operator, limit) => operator.json(facts, *limit),
            }),
            _ => {
                let mut text = Vec::new();
                let present = self.write(facts, &mut text);
                text.truncate(limit.unwrap_or(usize::MAX));
                present.then(|| {
                    let text = String::from_utf8_lossy(&text);
                    let number = text.parse::<u64>().ok().filter(|_| self.is_number());
                    number.map_or_else(|| text.into(), Value::from)
                })
            }
        }
    }
}

impl Piece {
    /// Appends this piece; an absent value becomes `missing`.
    pub fn render(&self, facts: &dyn Facts, missing: &str, out: &mut Vec<u8>) {
        let start = out.len();
        if !self.write(facts, out) {
            out.extend_from_slice(missing.as_bytes());
            if let Self::Operator(_, Some(limit)) = self {
                out.truncate(start + limit);
            }
        }
    }

    /// Appends this piece; false (and nothing written) if its value is absent.
    fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self {
            Self::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Self::Operator(operator, limit) => {
                if !operator.write(facts, out) {
                    return false;
                }
                out.truncate(limit.map_or(usize::MAX, |limit| start + limit));
            }
        }
        true
    }
}

impl Format {
    /// Reads a format string; `%%` writes a percent sign. The error is text for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse::format(text)
    }

    /// Appends the formatted text; absent values become `missing` (`-` in text logs, empty in headers).
    pub fn render(&self, facts: &dyn Facts, missing: &str, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            piece.render(facts, missing, out);
        }
    }

    /// Its operators, in output order.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Operator(operator, _) => Some(operator),
        })
    }

    /// The text, if the format holds no operator.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// Milliseconds, as every duration operator prints.
pub fn millis(duration: Duration) -> u64 {
    TimeUnit::Milliseconds.of(duration)
}
