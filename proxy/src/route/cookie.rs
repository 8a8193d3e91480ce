//! Cookies: reading one from a request, and writing the `set-cookie` that asks for one.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The first cookie called `name`, without its quotes.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut cookies = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let value = cookies.find_map(|cookie| {
        let start = cookie.iter().position(|byte| *byte != b' ')?;
        let (key, value) = split_once(cookie.get(start..)?, b'=')?;
        (key == name.as_bytes()).then_some(value)
    })?;
    Some(value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value))
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

/// The `set-cookie` that gives `name` the value `value` for `ttl` seconds (0 for as long as the client runs) on
/// `path` (empty for the path requested), out of reach of scripts. None if a part cannot stand in a header.
pub fn set(
    name: &str,
    value: &str,
    ttl: u64,
    path: &str,
    attributes: &[(Box<str>, Box<str>)],
) -> Option<HeaderValue> {
    // Mostly enough for all of it.
    let mut text = String::with_capacity(name.len() + value.len() + path.len() + 64);
    text.extend([name, "=\"", value, "\""]);
    if ttl > 0 {
        text.extend(["; Max-Age=", itoa::Buffer::new().format(ttl)]);
    }
    if !path.is_empty() {
        text.extend(["; Path=", path]);
    }
    for (name, value) in attributes {
        text.extend(["; ", name]);
        if !value.is_empty() {
            text.extend(["=", value]);
        }
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cookie_of_a_name_counts() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("broken;  a=1; b=\"two\";c=x=y; e="));
        headers.append(COOKIE, HeaderValue::from_static("a=9; d=\"4"));
        for (name, value) in [("a", "1"), ("b", "two"), ("c", "x=y"), ("d", "\"4"), ("e", "")] {
            assert_eq!(find(&headers, name), Some(value.as_bytes()), "{name}");
        }
        assert_eq!(find(&headers, "broken"), None);
    }

    #[test]
    fn a_set_cookie_is_written_as_envoy_writes_it() {
        let text = |ttl, path, attributes: &[(Box<str>, Box<str>)]| {
            set("n", "v", ttl, path, attributes).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(text(0, "", &[]), "n=\"v\"; HttpOnly");
        assert_eq!(text(60, "/a", &[]), "n=\"v\"; Max-Age=60; Path=/a; HttpOnly");
        let attributes = [("SameSite".into(), "Strict".into()), ("Secure".into(), "".into())];
        assert_eq!(text(0, "", &attributes), "n=\"v\"; SameSite=Strict; Secure; HttpOnly");
        assert_eq!(set("n", "a\nb", 0, "", &[]), None);
    }
}
