//! Matchers of strings, headers and query parameters.

use xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use xds::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher};
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use xds::envoy::r#type::matcher::v3::{ListStringMatcher, RegexMatcher, StringMatcher};
use xds::envoy::r#type::v3::Int64Range;

use super::errors::{At, Result, each, refuse};
use super::value::non_empty;
use crate::config::matcher::{self, HeaderRef, HeaderRule, Regex, StringPattern};

/// A string matcher.
pub(super) fn string_matcher(proto: &StringMatcher) -> Result<matcher::StringMatcher> {
    let StringMatcher { ignore_case, match_pattern } = proto;
    let pattern = match match_pattern {
        Some(MatchPattern::Exact(text)) => StringPattern::Exact(text.as_str().into()),
        Some(MatchPattern::Prefix(text)) => {
            StringPattern::Prefix(non_empty("prefix", text)?.into())
        }
        Some(MatchPattern::Suffix(text)) => {
            StringPattern::Suffix(non_empty("suffix", text)?.into())
        }
        Some(MatchPattern::Contains(text)) => {
            StringPattern::Contains(non_empty("contains", text)?.into())
        }
        Some(MatchPattern::SafeRegex(proto)) => {
            StringPattern::Regex(regex(proto).at("safe_regex")?)
        }
        None => return refuse("", "required: exact, prefix, or another pattern"),
    };
    Ok(matcher::StringMatcher::new(pattern, *ignore_case))
}

/// A list of string matchers, which must not be empty.
pub(super) fn string_list(proto: &ListStringMatcher) -> Result<Vec<matcher::StringMatcher>> {
    let ListStringMatcher { patterns } = proto;
    if patterns.is_empty() {
        return refuse("patterns", "must not be empty");
    }
    each("patterns", patterns, string_matcher)
}

/// The list of string matchers in `field`; empty if it is not there.
pub(super) fn string_list_in(
    field: &str,
    proto: Option<&ListStringMatcher>,
) -> Result<Vec<matcher::StringMatcher>> {
    proto.map_or(Ok(Vec::new()), string_list).at(field)
}

/// The expression of a regex matcher, which must not be empty.
pub(super) fn regex_source(proto: &RegexMatcher) -> Result<&str> {
    let RegexMatcher { regex, engine_type: _ } = proto;
    non_empty("regex", regex)
}

/// A regular expression for a whole value.
pub(super) fn regex(proto: &RegexMatcher) -> Result<Regex> {
    Regex::new(regex_source(proto)?).at("regex")
}

/// The name a header matcher or a cluster header looks at.
pub(super) fn header_ref(text: &str) -> Result<HeaderRef> {
    match HeaderRef::parse(text) {
        Some(header) => Ok(header),
        None if text.is_empty() => refuse("", "must not be empty"),
        None => refuse("", format!("{text:?} is no header name")),
    }
}

/// A header matcher.
pub(super) fn header_matcher(proto: &HeaderMatcher) -> Result<matcher::HeaderMatcher> {
    let HeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } =
        proto;
    Ok(matcher::HeaderMatcher {
        header: header_ref(name).at("name")?,
        rule: header_rule(header_match_specifier.as_ref())?,
        invert: *invert_match,
        missing_as_empty: *treat_missing_header_as_empty,
    })
}

fn header_rule(proto: Option<&HeaderMatchSpecifier>) -> Result<HeaderRule> {
    let case_sensitive = |pattern| HeaderRule::Value(matcher::StringMatcher::new(pattern, false));
    Ok(match proto {
        None => HeaderRule::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderRule::Present(*present),
        Some(HeaderMatchSpecifier::StringMatch(proto)) => {
            HeaderRule::Value(string_matcher(proto).at("string_match")?)
        }
        Some(HeaderMatchSpecifier::RangeMatch(Int64Range { start, end })) => {
            HeaderRule::Range { start: *start, end: *end }
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => {
            case_sensitive(StringPattern::Exact(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            case_sensitive(StringPattern::Prefix(non_empty("prefix_match", text)?.into()))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            case_sensitive(StringPattern::Suffix(non_empty("suffix_match", text)?.into()))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            case_sensitive(StringPattern::Contains(non_empty("contains_match", text)?.into()))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(proto)) => {
            case_sensitive(StringPattern::Regex(regex(proto).at("safe_regex_match")?))
        }
    })
}

/// A query parameter matcher.
pub(super) fn query_parameter(
    proto: &QueryParameterMatcher,
) -> Result<matcher::QueryParameterMatcher> {
    let QueryParameterMatcher { name, query_parameter_match_specifier } = proto;
    let value = match query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(proto)) => {
            Some(string_matcher(proto).at("string_match")?)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return refuse(
                "present_match",
                "an absent parameter cannot be asked for by this version",
            );
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => None,
    };
    Ok(matcher::QueryParameterMatcher { name: non_empty("name", name)?.into(), value })
}
