//! Authorities in files: Istio's `cacerts` names, checked before anything is signed with them.

use std::path::{Path, PathBuf};

use rcgen::Issuer;

use super::{Authority, Lifetimes};
use crate::key::{Key, write_private};
use crate::validity::Validity;
use crate::{Error, bundle};

/// Where an authority's files are, by the names that Istio's secret `cacerts` gives them.
#[derive(Debug, Clone)]
pub struct CaFiles {
    /// The authority's own certificate: `ca-cert.pem`.
    pub certificate: PathBuf,
    /// Its key: `ca-key.pem`.
    pub key: PathBuf,
    /// From its own certificate up, with or without the root: `cert-chain.pem`.
    pub chain: PathBuf,
    /// The roots to trust: `root-cert.pem`.
    pub roots: PathBuf,
}

impl CaFiles {
    /// The files in the folder `directory`.
    pub fn within(directory: &Path) -> Self {
        let file = |name| directory.join(name);
        Self {
            certificate: file("ca-cert.pem"),
            key: file("ca-key.pem"),
            chain: file("cert-chain.pem"),
            roots: file("root-cert.pem"),
        }
    }

    /// Reads the authority.
    ///
    /// `cert-chain.pem` may be absent if a root signed `ca-cert.pem`, or if it is a root itself.
    pub fn read(&self) -> Result<Authority, Error> {
        let mut path = bundle::split(&text(&self.certificate)?)?;
        let chain = match text(&self.chain) {
            Ok(chain) => bundle::split(&chain)?,
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let mut roots = bundle::split(&text(&self.roots)?)?;
        for certificate in chain {
            if !path.contains(&certificate) && !roots.contains(&certificate) {
                path.push(certificate);
            }
        }
        let top = path.last().ok_or(Error::Empty)?.clone();
        if roots.contains(&top) {
            roots.retain(|root| *root != top);
        } else {
            let signed = |root: &String| signed_by(&top, root).is_ok_and(|signed| signed);
            let at = roots.iter().position(signed);
            let at = at.ok_or(Error::Authority("no root in root-cert.pem signed its chain"))?;
            path.push(roots.remove(at));
        }
        let authority = Authority::from_pem(&path.concat(), &text(&self.key)?)?;
        Ok(Authority { others: roots, ..authority })
    }

    /// Writes `authority`, its key readable by its owner only.
    pub fn write(&self, authority: &Authority) -> Result<(), Error> {
        let own = authority.path.first().ok_or(Error::Empty)?;
        write_private(&self.key, &authority.key_pem())?;
        bundle::write(&self.certificate, own)?;
        bundle::write(&self.chain, &authority.path_pem())?;
        bundle::write(&self.roots, &authority.trust_pem())
    }
}

impl Authority {
    /// An authority from its PEM certificates, its own first and the root last, and its key.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, Error> {
        let path = bundle::split(certificates)?;
        let own = path.first().ok_or(Error::Empty)?;
        let key = Key::from_pem(key)?;
        if !bundle::is_for(own, &key)? {
            return Err(Error::Authority("its key belongs to another certificate"));
        }
        for pair in path.windows(2) {
            if let [lower, upper] = pair
                && !signed_by(lower, upper)?
            {
                return Err(Error::Authority("a certificate is not signed by the one after it"));
            }
        }
        let mut validity = bundle::read(own, Validity::of)?;
        for certificate in &path {
            if !bundle::read(certificate, |certificate| certificate.is_ca())? {
                return Err(Error::Authority("a certificate on its path may not sign others"));
            }
            validity = validity.within(bundle::read(certificate, Validity::of)?);
        }
        let issuer = Issuer::from_ca_cert_pem(own, key).map_err(Error::Certificate)?;
        Ok(Self { path, others: Vec::new(), validity, issuer, lifetimes: Lifetimes::default() })
    }

    /// An authority from the files that hold its certificates and its key.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self, Error> {
        Self::from_pem(&text(certificates)?, &text(key)?)
    }
}

fn signed_by(lower: &str, upper: &str) -> Result<bool, Error> {
    bundle::read(upper, |upper| {
        bundle::read(lower, |lower| {
            lower.issuer() == upper.subject()
                && lower.verify_signature(Some(upper.public_key())).is_ok()
        })
    })?
}

fn text(path: &Path) -> Result<String, Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    std::fs::read_to_string(path).map_err(file)
}
