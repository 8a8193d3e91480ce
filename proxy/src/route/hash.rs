//! The hash of a request or connection, by which it finds the same endpoint each time. The same numbers as Envoy's.

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;
use twox_hash::XxHash64;

use super::cookie;
use crate::config::hash_policy::{HashCookie, HashPolicy, HashSource};
use crate::config::matcher::{HeaderRef, RequestHead};
use crate::config::route::RegexRewrite;

/// What hash policies look at.
pub struct Keys<'a> {
    /// The request.
    pub head: &'a RequestHead<'a>,
    /// The client's address, if known.
    pub client: Option<IpAddr>,
    /// Makes a cookie that the request lacks and tells its value; none if no cookie can be made.
    pub cookie: &'a dyn Fn(&HashCookie) -> Option<String>,
}

/// The hash that `policies` make of `keys`; none if none of them applies.
pub fn of(policies: &[HashPolicy], keys: &Keys<'_>) -> Option<u64> {
    let mut all: Option<u64> = None;
    for policy in policies {
        if let Some(hash) = one(&policy.source, keys) {
            // Rotated, so that two policies of the same value do not cancel each other out.
            all = Some(all.unwrap_or(0).rotate_left(1) ^ hash);
        }
        if policy.terminal && all.is_some() {
            break;
        }
    }
    all
}

fn one(source: &HashSource, keys: &Keys<'_>) -> Option<u64> {
    match source {
        HashSource::Header { name, rewrite } => header(name, rewrite.as_ref(), keys.head),
        HashSource::Cookie(wanted) => match cookie::find(keys.head.headers, &wanted.name) {
            Some(value) if !value.is_empty() => Some(bytes(value)),
            _ => {
                wanted.ttl?;
                Some(bytes((keys.cookie)(wanted)?.as_bytes()))
            }
        },
        HashSource::SourceIp => keys.client.map(address),
        HashSource::QueryParameter(name) => {
            let pairs = keys.head.query()?.split('&');
            let mut values = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let (_, value) = values.find(|(known, _)| *known == &**name)?;
            Some(bytes(value.as_bytes()))
        }
        HashSource::FilterState => None,
    }
}

/// Several values are hashed in alphabetical order, so that the order they come in does not matter.
fn header(name: &HeaderRef, rewrite: Option<&RegexRewrite>, head: &RequestHead<'_>) -> Option<u64> {
    let HeaderRef::Named(name) = name else {
        return name.value(head).map(|value| rewritten(rewrite, &value));
    };
    let mut values: SmallVec<[&[u8]; 4]> =
        head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    match (values.as_mut_slice(), rewrite) {
        ([], _) => None,
        ([only], _) => Some(rewritten(rewrite, only)),
        (values, None) => {
            values.sort_unstable();
            Some(chained(values.iter().copied()))
        }
        (values, Some(rewrite)) => {
            let mut values: Vec<Vec<u8>> =
                values.iter().map(|value| apply(rewrite, value).into_bytes()).collect();
            values.sort_unstable();
            Some(chained(values.iter().map(Vec::as_slice)))
        }
    }
}

fn rewritten(rewrite: Option<&RegexRewrite>, value: &[u8]) -> u64 {
    match rewrite {
        None => bytes(value),
        Some(rewrite) => bytes(apply(rewrite, value).as_bytes()),
    }
}

fn apply(rewrite: &RegexRewrite, value: &[u8]) -> String {
    rewrite.apply(&String::from_utf8_lossy(value))
}

/// Each value is hashed with the hash of those before it as seed.
pub fn chained<'a>(values: impl Iterator<Item = &'a [u8]>) -> u64 {
    values.fold(0, XxHash64::oneshot)
}

/// The hash of a text.
pub fn bytes(text: &[u8]) -> u64 {
    XxHash64::oneshot(0, text)
}

/// The hash of a client's address (`source_ip`), for requests and connections alike.
pub fn address(ip: IpAddr) -> u64 {
    bytes(ip.to_string().as_bytes())
}

