//! One X.509 certificate as logs, headers and the admin API show it; nothing is parsed until asked for.

mod name;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::san::Names;
use crate::config::tls::SanMatcher;

/// A certificate, its details parsed on first use.
#[derive(Debug, Clone)]
pub struct Certificate {
    der: CertificateDer<'static>,
    details: OnceLock<Details>,
    sha256: OnceLock<String>,
    url_encoded: OnceLock<String>,
    /// None if they cannot be trusted.
    names: OnceLock<Option<Names>>,
}

/// A certificate and where it was read from, as the admin API lists it.
#[derive(Debug, Clone)]
pub struct CertificateFile {
    /// The file, or what stands for it.
    pub path: Box<str>,
    /// The certificate.
    pub certificate: Arc<Certificate>,
}

/// What a certificate says about its owner; empty if it cannot be parsed.
#[derive(Debug, Clone, Default)]
struct Details {
    subject: String,
    common_name: Option<String>,
    issuer: String,
    serial: String,
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    ip_sans: Vec<IpAddr>,
    email_sans: Vec<String>,
    not_before: Option<SystemTime>,
    not_after: Option<SystemTime>,
}

impl Certificate {
    /// Wraps the DER form, unparsed.
    pub fn new(der: CertificateDer<'static>) -> Self {
        Self {
            der,
            details: OnceLock::new(),
            sha256: OnceLock::new(),
            url_encoded: OnceLock::new(),
            names: OnceLock::new(),
        }
    }

    /// The DER form.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The subject in RFC 2253 form: `CN=reviews,O=shop`.
    pub fn subject(&self) -> &str {
        &self.details().subject
    }

    /// The issuer in RFC 2253 form.
    pub fn issuer(&self) -> &str {
        &self.details().issuer
    }

    /// The serial number in lower-case hex without leading zeros.
    pub fn serial(&self) -> &str {
        &self.details().serial
    }

    /// The URI names, for example SPIFFE ids.
    pub fn uri_sans(&self) -> &[String] {
        &self.details().uri_sans
    }

    /// The DNS names.
    pub fn dns_sans(&self) -> &[String] {
        &self.details().dns_sans
    }

    /// The IP addresses.
    pub fn ip_sans(&self) -> &[IpAddr] {
        &self.details().ip_sans
    }

    /// The email addresses.
    pub fn email_sans(&self) -> &[String] {
        &self.details().email_sans
    }

    /// Whether one of its names is what `matcher` asks for.
    pub fn is_named(&self, matcher: &SanMatcher) -> bool {
        let names = self.names.get_or_init(|| Names::of(&self.der).ok());
        names.as_ref().is_some_and(|names| names.include(matcher))
    }

    /// When it becomes valid; none if it cannot be parsed.
    pub fn not_before(&self) -> Option<SystemTime> {
        self.details().not_before
    }

    /// When it expires; none if it cannot be parsed.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.details().not_after
    }

    /// Whether `now` lies within its validity.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        let details = self.details();
        details.not_before.is_some_and(|start| start <= now)
            && details.not_after.is_some_and(|end| now <= end)
    }

    /// Whole days from `now` until it expires; 0 if it has.
    pub fn days_until_expiration(&self, now: SystemTime) -> u64 {
        let left = self.not_after().and_then(|end| end.duration_since(now).ok());
        left.map_or(0, |left| left.as_secs() / (24 * 60 * 60))
    }

    /// The first common name of the subject.
    pub fn common_name(&self) -> Option<&str> {
        self.details().common_name.as_deref()
    }

    /// SHA-1 of the DER form in lower-case hex, for logs only.
    pub fn sha1(&self) -> String {
        hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &self.der).as_ref())
    }

    /// SHA-256 of the DER form in lower-case hex.
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| hex(sha256(&self.der).as_ref()))
    }

    /// The PEM form, URL-encoded as `x-forwarded-client-cert` carries it.
    pub fn url_encoded_pem(&self) -> &str {
        self.url_encoded.get_or_init(|| url_encoded_pem(&self.der))
    }

    /// The public key (SubjectPublicKeyInfo) of X.509 of any version; none if it cannot be parsed.
    pub fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let (_, certificate) = X509Certificate::from_der(&self.der).ok()?;
        Some(SubjectPublicKeyInfoDer::from(certificate.tbs_certificate.subject_pki.raw))
    }

    fn details(&self) -> &Details {
        self.details.get_or_init(|| Details::parse(&self.der).unwrap_or_default())
    }
}

impl Details {
    fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut details = Self {
            subject: name::rfc2253(certificate.subject()),
            common_name: certificate
                .subject()
                .iter_common_name()
                .find_map(|name| name.as_str().ok().map(str::to_owned)),
            issuer: name::rfc2253(certificate.issuer()),
            serial: serial(certificate.raw_serial()),
            not_before: system_time(certificate.validity().not_before.timestamp()),
            not_after: system_time(certificate.validity().not_after.timestamp()),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => details.uri_sans.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => details.dns_sans.push((*dns).to_owned()),
                GeneralName::RFC822Name(address) => {
                    details.email_sans.push((*address).to_owned());
                }
                GeneralName::IPAddress(bytes) => details.ip_sans.extend(ip_address(bytes)),
                _ => {}
            }
        }
        Some(details)
    }
}

/// The address in an iPAddress name: 4 or 16 bytes.
pub(super) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

/// Whole bytes in hex, without leading zero bytes, as OpenSSL prints a number.
fn serial(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    match bytes.get(start..) {
        None | Some([]) => "0".to_owned(),
        Some(significant) => hex(significant),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time so many seconds after 1970; none before that.
fn system_time(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// PEM with the characters escaped that mean something in a header or a URL, as Envoy does.
fn url_encoded_pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (position, character) in BASE64.encode(der).char_indices() {
        if position > 0 && position.is_multiple_of(64) {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            plain => text.push(plain),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

#[cfg(test)]
mod tests;
