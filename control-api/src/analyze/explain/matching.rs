//! Whether Envoy's matchers take a request.

use regex::Regex;
use xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use xds::envoy::config::route::v3::route_match::PathSpecifier;
use xds::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use xds::envoy::r#type::matcher::v3::StringMatcher;
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::asked::Asked;

/// Whether a text is taken.
pub(super) fn text(matcher: &StringMatcher, text: &str) -> bool {
    let fold = |it: &str| if matcher.ignore_case { it.to_lowercase() } else { it.to_owned() };
    let text = fold(text);
    match &matcher.match_pattern {
        None => true,
        Some(MatchPattern::Exact(it)) => text == fold(it),
        Some(MatchPattern::Prefix(it)) => text.starts_with(&fold(it)),
        Some(MatchPattern::Suffix(it)) => text.ends_with(&fold(it)),
        Some(MatchPattern::Contains(it)) => text.contains(&fold(it)),
        Some(MatchPattern::SafeRegex(it)) => whole(&it.regex, &text),
    }
}

/// Whether an expression takes the whole of a text.
fn whole(expression: &str, text: &str) -> bool {
    Regex::new(&format!("^(?:{expression})$")).is_ok_and(|it| it.is_match(text))
}

/// Whether a header is as it should be.
pub(super) fn header(matcher: &HeaderMatcher, asked: &Asked) -> bool {
    let value = asked.header(&matcher.name);
    let value = value.or(matcher.treat_missing_header_as_empty.then_some(""));
    let matched = match (&matcher.header_match_specifier, value) {
        (Some(HeaderMatchSpecifier::PresentMatch(wanted)), value) => *wanted == value.is_some(),
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(HeaderMatchSpecifier::ExactMatch(it)), Some(value)) => it == value,
        (Some(HeaderMatchSpecifier::SafeRegexMatch(it)), Some(value)) => whole(&it.regex, value),
        (Some(HeaderMatchSpecifier::RangeMatch(it)), Some(value)) => {
            value.parse::<i64>().is_ok_and(|value| (it.start..it.end).contains(&value))
        }
        (Some(HeaderMatchSpecifier::PrefixMatch(it)), Some(value)) => value.starts_with(it),
        (Some(HeaderMatchSpecifier::SuffixMatch(it)), Some(value)) => value.ends_with(it),
        (Some(HeaderMatchSpecifier::ContainsMatch(it)), Some(value)) => value.contains(it),
        (Some(HeaderMatchSpecifier::StringMatch(it)), Some(value)) => text(it, value),
    };
    matched != matcher.invert_match
}

