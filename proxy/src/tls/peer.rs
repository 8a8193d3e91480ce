//! What a finished handshake says about the connection and the peer.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::{CommonState, NamedGroup, ProtocolVersion};

use super::certificate::Certificate;
use super::cipher;

/// Facts of one TLS connection. Certificates are parsed only when somebody asks.
#[derive(Debug)]
pub struct PeerInfo {
    leaf: Option<Certificate>,
    /// What came with the leaf.
    others: Vec<CertificateDer<'static>>,
    chain_text: OnceLock<String>,
    validated: bool,
    sni: Option<Box<str>>,
    alpn: Option<Box<[u8]>>,
    version: &'static str,
    cipher: &'static str,
    cipher_id: u16,
    group: &'static str,
    local: Option<Arc<Certificate>>,
}

impl PeerInfo {
    /// Reads the facts of a connection whose handshake is complete.
    pub(super) fn new(state: &CommonState, sni: Option<&str>, validated: bool) -> Self {
        let (leaf, others) = match state.peer_certificates() {
            Some([leaf, others @ ..]) => (Some(Certificate::new(leaf.clone())), others.to_vec()),
            _ => (None, Vec::new()),
        };
        Self {
            validated: validated && leaf.is_some(),
            leaf,
            others,
            chain_text: OnceLock::new(),
            sni: sni.map(Into::into),
            alpn: state.alpn_protocol().map(Into::into),
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "TLSv1.2",
            },
            cipher: state
                .negotiated_cipher_suite()
                .map_or("", |suite| cipher::openssl_name(suite.suite())),
            cipher_id: state.negotiated_cipher_suite().map_or(0, |it| u16::from(it.suite())),
            group: state.negotiated_key_exchange_group().map_or("", |it| group(it.name())),
            local: None,
        }
    }

    /// The same facts with our own certificate, for the `DOWNSTREAM_LOCAL_*` operators.
    pub(super) fn with_local(mut self, local: Option<Arc<Certificate>>) -> Self {
        self.local = local;
        self
    }

    /// Whether the peer sent a certificate.
    pub fn presented(&self) -> bool {
        self.leaf.is_some()
    }

    /// Whether the peer's certificate passed verification against trusted roots, hashes or names.
    pub fn validated(&self) -> bool {
        self.validated
    }

    /// The server name the client asked for.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// The protocol agreed on, for example `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// `TLSv1.2` or `TLSv1.3`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The cipher suite in OpenSSL's spelling.
    pub fn cipher(&self) -> &'static str {
        self.cipher
    }

    /// The cipher suite by its number (IANA).
    pub fn cipher_id(&self) -> u16 {
        self.cipher_id
    }

    /// The group of the key exchange in OpenSSL's spelling; empty if there was none, in a resumed session.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The peer's own certificate.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.leaf.as_ref()
    }

    /// Our certificate in this connection.
    pub fn local(&self) -> Option<&Certificate> {
        self.local.as_deref()
    }

    /// Every certificate the peer sent, leaf first, as URL-encoded PEM; none without certificate.
    pub fn url_encoded_chain(&self) -> Option<&str> {
        let leaf = self.leaf.as_ref()?;
        Some(self.chain_text.get_or_init(|| {
            let others = self.others.iter().cloned().map(Certificate::new);
            others.fold(leaf.url_encoded_pem().to_owned(), |text, certificate| {
                text + certificate.url_encoded_pem()
            })
        }))
    }
}

/// What OpenSSL calls the groups that the library has.
fn group(name: NamedGroup) -> &'static str {
    match name {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}
