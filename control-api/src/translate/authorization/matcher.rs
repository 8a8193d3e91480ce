//! Texts with `*` at their ends as Envoy matches them.

use xds::envoy::config::core::v3::CidrRange;
use xds::envoy::config::route::v3::HeaderMatcher;
use xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds::envoy::r#type::matcher::v3::metadata_matcher::PathSegment;
use xds::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use xds::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher,
    list_matcher, value_matcher,
};

/// Characters that mean something in a regular expression.
const SPECIAL: &str = r"\.+*?()|[]{}^$";

/// A text that is matched by a pattern.
pub(super) fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

/// Exactly this.
pub(super) fn exact(text: &str) -> StringMatcher {
    string(MatchPattern::Exact(text.to_owned()))
}

/// What begins with this.
pub(super) fn prefix(text: &str) -> StringMatcher {
    string(MatchPattern::Prefix(text.to_owned()))
}

/// What ends with this.
pub(super) fn suffix(text: &str) -> StringMatcher {
    string(MatchPattern::Suffix(text.to_owned()))
}

/// What fits this as a whole.
pub(super) fn regex(text: &str) -> StringMatcher {
    let regex = RegexMatcher { regex: text.to_owned(), ..RegexMatcher::default() };
    string(MatchPattern::SafeRegex(regex))
}

/// Any text.
pub(super) fn any() -> StringMatcher {
    regex(".+")
}

/// `*`, `*SUFFIX`, `PREFIX*` or the text itself.
pub(super) fn pattern(value: &str) -> StringMatcher {
    with_prefix("", value)
}

/// The same with something before it.
pub(super) fn with_prefix(before: &str, value: &str) -> StringMatcher {
    if value == "*" {
        return any();
    }
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(end), _) if before.is_empty() => suffix(end),
        (Some(end), _) => regex(&format!("{before}.*{}", quoted(end))),
        (None, Some(start)) => prefix(&format!("{before}{start}")),
        (None, None) => exact(&format!("{before}{value}")),
    }
}

/// A header of this name with a value that fits.
pub(super) fn header(name: &str, value: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..pattern(value) })
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

/// The text as a regular expression.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if SPECIAL.contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

/// An address, or a range of addresses. None for anything else.
pub(super) fn range(text: &str) -> Option<CidrRange> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse().ok()?)),
        None => (text, None),
    };
    let address: std::net::IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(longest);
    (length <= longest)
        .then(|| CidrRange { address_prefix: address.to_string(), prefix_len: Some(length) })
}

/// A text value.
pub(super) fn text_value(matcher: StringMatcher) -> ValueMatcher {
    value(value_matcher::MatchPattern::StringMatch(matcher))
}

/// A list with such a value.
pub(super) fn list_value(one: ValueMatcher) -> ValueMatcher {
    let list =
        ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(one))) };
    value(value_matcher::MatchPattern::ListMatch(Box::new(list)))
}

/// One of several values.
pub(super) fn any_value(mut values: Vec<ValueMatcher>) -> ValueMatcher {
    match values.pop() {
        Some(only) if values.is_empty() => only,
        last => {
            values.extend(last);
            value(value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers: values }))
        }
    }
}

fn value(pattern: value_matcher::MatchPattern) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(pattern) }
}

/// A value at a path of a filter's metadata.
pub(super) fn metadata(filter: &str, path: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &&str| PathSegment { segment: Some(Segment::Key((*key).to_owned())) };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        ..MetadataMatcher::default()
    }
}