/// The value of a cookie that is made for the requests of the connection from `remote` to `local`: all of them
/// get the same one, even if they come at once.
pub fn cookie_value(remote: SocketAddr, local: SocketAddr) -> String {
    format!("{:016x}", bytes(format!("{remote}{local}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::route::tests::get;

    fn policy(source: HashSource, terminal: bool) -> HashPolicy {
        HashPolicy { source, terminal }
    }

    fn by_header(name: &str) -> HashSource {
        HashSource::Header { name: HeaderRef::parse(name).unwrap(), rewrite: None }
    }

    fn by_cookie(ttl: Option<u64>) -> HashSource {
        let (name, path) = ("session".into(), "/".into());
        HashSource::Cookie(HashCookie { name, ttl, path, attributes: Vec::new() })
    }

    fn hash(policies: &[HashPolicy], path: &str, headers: &HeaderMap) -> Option<u64> {
        let head = get(path, headers);
        let client = Some("10.0.0.1".parse().unwrap());
        of(policies, &Keys { head: &head, client, cookie: &|_| Some("fresh".to_owned()) })
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_hash_is_xxhash_64() {
        // From the reference implementation.
        assert_eq!(bytes(b""), 0xef46_db37_51d8_e999);
        assert_eq!(bytes(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn each_source_is_hashed_as_text() {
        let headers = headers(&[("a", "1"), ("cookie", "session=\"2\"")]);
        let of = |source| hash(&[policy(source, false)], "/p?q=3&q=4&empty", &headers);
        assert_eq!(of(by_header("a")), Some(bytes(b"1")));
        assert_eq!(of(by_header(":authority")), Some(bytes(b"a.com")));
        assert_eq!(of(by_header("absent")), None);
        assert_eq!(of(by_cookie(None)), Some(bytes(b"2")));
        assert_eq!(of(HashSource::SourceIp), Some(bytes(b"10.0.0.1")));
        assert_eq!(of(HashSource::QueryParameter("q".into())), Some(bytes(b"3")));
        assert_eq!(of(HashSource::QueryParameter("empty".into())), Some(bytes(b"")));
        assert_eq!(of(HashSource::QueryParameter("absent".into())), None);
        assert_eq!(of(HashSource::FilterState), None);
    }

    #[test]
    fn a_cookie_is_made_only_if_it_has_a_life() {
        let headers = HeaderMap::new();
        assert_eq!(hash(&[policy(by_cookie(None), false)], "/", &headers), None);
        let made = hash(&[policy(by_cookie(Some(0)), false)], "/", &headers);
        assert_eq!(made, Some(bytes(b"fresh")));
    }

    #[test]
    fn the_order_of_a_headers_values_does_not_matter() {
        let one = headers(&[("a", "foo"), ("a", "bar")]);
        let other = headers(&[("a", "bar"), ("a", "foo")]);
        let policies = [policy(by_header("a"), false)];
        let expected = Some(chained([&b"bar"[..], b"foo"].into_iter()));
        assert_eq!(hash(&policies, "/", &one), expected);
        assert_eq!(hash(&policies, "/", &other), expected);
    }

    #[test]
    fn hashes_are_combined_until_a_terminal_policy_has_one() {
        let headers = headers(&[("a", "1"), ("b", "2")]);
        let all = |list: &[(&str, bool)]| {
            let list: Vec<_> =
                list.iter().map(|(name, end)| policy(by_header(name), *end)).collect();
            hash(&list, "/", &headers)
        };
        let (one, two) = (bytes(b"1"), bytes(b"2"));
        assert_eq!(all(&[("a", false), ("b", false)]), Some(one.rotate_left(1) ^ two));
        assert_eq!(all(&[("a", false), ("a", false)]), Some(one.rotate_left(1) ^ one));
        assert_eq!(all(&[("a", true), ("b", false)]), Some(one));
        assert_eq!(all(&[("x", true), ("b", false)]), Some(two));
        // It need not be its own.
        assert_eq!(all(&[("a", false), ("x", true), ("b", false)]), Some(one));
        assert_eq!(all(&[]), None);
    }
}
