//! `stateful_session`: requests of a session go to the endpoint of its first one. The client carries the endpoint's
//! address, in the bytes of Envoy, so that sessions survive a change from one proxy to the other.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use prost::Message;

use super::Memory;
use super::passage::Passage;
use crate::config::http_filter::{FilterRule, SessionCookie, SessionState, StatefulSession};
use crate::http::stream::{Head, Stream};
use crate::route::{Said, cookie};
use crate::telemetry::metrics::{Counter, SessionStats};
use crate::telemetry::response_flags::ResponseFlags;

/// What Envoy's session cookies hold, in base64.
#[derive(Clone, PartialEq, Message)]
struct CookieValue {
    #[prost(string, tag = "1")]
    address: String,
    /// In seconds since 1970; 0 means never.
    #[prost(uint64, tag = "2")]
    expires: u64,
}

/// The configuration that counts for a request: what is said to the filter called `filter`, or its own; none if it
/// has nothing to do.
pub(super) fn effective<'a>(
    own: &'a StatefulSession,
    filter: &str,
    said: Said<'a>,
) -> Option<&'a StatefulSession> {
    let rule = said.to(filter).find_map(|rule| match rule {
        FilterRule::StatefulSession(rule) => Some(rule),
        _ => None,
    });
    rule.map_or(Some(own), Option::as_ref)
}

/// Asks for the endpoint of the request's session.
pub(super) fn request(own: &StatefulSession, filter: &str, request: &mut Passage<'_>) -> Memory {
    let Some(config) = effective(own, filter, request.said()) else { return Memory::Nothing };
    let wanted = match &config.state {
        Some(SessionState::Cookie(cookie)) if is_valid_at(&cookie.path, &request.head().path) => {
            cookie_address(cookie, &request.head().headers, now())
        }
        Some(SessionState::Header(name)) => header_address(name, request.head()),
        Some(SessionState::Cookie(_)) | None => return Memory::Session(None),
    };
    if let Some(address) = &wanted {
        request.wishes.override_host = Some((address.clone(), config.strict));
    }
    Memory::Session(Some(wanted.unwrap_or_default()))
}

/// Tells the client which endpoint its session is at, unless that is the one it has `wanted` (empty for none yet).
pub(super) fn response(
    config: Option<&StatefulSession>,
    wanted: Option<&str>,
    stream: &Stream,
    headers: &mut HeaderMap,
) {
    let Some(config) = config else { return };
    let host = stream.upstream.borrow().host.as_ref().map(ToString::to_string);
    let outcome: fn(&SessionStats) -> &Counter = match (wanted, host) {
        (None, Some(_)) => |stats| &stats.no_session,
        (Some(wanted), Some(host)) if wanted == host => |stats| &stats.routed,
        (Some(_), Some(host)) => {
            tell(config, host, headers);
            if config.strict {
                return;
            }
            |stats| &stats.failed_open
        }
        (Some(_), None)
            if config.strict && stream.flags().contains(ResponseFlags::NO_HEALTHY_UPSTREAM) =>
        {
            |stats| &stats.failed_closed
        }
        (_, None) => return,
    };
    if let Some(scope) = &config.stats {
        outcome(&stream.connection.worker.filter_stats.sessions(scope)).inc();
    }
}

