//! Whether one route's conditions hold for a request.

use http::Method;
use http::header::{CONTENT_TYPE, UPGRADE};

use super::Circumstances;
use crate::config::matcher::RequestHead;
use crate::config::route::{PathMatch, RouteMatch};

/// Whether all conditions of `conditions` hold; `path` is the part of the path that is matched.
pub(super) fn matches(
    conditions: &RouteMatch,
    head: &RequestHead<'_>,
    path: &str,
    random: u64,
    circumstances: Circumstances<'_>,
) -> bool {
    let Circumstances { tls, metadata } = circumstances;
    path_matches(&conditions.path, head, path)
        && conditions.runtime_fraction.is_none_or(|fraction| fraction.takes(random))
        && (!conditions.grpc || is_grpc(head))
        && conditions.headers.iter().all(|header| header.matches(head))
        && conditions.query_parameters.iter().all(|parameter| parameter.matches(head.query()))
        && conditions.tls.is_none_or(|wanted| {
            wanted.presented.is_none_or(|presented| presented == tls.presented)
                && wanted.validated.is_none_or(|validated| validated == tls.validated)
        })
        && conditions.dynamic_metadata.iter().all(|wanted| wanted.matches(metadata))
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
