//! Conditions of routes in words.

use crate::config::matcher::{
    HeaderMatcher, HeaderRef, HeaderRule, RequestHead, StringMatcher, StringPattern,
};
use crate::config::route::{PathMatch, RouteMatch};
use crate::route::Mismatch;

/// Why a route is not taken.
pub(super) fn why_not(
    conditions: &RouteMatch,
    mismatch: Mismatch,
    head: &RequestHead<'_>,
) -> String {
    match mismatch {
        Mismatch::Path => {
            format!("it wants {}, the path is {}", path(&conditions.path), head.path())
        }
        Mismatch::RuntimeFraction => match conditions.runtime_fraction {
            Some(share) => format!(
                "it takes {} of {} requests, and not the one with this --random number",
                share.numerator, share.denominator
            ),
            None => String::new(),
        },
        Mismatch::Grpc => "it wants gRPC, the content-type says otherwise".to_owned(),
        Mismatch::Header(at) => match conditions.headers.get(at) {
            Some(matcher) => format!("it wants {}, {}", header(matcher), actual(matcher, head)),
            None => String::new(),
        },
        Mismatch::QueryParameter(at) => match conditions.query_parameters.get(at) {
            Some(wanted) => {
                let value = wanted.value.as_ref().map(string).unwrap_or_default();
                format!("it wants query parameter {} {value}", wanted.name)
            }
            None => String::new(),
        },
        Mismatch::Tls => "its tls_context wants another client certificate".to_owned(),
        Mismatch::DynamicMetadata(at) => match conditions.dynamic_metadata.get(at) {
            Some(wanted) => format!(
                "it wants dynamic metadata {}:{}, which no filter sets here",
                wanted.namespace,
                wanted.path.join(".")
            ),
            None => String::new(),
        },
    }
}

/// The conditions of a route, path first.
pub(super) fn route(conditions: &RouteMatch) -> String {
    let mut text = path(&conditions.path);
    for matcher in &conditions.headers {
        text.push_str(", ");
        text.push_str(&header(matcher));
    }
    for wanted in &conditions.query_parameters {
        text.push_str(", query parameter ");
        text.push_str(&wanted.name);
    }
    text
}

fn path(wanted: &PathMatch) -> String {
    match wanted {
        PathMatch::Prefix { value, .. } => format!("prefix {value}"),
        PathMatch::Exact { value, .. } => format!("path {value}"),
        PathMatch::SeparatedPrefix { value, .. } => format!("path_separated_prefix {value}"),
        PathMatch::Regex(regex) => format!("regex {}", regex.source()),
        PathMatch::Connect => "CONNECT".to_owned(),
    }
}

fn header(matcher: &HeaderMatcher) -> String {
    let name = name(&matcher.header);
    let not = if matcher.invert { "not " } else { "" };
    match &matcher.rule {
        HeaderRule::Present(true) => format!("header {name} {not}present"),
        HeaderRule::Present(false) => format!("header {name} {not}absent"),
        HeaderRule::Value(value) => format!("header {name} {not}{}", string(value)),
        HeaderRule::Range { start, end } => format!("header {name} {not}in {start}..{end}"),
    }
}

fn actual(matcher: &HeaderMatcher, head: &RequestHead<'_>) -> String {
    match matcher.header.value(head) {
        Some(value) => format!("it is {:?}", String::from_utf8_lossy(&value)),
        None => "it is absent".to_owned(),
    }
}

fn name(header: &HeaderRef) -> &str {
    match header {
        HeaderRef::Method => ":method",
        HeaderRef::Path => ":path",
        HeaderRef::Authority => ":authority",
        HeaderRef::Scheme => ":scheme",
        HeaderRef::Named(name) => name.as_str(),
    }
}

fn string(matcher: &StringMatcher) -> String {
    match matcher.pattern() {
        StringPattern::Exact(text) => format!("exact {text:?}"),
        StringPattern::Prefix(text) => format!("prefix {text:?}"),
        StringPattern::Suffix(text) => format!("suffix {text:?}"),
        StringPattern::Contains(text) => format!("containing {text:?}"),
        StringPattern::Regex(regex) => format!("matching {}", regex.source()),
    }
}
