//! Envoy's attributes, and which facts they are.

use std::collections::HashMap;
use std::time::Duration;

use cel::Value;
use chrono::{DateTime, TimeDelta};

use crate::config::format::{
    Facts, GrpcStatusStyle, HeaderChoice, Operator, PathOf, Peer, TimeFormat, TimePoint, TimeUnit,
};
use crate::config::matcher::HeaderRef;
use crate::config::metadata::MetadataOf;

/// Where the value of an attribute comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// What a command operator writes, taken as this.
    Fact(Box<Operator>, Kind),
    /// The sum of two numbers.
    Sum(Box<[Operator; 2]>),
    /// The first number that is there.
    First(Box<[Operator; 2]>),
    /// The headers or trailers named, each with its operator.
    Headers(Vec<(Box<str>, Operator)>),
    /// Metadata as a message.
    Metadata(MetadataOf),
    /// What is in metadata, by namespace.
    Namespaces(MetadataOf),
}

/// What a command operator's text is taken for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    /// Absent means empty.
    TextOrEmpty,
    /// The first of several, between commas.
    FirstText,
    Bytes,
    Int,
    /// 0 means absent.
    IntUnlessZero,
    Uint,
    /// Nanoseconds.
    Span,
    /// Seconds and nanoseconds since 1970.
    Time,
    /// Whether it is there.
    Presence,
    /// The port of an address.
    Port,
}

/// The headers or trailers of one message, by the attribute that holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    Request,
    Response,
    Trailers,
}

impl Fields {
    /// Those in the attribute `root.member`.
    pub(super) fn of(root: &str, member: &str) -> Option<Self> {
        Some(match (root, member) {
            ("request", "headers") => Self::Request,
            ("response", "headers") => Self::Response,
            ("response", "trailers") => Self::Trailers,
            _ => return None,
        })
    }

    /// What reads the one called `name`, which is in lower case.
    pub(super) fn operator(self, name: &str) -> Option<Operator> {
        let choice = || Some(HeaderChoice { first: HeaderRef::parse(name)?, second: None });
        Some(match self {
            Self::Request => Operator::Req(choice()?),
            Self::Response if name == ":status" => Operator::ResponseCode,
            Self::Response => Operator::Resp(choice()?),
            Self::Trailers => Operator::Trailer(name.parse().ok()?),
        })
    }
}

impl Source {
    /// The value, as of `facts`.
    pub(super) fn value(&self, facts: &dyn Facts) -> Option<Value> {
        match self {
            Self::Fact(operator, kind) => fact(facts, operator, *kind),
            Self::Sum(operators) => {
                let sum = operators.iter().filter_map(|operator| number(facts, operator));
                Some(Value::Int(sum.sum()))
            }
            Self::First(operators) => {
                operators.iter().find_map(|operator| number(facts, operator)).map(Value::Int)
            }
            Self::Headers(named) => {
                let present = named.iter().filter_map(|(name, operator)| {
                    Some((name.to_string(), fact(facts, operator, Kind::Text)?))
                });
                Some(present.collect::<HashMap<_, _>>().into())
            }
            Self::Namespaces(of) => Some(namespaces(facts, *of)),
            Self::Metadata(of) => {
                let message = [("filter_metadata".to_owned(), namespaces(facts, *of))];
                Some(HashMap::from(message).into())
            }
        }
    }

    /// The operators that it asks.
    pub(super) fn operators(&self) -> impl Iterator<Item = &Operator> {
        let (several, named): (&[Operator], &[(Box<str>, Operator)]) = match self {
            Self::Fact(operator, _) => (std::slice::from_ref(&**operator), &[]),
            Self::Sum(several) | Self::First(several) => (&several[..], &[]),
            Self::Headers(named) => (&[], named),
            Self::Metadata(_) | Self::Namespaces(_) => (&[], &[]),
        };
        several.iter().chain(named.iter().map(|(_, operator)| operator))
    }
}

fn namespaces(facts: &dyn Facts, of: MetadataOf) -> Value {
    let mut value = serde_json::Value::Object(serde_json::Map::new());
    facts.with_metadata(of, &mut |metadata| value = metadata.to_json());
    cel(value)
}

/// What is written for `operator`, if anything is.
fn written(facts: &dyn Facts, operator: &Operator) -> Option<String> {
    let mut out = Vec::new();
    let present = operator.write(facts, &mut out);
    present.then(|| String::from_utf8_lossy(&out).into_owned())
}

