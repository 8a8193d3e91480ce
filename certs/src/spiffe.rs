//! SPIFFE ids: parsed strictly, printed as they were, compared as a whole.

use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "spiffe://";
/// Longest id in bytes that every implementation must take.
const MAX_ID: usize = 2048;
/// Longest trust domain in bytes.
const MAX_TRUST_DOMAIN: usize = 255;

/// The name of a workload: `spiffe://trust-domain/path`.
///
/// A value of this type follows the SPIFFE specification to the letter, so two ids are the same
/// exactly when their text is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Box<str>,
    path_start: usize,
}

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Another scheme, or none.
    #[error("a SPIFFE id begins with spiffe://, in lower case")]
    Scheme,
    /// No trust domain, or one too long, or with characters not allowed.
    #[error("the trust domain must be 1 to 255 of the characters a-z 0-9 . - _")]
    TrustDomain,
    /// A path with empty or dot segments, a slash at the end, or characters not allowed.
    #[error(
        "each part of the path must be made of a-z A-Z 0-9 . - _ and be neither empty, `.` nor `..`"
    )]
    Path,
    /// Over the length limit.
    #[error("a SPIFFE id has at most 2048 bytes")]
    TooLong,
}

impl SpiffeId {
    /// The id that Istio gives the workloads of a service account:
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// As Istio does, an `@` in the trust domain becomes a dot.
    pub fn of_service_account(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, ParseError> {
        let name = |part: &str| if part.contains('/') { Err(ParseError::Path) } else { Ok(()) };
        name(namespace)?;
        name(service_account)?;
        if trust_domain.contains('/') {
            return Err(ParseError::TrustDomain);
        }
        let trust_domain = trust_domain.replace('@', ".");
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The namespace and the service account, if the path is `/ns/<namespace>/sa/<service account>`
    /// and nothing else.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        let one = |part: &str| !part.contains('/');
        (one(namespace) && one(account)).then_some((namespace, account))
    }

    /// The authority that vouches for the id. Compare it as a whole: `example.org.evil` begins with
    /// `example.org` and is another trust domain.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_start).unwrap_or_default()
    }

