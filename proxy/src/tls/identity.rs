//! Our own certificates: loaded, checked against their keys, and chosen by what the client asks for.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::certificate::{Certificate, CertificateFile};
use super::pem;
use super::secrets::{Secrets, place};
use crate::config::tls::{CommonTls, SecretRef};
use crate::config::{HashMap, Invalid};

/// One certificate chain with its key.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) leaf: Arc<Certificate>,
    pub(super) path: Box<str>,
}

impl Identity {
    /// What the admin API shows of it.
    pub(super) fn file(&self) -> CertificateFile {
        CertificateFile { path: self.path.clone(), certificate: Arc::clone(&self.leaf) }
    }

    fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }

    fn is_ecdsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::ECDSA
    }

    /// The names a client may ask for: DNS names, or without any of these the common name.
    fn names(&self) -> Vec<&str> {
        match self.leaf.dns_sans() {
            [] => self.leaf.common_name().into_iter().collect(),
            names => names.iter().map(String::as_str).collect(),
        }
    }
}

/// Loads every certificate that `context` names, in configuration order. Paths of errors are
/// relative to the TLS context.
pub(super) fn load(
    context: &CommonTls,
    secrets: &Secrets,
    provider: &CryptoProvider,
) -> Result<Vec<Identity>, Invalid> {
    let mut identities = Vec::with_capacity(context.certificates.len());
    for (position, reference) in context.certificates.iter().enumerate() {
        let field = match reference {
            SecretRef::Inline(_) => "tls_certificates",
            SecretRef::Sds(_) => "tls_certificate_sds_secret_configs",
        };
        let path = format!("common_tls_context.{field}[{position}]");
        let certificate = secrets.certificate(reference).map_err(|error| error.under(&path))?;
        let at = |field: &str| {
            let path = format!("{path}.{field}");
            move |reason: String| Invalid::new(path, reason)
        };
        let chain_text = secrets.read(&certificate.chain).map_err(at("certificate_chain"))?;
        let chain_name = place(&certificate.chain);
        let chain = pem::certificates(&chain_text)
            .map_err(|reason| at("certificate_chain")(format!("{chain_name}: {reason}")))?;
        let key_text = secrets.read(&certificate.key).map_err(at("private_key"))?;
        let key_name = place(&certificate.key);
        let key = pem::private_key(&key_text)
            .map_err(|reason| at("private_key")(format!("{key_name}: {reason}")))?;
        let leaf = chain.first().cloned().map(Certificate::new);
        let leaf = leaf.ok_or_else(|| at("certificate_chain")("no certificate".into()))?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            at("private_key")(format!("{key_name} cannot be used with {chain_name}: {error}"))
        })?;
        check_pair(&*key, &key_name, &leaf, &chain_name).map_err(at("private_key"))?;
        let key = Arc::new(CertifiedKey::new(chain, key));
        identities.push(Identity { key, leaf: Arc::new(leaf), path: chain_name.into() });
    }
    Ok(identities)
}

/// Compares the public keys themselves, for the library's own check refuses to read X.509 v1.
fn check_pair(
    key: &dyn SigningKey,
    key_name: &str,
    leaf: &Certificate,
    chain_name: &str,
) -> Result<(), String> {
    let certified = leaf.public_key().ok_or_else(|| {
        format!("the first certificate in {chain_name} cannot be read; check that it is X.509")
    })?;
    match key.public_key() {
        Some(own) if own != certified => Err(format!(
            "{key_name} does not belong to the first certificate in {chain_name}; \
             check that both come from the same issuance and that the leaf stands first"
        )),
        _ => Ok(()),
    }
}

/// The certificates of a server, by the names they are for.
#[derive(Debug)]
pub(super) struct Identities {
    all: Vec<Identity>,
    by_name: HashMap<Box<str>, Vec<usize>>,
    /// Wildcard names without their `*.`.
    by_parent: HashMap<Box<str>, Vec<usize>>,
}

impl Identities {
    pub(super) fn new(all: Vec<Identity>) -> Self {
        let mut by_name = HashMap::<Box<str>, Vec<usize>>::default();
        let mut by_parent = HashMap::<Box<str>, Vec<usize>>::default();
        for (position, identity) in all.iter().enumerate() {
            for name in identity.names() {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(parent) => by_parent.entry(parent.into()).or_default().push(position),
                    None => by_name.entry(name.into()).or_default().push(position),
                }
            }
        }
        Self { all, by_name, by_parent }
    }

    pub(super) fn all(&self) -> &[Identity] {
        &self.all
    }

    /// The certificate for a client that asks for `name` and can check `schemes`: one made for the
    /// name, or for all names beside it, or else the first; ECDSA before RSA.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Identity> {
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let parent = name.split_once('.').map_or("", |(_, parent)| parent);
        let named = self.by_name.get(name.as_str()).into_iter();
        for positions in named.chain(self.by_parent.get(parent)) {
            let candidates = positions.iter().filter_map(|position| self.all.get(*position));
            if let Some(identity) = best(candidates, schemes) {
                return Some(identity);
            }
        }
        best(self.all.iter(), schemes).or(self.all.first())
    }
}

fn best<'a>(
    candidates: impl Iterator<Item = &'a Identity>,
    schemes: &[SignatureScheme],
) -> Option<&'a Identity> {
    candidates
        .filter(|identity| identity.can_sign(schemes))
        .min_by_key(|identity| !identity.is_ecdsa())
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&chosen.key))
    }
}