fn number(facts: &dyn Facts, operator: &Operator) -> Option<i64> {
    written(facts, operator)?.parse().ok()
}

fn fact(facts: &dyn Facts, operator: &Operator, kind: Kind) -> Option<Value> {
    let written = written(facts, operator);
    Some(match kind {
        Kind::Presence => Value::Bool(written.is_some()),
        Kind::TextOrEmpty => written.unwrap_or_default().into(),
        Kind::Text => written?.into(),
        Kind::FirstText => written?.split(',').next()?.to_owned().into(),
        Kind::Bytes => Value::Bytes(written?.into_bytes().into()),
        Kind::Int => Value::Int(written?.parse().ok()?),
        Kind::IntUnlessZero => Value::Int(written?.parse().ok().filter(|it| *it != 0)?),
        Kind::Uint => Value::UInt(written?.parse().ok()?),
        Kind::Port => Value::Int(written?.rsplit_once(':')?.1.parse().ok()?),
        Kind::Span => {
            let nanoseconds = Duration::from_nanos(written?.parse().ok()?);
            Value::Duration(TimeDelta::from_std(nanoseconds).ok()?)
        }
        Kind::Time => {
            let written = written?;
            let (seconds, fraction) = written.split_once('.')?;
            let at = DateTime::from_timestamp(seconds.parse().ok()?, fraction.parse().ok()?)?;
            Value::Timestamp(at.fixed_offset())
        }
    })
}

/// JSON as CEL; numbers are of floating point, as in protobuf's structures.
fn cel(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(value) => Value::Float(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => value.into(),
        serde_json::Value::Array(items) => items.into_iter().map(cel).collect::<Vec<_>>().into(),
        serde_json::Value::Object(members) => {
            let members = members.into_iter().map(|(name, member)| (name, cel(member)));
            members.collect::<HashMap<_, _>>().into()
        }
    }
}

/// The attribute `root.member`, except headers; none if this proxy has none of that name.
pub(super) fn find(root: &str, member: &str) -> Option<Source> {
    let fact = |(operator, kind)| Source::Fact(Box::new(operator), kind);
    match root {
        "request" => request(member),
        "response" => response(member),
        "connection" => connection(member).map(fact),
        "upstream" => upstream(member).map(fact),
        "source" => match member {
            "address" => Some(fact((Operator::DownstreamRemoteAddress, Kind::Text))),
            "port" => Some(fact((Operator::DownstreamRemotePort, Kind::Int))),
            _ => None,
        },
        "destination" => match member {
            "address" => Some(fact((Operator::DownstreamLocalAddress, Kind::Text))),
            "port" => Some(fact((Operator::DownstreamLocalPort, Kind::Int))),
            _ => None,
        },
        "xds" => xds(member),
        "filter_state" => {
            let operator = Operator::FilterState { key: member.into(), plain: true };
            Some(fact((operator, Kind::Bytes)))
        }
        _ => None,
    }
}

fn header(name: &str) -> Option<Operator> {
    Fields::Request.operator(name)
}

fn request(member: &str) -> Option<Source> {
    let (operator, kind) = match member {
        "path" => (header(":path")?, Kind::Text),
        "url_path" => (Operator::Path { query: false, of: PathOf::Path }, Kind::Text),
        "host" => (header(":authority")?, Kind::Text),
        "scheme" => (header(":scheme")?, Kind::Text),
        "method" => (header(":method")?, Kind::Text),
        "referer" => (header("referer")?, Kind::Text),
        "useragent" => (header("user-agent")?, Kind::Text),
        "id" => (header("x-request-id")?, Kind::Text),
        "protocol" => (Operator::Protocol, Kind::Text),
        "query" => (Operator::QueryParams, Kind::TextOrEmpty),
        "time" => {
            let seconds = TimeFormat::parse("%s.%9f").ok()?;
            (Operator::StartTime(seconds), Kind::Time)
        }
        "duration" => (span(TimePoint::DownstreamRxBegin, TimePoint::DownstreamTxEnd), Kind::Span),
        "headers_bytes" => (Operator::RequestHeadersBytes, Kind::Int),
        "size" => {
            let length = header("content-length")?;
            return Some(Source::First(Box::new([length, Operator::BytesReceived])));
        }
        "total_size" => {
            let parts = [Operator::BytesReceived, Operator::RequestHeadersBytes];
            return Some(Source::Sum(Box::new(parts)));
        }
        _ => return None,
    };
    Some(Source::Fact(Box::new(operator), kind))
}

