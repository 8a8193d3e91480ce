//! A request's head made canonical once: checked, its path and host normalised, its caller identified, its hop
//! taken off. What is matched afterwards is what is forwarded.

use std::borrow::Cow;
use std::rc::Rc;

use http::header::{CONNECTION, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::client_cert::{self, Hop};
use super::connection::{Connection, Served};
use super::forwarded::{self, Caller};
use super::head_guard::Offence;
use super::local_reply::LocalReply;
use super::path::{self, Canonical};
use super::protocol::{self, Reject};
use super::stream::{Head, Stream};
use super::{hop_by_hop, host, request_id, upgrade};
use crate::telemetry::response_flags::ResponseFlags;

/// Brings the head of `stream`'s request into canonical form and fixes it there; `offence` is what was wrong
/// with its bytes.
///
/// # Errors
/// The answer for a request that goes no further; its head is fixed all the same, for the logs.
pub fn admit(
    stream: &Stream,
    mut parts: Parts,
    offence: Option<Offence>,
) -> Result<(), Box<LocalReply>> {
    let config = stream.served.config();
    let version = parts.version;
    let worker = &stream.connection.worker;
    let extended = worker.with_random(|random| upgrade::from_extended_connect(&mut parts, random));
    stream.set_extended_connect(extended);
    let refused = |reject: Reject| refuse(stream, version, reject);
    let strips = worker.shared.strip_fragments;
    let checked = match offence {
        Some(Offence::Fragment) if strips => protocol::check(&parts, &config.http1, &config.limits),
        Some(offence) => Err(offence.reject()),
        None => protocol::check(&parts, &config.http1, &config.limits),
    };
    let checked = checked.map_err(refused);
    let authority = checked.as_ref().map_or("", |authority| authority);
    let port = stream.connection.downstream.local.port();
    let authority =
        host::stripped(authority, config.strip_port, config.strip_trailing_host_dot, port);
    let authority: Rc<str> = authority.into();
    let checked = checked.map(drop);
    let target = target(&parts, strips);
    let path = path::canonical(&target, &config.path);
    let mut headers = std::mem::take(&mut parts.headers);
    let action = config.limits.underscores;
    let checked = checked.and_then(|()| {
        protocol::apply_underscores(&mut headers, action, parts.version).map_err(refused)
    });
    let scheme = identify(stream, &mut headers, &parts);
    let (path, checked) = settle(stream, path, target, checked);
    let method = parts.method;
    stream.set_head(Head { method, scheme, authority, path, headers, version });
    checked
}

/// The answer to a request that breaks a rule. Whoever sent it is not listened to any further.
fn refuse(stream: &Stream, version: Version, reject: Reject) -> Box<LocalReply> {
    let mut reply = LocalReply::new(reject.status, reject.details);
    if reject.protocol_error {
        stream.served.stats.downstream_cx_protocol_error.inc();
        reply = reply.flag(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
    }
    if version != Version::HTTP_2 {
        reply = reply.header(CONNECTION, HeaderValue::from_static("close"));
    }
    Box::new(reply)
}

/// Path and query as the client sent them, without a fragment if `strips`; the authority for CONNECT.
fn target(parts: &Parts, strips: bool) -> Cow<'static, str> {
    match parts.uri.path_and_query() {
        Some(target) => {
            let end = target.as_str().find('#').filter(|_| strips);
            let target = end.and_then(|end| target.as_str().get(..end)).unwrap_or(target.as_str());
            Cow::Owned(target.to_owned())
        }
        None => Cow::Borrowed(if parts.method == Method::CONNECT { "" } else { "/" }),
    }
}

/// The path to go on with, and the answer if there is none to go on with.
fn settle(
    stream: &Stream,
    path: Canonical,
    target: Cow<'static, str>,
    checked: Result<(), Box<LocalReply>>,
) -> (Rc<str>, Result<(), Box<LocalReply>>) {
    let stats = &stream.served.stats;
    let unchanged = Rc::from(target);
    match path {
        Canonical::Unchanged => (unchanged, checked),
        Canonical::Rewritten(path) => (path.into(), checked),
        Canonical::Redirect(location) => {
            stats.downstream_rq_redirected_with_normalized_path.inc();
            let reply = LocalReply::redirect(StatusCode::TEMPORARY_REDIRECT, &location);
            let reply = LocalReply { details: "path_normalization_failed".into(), ..reply };
            (unchanged, checked.and(Err(Box::new(reply))))
        }
        Canonical::Reject(details) => {
            stats.downstream_rq_failed_path_normalization.inc();
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, details);
            (unchanged, checked.and(Err(Box::new(reply))))
        }
    }
}

/// Takes off the client's hop and writes down who is calling; returns the scheme.
fn identify(stream: &Stream, headers: &mut HeaderMap, parts: &Parts) -> &'static str {
    let (connection, served) = (&stream.connection, &stream.served);
    let config = served.config();
    let may_upgrade = parts.version != Version::HTTP_2 || stream.is_extended_connect();
    let upgrades = may_upgrade && upgrade::requested(headers).is_some();
    hop_by_hop::strip_request(headers, upgrades);
    headers.remove(HOST);
    if !config.proxy_100_continue {
        // The codec answers it as soon as the body is read.
        headers.remove(EXPECT);
    }
    let internal_only: &[_] =
        stream.table().map_or(&[], |table| &table.config().internal_only_headers);
    let caller = forwarded::apply(headers, config, internal_only, &connection.forwarded);
    let Caller { address, internal, edge } = caller;
    stream.client.set(address);
    stream.internal.set(internal);
    connection.worker.with_random(|random| {
        request_id::ensure(headers, config.request_id, edge, random);
    });
    let tls = connection.downstream.tls.as_ref();
    let presented = tls.is_some_and(|peer| peer.presented());
    client_cert::apply(headers, config.forward_client_cert, presented, || {
        served.client_cert_element(connection)
    });
    if let Some(via) = &served.http.fixed.via {
        hop_by_hop::append_via(headers, via);
    }
    forwarded::scheme(parts.uri.scheme(), headers, config, &connection.forwarded)
}

impl Served {
    /// This hop's element of `x-forwarded-client-cert`, made once per connection and configuration.
    fn client_cert_element(&self, connection: &Connection) -> Option<HeaderValue> {
        let make = || {
            let peer = connection.downstream.tls.as_ref()?;
            Hop::of(peer, self.config().client_cert_details)?.element()
        };
        self.client_cert.get_or_init(make).clone()
    }
}
