//! The tokens that a request carries, and the request without one of them.

use std::borrow::Cow;
use std::rc::Rc;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use crate::config::jwt::{Location, Place};
use crate::route::cookie;

/// Tokens, each with the place where it was.
pub type Found<'a> = SmallVec<[(Box<str>, &'a Location); 2]>;

/// The tokens of a request at `locations`, in their order. What is there need not look like a token.
pub fn tokens<'a>(locations: &'a [Location], headers: &HeaderMap, path: &str) -> Found<'a> {
    let mut found = Found::new();
    for location in locations {
        match &location.place {
            Place::Header(name, prefix) => {
                for value in headers.get_all(name) {
                    let value = text(value.as_bytes());
                    if let Some(token) = after(&value, prefix) {
                        found.push((token.into(), location));
                    }
                }
            }
            Place::Parameter(name) => {
                let mut values = parameters(path).filter(|(key, _)| decodes_to(key, name));
                if let Some((_, value)) = values.next() {
                    let value = percent_decode_str(value).decode_utf8_lossy();
                    found.push((value.into(), location));
                }
            }
            Place::Cookie(name) => {
                if let Some(value) = cookie::find(headers, name) {
                    found.push((text(value).into(), location));
                }
            }
        }
    }
    found
}

/// Takes what is at `place` out of a request. Cookies stay, as in Envoy.
pub fn remove(place: &Place, headers: &mut HeaderMap, path: &mut Rc<str>) {
    match place {
        Place::Header(name, _) => drop(headers.remove(name)),
        Place::Parameter(name) => {
            let kept = |pair: &&str| {
                let key = pair.split_once('=').map_or(*pair, |(key, _)| key);
                !decodes_to(key, name)
            };
            let Some((before, query)) = path.split_once('?') else { return };
            let pairs: Vec<_> = query.split('&').filter(kept).collect();
            let rest = pairs.join("&");
            let mark = if rest.is_empty() { "" } else { "?" };
            *path = format!("{before}{mark}{rest}").into();
        }
        Place::Cookie(_) => {}
    }
}

/// What is no text becomes one, which is no token. To look for that first is quicker, as there is seldom any.
fn text(value: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// What follows `prefix` in a header's value, from the first character on that may be part of a token.
fn after<'a>(value: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(value);
    }
    let (_, rest) = value.split_once(prefix)?;
    let is_of_token = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    Some(rest.find(is_of_token).and_then(|start| rest.get(start..)).unwrap_or(value))
}

fn parameters(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = path.split_once('?').map(|(_, query)| query);
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn decodes_to(key: &str, name: &str) -> bool {
    percent_decode_str(key).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, COOKIE, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn at(place: Place) -> Location {
        Location { place, issuers: vec![None] }
    }

    fn bearer() -> Location {
        at(Place::Header(AUTHORIZATION, "Bearer ".into()))
    }

    #[test]
    fn tokens_come_from_headers_parameters_and_cookies() {
        let locations = [
            bearer(),
            at(Place::Header(AUTHORIZATION, "".into())),
            at(Place::Parameter("t".into())),
            at(Place::Cookie("c".into())),
        ];
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_static("odd Bearer  \"a.b"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer c"));
        headers.append(COOKIE, HeaderValue::from_static("x=1; c=cookie"));
        let found = tokens(&locations, &headers, "/p?x&%74=a%2Eb&t=2");
        let texts: Vec<_> = found.iter().map(|(text, _)| &**text).collect();
        assert_eq!(texts, ["a.b", "c", "odd Bearer  \"a.b", "Bearer c", "a.b", "cookie"]);
        let none = tokens(&locations[..1], &headers, "/").len();
        assert_eq!(none, 2);
    }

    #[test]
    fn a_header_without_the_prefix_is_none() {
        for (value, expected) in [
            ("bearer a", None),
            ("Bearer", None),
            ("Bearer a", Some("a")),
            ("Bearer !", Some("Bearer !")),
        ] {
            assert_eq!(after(value, "Bearer "), expected, "{value}");
        }
    }

    #[test]
    fn other_parameters_stay_as_they_are() {
        let location = at(Place::Parameter("t".into()));
        for (before, after) in [
            ("/p?a=%20&t=x&b", "/p?a=%20&b"),
            ("/p?t=x&%74=y", "/p"),
            ("/p?t", "/p"),
            ("/p?tt=1", "/p?tt=1"),
            ("/p", "/p"),
        ] {
            let mut path = before.into();
            remove(&location.place, &mut HeaderMap::new(), &mut path);
            assert_eq!(&*path, after, "{before}");
        }
    }

    proptest! {
        #[test]
        fn no_token_is_left_behind(path in "/[a-c?&=%t746]{0,24}") {
            let locations = [at(Place::Parameter("t".into()))];
            let mut rest = Rc::from(path.as_str());
            if tokens(&locations, &HeaderMap::new(), &path).is_empty() {
                return Ok(());
            }
            remove(&locations[0].place, &mut HeaderMap::new(), &mut rest);
            prop_assert!(tokens(&locations, &HeaderMap::new(), &rest).is_empty());
        }
    }
}
