//! Whether one route's conditions hold for a request.

use http::Method;
use http::header::{CONTENT_TYPE, UPGRADE};

use super::Circumstances;
use crate::config::matcher::RequestHead;
use crate::config::route::{PathMatch, RouteMatch};

/// The first condition of a route that a request does not meet, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The path.
    Path,
    /// `runtime_fraction`
    RuntimeFraction,
    /// `grpc`: it is no gRPC request.
    Grpc,
    /// `headers`, by place.
    Header(usize),
    /// `query_parameters`, by place.
    QueryParameter(usize),
    /// `tls_context`
    Tls,
    /// `dynamic_metadata`, by place.
    DynamicMetadata(usize),
}

/// The first of `conditions` that does not hold; `path` is the part of the path that is matched.
pub(super) fn mismatch(
    conditions: &RouteMatch,
    head: &RequestHead<'_>,
    path: &str,
    random: u64,
    circumstances: Circumstances<'_>,
) -> Option<Mismatch> {
    let Circumstances { tls, metadata } = circumstances;
    if !path_matches(&conditions.path, head, path) {
        return Some(Mismatch::Path);
    }
    if conditions.runtime_fraction.is_some_and(|fraction| !fraction.takes(random)) {
        return Some(Mismatch::RuntimeFraction);
    }
    if conditions.grpc && !is_grpc(head) {
        return Some(Mismatch::Grpc);
    }
    if let Some(at) = conditions.headers.iter().position(|header| !header.matches(head)) {
        return Some(Mismatch::Header(at));
    }
    let mut parameters = conditions.query_parameters.iter();
    if let Some(at) = parameters.position(|parameter| !parameter.matches(head.query())) {
        return Some(Mismatch::QueryParameter(at));
    }
    let has_tls = conditions.tls.is_none_or(|wanted| {
        wanted.presented.is_none_or(|presented| presented == tls.presented)
            && wanted.validated.is_none_or(|validated| validated == tls.validated)
    });
    if !has_tls {
        return Some(Mismatch::Tls);
    }
    let at = conditions.dynamic_metadata.iter().position(|wanted| !wanted.matches(metadata))?;
    Some(Mismatch::DynamicMetadata(at))
}

fn path_matches(wanted: &PathMatch, head: &RequestHead<'_>, path: &str) -> bool {
    match wanted {
        PathMatch::Exact { value, case_sensitive } => {
            path.len() == value.len() && begins_with(path, value, *case_sensitive)
        }
        PathMatch::Prefix { value, case_sensitive } => begins_with(path, value, *case_sensitive),
        PathMatch::SeparatedPrefix { value, case_sensitive } => {
            begins_with(path, value, *case_sensitive)
                && path.as_bytes().get(value.len()).is_none_or(|next| *next == b'/')
        }
        PathMatch::Regex(regex) => regex.is_match(path.as_bytes()),
        PathMatch::Connect => is_connect(head),
    }
}

fn begins_with(path: &str, prefix: &str, case_sensitive: bool) -> bool {
    path.as_bytes().get(..prefix.len()).is_some_and(|head| {
        if case_sensitive {
            head == prefix.as_bytes()
        } else {
            head.eq_ignore_ascii_case(prefix.as_bytes())
        }
    })
}

/// Whether `head` asks for a tunnel: CONNECT, or an upgrade to `connect-udp`.
pub(super) fn is_connect(head: &RequestHead<'_>) -> bool {
    head.method == Method::CONNECT
        || head
            .headers
            .get(UPGRADE)
            .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"connect-udp"))
}

/// `application/grpc` or `application/grpc+…`; `application/grpc-web` is not gRPC.
fn is_grpc(head: &RequestHead<'_>) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    content_type
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| rest.first().is_none_or(|next| *next == b'+'))
}
