//! The path and host of the forwarded request.
//!
//! Both look at the request after its header changes ([`RouteTable::mutate_request`](super::RouteTable::mutate_request)),
//! first the host, then the path, as in Envoy.

use std::borrow::Cow;

use http::HeaderValue;

use crate::config::format::Facts;
use crate::config::matcher::RequestHead;
use crate::config::route::{
    HostRewrite, PathMatch, PathRewrite, RegexRewrite, RouteAction, RouteMatch, WeightedCluster,
};

/// The path and query to forward instead of the request's; none leaves them as they are.
///
/// The query is kept. Slashes are never merged: a prefix `/api` rewritten to `/` makes `//x` of `/api/x`.
/// When some, the router puts the path it replaces into `x-envoy-original-path`, unless Envoy's headers
/// are suppressed.
pub fn path(
    matched: &RouteMatch,
    rewrite: &PathRewrite,
    head: &RequestHead<'_>,
    facts: &dyn Facts,
) -> Option<String> {
    match rewrite {
        PathRewrite::None => None,
        PathRewrite::Prefix(prefix) => replace_matched(matched, prefix, head),
        PathRewrite::Regex(rewrite) => replace_by_regex(rewrite, head),
        PathRewrite::Full(format) => {
            let mut path = Vec::new();
            format.render(facts, "", &mut path);
            replace_path(&String::from_utf8(path).ok()?, head)
        }
    }
}

/// The host to forward instead of the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// The new `host` or `:authority`.
    pub name: Cow<'a, str>,
    /// The host it replaces, which the router shows in `x-envoy-original-host` and, where the route asks for
    /// it, appends to `x-forwarded-host`. None for a weighted cluster's host: Envoy replaces silently there.
    pub original: Option<&'a str>,
}

/// The host to forward instead of the request's; none leaves it as it is.
///
/// [`HostRewrite::Auto`] is none here too: the endpoint's name is known only once it is chosen.
pub fn host<'a>(
    action: &'a RouteAction,
    weighted: Option<&'a WeightedCluster>,
    head: &RequestHead<'a>,
    facts: &dyn Facts,
) -> Option<Host<'a>> {
    let silent = weighted.and_then(|cluster| cluster.host_rewrite.as_deref());
    let name = match &action.host_rewrite {
        HostRewrite::None | HostRewrite::Auto => None,
        HostRewrite::Literal(host) => Some(Cow::Borrowed(&**host)),
        HostRewrite::Header(name) => {
            let value = head.headers.get(name).map(HeaderValue::to_str);
            value.and_then(Result::ok).map(Cow::Borrowed)
        }
        HostRewrite::Format(format) => {
            let mut host = Vec::new();
            format.render(facts, "-", &mut host);
            String::from_utf8(host).ok().map(Cow::Owned)
        }
        HostRewrite::PathRegex(rewrite) => Some(Cow::Owned(rewrite.apply(head.path()))),
    };
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Some(Host { name, original: Some(silent.unwrap_or(head.authority)) }),
        None => silent.map(|name| Host { name: Cow::Borrowed(name), original: None }),
    }
}

/// The path with its matched part replaced: the prefix, or all of it where the route has none.
pub(super) fn replace_matched(
    matched: &RouteMatch,
    replacement: &str,
    head: &RequestHead<'_>,
) -> Option<String> {
    let old = match &matched.path {
        PathMatch::Prefix { value, .. }
        | PathMatch::SeparatedPrefix { value, .. }
        | PathMatch::Exact { value, .. } => value.len(),
        PathMatch::Regex(_) | PathMatch::Connect => head.path().len(),
    };
    let rest = head.path_and_query.get(old..)?;
    (!replacement.is_empty()).then(|| [replacement, rest].concat())
}

/// The path with every match of a regular expression replaced, and the query as it was.
pub(super) fn replace_by_regex(rewrite: &RegexRewrite, head: &RequestHead<'_>) -> Option<String> {
    replace_path(&rewrite.apply(head.path()), head)
}

