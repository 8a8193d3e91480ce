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
//! It knows nothing of xDS or HTTP, and has no clock of its own where a certificate is signed for a
//! caller or renewed: [`rotation`] says when, whoever asks for certificates does it.

pub mod authority;
pub mod bundle;
pub mod csr;
pub mod key;
pub mod rotation;
pub mod spiffe;
pub mod validity;

pub use authority::{Authority, CaFiles, Leaf, Lifetimes, Request, Usage};
pub use csr::Csr;
pub use key::{Key, KeyKind};
pub use spiffe::SpiffeId;
pub use validity::Validity;

/// Why a key or certificate could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not PEM of a known form, or of an unknown kind.
    #[error("not a usable private key: {0}; give PKCS #8, PKCS #1 or SEC 1 in PEM")]
    Key(rcgen::Error),
    /// The certificate cannot be made or read.
    #[error("not a usable certificate: {0}")]
    Certificate(rcgen::Error),
    /// A name that cannot stand in a certificate.
    #[error("`{0}` cannot be a name in a certificate: only ASCII can")]
    Name(String),
    /// A certificate request that nobody gets a certificate for.
    #[error("certificate request refused: {0}")]
    Csr(&'static str),
    /// The authority's certificates and key do not fit together.
    #[error("not a usable authority: {0}")]
    Authority(&'static str),
    /// The authority cannot sign: it, or what is above it, has expired or is not valid yet.
    #[error("the authority is valid only from {} to {}; renew it, or check the clock", utc(.0.not_before), utc(.0.not_after))]
    NotValid(Validity),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A step of replacing a root that is too early.
    #[error("too early: {0}")]
    Early(&'static str),
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

pub(crate) fn utc(time: std::time::SystemTime) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time::OffsetDateTime::from(time).format(format).unwrap_or_default()
}
