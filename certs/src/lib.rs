//! Identities of a mesh: SPIFFE ids, private keys, and a certificate authority to issue them.
//!
//! ```
//! use certs::{Authority, Request};
//!
//! let authority = Authority::self_signed("example mesh")?;
//! let leaf = authority.issue(&Request::default().uri("spiffe://example.org/ns/shop/sa/cart"))?;
//! assert!(leaf.chain_pem.starts_with("-----BEGIN CERTIFICATE-----"));
//! # Ok::<(), certs::Error>(())
//! ```
//!
//! It knows nothing of xDS or HTTP. It does not renew certificates: whoever asks for one asks again.

pub mod authority;
pub mod bundle;
pub mod key;
pub mod spiffe;

pub use authority::{Authority, Leaf, Request, Usage, Validity};
pub use key::{Key, KeyKind};
pub use spiffe::SpiffeId;

/// Why a key or certificate could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not PKCS #8 PEM, or of an unknown kind.
    #[error("not a usable private key: {0}; give PKCS #8 in PEM")]
    Key(rcgen::Error),
    /// The certificate cannot be made or read.
    #[error("not a usable certificate: {0}")]
    Certificate(rcgen::Error),
    /// A name that cannot stand in a certificate.
    #[error("`{0}` cannot be a name in a certificate: only ASCII can")]
    Name(String),
    /// A bundle without any certificate.
    #[error("no certificate in PEM form found")]
    Empty,
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}