fn replace_path(path: &str, head: &RequestHead<'_>) -> Option<String> {
    let rest = head.path_and_query.get(head.path().len()..)?;
    (!path.is_empty()).then(|| [path, rest].concat())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Host, host, path};
    use crate::config::format::Format;
    use crate::config::route::{
        ClusterSpecifier, HostRewrite, PathMatch, PathRewrite, RegexRewrite, RouteAction,
        SubstitutionPiece, WeightedCluster,
    };
    use crate::route::tests::{
        FewFacts, exact, forward, get, on_path, prefix, regex, separated, weighted,
    };

    fn rewritten(matched: PathMatch, rewrite: &PathRewrite, request: &str) -> Option<String> {
        path(&on_path(matched), rewrite, &get(request, &HeaderMap::new()), &FewFacts)
    }

    fn by_regex(pattern: &str, substitution: SubstitutionPiece) -> RegexRewrite {
        let pattern = ::regex::Regex::new(pattern).unwrap();
        RegexRewrite { pattern, substitution: vec![substitution] }
    }

    #[test]
    fn a_prefix_rewrite_replaces_what_was_matched() {
        let to = |text: &str| PathRewrite::Prefix(text.into());
        for (matched, rewrite, request, expected) in [
            (prefix("/api/"), "/", "/api//x?q=/api/", "//x?q=/api/"),
            (prefix("/api"), "/", "/api/x", "//x"),
            (exact("/old"), "/new", "/old?q", "/new?q"),
            (exact("/old"), "/new", "/old;a=b?q", "/new;a=b?q"),
            (separated("/sep"), "/x", "/SEP/y?z=1", "/x/y?z=1"),
            (regex("/whole/.*"), "/w", "/whole/a/b?c=d", "/w?c=d"),
            (PathMatch::Connect, "/w", "/a", "/w"),
        ] {
            assert_eq!(rewritten(matched, &to(rewrite), request).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_regex_rewrite_keeps_the_query() {
        let rewrite = by_regex("^/service/([^/]+)(/.*)$", SubstitutionPiece::Group(2));
        let rewritten = rewritten(prefix("/"), &PathRewrite::Regex(rewrite), "/service/a/b?c=/d");
        assert_eq!(rewritten.as_deref(), Some("/b?c=/d"));
    }

    #[test]
    fn a_full_rewrite_is_formatted() {
        let rewrite = PathRewrite::Full(Format::parse("/n%PATH%%ROUTE_NAME%").unwrap());
        let rewritten = rewritten(prefix("/"), &rewrite, "/full/a?b=c");
        assert_eq!(rewritten.as_deref(), Some("/n/facts?q?b=c"));
    }

    #[test]
    fn a_rewrite_to_nothing_changes_nothing() {
        let nothing = by_regex(".*", SubstitutionPiece::Literal("".into()));
        assert_eq!(rewritten(prefix("/"), &PathRewrite::Regex(nothing), "/a?b"), None);
        assert_eq!(rewritten(prefix("/"), &PathRewrite::Full(Format::default()), "/a?b"), None);
        assert_eq!(rewritten(prefix("/"), &PathRewrite::None, "/a?b"), None);
    }

    fn action(host_rewrite: HostRewrite) -> RouteAction {
        RouteAction { host_rewrite, ..forward(ClusterSpecifier::Name("c".into())) }
    }

    #[test]
    fn the_host_comes_from_where_the_route_says() {
        let mut headers = HeaderMap::new();
        headers.insert("x-host", HeaderValue::from_static("header.host"));
        let to = |rewrite: HostRewrite| {
            let action = action(rewrite);
            let head = get("/tenant/x?y", &headers);
            host(&action, None, &head, &FewFacts).map(|host| host.name.into_owned())
        };
        let from_header = |name| HostRewrite::Header(HeaderName::from_static(name));
        let by_path = by_regex("^/([^/]+)/.*$", SubstitutionPiece::Group(1));
        assert_eq!(to(HostRewrite::Literal("b.com".into())).as_deref(), Some("b.com"));
        assert_eq!(to(from_header("x-host")).as_deref(), Some("header.host"));
        assert_eq!(to(from_header("x-missing")), None);
        assert_eq!(to(HostRewrite::PathRegex(by_path)).as_deref(), Some("tenant"));
        assert_eq!(to(HostRewrite::None), None);
        assert_eq!(to(HostRewrite::Auto), None);
    }

    #[test]
    fn the_routes_host_overrides_the_weighted_clusters_silent_one() {
        let weighted =
            WeightedCluster { host_rewrite: Some("weighted.host".into()), ..weighted("c", 1) };
        let headers = HeaderMap::new();
        let head = get("/", &headers);
        let silent = action(HostRewrite::None);
        let expected = Host { name: Cow::Borrowed("weighted.host"), original: None };
        assert_eq!(host(&silent, Some(&weighted), &head, &FewFacts), Some(expected));
        let loud = action(HostRewrite::Literal("route.host".into()));
        let expected = Host { name: Cow::Borrowed("route.host"), original: Some("weighted.host") };
        assert_eq!(host(&loud, Some(&weighted), &head, &FewFacts), Some(expected));
        let alone = host(&loud, None, &head, &FewFacts).unwrap();
        assert_eq!(alone.original, Some("a.com"));
    }
}
