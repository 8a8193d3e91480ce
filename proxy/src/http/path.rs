//! The canonical path of a request, computed once before anything looks at it, so that what is
//! matched is what is forwarded.
//!
//! The rules are Envoy's (`normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`) with
//! two holes closed: a dot segment with parameters counts as a dot segment however its dots are
//! spelled (`/%2e%2e;x/`), and decoding never yields text that would decode again (`%%32f`).

use crate::config::http::{EscapedSlashes, PathNormalisation};

/// Response code details of a path that is refused, as Envoy names them.
pub const NORMALIZATION_FAILED: &str = "path_normalization_failed";

/// What became of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canonical {
    /// It was canonical already.
    Unchanged,
    /// Go on with this path and query.
    Rewritten(String),
    /// Answer 307 with this `location`.
    Redirect(String),
    /// Answer 400 with these response code details.
    Reject(&'static str),
}

/// Brings `target`, a path with an optional query, into canonical form. The query is never touched.
/// A target that is no path (`*`) is left alone.
pub fn canonical(target: &str, options: &PathNormalisation) -> Canonical {
    if target.contains('#') {
        return Canonical::Reject(NORMALIZATION_FAILED);
    }
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if !path.starts_with('/') || !may_change(path, options) {
        return Canonical::Unchanged;
    }
    let Some(Steps { mut path, unescaped }) = steps(path, options) else {
        return Canonical::Reject(NORMALIZATION_FAILED);
    };
    path.push_str(query);
    if unescaped && options.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
        Canonical::Redirect(path)
    } else if path == target {
        Canonical::Unchanged
    } else {
        Canonical::Rewritten(path)
    }
}

/// A cheap scan that lets ordinary paths pass without a copy.
fn may_change(path: &str, options: &PathNormalisation) -> bool {
    let bytes = path.as_bytes();
    let unescape = options.escaped_slashes != EscapedSlashes::Keep;
    let follows = |at: usize, wanted: u8| bytes.get(at + 1) == Some(&wanted);
    bytes.iter().enumerate().any(|(at, &byte)| match byte {
        b'%' => unescape || options.normalize,
        b'/' => {
            (options.merge_slashes && follows(at, b'/')) || (options.normalize && follows(at, b'.'))
        }
        byte => options.normalize && (byte == b'\\' || must_be_encoded(byte)),
    })
}

struct Steps {
    path: String,
    unescaped: bool,
}

/// The configured steps in Envoy's order; none if the path is refused.
fn steps(path: &str, options: &PathNormalisation) -> Option<Steps> {
    let (mut path, unescaped) = match (options.escaped_slashes, unescape_slashes(path)) {
        (EscapedSlashes::Keep, _) | (_, None) => (path.to_owned(), false),
        (EscapedSlashes::Reject, Some(_)) => return None,
        (_, Some(unescaped)) => (unescaped, true),
    };
    if options.normalize {
        path = normalize(&path)?;
    }
    if options.merge_slashes {
        path = merge_slashes(path);
    }
    Some(Steps { path, unescaped })
}

/// `%2F` and `%5C` decoded; none if there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut unescaped = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        unescaped.push_str(before);
        let slash = match after.as_bytes() {
            [b'2', b'f' | b'F', ..] => '/',
            [b'5', b'c' | b'C', ..] => '\\',
            _ => '%',
        };
        unescaped.push(slash);
        rest = if slash == '%' { after } else { after.get(2..)? };
    }
    unescaped.push_str(rest);
    (unescaped.len() != path.len()).then_some(unescaped)
}

/// RFC 3986, sections 6.2.2.2 and 6.2.2.3, as Chromium and so Envoy read them: unreserved characters
/// are decoded, characters that do not belong into a path are encoded, a backslash is a slash, dot
/// segments are resolved. None for an encoded NUL.
fn normalize(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len() + 8);
    out.push('/');
    let mut segments = path.strip_prefix('/').unwrap_or(path).split(['/', '\\']).peekable();
    while let Some(segment) = segments.next() {
        match dots(segment) {
            1 => {}
            2 => out.truncate(parent(&out)),
            _ => {
                push_segment(&mut out, segment)?;
                if segments.peek().is_some() {
                    out.push('/');
                }
            }
        }
    }
    Some(out)
}

