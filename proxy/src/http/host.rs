//! The host a request is for: whether it is well-formed, and its form once the port or the trailing
//! dot is stripped as configured.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::config::http::StripPort;

/// Whether `authority` is a host with an optional port (RFC 3986, section 3.2) without user info: a
/// registered name (may be empty), an IPv4 address or an IPv6 address in brackets. Stricter than
/// Envoy, which also takes `user@host`, `host:port:port` and unbalanced brackets.
pub fn is_valid(authority: &str) -> bool {
    let (host, port) = split(authority);
    let host_is_valid = match host.strip_prefix('[') {
        Some(literal) => {
            literal.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }
        None => is_registered_name(host.as_bytes()),
    };
    // An empty host is legal in the Host header, but not with a port.
    host_is_valid && port.is_none_or(|port| is_port(port) && !host.is_empty())
}

/// The host and port of `authority`; the port is what follows the colon and may be empty.
pub fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // A colon inside brackets belongs to the address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// `authority` without the port (`strip_matching_host_port`, where `local_port` is the listener's, or
/// `strip_any_host_port`) and without the host's trailing dot (`strip_trailing_host_dot`).
pub fn stripped(
    authority: &str,
    strip_port: StripPort,
    strip_dot: bool,
    local_port: u16,
) -> Cow<'_, str> {
    let (host, port) = split(authority);
    let port = port.filter(|port| match strip_port {
        StripPort::No => true,
        StripPort::Matching => port.parse() != Ok(local_port),
        StripPort::Any => false,
    });
    let bare = if strip_dot { host.strip_suffix('.').unwrap_or(host) } else { host };
    match port {
        None => Cow::Borrowed(bare),
        Some(_) if bare.len() == host.len() => Cow::Borrowed(authority),
        Some(port) => Cow::Owned(format!("{bare}:{port}")),
    }
}

fn is_port(port: &str) -> bool {
    port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// RFC 3986 `reg-name`; an IPv4 address is one too.
fn is_registered_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is_name_byte(*byte) => rest,
            _ => return false,
        };
    }
}

/// RFC 3986 `unreserved` and `sub-delims`.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_with_a_legal_form_are_valid() {
        for host in [
            "h.example",
            "H.EXAMPLE.",
            "h.example:80",
            "h.example:",
            "1.2.3.4:80",
            "[::1]",
            "[::1]:80",
            "h_x",
            "-",
            "%41",
            "h~!$&'()*+;=x",
            "",
        ] {
            assert!(is_valid(host), "{host}");
        }
    }

    #[test]
    fn hosts_that_could_be_read_in_two_ways_are_not() {
        for host in [
            "u@h",
            "u:p@h",
            "h:8a",
            "h:99999",
            "h:-1",
            "h:+1",
            ":80",
            "h:80:90",
            "::1",
            "[::1",
            "::1]",
            "[::1].",
            "[gg::]",
            "[v1.x]",
            "[1.2.3.4]",
            "a b",
            "h/x",
            "h?x",
            "h#x",
            r"h\x",
            "h%zz",
            "h%4",
            "h{x}",
            "h\"x",
            "h\u{e9}",
            "h\0",
            "[::1]x:80",
        ] {
            assert!(!is_valid(host), "{host}");
        }
    }

    /// Results measured on Envoy 1.40, but for the empty port, which it keeps.
    #[test]
    fn ports_and_dots_are_stripped() {
        use StripPort::*;
        for (host, port, dot, wanted) in [
            ("h:80", No, false, "h:80"),
            ("h:80", Any, false, "h"),
            ("h:", Any, false, "h"),
            ("[::1]:80", Any, false, "[::1]"),
            ("[::1]", Any, false, "[::1]"),
            ("h:80", Matching, false, "h:80"),
            ("h:8080", Matching, false, "h"),
            ("h:08080", Matching, false, "h"),
            ("h.:80", No, true, "h:80"),
            ("h.:80", Any, true, "h"),
            ("h..", No, true, "h."),
            ("h.", No, false, "h."),
        ] {
            assert_eq!(stripped(host, port, dot, 8080), wanted, "{host}");
        }
    }

    proptest! {
        #[test]
        fn stripping_keeps_a_host_valid(host in r"[a-z.]{1,6}(:[0-9]{0,4})?", dot: bool) {
            prop_assume!(is_valid(&host));
            prop_assert!(is_valid(&stripped(&host, StripPort::Any, false, 1)));
            prop_assert!(!stripped(&host, StripPort::Any, dot, 1).contains(':'));
        }

        #[test]
        fn any_text_is_survived(host in ".{0,24}") {
            is_valid(&host);
            stripped(&host, StripPort::Any, true, 1);
        }
    }
}
