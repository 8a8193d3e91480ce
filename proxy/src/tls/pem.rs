//! PEM texts of certificates, keys and revocation lists; errors say what was looked for.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// All certificates in `text`; at least one.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| format!("broken PEM ({error})"))?;
    if found.is_empty() {
        return Err("no `-----BEGIN CERTIFICATE-----` block found; check that it is PEM".into());
    }
    Ok(found)
}

/// The first private key in `text`.
pub(super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if text.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
        return Err("the private key is encrypted; give it without a password".into());
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        format!("no private key in PEM form found ({error}); PKCS #8, PKCS #1 and SEC 1 are known")
    })
}

/// All revocation lists in `text`, possibly none.
pub(super) fn revocation_lists(
    text: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found = CertificateRevocationListDer::pem_slice_iter(text).collect::<Result<_, _>>();
    found.map_err(|error| format!("broken PEM ({error})"))
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";
