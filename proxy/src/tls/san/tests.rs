//! Names that attackers might hold, and matchers that must not be fooled.

use certs::{Authority, Request};

use super::*;
use crate::config::matcher::{Regex, StringMatcher};

fn names(request: &Request) -> Result<Names, NameError> {
    let leaf = Authority::self_signed("root").unwrap().issue(request).unwrap();
    let der = crate::tls::pem::certificates(leaf.chain_pem.as_bytes()).unwrap();
    Names::of(&der[0])
}

fn allowed(kind: SanKind, pattern: StringPattern, request: &Request) -> bool {
    let matcher = SanMatcher { kind, matcher: StringMatcher::new(pattern, false) };
    names(request).and_then(|names| names.satisfy(&[matcher])).is_ok()
}

fn uri_allowed(pattern: StringPattern, uri: &str) -> bool {
    allowed(SanKind::Uri, pattern, &Request::default().uri(uri))
}

#[test]
fn every_pattern_matches_uris() {
    let uri = "spiffe://cluster.local/ns/shop/sa/cart";
    for (pattern, expected) in [
        (StringPattern::Exact(uri.into()), true),
        (StringPattern::Exact("spiffe://cluster.local/ns/shop/sa/car".into()), false),
        (StringPattern::Prefix("spiffe://cluster.local/ns/shop/".into()), true),
        (StringPattern::Prefix("spiffe://other/".into()), false),
        (StringPattern::Suffix("/sa/cart".into()), true),
        (StringPattern::Suffix("/sa/art".into()), false),
        (StringPattern::Contains("/shop/".into()), true),
        (StringPattern::Regex(Regex::new("spiffe://[^/]+/ns/shop/sa/.*").unwrap()), true),
        (StringPattern::Regex(Regex::new("cluster.local").unwrap()), false),
    ] {
        assert_eq!(uri_allowed(pattern.clone(), uri), expected, "{pattern:?}");
    }
}

#[test]
fn a_trust_domain_is_compared_as_a_whole() {
    let prefix = |text: &str| StringPattern::Prefix(text.into());
    for (pattern, uri, expected) in [
        ("spiffe://cluster.local", "spiffe://cluster.local/a", true),
        ("spiffe://cluster.local", "spiffe://cluster.local", true),
        ("spiffe://cluster.local", "spiffe://cluster.local.evil/a", false),
        ("spiffe://cluster.local/", "spiffe://cluster.local.evil/a", false),
        ("spiffe://cluster.local/a", "spiffe://cluster.local/ab", true),
        ("spiffe://", "spiffe://any/a", true),
        ("https://a", "https://ab/", true),
    ] {
        assert_eq!(uri_allowed(prefix(pattern), uri), expected, "{pattern} {uri}");
    }
}

#[test]
fn a_nul_byte_makes_a_certificate_untrusted() {
    let request = Request::default().uri("spiffe://cluster.local/a\0.evil");
    assert_eq!(names(&request), Err(NameError::Malformed));
    let request = Request::default().uri("spiffe://cluster.local/a").dns("a\0b");
    assert_eq!(names(&request), Err(NameError::Malformed));
}

#[test]
fn a_spiffe_certificate_holds_one_uri() {
    let request = Request::default().uri("spiffe://a/b").uri("spiffe://a/c");
    assert_eq!(names(&request), Err(NameError::SeveralUris));
    let request = Request::default().uri("https://a/b").uri("spiffe://a/c");
    assert_eq!(names(&request), Err(NameError::SeveralUris));
    let request = Request::default().uri("https://a/b").uri("https://a/c");
    assert!(names(&request).is_ok());
}

#[test]
fn kinds_are_not_mixed_up() {
    let request = Request::default().dns("10.0.0.1").email("ops@example.org");
    let exact = |text: &str| StringPattern::Exact(text.into());
    assert!(!allowed(SanKind::Ip, exact("10.0.0.1"), &request));
    assert!(allowed(SanKind::Dns, exact("10.0.0.1"), &request));
    assert!(allowed(SanKind::Email, exact("ops@example.org"), &request));
    assert!(!allowed(SanKind::Uri, exact("ops@example.org"), &request));
    let request = Request::default().ip([10, 0, 0, 1]);
    assert!(allowed(SanKind::Ip, exact("10.0.0.1"), &request));
    assert!(!allowed(SanKind::Dns, exact("10.0.0.1"), &request));
    assert!(!allowed(SanKind::Uri, StringPattern::Prefix("".into()), &Request::default()));
}

#[test]
fn wildcards_in_certificates_stand_for_one_label() {
    for (pattern, name, expected) in [
        ("a.example", "a.example", true),
        ("A.Example", "a.example", true),
        ("a.example", "a.example.", true),
        ("*.example", "a.example", true),
        ("*.example", "b.a.example", false),
        ("*.example", "example", false),
        ("*.example", ".example", false),
        ("a*.example", "ab.example", false),
        ("*", "a", false),
    ] {
        assert_eq!(is_dns_match(pattern, name), expected, "{pattern} {name}");
    }
    let request = Request::default().dns("*.shop.example");
    assert!(allowed(SanKind::Dns, StringPattern::Exact("cart.shop.example".into()), &request));
    let literal = StringPattern::Suffix(".shop.example".into());
    assert!(allowed(SanKind::Dns, literal, &request));
}

#[test]
fn a_server_name_is_found_among_dns_names_and_addresses() {
    let request = Request::default().dns("*.a.example").ip([10, 0, 0, 1]).uri("spiffe://b/c");
    for (name, expected) in
        [("x.a.example", true), ("10.0.0.1", true), ("a.example", false), ("10.0.0.2", false)]
    {
        assert_eq!(names(&request).unwrap().are_for(name).is_ok(), expected, "{name}");
    }
}

#[test]
fn errors_list_the_names_that_were_found() {
    let request = Request::default().uri("spiffe://a/b").ip([10, 0, 0, 1]);
    let error = names(&request).unwrap().satisfy(&[]).unwrap_err().to_string();
    assert!(error.contains("\"spiffe://a/b\", 10.0.0.1"), "{error}");
    let error = names(&Request::default()).unwrap().satisfy(&[]).unwrap_err().to_string();
    assert!(error.contains("no name at all"), "{error}");
}
