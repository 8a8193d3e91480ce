//! Keeps other web sites, which a browser on this machine may be showing, away from the admin API.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Uri};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request may be answered: not one that a page of another site sent, nor, for DNS names can be
/// pointed here by anybody, one of a page that was loaded by name, unless by `localhost`.
pub(super) fn allows(headers: &HeaderMap) -> bool {
    if headers.get(&SEC_FETCH_SITE).is_some_and(|site| site == "cross-site") {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let origin = origin.as_ref().and_then(Uri::authority);
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    match (origin, host) {
        (Some(origin), Some(host)) => *origin == host && is_local_name(origin.host()),
        _ => false,
    }
}

/// An address, or the one name that cannot be pointed elsewhere.
fn is_local_name(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pairs: &[(&'static str, &'static str)]) -> bool {
        let pairs = pairs.iter().map(|(name, value)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        allows(&pairs.collect())
    }

    #[test]
    fn tools_and_our_own_page_may_ask() {
        assert!(allowed(&[]));
        assert!(allowed(&[("host", "anything.example:15000")]));
        for host in ["127.0.0.1:15000", "localhost:15000", "[::1]:15000", "10.0.0.1"] {
            let origin: &'static str = format!("http://{host}").leak();
            assert!(allowed(&[("host", host), ("origin", origin)]), "{host}");
        }
        assert!(allowed(&[("host", "localhost:1"), ("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn other_sites_may_not() {
        for pairs in [
            [("host", "localhost:15000"), ("origin", "http://evil.example")],
            [("host", "localhost:15000"), ("origin", "http://localhost:3000")],
            [("host", "localhost:15000"), ("origin", "null")],
            [("host", "evil.example:15000"), ("origin", "http://evil.example:15000")],
            [("host", "localhost:15000"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!allowed(&pairs), "{pairs:?}");
        }
        assert!(!allowed(&[("origin", "http://localhost")]));
    }
}
