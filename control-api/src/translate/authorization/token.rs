//! What a request's token must say.

use xds::envoy::config::rbac::v3::{Principal, principal};
use xds::envoy::r#type::matcher::v3::StringMatcher;

use super::attribute::Attribute;
use super::matcher;
use super::rule::{and, or};

/// What Envoy's filter for tokens is called, and under which key it keeps what a token says.
const JWT: &str = "envoy.filters.http.jwt_authn";
const PAYLOAD: &str = "payload";

/// A token with one of the values.
pub(super) fn with(attribute: &Attribute, values: &[String]) -> Principal {
    let at = |path: &[&str], value| {
        let metadata = matcher::metadata(JWT, path, value);
        Principal { identifier: Some(principal::Identifier::Metadata(metadata)) }
    };
    if let Attribute::Claims(claims) = attribute {
        let path: Vec<&str> =
            std::iter::once(PAYLOAD).chain(claims.iter().map(String::as_str)).collect();
        let texts = values.iter().map(|it| matcher::text_value(matcher::pattern(it)));
        let value = matcher::any_value(texts.collect());
        let in_list = matcher::list_value(value.clone());
        return at(&path, matcher::any_value(vec![in_list, value]));
    }
    let one = |value: &String| {
        let (issuer, subject) = issuer_and_subject(value);
        and(vec![
            at(&[PAYLOAD, "iss"], matcher::text_value(issuer)),
            at(&[PAYLOAD, "sub"], matcher::text_value(subject)),
        ])
    };
    let mut any: Vec<_> = values.iter().map(one).collect();
    match any.pop() {
        Some(only) if any.is_empty() => only,
        last => {
            any.extend(last);
            or(any)
        }
    }
}

/// `ISSUER/SUBJECT`, either end of which may be `*`; an issuer may have slashes itself.
fn issuer_and_subject(value: &str) -> (StringMatcher, StringMatcher) {
    let parts = value.rsplit_once('/');
    if value == "*" {
        return (matcher::any(), matcher::any());
    }
    match (value.strip_prefix('*'), value.strip_suffix('*'), parts) {
        (Some(_), _, Some((issuer, subject))) => {
            let issuer = match issuer.strip_prefix('*').unwrap_or(issuer) {
                "" => matcher::any(),
                end => matcher::suffix(end),
            };
            (issuer, matcher::exact(subject))
        }
        (Some(end), _, None) => (matcher::any(), matcher::suffix(end)),
        (None, Some(_), Some((issuer, subject))) => {
            let subject = match subject.strip_suffix('*').unwrap_or(subject) {
                "" => matcher::any(),
                start => matcher::prefix(start),
            };
            (matcher::exact(issuer), subject)
        }
        (None, Some(start), None) => (matcher::prefix(start), matcher::any()),
        (None, None, Some((issuer, subject))) => (matcher::exact(issuer), matcher::exact(subject)),
        (None, None, None) => (matcher::exact(value), matcher::exact("")),
    }
}
