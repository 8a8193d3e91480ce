//! Whether a connection begins with HTTP in plain text, and which (Envoy `http_inspector`).

/// What a client that speaks HTTP/2 without asking sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The most that is looked at for the end of a request line, as in Envoy.
pub(super) const MAX_LOOK: usize = 64 * 1024;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http {
    /// A request line of HTTP/1.0, or of any version but 1.1.
    Http10,
    /// A request line of HTTP/1.1.
    Http11,
    /// The preface of HTTP/2.
    Http2,
    /// Something else.
    Not,
}

impl Http {
    /// The application protocol that filter chains know it by.
    pub(super) fn application_protocol(self) -> Option<&'static str> {
        match self {
            Self::Http10 => Some("http/1.0"),
            Self::Http11 => Some("http/1.1"),
            Self::Http2 => Some("h2c"),
            Self::Not => None,
        }
    }
}

/// What `bytes`, the beginning of a connection, are; none if more are needed.
///
/// The answer never changes when more bytes follow.
pub(super) fn parse(bytes: &[u8]) -> Option<Http> {
    if bytes.iter().zip(PREFACE).all(|(a, b)| a == b) {
        return (bytes.len() >= PREFACE.len()).then_some(Http::Http2);
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = bytes.get(..end).unwrap_or_default();
            Some(request_line(line.strip_suffix(b"\r").unwrap_or(line)))
        }
        None if may_begin(bytes) => None,
        None => Some(Http::Not),
    }
}

/// Whether a request line may begin with `bytes`.
fn may_begin(bytes: &[u8]) -> bool {
    let mut words = bytes.splitn(2, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let is_method = match (words.next(), method.split_last()) {
        // Its end may be here already: `\r` before `\n`.
        (None, Some((b'\r', method))) => is_token(method),
        _ => is_token(method),
    };
    is_method && bytes.iter().all(|byte| (b' '..0x7f).contains(byte) || *byte == b'\r')
}

fn request_line(line: &[u8]) -> Http {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Http::Not };
    if line.first() == Some(&b' ') || !is_token(method) || !is_target(method, target) {
        return Http::Not;
    }
    match (words.next(), words.next()) {
        (Some(b"HTTP/1.1"), None) => Http::Http11,
        // A line without a version is HTTP/0.9's.
        (None, _) => Http::Http10,
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Http::Http10
        }
        _ => Http::Not,
    }
}

fn is_token(word: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(is_part)
}

fn is_target(method: &[u8], target: &[u8]) -> bool {
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let is_absolute =
        || scheme > 0 && target.get(scheme..).is_some_and(|rest| rest.starts_with(b"://"));
    target.iter().all(|byte| (b'!'..0x7f).contains(byte))
        && (method == b"CONNECT" || matches!(target.first(), Some(b'/' | b'*')) || is_absolute())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_request_line_tells_the_version() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Http::Http11),
            ("GET / HTTP/1.1\n", Http::Http11),
            ("GET  / HTTP/1.1\r\n", Http::Http11),
            ("foo /a?b HTTP/1.1\r\n", Http::Http11),
            ("OPTIONS * HTTP/1.1\r\n", Http::Http11),
            ("GET http://a/ HTTP/1.1\r\n", Http::Http11),
            ("CONNECT a:1 HTTP/1.1\r\n", Http::Http11),
            ("GET / HTTP/1.0\r\n", Http::Http10),
            ("GET / HTTP/0.9\r\n", Http::Http10),
            ("GET / HTTP/2.0\r\n", Http::Http10),
            ("GET /\r\n", Http::Http10),
            ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Http::Http10),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http::Http2),
            ("abc\r\n", Http::Not),
            ("abc d\r\n", Http::Not),
            ("G@T / HTTP/1.1\r\n", Http::Not),
            ("GET / http/1.1\r\n", Http::Not),
            ("GET / a HTTP/1.1\r\n", Http::Not),
            ("GET foo HTTP/1.1\r\n", Http::Not),
            ("HTTP/1.1 200 OK\r\n", Http::Not),
            ("\r\nGET / HTTP/1.1\r\n", Http::Not),
            ("*1\r\n$4\r\nPING\r\n", Http::Not),
        ] {
            assert_eq!(parse(bytes.as_bytes()), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_become_http_is_known_at_once() {
        for bytes in [&b"\0\x01\x02"[..], b" GET", b"GET /\x80", b"G@T", b"\x16\x03", b"GET /a\0"] {
            assert_eq!(parse(bytes), Some(Http::Not), "{bytes:?}");
        }
        for bytes in [&b"abc"[..], b"PRI", b"PRI * HTTP/2.0\r\n", b"GET /", b"GET / HTTP/1.1\r"] {
            assert_eq!(parse(bytes), None, "{bytes:?}");
        }
    }

    fn likely() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[A-Z]{0,4}[ @]{0,2}[/*a]{0,3} {0,2}(HTTP/1.[01])?(\r\n|\n|\r| )?"
                .prop_map(String::into_bytes),
            Just(PREFACE.to_vec()),
            proptest::collection::vec(any::<u8>(), 0..30),
        ]
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_the_answer(bytes in likely(), more in likely(), cut: usize) {
            let cut = cut % (bytes.len() + 1);
            let all = [bytes.clone(), more].concat();
            if let Some(early) = parse(&bytes[..cut]) {
                prop_assert_eq!(parse(&all), Some(early), "{:?}", String::from_utf8_lossy(&all));
            }
        }
    }
}
