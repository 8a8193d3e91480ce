//! Holds what a test expects against the table's answer.

use std::fmt;

use http::HeaderMap;
use xds::envoy::config::core::v3::HeaderValue;
use xds::envoy::config::route::v3::HeaderMatcher;
use xds::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use xds::router_check::{RouteMetadata, ValidationAssert};

use super::answer::{Answer, Forwarded};
use super::table::Tables;
use crate::config::Invalid;
use crate::config::matcher::{HeaderRef, RequestHead};
use crate::discovery::decode;

/// An expectation that was not met.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) actual: String,
    /// The field of the test.
    pub(super) kind: &'static str,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, actual, kind } = self;
        write!(f, "expected: [{expected}], actual: [{actual}], test type: {kind}")
    }
}

/// What of a route one test, or several, have confirmed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Matched {
    is_direct: bool,
    properties: u8,
}

impl Matched {
    pub(super) fn is_empty(self) -> bool {
        self.properties == 0
    }

    pub(super) fn add(&mut self, other: Self) {
        self.is_direct = other.is_direct;
        self.properties |= other.properties;
    }

    /// Of a forwarding route there are five properties to confirm, of a direct answer two.
    pub(super) fn share(self) -> f64 {
        let all = if self.is_direct { 2.0 } else { 5.0 };
        f64::from(self.properties.count_ones()) / all
    }
}

/// What `expected` confirms of `answer`, and what it does not.
///
/// # Errors
/// A matcher that is none, with its path in the test.
pub(super) fn compare(
    expected: &ValidationAssert,
    answer: &Answer,
    tables: &Tables,
) -> Result<(Matched, Vec<Mismatch>), Vec<Invalid>> {
    let ValidationAssert {
        cluster_name,
        virtual_cluster_name,
        virtual_host_name,
        host_rewrite,
        path_rewrite,
        path_redirect,
        request_header_fields,
        response_header_fields,
        request_header_matches,
        response_header_matches,
        code_redirect,
        timeout,
        route_metadata,
    } = expected;
    let mut seen = Seen { is_direct: answer.direct.is_some(), ..Seen::default() };
    let of = |property: fn(&Forwarded) -> &str| answer.forwarded.as_ref().map_or("", property);
    seen.property(0, "cluster_name", cluster_name.as_deref(), of(|it| &it.cluster));
    let virtual_cluster = of(|it| &it.virtual_cluster);
    seen.property(1, "virtual_cluster_name", virtual_cluster_name.as_deref(), virtual_cluster);
    seen.property(2, "virtual_host_name", virtual_host_name.as_deref(), of(|it| &it.virtual_host));
    seen.property(3, "host_rewrite", host_rewrite.as_deref(), of(|it| &it.authority));
    seen.property(4, "path_rewrite", path_rewrite.as_deref(), of(|it| &it.path));
    let location = answer.direct.as_ref().map_or("", |(_, location)| location);
    seen.property(5, "path_redirect", path_redirect.as_deref(), location);
    let status = answer.direct.as_ref().map_or(0, |(status, _)| u32::from(*status)).to_string();
    seen.property(6, "code_redirect", code_redirect.map(|it| it.to_string()).as_deref(), &status);
    if let Some(wanted) = timeout {
        let limit = answer.forwarded.as_ref().and_then(|it| it.timeout).unwrap_or_default();
        let actual = prost_types::Duration::try_from(limit).unwrap_or_default();
        seen.compare("timeout", &wanted.to_string(), &actual.to_string());
    }
    for wanted in route_metadata {
        let path = format!("{}:{}", wanted.namespace, wanted.key);
        let actual = metadata(tables, answer, wanted).unwrap_or_default();
        seen.compare(
            "route_metadata",
            &format!("{path}={}", wanted.value),
            &format!("{path}={actual}"),
        );
    }
    let head = seen.head(answer);
    let empty = RequestHead {
        headers: &answer.response_headers,
        authority: "",
        path_and_query: "",
        ..head
    };
    seen.fields("request_header_fields", request_header_fields, &head);
    seen.fields("response_header_fields", response_header_fields, &empty);
    seen.matchers("request_header_matches", request_header_matches, &head)?;
    seen.matchers("response_header_matches", response_header_matches, &empty)?;
    let Seen { is_direct, properties, mismatches } = seen;
    Ok((Matched { is_direct, properties }, mismatches))
}

