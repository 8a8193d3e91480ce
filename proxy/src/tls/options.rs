//! What both sides take from a `CommonTlsContext`: versions, cipher suites, protocols.

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::version::{TLS12, TLS13};

use super::cipher;
use super::key_log::KeyLogFile;
use crate::config::Invalid;
use crate::config::tls::{CommonTls, TlsVersion};

/// The cryptography that `context` allows.
pub(super) fn provider(context: &CommonTls) -> Result<Arc<CryptoProvider>, Invalid> {
    let cipher_suites = cipher::choose(&context.cipher_suites)
        .map_err(|invalid| invalid.under("common_tls_context.tls_params.cipher_suites"))?;
    Ok(Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() }))
}

/// The protocol versions between the configured bounds.
pub(super) fn versions(
    context: &CommonTls,
) -> Result<Vec<&'static SupportedProtocolVersion>, Invalid> {
    let bounds = context.min_version..=context.max_version;
    let known = [(TlsVersion::V1_3, &TLS13), (TlsVersion::V1_2, &TLS12)];
    let allowed: Vec<_> = known
        .into_iter()
        .filter(|(version, _)| bounds.contains(version))
        .map(|(_, version)| version)
        .collect();
    if allowed.is_empty() {
        let path = "common_tls_context.tls_params.tls_maximum_protocol_version";
        let reason = "is below tls_minimum_protocol_version; TLS 1.0 and 1.1 are not offered";
        return Err(Invalid::new(path, reason));
    }
    Ok(allowed)
}

/// The application protocols as they stand on the wire.
pub(super) fn protocols(context: &CommonTls) -> Vec<Vec<u8>> {
    context.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

/// Where session keys are logged, if anywhere.
pub(super) fn key_log(context: &CommonTls) -> Result<Option<Arc<KeyLogFile>>, Invalid> {
    let Some(path) = &context.key_log else { return Ok(None) };
    let log = KeyLogFile::open(path);
    log.map(Arc::new)
        .map(Some)
        .map_err(|reason| Invalid::new("common_tls_context.key_log.path", reason))
}

/// The signature algorithms in which certificates and handshakes may be signed.
pub(super) fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);
    &ALGORITHMS
}
