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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::{location, to_https, to_itself};
    use crate::config::matcher::RequestHead;
    use crate::config::route::{
        PathMatch, PathRedirect, Redirect, RegexRewrite, SchemeRedirect, SubstitutionPiece,
    };
    use crate::route::tests::{get, on_path, prefix, regex};

    fn keep() -> Redirect {
        Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: SchemeRedirect::Keep,
            host: None,
            port: None,
            path: PathRedirect::Keep,
            strip_query: false,
        }
    }

    /// The location for a request to `authority` and `path` over plain text.
    fn to(redirect: &Redirect, matched: PathMatch, authority: &str, path: &str) -> String {
        let headers = HeaderMap::new();
        let head = RequestHead { authority, ..get(path, &headers) };
        location(redirect, &on_path(matched), &head, "http")
    }

    #[test]
    fn scheme_host_and_port_are_replaced_one_by_one() {
        let https = Redirect { scheme: SchemeRedirect::Https, ..keep() };
        let host = Redirect { host: Some("b.com:99".into()), ..keep() };
        let port = Redirect { port: Some(8443), ..keep() };
        let both = Redirect { host: Some("b.com".into()), ..port.clone() };
        for (redirect, authority, expected) in [
            (&keep(), "a.com:80", "http://a.com:80/x?y"),
            (&https, "a.com", "https://a.com/x?y"),
            (&host, "a.com:80", "http://b.com:99/x?y"),
            (&port, "a.com:80", "http://a.com:8443/x?y"),
            (&port, "a.com", "http://a.com:8443/x?y"),
            (&port, "[::1]:80", "http://[::1]:8443/x?y"),
            (&port, "[::1]", "http://[::1]:8443/x?y"),
            (&both, "a.com:80", "http://b.com:8443/x?y"),
        ] {
            assert_eq!(to(redirect, prefix("/"), authority, "/x?y"), expected);
        }
    }

    #[test]
    fn the_old_schemes_default_port_is_dropped_with_the_scheme() {
        let https = Redirect { scheme: SchemeRedirect::Https, ..keep() };
        for (authority, expected) in [
            ("a.com:80", "https://a.com/"),
            ("[::1]:80", "https://[::1]/"),
            ("a.com:443", "https://a.com:443/"),
            ("a.com:8080", "https://a.com:8080/"),
        ] {
            assert_eq!(to(&https, prefix("/"), authority, "/"), expected);
        }
        let headers = HeaderMap::new();
        let http = Redirect { scheme: SchemeRedirect::To("http".into()), ..keep() };
        let head = RequestHead { scheme: "https", authority: "a.com:443", ..get("/", &headers) };
        assert_eq!(location(&http, &on_path(prefix("/")), &head, "https"), "http://a.com/");
        // The URL says http but the connection is TLS: the port belongs to the connection's scheme.
        let head = RequestHead { authority: "a.com:80", ..get("/", &headers) };
        assert_eq!(location(&https, &on_path(prefix("/")), &head, "https"), "https://a.com:80/");
    }

    #[test]
    fn the_path_may_be_replaced_whole_in_part_or_by_pattern() {
        let full = |path: &str| PathRedirect::Full(path.into());
        let pattern = ::regex::Regex::new("^/r/([a-z]+)").unwrap();
        let by_regex = PathRedirect::Regex(RegexRewrite {
            pattern,
            substitution: vec![
                SubstitutionPiece::Literal("/to/".into()),
                SubstitutionPiece::Group(1),
            ],
        });
        for (path, matched, expected, stripped) in [
            (full("/new"), prefix("/r"), "/new?q=2", "/new"),
            (full("/new?own"), prefix("/r"), "/new?own", "/new?own"),
            (full("new"), prefix("/r"), "/new?q=2", "/new"),
            (PathRedirect::Prefix("/x".into()), prefix("/r"), "/x/ab?q=2", "/x/ab"),
            (PathRedirect::Prefix("x".into()), prefix("/r"), "/x/ab?q=2", "/x/ab"),
            (PathRedirect::Prefix("/x".into()), regex("/r.*"), "/x?q=2", "/x"),
            (by_regex, prefix("/r"), "/to/ab?q=2", "/to/ab"),
            (PathRedirect::Keep, prefix("/r"), "/r/ab?q=2", "/r/ab"),
        ] {
            let mut redirect = Redirect { path, ..keep() };
            let kept = to(&redirect, matched.clone(), "a.com", "/r/ab?q=2");
            assert_eq!(kept, format!("http://a.com{expected}"));
            redirect.strip_query = true;
            let without = to(&redirect, matched, "a.com", "/r/ab?q=2");
            assert_eq!(without, format!("http://a.com{stripped}"));
        }
    }

    #[test]
    fn a_request_can_be_sent_to_https_or_to_itself() {
        let headers = HeaderMap::new();
        let head = RequestHead { authority: "a.com:80", ..get("/x?y", &headers) };
        assert_eq!(to_https(&head), "https://a.com:80/x?y");
        assert_eq!(to_itself(&head), "http://a.com:80/x?y");
    }
}
