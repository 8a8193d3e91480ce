//! Matchers shared by routes, TLS and policies: strings, headers, query parameters, fractions.
//!
//! All of them work on bytes: a value that is not UTF-8 is compared as it is, never skipped.

pub mod re2;
pub mod uri_template;

use std::borrow::Cow;

use http::header::HeaderName;
use http::{HeaderMap, Method};

/// What a matcher may look at of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// `http` or `https`, as `:scheme` or `x-forwarded-proto` says.
    pub scheme: &'a str,
    /// Host header or `:authority`, as forwarded.
    pub authority: &'a str,
    /// Path with query, as forwarded.
    pub path_and_query: &'a str,
    /// All other headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The path without query and fragment.
    pub fn path(&self) -> &'a str {
        let ends = |byte| matches!(byte, b'?' | b'#');
        let end = self.path_and_query.bytes().position(ends).unwrap_or(self.path_and_query.len());
        &self.path_and_query[..end]
    }

    /// The query without `?`, if there is one.
    pub fn query(&self) -> Option<&'a str> {
        let (_, query) = self.path_and_query.split_once('?')?;
        Some(query.split('#').next().unwrap_or(query))
    }
}

/// A linear-time regular expression that must match the whole value (Envoy `safe_regex`, RE2 syntax).
#[derive(Debug, Clone)]
pub struct Regex {
    full: regex::bytes::Regex,
    source: Box<str>,
}

impl Regex {
    /// Compiles `source`; the error is text for the operator.
    pub fn new(source: &str) -> Result<Self, String> {
        let full = re2::whole(source)?;
        Ok(Self { full, source: source.into() })
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.full.is_match(value)
    }

    /// The expression as compiled: anchored, and in the syntax of the `regex` crate.
    pub fn compiled(&self) -> &str {
        self.full.as_str()
    }

    /// The expression as configured.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// The pattern of a [`StringMatcher`].
#[derive(Debug, Clone, PartialEq)]
pub enum StringPattern {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Ends with.
    Suffix(Box<str>),
    /// Occurs anywhere.
    Contains(Box<str>),
    /// The whole value matches; `ignore_case` has no effect, as in Envoy.
    Regex(Regex),
}

/// Envoy `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct StringMatcher {
    pattern: StringPattern,
    ignore_case: bool,
}

impl StringMatcher {
    /// A matcher for `pattern`; `ignore_case` folds ASCII letters.
    pub fn new(pattern: StringPattern, ignore_case: bool) -> Self {
        Self { pattern, ignore_case }
    }

    /// Whether `value` matches.
    #[inline]
    pub fn matches(&self, value: &[u8]) -> bool {
        let fold = self.ignore_case;
        match &self.pattern {
            StringPattern::Exact(text) => equal(value, text.as_bytes(), fold),
            StringPattern::Prefix(text) => {
                value.get(..text.len()).is_some_and(|head| equal(head, text.as_bytes(), fold))
            }
            StringPattern::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|tail| equal(tail, text.as_bytes(), fold)),
            StringPattern::Contains(text) => {
                text.is_empty()
                    || value.windows(text.len()).any(|part| equal(part, text.as_bytes(), fold))
            }
            StringPattern::Regex(regex) => regex.is_match(value),
        }
    }

    /// The pattern, for compiling route tables.
    pub fn pattern(&self) -> &StringPattern {
        &self.pattern
    }

    /// Whether ASCII case is folded.
    pub fn ignores_case(&self) -> bool {
        self.ignore_case
    }
}

#[inline]
fn equal(a: &[u8], b: &[u8], fold: bool) -> bool {
    // Most that differ do so in their first byte, which spares them the call that compares all.
    if fold { a.eq_ignore_ascii_case(b) } else { a.first() == b.first() && a == b }
}

/// The header a [`HeaderMatcher`] looks at; pseudo headers are as in HTTP/2.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HeaderRef {
    /// `:method`
    Method,
    /// `:path`, with query
    Path,
    /// `:authority` (also `host`)
    Authority,
    /// `:scheme`
    Scheme,
    /// Any other.
    Named(HeaderName),
}

