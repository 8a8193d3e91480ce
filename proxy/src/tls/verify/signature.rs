//! A peer's proof that it holds the key of the certificate it showed.
//!
//! The library does not read X.509 v1. Envoy takes such a certificate where no root is configured to
//! check it by, and so do we: the proof needs no more of it than the key.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, DigitallySignedStruct, Error};
use webpki::{EndEntityCert, RawPublicKeyEntity};

use crate::tls::certificate::Certificate;
use crate::tls::options::algorithms;

/// Verifies the signature of a TLS 1.2 key exchange.
pub(super) fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let Some(certificate) = version_1(certificate) else {
        return verify_tls12_signature(message, certificate, signed, algorithms());
    };
    let key = certificate.public_key().ok_or(CertificateError::BadEncoding)?;
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
    let mapping = algorithms().mapping.iter();
    // Under TLS 1.2 a scheme does not name the curve, so several algorithms may stand for it.
    let valid = mapping
        .filter(|(scheme, _)| *scheme == signed.scheme)
        .flat_map(|(_, candidates)| *candidates)
        .any(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok());
    if valid {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

/// Verifies the signature of a TLS 1.3 handshake.
pub(super) fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let Some(certificate) = version_1(certificate) else {
        return verify_tls13_signature(message, certificate, signed, algorithms());
    };
    let key = certificate.public_key().ok_or(CertificateError::BadEncoding)?;
    verify_tls13_signature_with_raw_key(message, &key, signed, algorithms())
}

/// The certificate, if the library refuses it for being of version 1 (or 2).
fn version_1(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let refused = EndEntityCert::try_from(certificate).err()?;
    (refused == webpki::Error::UnsupportedCertVersion)
        .then(|| Certificate::new(certificate.clone().into_owned()))
}
