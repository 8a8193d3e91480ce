//! What an authorization service changes: the head of an allowed request, and the headers of its response.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::verdict::{Changes, Header};
use crate::config::header::AppendAction;
use crate::config::header_rules::HeaderRules;
use crate::http::host;
use crate::http::query::Query;
use crate::http::stream::Head;

/// A change that cannot be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It makes no sense, or is not allowed and may not be left out.
    Change,
    /// It would make a request with a header that is none, for this reason.
    Header(String),
}

/// Makes `changes` to `head`, as far as `rules` allow them.
pub(super) fn request(
    changes: &Changes,
    rules: Option<&HeaderRules>,
    head: &mut Head,
) -> Result<(), Bad> {
    for (name, value) in &changes.set {
        if allowed(rules, |rules| rules.may_set(name))? {
            set(head, name, value)?;
        }
    }
    for (name, value) in &changes.add {
        if allowed(rules, |rules| rules.may_set(name))? {
            head.headers.append(header_name(name)?, header_value(name, value)?);
        }
    }
    for (name, value) in &changes.append {
        if allowed(rules, |rules| rules.may_set(name))? {
            append(head, name, value)?;
        }
    }
    for name in &changes.remove {
        let name = name.trim().to_ascii_lowercase();
        // Without these it would be no request.
        if name.starts_with(':') || name == "host" {
            if rules.is_some_and(|rules| rules.is_error) {
                return Err(Bad::Change);
            }
        } else if allowed(rules, |rules| rules.may_remove(&name))? {
            head.headers.remove(&name);
        }
    }
    if !(changes.query_set.is_empty() && changes.query_remove.is_empty()) {
        let path = with_parameters(&head.path, &changes.query_set, &changes.query_remove);
        set(head, ":path", path.as_bytes())?;
    }
    Ok(())
}

fn allowed(
    rules: Option<&HeaderRules>,
    may: impl FnOnce(&HeaderRules) -> bool,
) -> Result<bool, Bad> {
    let Some(rules) = rules else { return Ok(true) };
    match may(rules) {
        false if rules.is_error => Err(Bad::Change),
        may => Ok(may),
    }
}

fn set(head: &mut Head, name: &str, value: &[u8]) -> Result<(), Bad> {
    let text = || std::str::from_utf8(value).map_err(|_| Bad::Change);
    match name {
        ":path" => {
            let path = text()?;
            if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() {
                return Err(Bad::Change);
            }
            head.path = path.into();
        }
        "host" | ":authority" => {
            let authority = text()?;
            if !host::is_valid(authority) {
                return Err(Bad::Change);
            }
            head.authority = authority.into();
        }
        ":method" => head.method = Method::from_bytes(value).map_err(|_| Bad::Change)?,
        ":scheme" => {
            head.scheme = match value {
                b"http" => "http",
                b"https" => "https",
                _ => return Err(Bad::Change),
            };
        }
        name => {
            head.headers.insert(header_name(name)?, header_value(name, value)?);
        }
    }
    Ok(())
}

/// Appends `value` to the header called `name`, if there is one.
fn append(head: &mut Head, name: &str, value: &[u8]) -> Result<(), Bad> {
    let before = match name {
        ":path" => head.path.as_bytes(),
        "host" | ":authority" => head.authority.as_bytes(),
        ":method" => head.method.as_str().as_bytes(),
        ":scheme" => head.scheme.as_bytes(),
        name => match head.headers.get(name) {
            Some(value) => value.as_bytes(),
            None => return header_name(name).map(drop),
        },
    };
    set(head, name, &[before, b",", value].concat())
}

fn header_name(name: &str) -> Result<HeaderName, Bad> {
    let bad = |_| Bad::Header(format!("invalid header name: {name}"));
    HeaderName::from_bytes(name.as_bytes()).map_err(bad)
}

fn header_value(name: &str, value: &[u8]) -> Result<HeaderValue, Bad> {
    let bad = |_| Bad::Header(format!("invalid header value for: {name}"));
    HeaderValue::from_bytes(value).map_err(bad)
}

/// `path` with these parameters of its query.
fn with_parameters(path: &str, set: &[(String, String)], remove: &[String]) -> String {
    let mut query = Query::of(path);
    for (name, value) in set {
        query.set(name, value);
    }
    for name in remove {
        query.remove(name);
    }
    query.target()
}

