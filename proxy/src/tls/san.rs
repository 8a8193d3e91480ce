//! Whether the names in a certificate satisfy the configured matchers.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::ip_address;
use crate::config::matcher::StringPattern;
use crate::config::tls::{SanKind, SanMatcher};

const SPIFFE: &str = "spiffe://";

/// The names in a certificate, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names(Vec<Name>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Uri(String),
    Dns(String),
    Email(String),
    Ip(IpAddr),
}

/// Why a certificate's names were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// The certificate, or one of its names, cannot be read.
    #[error("a name in the peer's certificate is malformed or holds a NUL byte")]
    Malformed,
    /// A SPIFFE certificate with more than its one URI.
    #[error("the peer's certificate holds a SPIFFE id and other URIs; it must hold exactly one")]
    SeveralUris,
    /// No name satisfies any matcher.
    #[error(
        "the peer's certificate is for {0}, none of which match_typed_subject_alt_names allows"
    )]
    NotAllowed(Names),
    /// The server name that was asked for is not among the names.
    #[error("the peer's certificate is for {0}, not for the server name asked for")]
    NotForServerName(Names),
}

impl Names {
    /// The names in a certificate. One that is not plain text without NUL makes all of them untrusted.
    pub(super) fn of(der: &[u8]) -> Result<Self, NameError> {
        let parsed = X509Certificate::from_der(der);
        let (_, certificate) = parsed.map_err(|_| NameError::Malformed)?;
        let extension = certificate.subject_alternative_name().map_err(|_| NameError::Malformed)?;
        let names = extension.iter().flat_map(|extension| &extension.value.general_names);
        let mut found = Vec::new();
        for name in names {
            match name {
                GeneralName::URI(text) => found.push(Name::Uri(clean(text)?)),
                GeneralName::DNSName(text) => found.push(Name::Dns(clean(text)?)),
                GeneralName::RFC822Name(text) => found.push(Name::Email(clean(text)?)),
                GeneralName::IPAddress(bytes) => {
                    found.push(Name::Ip(ip_address(bytes).ok_or(NameError::Malformed)?));
                }
                GeneralName::Invalid(..) => return Err(NameError::Malformed),
                _ => {}
            }
        }
        let uris = found.iter().filter(|name| matches!(name, Name::Uri(_))).count();
        let spiffe = |name: &Name| matches!(name, Name::Uri(uri) if uri.starts_with(SPIFFE));
        if uris > 1 && found.iter().any(spiffe) {
            return Err(NameError::SeveralUris);
        }
        Ok(Self(found))
    }

    /// Whether any name satisfies any of `matchers`.
    pub(super) fn satisfy(self, matchers: &[SanMatcher]) -> Result<(), NameError> {
        let allowed = matchers.iter().any(|matcher| self.include(matcher));
        if allowed { Ok(()) } else { Err(NameError::NotAllowed(self)) }
    }

    /// Whether any name satisfies `matcher`.
    pub(super) fn include(&self, matcher: &SanMatcher) -> bool {
        self.0.iter().any(|name| matches(matcher, name))
    }

    /// Whether a DNS name, or an IP address, is the server's that was asked for.
    pub(super) fn are_for(self, server_name: &str) -> Result<(), NameError> {
        let asked: Option<IpAddr> = server_name.parse().ok();
        let fits = self.0.iter().any(|name| match name {
            Name::Dns(pattern) => asked.is_none() && is_dns_match(pattern, server_name),
            Name::Ip(address) => asked == Some(*address),
            Name::Uri(_) | Name::Email(_) => false,
        });
        if fits { Ok(()) } else { Err(NameError::NotForServerName(self)) }
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no name at all");
        }
        for (position, name) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            match name {
                Name::Uri(text) | Name::Dns(text) | Name::Email(text) => {
                    write!(f, "{separator}{text:?}")?;
                }
                Name::Ip(address) => write!(f, "{separator}{address}")?,
            }
        }
        Ok(())
    }
}

fn clean(text: &str) -> Result<String, NameError> {
    if text.contains('\0') { Err(NameError::Malformed) } else { Ok(text.to_owned()) }
}

fn matches(matcher: &SanMatcher, name: &Name) -> bool {
    let SanMatcher { kind, matcher } = matcher;
    match (kind, name) {
        (SanKind::Uri, Name::Uri(uri)) => {
            matcher.matches(uri.as_bytes()) && !splits_trust_domain(matcher.pattern(), uri)
        }
        (SanKind::Dns, Name::Dns(pattern)) => match matcher.pattern() {
            StringPattern::Exact(wanted) => is_dns_match(pattern, wanted),
            _ => matcher.matches(pattern.as_bytes()),
        },
        (SanKind::Email, Name::Email(address)) => matcher.matches(address.as_bytes()),
        (SanKind::Ip, Name::Ip(address)) => matcher.matches(address.to_string().as_bytes()),
        _ => false,
    }
}

/// Whether a prefix such as `spiffe://example.org` ends inside the trust domain of `uri`, as it does
/// in `spiffe://example.org.evil/a`. Trust domains are compared as a whole.
fn splits_trust_domain(pattern: &StringPattern, uri: &str) -> bool {
    let StringPattern::Prefix(prefix) = pattern else { return false };
    match prefix.strip_prefix(SPIFFE) {
        None | Some("") => false,
        Some(domain) if domain.contains('/') => false,
        Some(_) => !matches!(uri.as_bytes().get(prefix.len()), None | Some(b'/')),
    }
}

/// Whether a certificate's `pattern`, which may begin with `*.`, stands for `name`. The star is one label.
fn is_dns_match(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    let (Some(parent), Some((first, rest))) = (pattern.strip_prefix("*."), name.split_once('.'))
    else {
        return false;
    };
    !first.is_empty() && parent.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests;
