//! TLS contexts as configured (Envoy `DownstreamTlsContext`, `UpstreamTlsContext`, `CommonTlsContext`).

use std::path::PathBuf;
use std::time::Duration;

use super::Name;
use super::matcher::StringMatcher;
use super::source::ResourceSource;

/// Envoy `DownstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTls {
    /// What both sides share.
    pub common: CommonTls,
    /// Whether a client without certificate is refused.
    pub require_client_certificate: bool,
    /// `disable_stateless_session_resumption`: no tickets.
    pub disable_tickets: bool,
    /// `full_scan_certs_on_sni_mismatch` has no effect on outcome: the first certificate is the fallback.
    pub session_timeout: Option<Duration>,
}

/// Envoy `UpstreamTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// What both sides share.
    pub common: CommonTls,
    /// Server name sent; none sends none.
    pub sni: Option<Box<str>>,
    /// `auto_host_sni`: the endpoint's hostname is the server name.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the server name sent must be in the certificate.
    pub auto_sni_san_validation: bool,
}

/// Envoy `CommonTlsContext`.
#[derive(Debug, Clone, PartialEq)]
pub struct CommonTls {
    /// Lowest version; TLS 1.2 by default and at least.
    pub min_version: TlsVersion,
    /// Highest version; TLS 1.3 by default.
    pub max_version: TlsVersion,
    /// Cipher suites by OpenSSL's names for TLS 1.2; empty means the library's safe list.
    pub cipher_suites: Vec<Box<str>>,
    /// Protocols offered or selected, in order of preference.
    pub alpn: Vec<Box<str>>,
    /// Own certificates: inline, or by secret name.
    pub certificates: Vec<SecretRef<TlsCertificate>>,
    /// How the peer is verified; none means it is not.
    pub validation: Option<ValidationSource>,
    /// `key_log.path`, for debugging only.
    pub key_log: Option<PathBuf>,
}

/// A TLS protocol version the proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

/// A secret given in place, or by the name of a discovered one.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretRef<T> {
    /// In place.
    Inline(T),
    /// `SdsSecretConfig`; without `sds_config` the name is of a static secret.
    Sds(SecretName),
}

/// The name of a secret, and the file that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretName {
    /// One of the bootstrap's `static_resources.secrets`.
    Static(Name),
    /// Discovered.
    Discovered(ResourceSource),
}

/// Where the validation context comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ValidationSource {
    /// `validation_context`, or `validation_context_sds_secret_config`
    Single(SecretRef<ValidationContext>),
    /// `combined_validation_context`: the discovered one, with the default's matchers merged in.
    Combined {
        /// In place.
        default: Box<ValidationContext>,
        /// By name.
        sds: SecretName,
    },
}

/// Envoy `TlsCertificate`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsCertificate {
    /// PEM chain, leaf first.
    pub chain: DataSource,
    /// PEM private key.
    pub key: DataSource,
}

/// Envoy `CertificateValidationContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidationContext {
    /// PEM bundle of trusted roots.
    pub trusted_ca: Option<DataSource>,
    /// PEM bundle of revocation lists.
    pub crl: Option<DataSource>,
    /// At least one must match the peer's certificate, if any are given.
    pub san: Vec<SanMatcher>,
    /// Hex SHA-256 of the leaf; one must match, if any are given.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// Base64 SHA-256 of the public key; one must match, if any are given.
    pub spki_hashes: Vec<[u8; 32]>,
    /// `allow_expired_certificate`
    pub allow_expired: bool,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`
    pub accept_untrusted: bool,
}

/// Envoy `SubjectAltNameMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct SanMatcher {
    /// Which kind of name.
    pub kind: SanKind,
    /// What it must look like.
    pub matcher: StringMatcher,
}

/// The kinds of subject alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// `URI`, such as a SPIFFE id
    Uri,
    /// `DNS`
    Dns,
    /// `EMAIL`
    Email,
    /// `IP_ADDRESS`, in its usual text form
    Ip,
}

/// Envoy `core.v3.DataSource`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DataSource {
    /// `filename`, watched for changes
    File(PathBuf),
    /// `inline_string` or `inline_bytes`
    Inline(Vec<u8>),
    /// `environment_variable`, read at decoding
    Environment(String),
}

/// A discovered secret (Envoy `Secret`).
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// Its name.
    pub name: Name,
    /// What it holds.
    pub kind: SecretKind,
}

/// What a secret holds.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretKind {
    /// `tls_certificate`
    Certificate(TlsCertificate),
    /// `validation_context`
    Validation(ValidationContext),
}