impl HeaderRef {
    /// Parses a configured header name; none if it is no valid name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            other => Self::Named(HeaderName::from_bytes(other.as_bytes()).ok()?),
        })
    }

    /// The value in `head`; of several fields of one name the first. None if absent.
    pub fn first<'a>(&self, head: &RequestHead<'a>) -> Option<&'a [u8]> {
        let text = match self {
            Self::Method => head.method.as_str(),
            Self::Path => head.path_and_query,
            Self::Authority => head.authority,
            Self::Scheme => head.scheme,
            Self::Named(name) => return Some(head.headers.get(name)?.as_bytes()),
        };
        Some(text.as_bytes())
    }

    /// The value in `head`; several fields of one name are joined by `,` as Envoy does. None if absent.
    pub fn value<'a>(&self, head: &RequestHead<'a>) -> Option<Cow<'a, [u8]>> {
        let text = match self {
            Self::Method => head.method.as_str(),
            Self::Path => head.path_and_query,
            Self::Authority => head.authority,
            Self::Scheme => head.scheme,
            Self::Named(name) => return joined(head.headers, name),
        };
        Some(Cow::Borrowed(text.as_bytes()))
    }
}

/// All values of `name`, joined by `,`; none if absent.
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first.as_bytes())) };
    let mut all = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// The condition of a [`HeaderMatcher`].
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderRule {
    /// Present (`true`) or absent (`false`).
    Present(bool),
    /// The value matches.
    Value(StringMatcher),
    /// The value is a decimal integer in `start..end` (Envoy `range_match`).
    Range {
        /// First value that matches.
        start: i64,
        /// First value past the range.
        end: i64,
    },
}

impl HeaderRule {
    /// Whether a header with this value meets the condition.
    #[inline]
    fn takes(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(wanted) => *wanted,
            Self::Value(matcher) => matcher.matches(value),
            Self::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

/// Envoy `config.route.v3.HeaderMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatcher {
    /// Which header.
    pub header: HeaderRef,
    /// The condition.
    pub rule: HeaderRule,
    /// Whether the result is inverted.
    pub invert: bool,
    /// Whether an absent header counts as an empty one.
    pub missing_as_empty: bool,
}

impl HeaderMatcher {
    /// Whether `head` satisfies the matcher. As in Envoy, each of several fields of one name is looked at by itself, so
    /// that nobody gets past a policy by repeating a header, and a condition on the value of an absent header is not met,
    /// inverted or not.
    pub fn matches(&self, head: &RequestHead<'_>) -> bool {
        let absent = if self.missing_as_empty { Some(&b""[..]) } else { None };
        let is_met = match (&self.rule, &self.header) {
            (HeaderRule::Present(wanted), header) => {
                Some(header.first(head).or(absent).is_some() == *wanted)
            }
            (rule, HeaderRef::Named(name)) => {
                let mut values = head.headers.get_all(name).iter().peekable();
                match values.peek() {
                    Some(_) => Some(values.any(|value| rule.takes(value.as_bytes()))),
                    None => absent.map(|value| rule.takes(value)),
                }
            }
            (rule, header) => header.first(head).or(absent).map(|value| rule.takes(value)),
        };
        is_met.is_some_and(|is_met| is_met != self.invert)
    }
}

/// Envoy `config.route.v3.QueryParameterMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryParameterMatcher {
    /// The parameter's name, case-sensitive.
    pub name: Box<str>,
    /// The condition on its first value; none means present.
    pub value: Option<StringMatcher>,
}

impl QueryParameterMatcher {
    /// Whether `query` (without `?`) satisfies the matcher. The first occurrence decides; values are
    /// compared as they stand on the wire, as in Envoy.
    pub fn matches(&self, query: Option<&str>) -> bool {
        let found = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == &*self.name).then_some(value)
        });
        self.matches_value(found.map(str::as_bytes))
    }

    /// Whether a parameter with this first value satisfies the matcher; none means it is absent.
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        match (&self.value, value) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(matcher), Some(value)) => matcher.matches(value),
        }
    }
}

/// A share of requests (Envoy `type.v3.FractionalPercent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// Part.
    pub numerator: u32,
    /// Whole: 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    /// Whether a request with this random number is inside the share.
    pub fn takes(&self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}
