//! Trusted roots, as loaded from a `trusted_ca` bundle.

use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::anchor_from_trusted_cert;

use super::certificate::{Certificate, CertificateFile};
use super::pem;

/// A bundle of certificates that are trusted to vouch for others.
#[derive(Debug)]
pub(super) struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// The same roots in the same order.
    certificates: Vec<Arc<Certificate>>,
    subjects: Vec<DistinguishedName>,
    path: Box<str>,
}

impl Roots {
    /// Reads a PEM bundle that came from `path`. Certificates that cannot be read are left out with a
    /// warning, for system bundles hold some; none at all is an error.
    pub(super) fn parse(text: &[u8], path: &str) -> Result<Self, String> {
        let mut roots = Self {
            anchors: Vec::new(),
            certificates: Vec::new(),
            subjects: Vec::new(),
            path: path.into(),
        };
        for (position, der) in pem::certificates(text)?.into_iter().enumerate() {
            match anchor_from_trusted_cert(&der).map(|anchor| anchor.to_owned()) {
                Ok(anchor) => roots.push(anchor, der),
                Err(error) => {
                    tracing::warn!(%path, position, %error, "a trusted root cannot be read");
                }
            }
        }
        if roots.anchors.is_empty() {
            return Err("none of its certificates can be read".into());
        }
        Ok(roots)
    }

    fn push(&mut self, anchor: TrustAnchor<'static>, der: CertificateDer<'static>) {
        self.subjects.push(DistinguishedName::in_sequence(&anchor.subject));
        self.anchors.push(anchor);
        self.certificates.push(Arc::new(Certificate::new(der)));
    }

    /// The roots in the form path building wants.
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The roots' names, a hint for clients with several certificates.
    pub(super) fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// The certificate of `anchor`.
    pub(super) fn certificate(&self, anchor: &TrustAnchor<'_>) -> Option<&Certificate> {
        let position = self.anchors.iter().position(|known| known == anchor)?;
        self.certificates.get(position).map(|certificate| &**certificate)
    }

    /// Whether `der` is itself one of the roots.
    pub(super) fn contains(&self, der: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|root| root.der() == der)
    }

    /// What the admin API shows: the first root of the bundle, as Envoy does.
    pub(super) fn file(&self) -> Option<CertificateFile> {
        let certificate = Arc::clone(self.certificates.first()?);
        Some(CertificateFile { path: self.path.clone(), certificate })
    }
}