    /// The path with its leading slash; empty for the id of a trust domain itself.
    pub fn path(&self) -> &str {
        self.text.get(self.path_start..).unwrap_or_default()
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for SpiffeId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let rest = text.strip_prefix(SCHEME).ok_or(ParseError::Scheme)?;
        if text.len() > MAX_ID {
            return Err(ParseError::TooLong);
        }
        let (trust_domain, path) = match rest.split_once('/') {
            Some((trust_domain, path)) => (trust_domain, Some(path)),
            None => (rest, None),
        };
        let length = trust_domain.len();
        if length == 0 || length > MAX_TRUST_DOMAIN || !trust_domain.bytes().all(in_trust_domain) {
            return Err(ParseError::TrustDomain);
        }
        if !path.is_none_or(|path| path.split('/').all(is_segment)) {
            return Err(ParseError::Path);
        }
        Ok(Self { text: text.into(), path_start: SCHEME.len() + length })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&SpiffeId> for String {
    fn from(id: &SpiffeId) -> Self {
        id.text.to_string()
    }
}

fn in_trust_domain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

fn is_segment(segment: &str) -> bool {
    let allowed = |byte| in_trust_domain(byte) || byte.is_ascii_uppercase();
    !matches!(segment, "" | "." | "..") && segment.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SpiffeId, ParseError> {
        text.parse()
    }

    #[test]
    fn an_id_has_a_trust_domain_and_a_path() {
        let id = parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/shop/sa/cart");
        let domain = parse("spiffe://cluster.local").unwrap();
        assert_eq!((domain.trust_domain(), domain.path()), ("cluster.local", ""));
    }

    #[test]
    fn a_longer_trust_domain_is_another_one() {
        let ours = parse("spiffe://example.org/a").unwrap();
        let theirs = parse("spiffe://example.org.evil/a").unwrap();
        assert_ne!(ours.trust_domain(), theirs.trust_domain());
        assert_ne!(ours, theirs);
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        for (text, error) in [
            ("", ParseError::Scheme),
            ("https://example.org/a", ParseError::Scheme),
            ("SPIFFE://example.org/a", ParseError::Scheme),
            ("spiffe:/example.org", ParseError::Scheme),
            ("spiffe://", ParseError::TrustDomain),
            ("spiffe:///a", ParseError::TrustDomain),
            ("spiffe://Example.org/a", ParseError::TrustDomain),
            ("spiffe://example.org:443/a", ParseError::TrustDomain),
            ("spiffe://user@example.org/a", ParseError::TrustDomain),
            ("spiffe://ex\0ample/a", ParseError::TrustDomain),
            ("spiffe://example.org/", ParseError::Path),
            ("spiffe://example.org/a/", ParseError::Path),
            ("spiffe://example.org/a//b", ParseError::Path),
            ("spiffe://example.org/a/../b", ParseError::Path),
            ("spiffe://example.org/./a", ParseError::Path),
            ("spiffe://example.org/%41", ParseError::Path),
            ("spiffe://example.org/a?b", ParseError::Path),
            ("spiffe://example.org/a#b", ParseError::Path),
            ("spiffe://example.org/é", ParseError::Path),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let domain = "d".repeat(MAX_TRUST_DOMAIN);
        assert!(parse(&format!("spiffe://{domain}/a")).is_ok());
        assert_eq!(parse(&format!("spiffe://{domain}d/a")), Err(ParseError::TrustDomain));
        let longest = "p".repeat(MAX_ID - "spiffe://t/".len());
        assert!(parse(&format!("spiffe://t/{longest}")).is_ok());
        assert_eq!(parse(&format!("spiffe://t/{longest}p")), Err(ParseError::TooLong));
    }

    #[test]
    fn a_service_account_has_one_id() {
        let id = SpiffeId::of_service_account("td@acme.org", "shop", "cart").unwrap();
        assert_eq!(id.as_str(), "spiffe://td.acme.org/ns/shop/sa/cart");
        assert_eq!(id.service_account(), Some(("shop", "cart")));
        for text in ["/ns/shop", "/ns/shop/sa", "/ns/a/b/sa/c", "/ns/a/sa/b/c", "/sa/b/ns/c", ""] {
            let other = parse(&format!("spiffe://td{text}")).unwrap();
            assert_eq!(other.service_account(), None, "{text:?}");
        }
        for (domain, namespace, account) in
            [("a/ns/x", "b", "c"), ("a", "b/sa/x", "c"), ("a", "b", "c/d"), ("a", "", "c")]
        {
            SpiffeId::of_service_account(domain, namespace, account).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn every_well_formed_id_is_taken_and_printed_back(
            text in "spiffe://[a-z0-9._-]{1,40}(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,10}){0,5}"
        ) {
            let id = parse(&text).unwrap();
            prop_assert_eq!(id.to_string(), text.as_str());
            prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
        }

        #[test]
        fn no_text_panics_and_what_is_taken_has_no_odd_bytes(text in "(spiffe://)?\\PC{0,60}") {
            if let Ok(id) = parse(&text) {
                let odd = |byte: u8| !byte.is_ascii_alphanumeric() && !b"./-_:".contains(&byte);
                prop_assert!(!id.as_str().bytes().any(odd));
            }
        }

        #[test]
        fn a_service_account_is_read_back(
            names in ("[a-z0-9.-]{1,20}", "[a-z0-9-]{1,20}", "[a-z0-9-]{1,20}")
        ) {
            let (domain, namespace, account) = names;
            let id = SpiffeId::of_service_account(&domain, &namespace, &account).unwrap();
            prop_assert_eq!(id.trust_domain(), domain);
            prop_assert_eq!(id.service_account(), Some((namespace.as_str(), account.as_str())));
        }
    }
}
