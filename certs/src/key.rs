//! Private keys: made, read, and written so that only their owner can read them.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::{fmt, fs};

use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SignatureAlgorithm, SigningKey};
use x509_parser::pem::Pem;

use crate::Error;

/// The kinds of keys that can be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: small, fast, known everywhere.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits, for peers that know nothing else.
    Rsa2048,
    /// Ed25519. Envoy can show such a certificate, but unless it is told to, it accepts none: a handshake with a
    /// peer that has one fails.
    Ed25519,
}

/// A private key.
pub struct Key {
    pair: KeyPair,
    pem: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(self.pair.algorithm()).finish()
    }
}

impl Key {
    /// Makes a new key.
    pub fn generate(kind: KeyKind) -> Result<Self, Error> {
        let pair = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyKind::Rsa2048 => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)
            }
            KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        let pair = pair.map_err(Error::Key)?;
        Ok(Self { pem: pair.serialize_pem(), pair })
    }

    /// Reads PKCS #8, PKCS #1 (RSA) or SEC 1 (ECDSA) in PEM: the first block that is a private key,
    /// since openssl may put a curve's parameters before it.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let none = || Error::Key(rcgen::Error::CouldNotParseKeyPair);
        let mut blocks = Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok);
        let block = blocks.find(|block| block.label.ends_with("PRIVATE KEY")).ok_or_else(none)?;
        let pair = KeyPair::try_from(block.contents.as_slice()).map_err(Error::Key)?;
        let (begin, end) =
            (format!("-----BEGIN {}-----", block.label), format!("-----END {}-----", block.label));
        let body = pem.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
        let (body, _) = body.ok_or_else(none)?;
        Ok(Self { pair, pem: format!("{begin}{body}{end}\n") })
    }

    /// The key in PEM: PKCS #8, or the form in which it was read.
    pub fn to_pem(&self) -> String {
        self.pem.clone()
    }

    /// Reads the key in the file at `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = |source| Error::File { path: path.to_owned(), source };
        Self::from_pem(&fs::read_to_string(path).map_err(file)?)
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.pair.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.pair.sign(message)
    }
}

/// Writes a private key in PEM to `path`, readable by its owner only.
///
/// The file appears whole or not at all: it is written beside its place and moved there.
pub fn write_private(path: &Path, pem: &str) -> Result<(), Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let beside = path.with_extension("tmp");
    let _ = fs::remove_file(&beside);
    let mut options = fs::OpenOptions::new();
    let mut target =
        options.write(true).create_new(true).mode(0o600).open(&beside).map_err(file)?;
    target.write_all(pem.as_bytes()).map_err(file)?;
    target.sync_all().map_err(file)?;
    fs::rename(&beside, path).map_err(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_survives_its_text_form() {
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048, KeyKind::Ed25519] {
            let pem = Key::generate(kind).unwrap().to_pem();
            assert_eq!(Key::from_pem(&pem).unwrap().to_pem(), pem, "{kind:?}");
        }
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let key = Key::generate(KeyKind::default()).unwrap();
        let body = key.to_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&body));
    }

    #[test]
    fn a_written_key_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, "an older key that everybody could read").unwrap();
        let key = Key::generate(KeyKind::default()).unwrap();
        write_private(&path, &key.to_pem()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Key::read(&path).unwrap().to_pem(), key.to_pem());
    }

    #[test]
    fn errors_name_the_file() {
        let error = Key::read(Path::new("/nowhere/key.pem")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/key.pem"), "{error}");
        assert!(Key::from_pem("-----BEGIN NONSENSE-----").is_err());
    }
}
