//! What an authorization service is asked: a request or a connection in the words of `envoy.service.auth.v3`.

use std::time::SystemTime;

use http::Version;
use prost_types::Timestamp;
use xds::envoy::config::core::v3 as core;
use xds::envoy::config::core::v3::address::Address;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use xds::envoy::service::auth::v3::{AttributeContext, CheckRequest};

use crate::config::address::HostAddress;
use crate::config::ext_authz::{BodyLimit, Tells};
use crate::config::metadata::Metadata;
use crate::http::connection::Downstream;
use crate::http::stream::Head;
use crate::net::structure::structure;
use crate::tls::certificate::Certificate;

/// Says whether the body that is told is only the beginning of it.
pub(super) const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// The part of a request's body that is told.
#[derive(Debug, Clone, Default)]
pub(super) struct ToldBody {
    /// Up to `max_request_bytes` of it.
    pub(super) bytes: bytes::Bytes,
    /// Whether there is more.
    pub(super) is_partial: bool,
}

/// A request as a service is told of it.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) tells: &'a Tells,
    pub(super) downstream: &'a Downstream,
    pub(super) head: &'a Head,
    /// When it came.
    pub(super) time: SystemTime,
    /// Some number of its own.
    pub(super) id: u64,
    /// Bytes of its body that came so far.
    pub(super) received: u64,
    /// Its body, if it is told.
    pub(super) body: Option<(&'a ToldBody, BodyLimit)>,
    pub(super) dynamic: Option<&'a Metadata>,
    pub(super) route: Option<&'a Metadata>,
}

/// The question about a request. `extensions` come from its route.
pub(super) fn of_request<'a>(
    asked: &Asked<'_>,
    extensions: impl Iterator<Item = (&'a str, &'a str)>,
) -> CheckRequest {
    let Asked { tells, downstream, head, .. } = asked;
    let mut source = source(downstream, tells.certificate);
    let service = head.headers.get("x-envoy-downstream-service-cluster");
    source.service = service.map(|it| text(it.as_bytes())).unwrap_or_default();
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let context = AttributeContext {
        source: Some(source),
        destination: Some(destination(downstream)),
        request: Some(Request { time: Some(Timestamp::from(asked.time)), http: Some(http(asked)) }),
        context_extensions: extensions.map(own).collect(),
        metadata_context: Some(metadata(asked.dynamic, &tells.metadata)),
        route_metadata_context: Some(metadata(asked.route, &tells.route_metadata)),
        tls_session: tls_session(downstream, tells.tls_session),
    };
    CheckRequest { attributes: Some(context) }
}

/// The question about a connection; it tells the client's certificate and the server name asked for, if it
/// is meant to.
pub(crate) fn of_connection(
    downstream: &Downstream,
    certificate: bool,
    session: bool,
) -> CheckRequest {
    let context = AttributeContext {
        source: Some(source(downstream, certificate)),
        destination: Some(destination(downstream)),
        metadata_context: Some(core::Metadata::default()),
        tls_session: tls_session(downstream, session),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(context) }
}

fn source(downstream: &Downstream, certificate: bool) -> Peer {
    let peer = downstream.tls.as_ref().and_then(|tls| tls.certificate());
    let pem = peer.filter(|_| certificate).map(Certificate::url_encoded_pem);
    Peer {
        address: Some(address(&downstream.shown(downstream.remote))),
        principal: peer.map(principal).unwrap_or_default(),
        certificate: pem.unwrap_or_default().to_owned(),
        ..Peer::default()
    }
}

fn destination(downstream: &Downstream) -> Peer {
    let own = downstream.tls.as_ref().and_then(|tls| tls.local());
    Peer {
        address: Some(address(&downstream.shown(downstream.local))),
        principal: own.map(principal).unwrap_or_default(),
        ..Peer::default()
    }
}

/// The first name that there is: a URI, a DNS name, the subject.
fn principal(certificate: &Certificate) -> String {
    let mut names = certificate.uri_sans().iter().chain(certificate.dns_sans());
    names.next().map_or_else(|| certificate.subject().to_owned(), Clone::clone)
}

fn tls_session(downstream: &Downstream, told: bool) -> Option<TlsSession> {
    let sni = downstream.server_name.as_deref().unwrap_or_default();
    told.then(|| TlsSession { sni: sni.to_owned() })
}

fn address(address: &HostAddress) -> core::Address {
    let address = match address {
        HostAddress::Ip(address) => address,
        HostAddress::Pipe(path) => {
            let pipe = core::Pipe { path: path.to_string(), ..core::Pipe::default() };
            return core::Address { address: Some(Address::Pipe(pipe)) };
        }
    };
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(Address::SocketAddress(socket)) }
}

fn http(asked: &Asked<'_>) -> HttpRequest {
    let head = asked.head;
    let mut http = HttpRequest {
        id: asked.id.to_string(),
        method: head.method.as_str().to_owned(),
        path: head.path.to_string(),
        host: head.authority.to_string(),
        scheme: head.scheme.to_owned(),
        size: i64::try_from(asked.received).unwrap_or(i64::MAX),
        protocol: protocol(head.version).to_owned(),
        ..HttpRequest::default()
    };
    let mut told = headers(asked.tells, head);
    if let Some((body, limit)) = asked.body {
        told.push((PARTIAL_BODY.to_owned(), body.is_partial.to_string().into_bytes()));
        if limit.as_bytes {
            http.raw_body = body.bytes.to_vec();
        } else {
            http.body = text(&body.bytes);
        }
    }
    if asked.tells.raw_headers {
        let value =
            |(key, raw_value)| core::HeaderValue { key, raw_value, ..core::HeaderValue::default() };
        let headers = told.into_iter().map(value).collect();
        http.header_map = Some(core::HeaderMap { headers });
    } else {
        for (name, value) in told {
            join(http.headers.entry(name).or_default(), &value);
        }
    }
    http
}

/// The headers that are told, pseudo headers first.
pub(super) fn headers(tells: &Tells, head: &Head) -> Vec<(String, Vec<u8>)> {
    let pseudo = [
        (":authority", &*head.authority),
        (":path", &*head.path),
        (":method", head.method.as_str()),
        (":scheme", head.scheme),
    ];
    let pseudo = pseudo.into_iter().map(|(name, value)| (name, value.as_bytes()));
    let others = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let told = pseudo.chain(others).filter(|(name, _)| tells.header(name));
    told.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

/// Appends one more value of a header.
fn join(values: &mut String, value: &[u8]) {
    if !values.is_empty() {
        values.push(',');
    }
    values.push_str(&text(value));
}

/// What is no UTF-8 becomes an exclamation mark, as in Envoy: messages hold nothing else.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::REPLACEMENT_CHARACTER, "!")
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// What `namespaces` hold.
fn metadata(metadata: Option<&Metadata>, namespaces: &[Box<str>]) -> core::Metadata {
    let held = namespaces.iter().filter_map(|name| {
        let values = metadata?.namespace(name)?;
        Some((name.to_string(), structure(values)))
    });
    core::Metadata { filter_metadata: held.collect() }
}
