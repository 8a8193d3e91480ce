//! `csrf`: refuses requests that change something, and that a page of another origin has a browser make.

use http::header::{ORIGIN, REFERER};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

use super::Stopped;
use super::passage::Passage;
use crate::config::http_filter::{CsrfPolicy, FilterRule};
use crate::http::local_reply::LocalReply;

/// Looks at where the request comes from.
///
/// # Errors
/// The answer to a request that comes from elsewhere.
pub(super) fn request(
    own: &CsrfPolicy,
    filter: &str,
    request: &Passage<'_>,
) -> Result<(), Stopped> {
    let rule = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::Csrf(rule) => Some(&**rule),
        _ => None,
    });
    let policy = rule.unwrap_or(own);
    let (stream, head) = (request.stream, request.head());
    let worker = &stream.connection.worker;
    let enabled = policy.enabled.takes(worker.random());
    if !enabled && !policy.shadow_enabled.takes(worker.random()) {
        return Ok(());
    }
    if ![Method::POST, Method::PUT, Method::DELETE, Method::PATCH].contains(&head.method) {
        return Ok(());
    }
    let stats = worker.filter_stats.csrf(&stream.served.config().stat_prefix);
    let source = source(&head.headers);
    if source.is_empty() {
        stats.missing_source_origin.inc();
    } else if is_valid(policy, &source, &head.authority) {
        stats.request_valid.inc();
        return Ok(());
    } else {
        stats.request_invalid.inc();
    }
    if !enabled {
        return Ok(());
    }
    let reply = LocalReply::new(StatusCode::FORBIDDEN, "csrf_origin_mismatch");
    Err(Stopped::Reply(Box::new(reply.body("Invalid origin"))))
}

fn is_valid(policy: &CsrfPolicy, source: &str, authority: &str) -> bool {
    source == host_and_port(authority)
        || policy.additional_origins.iter().any(|origin| origin.matches(source.as_bytes()))
}

/// The host and port that the request comes from; empty if it does not say.
fn source(headers: &HeaderMap) -> String {
    let of = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.filter(|value| *value != "null").map(host_and_port).unwrap_or_default()
    };
    let origin = of(ORIGIN);
    if origin.is_empty() { of(REFERER) } else { origin }
}

/// The host and port of a URL, without who asks there; what is none stays as it is.
fn host_and_port(url: &str) -> String {
    let uri = url.contains("://").then(|| url.parse::<Uri>().ok()).flatten();
    let Some(authority) = uri.as_ref().and_then(Uri::authority) else { return url.to_owned() };
    let authority = authority.as_str();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned()
}
