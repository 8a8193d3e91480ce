//! The `location` of answers that send the client elsewhere.

use std::borrow::Cow;

use super::rewrite::{replace_by_regex, replace_matched};
use crate::config::matcher::RequestHead;
use crate::config::route::{PathRedirect, Redirect, RouteMatch, SchemeRedirect};

/// Where `redirect` sends the request. `forwarded_proto` is the final `x-forwarded-proto`, which tells the
/// port the client used by default.
pub fn location(
    redirect: &Redirect,
    matched: &RouteMatch,
    head: &RequestHead<'_>,
    forwarded_proto: &str,
) -> String {
    let scheme = match &redirect.scheme {
        SchemeRedirect::Keep => head.scheme,
        SchemeRedirect::Https => "https",
        SchemeRedirect::To(scheme) => scheme,
    };
    let host = match &redirect.host {
        Some(host) => host,
        None if redirect.port.is_some() => split_port(head.authority).0,
        None => without_default_port(head.authority, scheme, forwarded_proto),
    };
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = path(redirect, matched, head);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}{port}{slash}{path}")
}

/// The same address over https (Envoy `require_tls`).
pub fn to_https(head: &RequestHead<'_>) -> String {
    format!("https://{}{}", head.authority, head.path_and_query)
}

/// The request's own address: the location of a direct response with status 201 or 3xx.
pub fn to_itself(head: &RequestHead<'_>) -> String {
    format!("{}://{}{}", head.scheme, head.authority, head.path_and_query)
}

/// The new path and query. A query in `path_redirect` takes the place of the request's and is never stripped.
fn path<'a>(redirect: &'a Redirect, matched: &RouteMatch, head: &RequestHead<'a>) -> Cow<'a, str> {
    let path = match &redirect.path {
        PathRedirect::Full(path) if path.contains('?') => return Cow::Borrowed(path),
        PathRedirect::Full(path) => match head.path_and_query.split_once('?') {
            Some((_, query)) => Some(format!("{path}?{query}")),
            None => Some(path.to_string()),
        },
        PathRedirect::Prefix(prefix) => replace_matched(matched, prefix, head),
        PathRedirect::Regex(rewrite) => replace_by_regex(rewrite, head),
        PathRedirect::Keep => None,
    };
    let mut path = path.map_or(Cow::Borrowed(head.path_and_query), Cow::Owned);
    if redirect.strip_query
        && let Some((stripped, _)) = path.split_once('?')
    {
        path = Cow::Owned(stripped.to_owned());
    }
    path
}

/// The host with its port, unless that is the default of the scheme the client leaves.
fn without_default_port<'a>(authority: &'a str, scheme: &str, forwarded_proto: &str) -> &'a str {
    match (split_port(authority), forwarded_proto) {
        ((host, Some("80")), "http") | ((host, Some("443")), "https")
            if scheme != forwarded_proto =>
        {
            host
        }
        _ => authority,
    }
}

/// Host and port; the colons of an IPv6 literal separate no port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    let host = super::virtual_host::without_port(authority);
    (host, authority.get(host.len() + 1..))
}