fn tell(config: &StatefulSession, host: String, headers: &mut HeaderMap) {
    match &config.state {
        Some(SessionState::Cookie(cookie)) => {
            headers.extend(set_cookie(cookie, host, now()).map(|value| (SET_COOKIE, value)));
        }
        Some(SessionState::Header(name)) => {
            if let Ok(value) = HeaderValue::try_from(STANDARD.encode(host)) {
                headers.insert(name, value);
            }
        }
        None => {}
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Whether cookies given at `path` are sent with requests for `requested`.
fn is_valid_at(path: &str, requested: &str) -> bool {
    let Some(rest) = requested.strip_prefix(path) else { return path.is_empty() };
    matches!(path, "" | "/")
        || path.ends_with('/')
        || matches!(rest.chars().next(), None | Some('/' | '?' | '#'))
}

/// The address in the request's cookie, unless it has expired `now`. Anything but Envoy's message is taken for a bare
/// address, as Envoy once wrote it.
fn cookie_address(config: &SessionCookie, headers: &HeaderMap, now: u64) -> Option<Box<str>> {
    let value = STANDARD.decode(cookie::find(headers, &config.name)?).ok()?;
    let address = match CookieValue::decode(&*value) {
        Ok(cookie) if cookie.expires != 0 && cookie.expires < now => return None,
        Ok(cookie) => cookie.address,
        Err(_) => String::from_utf8(value).ok()?,
    };
    (!address.is_empty()).then(|| address.into())
}

fn header_address(name: &HeaderName, head: &Head) -> Option<Box<str>> {
    let address = STANDARD.decode(head.headers.get(name)?).ok()?;
    let address = String::from_utf8(address).ok()?;
    (!address.is_empty()).then(|| address.into())
}

fn set_cookie(config: &SessionCookie, address: String, now: u64) -> Option<HeaderValue> {
    let SessionCookie { name, ttl, path, attributes } = config;
    let expires = if *ttl == 0 { 0 } else { now.saturating_add(*ttl) };
    let value = STANDARD.encode(CookieValue { address, expires }.encode_to_vec());
    cookie::set(name, &value, *ttl, path, attributes)
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;

    fn config(ttl: u64) -> SessionCookie {
        SessionCookie { name: "sid".into(), ttl, path: "/c".into(), attributes: Vec::new() }
    }

    fn address(ttl: u64, value: &str, now: u64) -> Option<Box<str>> {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(format!("sid={value}")).unwrap());
        cookie_address(&config(ttl), &headers, now)
    }

    #[test]
    fn cookies_are_those_of_envoy() {
        // As Envoy 1.40 has written them.
        let cookie = set_cookie(&config(120), "127.0.0.1:22511".into(), 1_795_431_484).unwrap();
        let value = "Cg8xMjcuMC4wLjE6MjI1MTEQtLmQ2AY=";
        assert_eq!(cookie, format!("sid=\"{value}\"; Max-Age=120; Path=/c; HttpOnly"));
        assert_eq!(address(120, value, 1_795_431_604).as_deref(), Some("127.0.0.1:22511"));
        assert_eq!(address(120, value, 1_795_431_605), None);
        let cookie = set_cookie(&config(0), "127.0.0.2:22511".into(), 1_795_431_484).unwrap();
        assert_eq!(cookie, "sid=\"Cg8xMjcuMC4wLjI6MjI1MTE=\"; Path=/c; HttpOnly");
    }

    #[test]
    fn what_is_no_cookie_of_envoys_may_be_a_bare_address() {
        let at = |value| address(0, value, 1);
        assert_eq!(at("MTI3LjAuMC4yOjIyNTEx").as_deref(), Some("127.0.0.2:22511"));
        for value in ["", "%%%", "MTI3LjAuMC4yOjIyNTExYQ", "CgL//g=="] {
            assert_eq!(at(value), None, "{value}");
        }
    }

    #[test]
    fn a_cookie_is_valid_below_its_path() {
        for (path, requested, valid) in [
            ("", "/any", true),
            ("/", "/any", true),
            ("/c", "/c", true),
            ("/c", "/c/d", true),
            ("/c", "/c?q", true),
            ("/c", "/cd", false),
            ("/c", "/", false),
            ("/c/", "/c/d", true),
            ("/c/", "/c", false),
            ("*", "*", true),
        ] {
            assert_eq!(is_valid_at(path, requested), valid, "{path} {requested}");
        }
    }

    proptest! {
        #[test]
        fn what_was_told_is_understood(host in "[ -~]{1,60}", ttl in 0_u64..1_000_000, now: u32) {
            let cookie = set_cookie(&config(ttl), host.clone(), now.into()).unwrap();
            let value = cookie.to_str().unwrap().split('"').nth(1).unwrap();
            let understood = address(ttl, value, u64::from(now) + ttl);
            prop_assert_eq!(understood.as_deref(), Some(&*host));
        }

        #[test]
        fn no_cookie_is_too_strange(value in "[!-:<-~]{0,80}", now: u64) {
            let _ = address(0, &value, now);
        }
    }
}