fn parameter(matcher: &QueryParameterMatcher, asked: &Asked) -> bool {
    let value = asked.parameter(&matcher.name);
    match (&matcher.query_parameter_match_specifier, value) {
        (Some(QueryParameterMatchSpecifier::PresentMatch(wanted)), value) => {
            *wanted == value.is_some()
        }
        (Some(QueryParameterMatchSpecifier::StringMatch(it)), Some(value)) => text(it, value),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

/// Whether a route takes the request.
pub(super) fn route(matcher: &RouteMatch, asked: &Asked) -> bool {
    path(matcher, asked.path())
        && matcher.headers.iter().all(|it| header(it, asked))
        && matcher.query_parameters.iter().all(|it| parameter(it, asked))
        && matcher.dynamic_metadata.iter().all(|it| it.invert || has_token(asked))
}

/// Whether there is a token, which may then say what a route wants of it; nobody knows.
pub(super) fn has_token(asked: &Asked) -> bool {
    asked.header("authorization").is_some()
}

fn path(matcher: &RouteMatch, path: &str) -> bool {
    let fold = |it: &str| {
        if matcher.case_sensitive == Some(false) { it.to_lowercase() } else { it.into() }
    };
    let path: String = fold(path);
    match &matcher.path_specifier {
        None => true,
        Some(PathSpecifier::Prefix(it)) => path.starts_with(&fold(it)),
        Some(PathSpecifier::Path(it)) => path == fold(it),
        Some(PathSpecifier::SafeRegex(it)) => whole(&it.regex, &path),
        Some(PathSpecifier::PathSeparatedPrefix(it)) => path
            .strip_prefix(&fold(it))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        Some(PathSpecifier::ConnectMatcher(_)) => false,
    }
}

/// A route's conditions in words.
pub(super) fn shown(matcher: &RouteMatch) -> String {
    let path = match &matcher.path_specifier {
        None => "any path".to_owned(),
        Some(PathSpecifier::Prefix(it)) => format!("prefix {it}"),
        Some(PathSpecifier::Path(it)) => format!("path {it}"),
        Some(PathSpecifier::SafeRegex(it)) => format!("regex {}", it.regex),
        Some(PathSpecifier::PathSeparatedPrefix(it)) => format!("prefix {it}/"),
        Some(PathSpecifier::ConnectMatcher(_)) => "CONNECT".to_owned(),
    };
    let headers = matcher.headers.iter().map(|it| format!("header {}", it.name));
    let parameters = matcher.query_parameters.iter().map(|it| format!("query {}", it.name));
    let tokens = matcher.dynamic_metadata.iter().map(|_| "a claim of a token".to_owned());
    let all = [path].into_iter().chain(headers).chain(parameters).chain(tokens);
    all.collect::<Vec<_>>().join(", ")
}

/// How closely a domain of a virtual host names a host; none if not at all.
pub(super) fn domain(domain: &str, host: &str) -> Option<(u8, usize)> {
    let (domain, host) = (domain.to_ascii_lowercase(), host.to_ascii_lowercase());
    if domain == "*" {
        return Some((0, 0));
    }
    if let Some(end) = domain.strip_prefix('*') {
        return (host.len() > end.len() && host.ends_with(end)).then_some((2, end.len()));
    }
    if let Some(start) = domain.strip_suffix('*') {
        return (host.len() > start.len() && host.starts_with(start)).then_some((1, start.len()));
    }
    (domain == host).then_some((3, 0))
}

#[cfg(test)]
mod tests {
    use xds::envoy::r#type::matcher::v3::RegexMatcher;

    use super::*;

    fn asked(url: &str, headers: &[&str]) -> Asked {
        let headers: Vec<String> = headers.iter().map(ToString::to_string).collect();
        Asked::new("GET", url, &headers).unwrap()
    }

    #[test]
    fn paths_are_matched_without_the_query_and_regexes_as_a_whole() {
        let takes = |specifier: PathSpecifier, url: &str| {
            let matcher = RouteMatch { path_specifier: Some(specifier), ..RouteMatch::default() };
            route(&matcher, &asked(url, &[]))
        };
        let regex = |it: &str| {
            PathSpecifier::SafeRegex(RegexMatcher { regex: it.into(), ..RegexMatcher::default() })
        };
        assert!(takes(PathSpecifier::Path("/a".into()), "http://h/a?b"));
        assert!(takes(PathSpecifier::Prefix("/a".into()), "http://h/ab"));
        assert!(!takes(PathSpecifier::PathSeparatedPrefix("/a".into()), "http://h/ab"));
        assert!(takes(PathSpecifier::PathSeparatedPrefix("/a".into()), "http://h/a/b"));
        assert!(takes(regex("/a|/b"), "http://h/b") && !takes(regex("/a|/b"), "http://h/bc"));
    }

    #[test]
    fn headers_are_there_or_not_and_have_values() {
        let exact = HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::Exact("jason".into())),
            ..StringMatcher::default()
        });
        let user = |specifier, invert_match| HeaderMatcher {
            name: "end-user".into(),
            header_match_specifier: Some(specifier),
            invert_match,
            ..HeaderMatcher::default()
        };
        let (jason, nobody) = (asked("http://h/", &["End-User: jason"]), asked("http://h/", &[]));
        assert!(header(&user(exact.clone(), false), &jason));
        assert!(!header(&user(exact.clone(), true), &jason));
        assert!(header(&user(exact, true), &nobody));
        assert!(!header(&user(HeaderMatchSpecifier::PresentMatch(true), false), &nobody));
    }

    #[test]
    fn the_closest_domain_is_the_one_that_counts() {
        let order = ["*", "a.*", "*.com", "*.b.com", "a.b.com"];
        let found: Vec<_> = order.iter().map(|it| domain(it, "A.b.com").unwrap()).collect();
        assert!(found.is_sorted(), "{found:?}");
        assert_eq!(domain("*.org", "a.b.com"), None);
    }
}