/// Length of `path`, which ends with a slash, without its last segment; the root has no parent.
fn parent(path: &str) -> usize {
    path.strip_suffix('/').and_then(|path| path.rfind('/')).unwrap_or(0) + 1
}

/// 1 for `.`, 2 for `..`, in any spelling and with any `;parameters`; 0 for any other segment.
fn dots(segment: &str) -> usize {
    let mut rest = segment.as_bytes();
    let mut dots = 0;
    loop {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            [] | [b';', ..] => return if dots > 2 { 0 } else { dots },
            _ => return 0,
        };
        dots += 1;
    }
}

/// Appends one segment with its percent-encoding normalised.
fn push_segment(out: &mut String, segment: &str) -> Option<()> {
    let mut rest = segment.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            if let Some((decoded, after)) = escape(tail) {
                match decoded {
                    0 => return None,
                    decoded if is_unreserved(decoded) && !would_complete_escape(out, decoded) => {
                        out.push(char::from(decoded));
                        rest = after;
                        continue;
                    }
                    _ => {}
                }
            }
            out.push('%');
        } else if must_be_encoded(*byte) {
            let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
            out.push('%');
            out.extend(digits.into_iter().flatten().map(|digit| digit.to_ascii_uppercase()));
        } else {
            out.push(char::from(*byte));
        }
    }
    Some(())
}

/// The byte that two hexadecimal digits at the start of `rest` stand for, and what follows them.
fn escape(rest: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, after @ ..] = rest else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok().map(|byte| (byte, after))
}

