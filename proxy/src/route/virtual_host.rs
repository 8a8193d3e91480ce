//! Which virtual host serves an authority: exact domain, then the longest `*suffix`, then the longest `prefix*`, then `*`.

use std::borrow::Cow;

use super::trie::Trie;
use crate::config::route::VirtualHost;
use crate::config::{HashMap, Invalid};

/// The domains of a route table; ASCII case is ignored.
#[derive(Debug, Default)]
pub(super) struct Domains {
    exact: HashMap<Box<str>, u32>,
    /// By reversed suffix.
    suffixes: Trie<Option<u32>>,
    prefixes: Trie<Option<u32>>,
    any: Option<u32>,
    ignore_port: bool,
}

impl Domains {
    /// Compiles the domains of `hosts`; an error if two hosts share one.
    pub(super) fn new(hosts: &[VirtualHost], ignore_port: bool) -> Result<Self, Invalid> {
        let mut domains = Self { ignore_port, ..Self::default() };
        for (host, number) in hosts.iter().zip(0..) {
            for (place, domain) in host.domains.iter().enumerate() {
                if domains.insert(&domain.to_ascii_lowercase(), number) {
                    return Err(Invalid::new(
                        format!("virtual_hosts[{number}].domains[{place}]"),
                        format!("domain {domain:?} is already taken in this route table"),
                    ));
                }
            }
        }
        Ok(domains)
    }

    /// Files a lower-case domain; whether it was taken.
    fn insert(&mut self, domain: &str, host: u32) -> bool {
        let taken = if domain == "*" {
            self.any.replace(host)
        } else if let Some(suffix) = domain.strip_prefix('*') {
            let reversed: Vec<u8> = suffix.bytes().rev().collect();
            self.suffixes.entry(&reversed).replace(host)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.entry(prefix.as_bytes()).replace(host)
        } else {
            self.exact.insert(domain.into(), host)
        };
        taken.is_some()
    }

    /// The number of the virtual host for `authority`.
    pub(super) fn find(&self, authority: &str) -> Option<u32> {
        let host = if self.ignore_port { without_port(authority) } else { authority };
        let host = lower_case(host);
        self.exact
            .get(&*host)
            .copied()
            .or_else(|| longest(&self.suffixes, host.bytes().skip(1).rev()))
            .or_else(|| longest(&self.prefixes, host.bytes().take(host.len().saturating_sub(1))))
            .or(self.any)
    }
}

/// The longest key `bytes` begins with. The caller holds back one byte, since `*` stands for at least one.
fn longest(trie: &Trie<Option<u32>>, bytes: impl Iterator<Item = u8>) -> Option<u32> {
    trie.prefixes_of(bytes).flatten().last().copied()
}

/// `authority` up to its port, if it has one; colons inside an IPv6 literal are none.
pub(super) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::{Domains, without_port};
    use crate::config::route::VirtualHost;

    fn hosts(domains: &[&[&str]]) -> Vec<VirtualHost> {
        let host = |domains: &&[&str]| VirtualHost {
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            ..VirtualHost::default()
        };
        domains.iter().map(host).collect()
    }

    #[test]
    fn exact_then_longest_suffix_then_longest_prefix_then_any() {
        let hosts = hosts(&[
            &["*"],
            &["*.foo.com"],
            &["*-bar.foo.com"],
            &["foo.*"],
            &["foo.bar.*", "foo.bar.x"],
            &["Exact.com", "[::1]:80"],
        ]);
        let domains = Domains::new(&hosts, false).unwrap();
        for (authority, expected) in [
            ("exact.com", 5),
            ("EXACT.COM", 5),
            ("exact.com:80", 0),
            ("[::1]:80", 5),
            ("a.foo.com", 1),
            ("x-bar.foo.com", 2),
            ("-bar.foo.com", 1),
            (".foo.com", 0),
            ("foo.com", 3),
            ("foo.", 0),
            ("foo.bar.x", 4),
            ("foo.bar.y", 4),
            ("foo.baz", 3),
            ("", 0),
        ] {
            assert_eq!(domains.find(authority), Some(expected), "{authority}");
        }
    }

    #[test]
    fn no_wildcard_means_no_host_for_strangers() {
        let hosts = hosts(&[&["a.com"]]);
        assert_eq!(Domains::new(&hosts, false).unwrap().find("b.com"), None);
    }

    #[test]
    fn the_port_is_ignored_only_when_asked() {
        let hosts = hosts(&[&["a.com", "*.b.com", "[::1]"]]);
        let strict = Domains::new(&hosts, false).unwrap();
        let lenient = Domains::new(&hosts, true).unwrap();
        for authority in ["a.com:8080", "x.b.com:1", "[::1]:80", "a.com:"] {
            assert_eq!(strict.find(authority), None, "{authority}");
            assert_eq!(lenient.find(authority), Some(0), "{authority}");
        }
        assert_eq!(without_port("[fe80::1]"), "[fe80::1]");
    }

    #[test]
    fn a_domain_belongs_to_one_host() {
        for taken in ["*", "*.x", "x.*", "x"] {
            let error = Domains::new(&hosts(&[&["a", taken], &[&taken.to_uppercase()]]), false);
            assert_eq!(error.unwrap_err().path, "virtual_hosts[1].domains[0]");
        }
    }
}
