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
) -> Option<Host<'a>> {
    let silent = weighted.and_then(|cluster| cluster.host_rewrite.as_deref());
    let name = match &action.host_rewrite {
        HostRewrite::None | HostRewrite::Auto => None,
        HostRewrite::Literal(host) => Some(Cow::Borrowed(&**host)),
        HostRewrite::Header(name) => {
            let value = head.headers.get(name).map(HeaderValue::to_str);
            value.and_then(Result::ok).map(Cow::Borrowed)
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
