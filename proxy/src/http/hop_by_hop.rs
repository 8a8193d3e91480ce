//! Headers that belong to one connection and must not cross the proxy (RFC 9110, section 7.6.1), and
//! the ones the proxy sets on its own behalf.

use http::HeaderMap;
use http::header::{
    CONNECTION, DATE, Entry, HOST, HeaderName, HeaderValue, SERVER, TE, TRANSFER_ENCODING, UPGRADE,
    VIA,
};

use super::forwarded::append;
use super::names;
use crate::config::http::ServerHeaderTransformation;

/// Takes the client's connection-level headers away, with all that `connection` nominates but `host`.
/// Of `te` only `trailers` stays, which gRPC needs. With `upgrade` the request goes on as an upgrade:
/// `upgrade` stays and `connection` says so. Call before the proxy adds headers of its own.
pub fn strip_request(headers: &mut HeaderMap, upgrade: bool) {
    strip(headers, upgrade);
    let mut wishes = headers.get_all(TE).iter().peekable();
    if wishes.peek().is_some() {
        if wishes.any(accepts_trailers) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
}

/// Takes the upstream's connection-level headers away. With `upgrade` the response is the 101 (or 200)
/// of an upgrade that was asked for.
pub fn strip_response(headers: &mut HeaderMap, upgrade: bool) {
    strip(headers, upgrade);
}

/// Sets `server` of a response that came from an upstream, as `server_header_transformation` says.
pub fn set_server(
    headers: &mut HeaderMap,
    transformation: ServerHeaderTransformation,
    server: &HeaderValue,
) {
    match transformation {
        ServerHeaderTransformation::Overwrite => {
            headers.insert(SERVER, server.clone());
        }
        ServerHeaderTransformation::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| server.clone());
        }
        ServerHeaderTransformation::PassThrough => {}
    }
}

/// Sets `date` unless the upstream did; `now` is the worker's clock, formatted once per second.
pub fn set_date(headers: &mut HeaderMap, now: &HeaderValue) {
    headers.entry(DATE).or_insert_with(|| now.clone());
}

/// Appends this proxy to `via` of a request or response.
pub fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    append(headers, VIA, via, b", ");
}

/// Says how many milliseconds the upstream took; left out with `suppress_envoy_headers`.
pub fn set_service_time(headers: &mut HeaderMap, millis: u64) {
    headers.insert(names::X_ENVOY_UPSTREAM_SERVICE_TIME, millis.into());
}

fn strip(headers: &mut HeaderMap, upgrade: bool) {
    const HOP_BY_HOP: [HeaderName; 6] = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        names::KEEP_ALIVE,
        names::PROXY_CONNECTION,
        names::HTTP2_SETTINGS,
    ];
    // Most messages have none of them: one look at the names is cheaper than asking for each.
    if !upgrade && !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    remove_nominated(headers, upgrade);
    headers.remove(names::KEEP_ALIVE);
    headers.remove(names::PROXY_CONNECTION);
    headers.remove(names::HTTP2_SETTINGS);
    headers.remove(TRANSFER_ENCODING);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Removes `connection` and the headers it names. `te` has its own rule, and `upgrade` too.
fn remove_nominated(headers: &mut HeaderMap, upgrade: bool) {
    let Entry::Occupied(connection) = headers.entry(CONNECTION) else { return };
    let (_, nominations) = connection.remove_entry_mult();
    let nominations: Vec<HeaderValue> = nominations.collect();
    let names = nominations.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for name in names.map(<[u8]>::trim_ascii) {
        if name.eq_ignore_ascii_case(b"close") || name.eq_ignore_ascii_case(b"keep-alive") {
            continue;
        }
        match HeaderName::from_bytes(name) {
            Ok(HOST | TE) | Err(_) => {}
            Ok(UPGRADE) if upgrade => {}
            Ok(name) => {
                headers.remove(name);
            }
        }
    }
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    te.as_bytes().split(|byte| *byte == b',').any(|coding| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let pair = |line: &&str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(pair).collect()
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<String> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    fn stripped(before: &[&str], upgrade: bool) -> Vec<String> {
        let mut headers = headers(before);
        strip_request(&mut headers, upgrade);
        lines(&headers)
    }

    #[test]
    fn nothing_of_the_connection_goes_on() {
        let before = [
            "host: a",
            "connection: close, X-Foo,, host",
            "connection: keep-alive ,x-bar",
            "x-foo: 1",
            "x-bar: 2",
            "x-baz: 3",
            "keep-alive: timeout=5",
            "proxy-connection: x",
            "transfer-encoding: chunked",
            "upgrade: h2c",
            "http2-settings: x",
            "te: gzip",
        ];
        assert_eq!(stripped(&before, false), ["host: a", "x-baz: 3"]);
    }

    #[test]
    fn te_keeps_nothing_but_trailers() {
        for (te, kept) in [
            ("trailers", true),
            ("deflate, Trailers ;q=1", true),
            ("gzip", false),
            ("xtrailers", false),
        ] {
            let line = format!("te: {te}");
            let wanted: &[&str] = if kept { &["te: trailers"] } else { &[] };
            assert_eq!(stripped(&[&line, "connection: te"], false), wanted, "{te}");
        }
        assert_eq!(stripped(&["te: gzip", "te: trailers"], false), ["te: trailers"]);
    }

    #[test]
    fn an_upgrade_goes_on_as_one() {
        let before = ["connection: keep-alive, Upgrade, x-foo", "upgrade: websocket", "x-foo: 1"];
        assert_eq!(stripped(&before, true), ["connection: upgrade", "upgrade: websocket"]);
        assert_eq!(stripped(&before, false), [""; 0]);
    }

    #[test]
    fn responses_lose_theirs_and_gain_ours() {
        let mut response =
            headers(&["connection: x-a", "x-a: 1", "server: app", "date: then", "via: 1.1 b"]);
        strip_response(&mut response, false);
        let ours = HeaderValue::from_static("envoy");
        set_date(&mut response, &HeaderValue::from_static("now"));
        append_via(&mut response, &ours);
        set_service_time(&mut response, 12);
        for (transformation, server) in [
            (ServerHeaderTransformation::PassThrough, "server: app"),
            (ServerHeaderTransformation::AppendIfAbsent, "server: app"),
            (ServerHeaderTransformation::Overwrite, "server: envoy"),
        ] {
            set_server(&mut response, transformation, &ours);
            let wanted =
                ["date: then", server, "via: 1.1 b, envoy", "x-envoy-upstream-service-time: 12"];
            assert_eq!(lines(&response), wanted);
        }
    }

    proptest! {
        #[test]
        fn what_is_nominated_is_gone(names in prop::collection::vec("[a-z]{1,3}", 0..6), value in "[ -~]{0,20}") {
            let mut map: HeaderMap = names
                .iter()
                .map(|name| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1")))
                .collect();
            map.append(CONNECTION, HeaderValue::from_str(&value).unwrap());
            map.append(CONNECTION, HeaderValue::from_str(&names.join(",")).unwrap());
            strip_request(&mut map, false);
            prop_assert!(!map.contains_key(CONNECTION));
            prop_assert!(names.iter().all(|name| name == "te" || !map.contains_key(name)));
        }
    }
}