/// Makes changes to the headers of a response: first those that add, then those that replace, and last those that
/// depend on what is there. Those that are no headers are left out.
pub(super) fn response(changes: &[(AppendAction, Header)], headers: &mut HeaderMap) {
    use AppendAction::{
        AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd,
    };
    for kind in [AppendIfExistsOrAdd, OverwriteIfExistsOrAdd, AddIfAbsent, OverwriteIfExists] {
        for (_, (name, value)) in changes.iter().filter(|(action, _)| *action == kind) {
            let (Ok(name), Ok(value)) = (header_name(name), header_value(name, value)) else {
                continue;
            };
            let present = headers.contains_key(&name);
            match kind {
                AppendIfExistsOrAdd => drop(headers.append(name, value)),
                AddIfAbsent if present => {}
                OverwriteIfExists if !present => {}
                AddIfAbsent | OverwriteIfExistsOrAdd | OverwriteIfExists => {
                    headers.insert(name, value);
                }
            }
        }
    }
}

/// The headers of a denial; those that are no headers are left out.
pub(super) fn denial(headers: &[Header]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (header_name(name), header_value(name, value)) {
            all.append(name, value);
        }
    }
    all
}

/// Whether all of them could stand in a message.
pub(super) fn are_valid<'a>(mut headers: impl Iterator<Item = &'a Header>) -> bool {
    headers.all(|(name, value)| {
        let name = name.strip_prefix(':').unwrap_or(name);
        header_name(name).is_ok() && header_value(name, value).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn head() -> Head {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        Head {
            method: Method::GET,
            scheme: "http",
            authority: "a.test".into(),
            path: "/p?q=1&z=2&q=3&e".into(),
            headers,
            version: Version::HTTP_11,
        }
    }

    fn header(name: &str, value: &str) -> Header {
        (name.to_owned(), value.as_bytes().to_vec())
    }

    #[test]
    fn headers_are_set_added_appended_and_removed() {
        let changes = Changes {
            set: vec![header("x-b", "2"), header(":path", "/other"), header("host", "b.test")],
            add: vec![header("x-a", "4")],
            append: vec![header("x-a", "3"), header("x-none", "5")],
            remove: vec!["host".into(), ":path".into(), "x-none".into()],
            ..Changes::default()
        };
        let mut head = head();
        request(&changes, None, &mut head).unwrap();
        assert_eq!((&*head.path, &*head.authority), ("/other", "b.test"));
        assert_eq!(
            (&head.headers["x-a"], &head.headers["x-b"]),
            (&"1,3".parse().unwrap(), &"2".parse().unwrap())
        );
        assert!(!head.headers.contains_key("x-none"));
    }

    #[test]
    fn parameters_are_sorted() {
        let set = [("z".to_owned(), "9".to_owned()), ("n".to_owned(), "a".to_owned())];
        let changed = with_parameters("/p?q=1&z=2&q=3&e", &set, &["e".to_owned()]);
        assert_eq!(changed, "/p?n=a&q=1&q=3&z=9");
        assert_eq!(with_parameters("/p?e", &[], &["e".to_owned()]), "/p");
    }

    #[test]
    fn rules_leave_out_or_fail() {
        let changes = Changes {
            set: vec![header("host", "b.test"), header("x-b", "2")],
            ..Changes::default()
        };
        let mut changed = head();
        request(&changes, Some(&HeaderRules::default()), &mut changed).unwrap();
        assert_eq!((&*changed.authority, changed.headers.contains_key("x-b")), ("a.test", true));
        let strict = HeaderRules { is_error: true, ..HeaderRules::default() };
        assert_eq!(request(&changes, Some(&strict), &mut head()), Err(Bad::Change));
    }

    #[test]
    fn what_is_no_request_any_more_is_bad() {
        for (name, value) in [
            ("x bad", "1"),
            ("x-a", "1\n2"),
            (":path", "/a b"),
            (":path", "relative"),
            (":authority", "a@b"),
            (":scheme", "ftp"),
            (":method", ""),
            (":status", "200"),
        ] {
            let changes = Changes { set: vec![header(name, value)], ..Changes::default() };
            assert!(request(&changes, None, &mut head()).is_err(), "{name}: {value}");
        }
    }
}