fn response(member: &str) -> Option<Source> {
    let (operator, kind) = match member {
        "code" => (Operator::ResponseCode, Kind::IntUnlessZero),
        "code_details" => (Operator::ResponseCodeDetails, Kind::Text),
        "flags" => (Operator::ResponseFlagsNumber, Kind::Int),
        "grpc_status" => (Operator::GrpcStatus(GrpcStatusStyle::Number), Kind::Int),
        "size" => (Operator::BytesSent, Kind::Int),
        "headers_bytes" => (Operator::ResponseHeadersBytes, Kind::Int),
        "total_size" => {
            let parts = [Operator::BytesSent, Operator::ResponseHeadersBytes];
            return Some(Source::Sum(Box::new(parts)));
        }
        "backend_latency" => {
            (span(TimePoint::UpstreamTxBegin, TimePoint::UpstreamRxEnd), Kind::Span)
        }
        _ => return None,
    };
    Some(Source::Fact(Box::new(operator), kind))
}

fn span(from: TimePoint, to: TimePoint) -> Operator {
    Operator::CommonDuration { from, to, unit: TimeUnit::Nanoseconds }
}

fn connection(member: &str) -> Option<(Operator, Kind)> {
    Some(match member {
        "mtls" => (Operator::PeerFingerprint256(Peer::Downstream), Kind::Presence),
        "requested_server_name" => (Operator::RequestedServerName, Kind::TextOrEmpty),
        "id" => (Operator::ConnectionId, Kind::Uint),
        "termination_details" => (Operator::ConnectionTerminationDetails, Kind::Text),
        "transport_failure_reason" => (Operator::DownstreamTransportFailureReason, Kind::Text),
        _ => return certificate(member, Peer::Downstream),
    })
}

fn upstream(member: &str) -> Option<(Operator, Kind)> {
    Some(match member {
        "address" => (Operator::UpstreamHost, Kind::Text),
        "port" => (Operator::UpstreamHost, Kind::Port),
        "local_address" => (Operator::UpstreamLocalAddress { with_port: true }, Kind::Text),
        "transport_failure_reason" => (Operator::UpstreamTransportFailureReason, Kind::TextOrEmpty),
        "request_attempt_count" => (Operator::UpstreamRequestAttemptCount, Kind::Uint),
        _ => return certificate(member, Peer::Upstream),
    })
}

fn certificate(member: &str, of: Peer) -> Option<(Operator, Kind)> {
    Some(match member {
        "tls_version" => (Operator::TlsVersion(of), Kind::Text),
        "subject_local_certificate" => (Operator::LocalSubject(of), Kind::Text),
        "subject_peer_certificate" => (Operator::PeerSubject(of), Kind::Text),
        "uri_san_local_certificate" => (Operator::LocalUriSan(of), Kind::FirstText),
        "uri_san_peer_certificate" => (Operator::PeerUriSan(of), Kind::FirstText),
        "dns_san_local_certificate" => (Operator::LocalDnsSan(of), Kind::FirstText),
        "dns_san_peer_certificate" => (Operator::PeerDnsSan(of), Kind::FirstText),
        "sha256_peer_certificate_digest" => (Operator::PeerFingerprint256(of), Kind::Text),
        "peer_certificate" => (Operator::PeerCert(of), Kind::Text),
        _ => return None,
    })
}

fn xds(member: &str) -> Option<Source> {
    let metadata = match member {
        "cluster_metadata" => MetadataOf::Cluster,
        "route_metadata" => MetadataOf::Route,
        "virtual_host_metadata" => MetadataOf::VirtualHost,
        "upstream_host_metadata" => MetadataOf::UpstreamHost,
        "listener_metadata" => MetadataOf::Listener,
        _ => {
            let (operator, kind) = match member {
                "cluster_name" => (Operator::UpstreamCluster, Kind::Text),
                "route_name" => (Operator::RouteName, Kind::Text),
                "virtual_host_name" => (Operator::VirtualHostName, Kind::Text),
                "filter_chain_name" => (Operator::FilterChainName, Kind::TextOrEmpty),
                "listener_direction" => (Operator::ListenerDirection, Kind::Int),
                _ => return None,
            };
            return Some(Source::Fact(Box::new(operator), kind));
        }
    };
    Some(Source::Metadata(metadata))
}
