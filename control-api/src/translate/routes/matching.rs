//! Which requests a route is for.

use std::collections::BTreeMap;

use xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use xds::envoy::config::route::v3::route_match::PathSpecifier;
use xds::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use xds::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment::Segment};
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use xds::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use xds::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher,
    list_matcher,
};

use crate::model::istio::virtual_service::{HttpMatchRequest, StringMatch};

/// Every request.
pub(super) fn everything() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    }
}

/// What a virtual service asks for. Its port, source and gateways are not in it: they are settled before. With
/// `segments`, prefixes are of whole segments of a path, as the Gateway API has them.
pub(super) fn translated(wanted: Option<&HttpMatchRequest>, segments: bool) -> RouteMatch {
    let mut out = everything();
    let Some(wanted) = wanted else { return out };
    for (name, value) in &wanted.headers {
        match claim(name, value) {
            Some(claim) => out.dynamic_metadata.push(claim),
            None => out.headers.push(header(name, value)),
        }
    }
    for (name, value) in &wanted.without_headers {
        if let Some(claim) = claim(name, value) {
            out.dynamic_metadata.push(MetadataMatcher { invert: true, ..claim });
        } else {
            let mut matcher = header(name, value);
            matcher.invert_match = true;
            matcher.treat_missing_header_as_empty = !is_presence(value);
            out.headers.push(matcher);
        }
    }
    out.headers.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(specifier) = wanted.uri.as_ref().and_then(|it| path(it, segments)) {
        out.path_specifier = Some(specifier);
    }
    out.case_sensitive = Some(!wanted.ignore_uri_case);
    let parts = [
        (":method", &wanted.method),
        (":authority", &wanted.authority),
        (":scheme", &wanted.scheme),
    ];
    let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    out.headers.extend(parts.map(|(name, value)| header(name, value)));
    out.query_parameters = parameters(&wanted.query_params);
    out
}

/// Whether no request comes past it.
pub(super) fn is_everything(matched: &RouteMatch) -> bool {
    let every_path = match &matched.path_specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => {
            prefix == "/"
        }
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    every_path
        && matched.headers.is_empty()
        && matched.query_parameters.is_empty()
        && matched.dynamic_metadata.is_empty()
}

/// The match in Envoy's form; none for one of presence.
pub(super) fn string(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(regex) => MatchPattern::SafeRegex(self::regex(regex)),
        StringMatch::Present => return None,
    };
    Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false })
}

/// A regular expression.
pub(super) fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..RegexMatcher::default() }
}

fn path(wanted: &StringMatch, segments: bool) -> Option<PathSpecifier> {
    match wanted {
        StringMatch::Prefix(prefix) if segments && prefix != "/" => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            Some(PathSpecifier::PathSeparatedPrefix(prefix.to_owned()))
        }
        StringMatch::Exact(path) => Some(PathSpecifier::Path(path.clone())),
        StringMatch::Prefix(prefix) => Some(PathSpecifier::Prefix(prefix.clone())),
        StringMatch::Regex(regex) => Some(PathSpecifier::SafeRegex(self::regex(regex))),
        StringMatch::Present => None,
    }
}

/// `*` alone is no regular expression: it stands for any value.
fn is_presence(value: &StringMatch) -> bool {
    match value {
        StringMatch::Present => true,
        StringMatch::Regex(regex) => regex == "*",
        _ => false,
    }
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = if is_presence(value) {
        Some(HeaderMatchSpecifier::PresentMatch(true))
    } else {
        string(value).map(HeaderMatchSpecifier::StringMatch)
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: specifier,
        ..HeaderMatcher::default()
    }
}

fn parameters(wanted: &BTreeMap<String, StringMatch>) -> Vec<QueryParameterMatcher> {
    let matcher = |(name, value): (&String, &StringMatch)| QueryParameterMatcher {
        name: name.clone(),
        query_parameter_match_specifier: if is_presence(value) {
            Some(QueryParameterMatchSpecifier::PresentMatch(true))
        } else {
            string(value).map(QueryParameterMatchSpecifier::StringMatch)
        },
    };
    wanted.iter().map(matcher).collect()
}

/// `@request.auth.claims.NAME` and `@request.auth.claims[NAME]` are no headers, but claims of a verified token: texts,
/// or lists with the text in them.
fn claim(name: &str, value: &StringMatch) -> Option<MetadataMatcher> {
    let rest = name.strip_prefix("@request.auth.claims")?;
    let claims: Vec<&str> = if let Some(rest) = rest.strip_prefix('[') {
        rest.strip_suffix(']')?.split("][").collect()
    } else {
        rest.strip_prefix('.')?.split('.').collect()
    };
    let keys = std::iter::once("payload").chain(claims);
    let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    let text = ValueMatcher { match_pattern: Some(ValuePattern::StringMatch(string(value)?)) };
    let in_list = ListMatcher {
        match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(text.clone()))),
    };
    let list = ValueMatcher { match_pattern: Some(ValuePattern::ListMatch(Box::new(in_list))) };
    let either = OrMatcher { value_matchers: vec![list, text] };
    Some(MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".to_owned(),
        path: keys.map(segment).collect(),
        value: Some(ValueMatcher { match_pattern: Some(ValuePattern::OrMatch(either)) }),
        invert: false,
    })
}
