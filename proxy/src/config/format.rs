//! Envoy's format strings: parsed once, used for header values and access-log lines.

use std::time::Duration;

use http::header::HeaderName;

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
    /// `START_TIME` and its relatives with an optional strftime pattern.
    StartTime(Option<Box<str>>),
    Method,
    Path,
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamHostName,
    UpstreamCluster,
    UpstreamLocalAddress {
        with_port: bool,
    },
    UpstreamRemoteAddress {
        with_port: bool,
    },
    UpstreamRequestAttemptCount,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    RequestedServerName,
    RouteName,
    VirtualClusterName,
    VirtualHostName,
    ConnectionId,
    StreamId,
    TraceId,
    Hostname,
    UniqueId,
    PeerSubject(Peer),
    PeerIssuer(Peer),
    PeerUriSan(Peer),
    PeerDnsSan(Peer),
    PeerFingerprint256(Peer),
    PeerSerial(Peer),
    PeerCert(Peer),
    LocalSubject(Peer),
    LocalUriSan(Peer),
    TlsVersion(Peer),
    TlsCipher(Peer),
    /// `DYNAMIC_METADATA`, `FILTER_STATE` and other values that no filter of this proxy sets: always absent.
    Absent(Box<str>),
}

/// Values a [`Format`] draws on. A method returns none where Envoy prints `-`.
///
/// Implemented by the facts gathered about one request; bytes are written to `out` without copying.
pub trait Facts {
    /// Appends the value of `operator` to `out`; false (and nothing written) if there is none.
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool;
}

impl Format {
    /// Appends the formatted text; absent values become `missing` (`-` in text logs, empty in headers).
    pub fn render(&self, facts: &dyn Facts, missing: &str, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator, limit) => {
                    let start = out.len();
                    if !facts.write(operator, out) {
                        out.extend_from_slice(missing.as_bytes());
                    }
                    if let Some(limit) = limit {
                        out.truncate(start + limit);
                    }
                }
            }
        }
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
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