#[derive(Default)]
struct Seen {
    is_direct: bool,
    properties: u8,
    mismatches: Vec<Mismatch>,
}

impl Seen {
    fn compare(&mut self, kind: &'static str, expected: &str, actual: &str) -> bool {
        let same = expected == actual;
        if !same {
            let (expected, actual) = (expected.to_owned(), actual.to_owned());
            self.mismatches.push(Mismatch { expected, actual, kind });
        }
        same
    }

    fn property(&mut self, bit: u8, kind: &'static str, expected: Option<&str>, actual: &str) {
        let Some(expected) = expected else { return };
        let belongs = self.is_direct == (bit >= 5);
        if self.compare(kind, expected, actual) && belongs {
            self.properties |= 1 << bit;
        }
    }

    fn head<'a>(&self, answer: &'a Answer) -> RequestHead<'a> {
        let forwarded = answer.forwarded.as_ref();
        RequestHead {
            method: &answer.method,
            scheme: "http",
            authority: forwarded.map_or("", |it| &it.authority),
            path_and_query: forwarded.map_or("", |it| &it.path),
            headers: &answer.request_headers,
        }
    }

    fn fields(&mut self, kind: &'static str, fields: &[HeaderValue], head: &RequestHead<'_>) {
        for HeaderValue { key, value, raw_value: _ } in fields {
            let actual = shown(key, head).unwrap_or_default();
            self.compare(kind, value, &actual);
        }
    }

    fn matchers(
        &mut self,
        kind: &'static str,
        matchers: &[HeaderMatcher],
        head: &RequestHead<'_>,
    ) -> Result<(), Vec<Invalid>> {
        for (index, proto) in matchers.iter().enumerate() {
            let place = |error: Invalid| error.under(&format!("validate.{kind}[{index}]"));
            let place = |errors: Vec<Invalid>| errors.into_iter().map(place).collect::<Vec<_>>();
            if !matches(proto, head).map_err(place)? {
                let actual = match shown(&proto.name, head) {
                    Some(value) => format!("{}: {value}", proto.name),
                    None => format!("{} is absent", proto.name),
                };
                let expected = describe(proto);
                self.mismatches.push(Mismatch { expected, actual, kind });
            }
        }
        Ok(())
    }
}

/// Whether `head` meets a matcher. A name that no header can have is that of an absent one.
fn matches(proto: &HeaderMatcher, head: &RequestHead<'_>) -> Result<bool, Vec<Invalid>> {
    if HeaderRef::parse(&proto.name).is_some() {
        return Ok(decode::header_matcher(proto)?.matches(head));
    }
    let absent = HeaderMatcher { name: "absent".to_owned(), ..proto.clone() };
    let headers = HeaderMap::new();
    Ok(decode::header_matcher(&absent)?.matches(&RequestHead { headers: &headers, ..*head }))
}

fn shown(name: &str, head: &RequestHead<'_>) -> Option<String> {
    let value = HeaderRef::parse(name)?.value(head)?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

fn describe(proto: &HeaderMatcher) -> String {
    let not = if proto.invert_match { "not " } else { "" };
    let name = &proto.name;
    match &proto.header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(true)) => format!("{not}{name} present"),
        Some(HeaderMatchSpecifier::PresentMatch(false)) => format!("{not}{name} absent"),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            format!("{not}{name} in {}..{}", range.start, range.end)
        }
        Some(_) => format!("{not}{name} matching {}", xds::json::to_json(proto)),
    }
}

/// A text of the metadata of the route taken.
fn metadata(tables: &Tables, answer: &Answer, wanted: &RouteMetadata) -> Option<String> {
    let (host, route) = answer.place?;
    let route = tables.proto().virtual_hosts.get(host)?.routes.get(route)?;
    let fields = &route.metadata.as_ref()?.filter_metadata.get(&wanted.namespace)?.fields;
    match &fields.get(&wanted.key)?.kind {
        Some(prost_types::value::Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    }
}