/// Whether `decoded` after a stray `%` at the end of `out` would read as an escape.
fn would_complete_escape(out: &str, decoded: u8) -> bool {
    decoded.is_ascii_hexdigit() && out.bytes().rev().take(2).any(|byte| byte == b'%')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte may not stand in a path as it is.
fn must_be_encoded(byte: u8) -> bool {
    !byte.is_ascii_graphic()
        || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Each run of slashes becomes one.
fn merge_slashes(mut path: String) -> String {
    let mut previous = '\0';
    path.retain(|next| std::mem::replace(&mut previous, next) != '/' || next != '/');
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: PathNormalisation = PathNormalisation {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::Keep,
    };
    const OFF: PathNormalisation =
        PathNormalisation { normalize: false, merge_slashes: false, ..FULL };

    fn with(escaped_slashes: EscapedSlashes) -> PathNormalisation {
        PathNormalisation { escaped_slashes, ..FULL }
    }

    fn result(target: &str, options: PathNormalisation) -> String {
        match canonical(target, &options) {
            Canonical::Unchanged => target.to_owned(),
            Canonical::Rewritten(path) => path,
            Canonical::Redirect(path) => format!("307 {path}"),
            Canonical::Reject(_) => "400".to_owned(),
        }
    }

    /// Every line was answered the same by Envoy 1.40.
    #[test]
    fn normalizes_as_envoy_does() {
        let only = PathNormalisation { merge_slashes: false, ..FULL };
        for (path, wanted) in [
            ("/a/../b", "/b"),
            ("/..", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/../../../c", "/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%2e%2e%2fa", "/..%2fa"),
            (r"/a\..\b", "/b"),
            ("//a//b", "//a//b"),
            ("/a//../b", "/a/b"),
            ("/%41%62c/%7euser/%2D%5f", "/Abc/~user/-_"),
            ("/%61%2Fb%c3%a9", "/a%2Fb%c3%a9"),
            ("/a%", "/a%"),
            ("/a%zz", "/a%zz"),
            ("/a%00b", "400"),
            ("/a/..;x/b", "/b"),
            ("/a/.;x=1/b", "/a/b"),
            ("/a;x/b", "/a;x/b"),
            ("/a/..%3bx/b", "/a/..%3bx/b"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a/.../b", "/a/.../b"),
            ("/a\"<{^`|}>", "/a%22%3C%7B%5E%60%7C%7D%3E"),
            ("/a!$&'()*+,;=:@[]", "/a!$&'()*+,;=:@[]"),
            ("/a/../b?x=/../%41//", "/b?x=/../%41//"),
            ("/a#f", "400"),
            ("/a?q#f", "400"),
            ("*", "*"),
        ] {
            assert_eq!(result(path, only), wanted, "{path}");
        }
        assert_eq!(
            result("//a///b/?q//", PathNormalisation { merge_slashes: true, ..OFF }),
            "/a/b/?q//"
        );
    }

    #[test]
    fn escaped_slashes_are_kept_refused_redirected_or_decoded() {
        use EscapedSlashes::*;
        for path in ["/a%2fb", "/a%5cb", "/a%2F.%2F%5Cb"] {
            assert_eq!(result(path, with(Keep)), path);
            assert_eq!(result(path, with(Reject)), "400");
            assert_eq!(result(path, with(UnescapeAndForward)), "/a/b");
            assert_eq!(result(path, with(UnescapeAndRedirect)), "307 /a/b");
        }
        assert_eq!(result("/a?x=%2f", with(Reject)), "/a?x=%2f");
        assert_eq!(result("/a/../%62", with(UnescapeAndRedirect)), "/b");
        let unescape = PathNormalisation { escaped_slashes: UnescapeAndForward, ..OFF };
        assert_eq!(result("/%2e%2e%2fa", unescape), "/%2e%2e/a");
    }

    #[test]
    fn parameters_do_not_hide_encoded_dot_segments() {
        assert_eq!(result("/a/%2e%2e;x/b", FULL), "/b");
        assert_eq!(result(r"/a\%2E.;x=y\b", FULL), "/b");
    }

    #[test]
    fn nothing_is_decoded_twice() {
        for path in ["/%%32f", "/%2%66", "/%252f", "/%25%32%66", "/%%35c"] {
            let once = result(path, with(EscapedSlashes::UnescapeAndForward));
            assert!(!once.to_ascii_lowercase().contains("%2f"), "{path} became {once}");
            assert_eq!(result(&once, with(EscapedSlashes::Reject)), once);
        }
    }

    fn options() -> impl Strategy<Value = PathNormalisation> {
        let actions = prop::sample::select(vec![
            EscapedSlashes::Keep,
            EscapedSlashes::Reject,
            EscapedSlashes::UnescapeAndRedirect,
            EscapedSlashes::UnescapeAndForward,
        ]);
        (any::<bool>(), any::<bool>(), actions).prop_map(
            |(normalize, merge_slashes, escaped_slashes)| PathNormalisation {
                normalize,
                merge_slashes,
                escaped_slashes,
            },
        )
    }

    proptest! {
        #[test]
        fn is_idempotent_and_keeps_the_query(
            path in r"/([./\\%;a25cfF0]|%2[eEfF]|%5c|%[0-9a-f]{2}|\PC){0,24}",
            query in r"(\?[^#]{0,12})?",
            options in options(),
        ) {
            let target = format!("{}{query}", path.replace(['?', '#'], ""));
            match canonical(&target, &options) {
                Canonical::Unchanged | Canonical::Reject(_) => {}
                Canonical::Rewritten(once) | Canonical::Redirect(once) => {
                    prop_assert!(once.starts_with('/') && once.ends_with(&query));
                    prop_assert_eq!(canonical(&once, &options), Canonical::Unchanged);
                }
            }
        }

        #[test]
        fn no_dot_segment_survives(path in r"/([./\\;a]|%2[eEfF]|%5c){0,24}") {
            let path = result(&path, with(EscapedSlashes::UnescapeAndForward));
            prop_assert!(path.split('/').all(|segment| dots(segment) == 0 || segment.is_empty()));
        }

        #[test]
        fn any_text_is_survived(target in ".{0,40}", options in options()) {
            canonical(&target, &options);
        }
    }
}
