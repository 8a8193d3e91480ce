//! Secrets for proxies: certificates of gateways out of `Secret` objects, and for proxies that have no agent their own
//! certificate and the roots to trust.

mod allowed;
mod kubernetes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use certs::{Authority, SpiffeId};
use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};
use xds::envoy::config::core::v3::DataSource;
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};

use self::kubernetes::Reference;
use super::auth::Caller;
use super::authority::MeshCa;
use crate::model::Mesh;
use crate::translate::proxy::Proxy;

/// The proxy's own certificate.
const CERTIFICATE: &str = "default";
/// What the proxy's peers are verified against.
pub(super) const ROOTS: &str = "ROOTCA";

/// Makes and finds secrets.
#[derive(Debug)]
pub struct Secrets {
    ca: Option<Arc<MeshCa>>,
    issued: Mutex<HashMap<SpiffeId, Issued>>,
    refused: IntCounter,
}

/// What a proxy gets of what it asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// In the order of the names; one that it may not have, or that is not there, is left out.
    pub secrets: Vec<Secret>,
    /// When to answer anew even if nothing else changes: a certificate among them is to be renewed then.
    pub due: Option<SystemTime>,
}

/// A certificate that was made for a proxy without agent.
#[derive(Debug, Clone)]
struct Issued {
    secret: Secret,
    due: SystemTime,
    by: Arc<Authority>,
}

/// Why a secret is not handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    /// Not a name of a secret.
    #[error("is no name of a secret here")]
    Unknown,
    /// The caller may not have it.
    #[error("may not be had: {0}")]
    Forbidden(&'static str),
    /// It is not there, or not usable.
    #[error("{0}")]
    Unusable(String),
}

impl Secrets {
    /// Secrets of a mesh whose certificates `ca` signs, if anybody does; `registry` shows how many were refused.
    ///
    /// # Errors
    /// If it shows another counter of that name.
    pub fn new(ca: Option<Arc<MeshCa>>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Secrets that a proxy asked for and did not get.";
        let refused = IntCounter::new("pilot_sds_certificate_errors_total", help)?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { ca, issued: Mutex::default(), refused })
    }

    /// The secrets called `names` that `caller` may have for `proxy`.
    pub fn answer<'n>(
        &self,
        mesh: &Mesh,
        proxy: &Proxy,
        caller: &Caller,
        names: impl IntoIterator<Item = &'n str>,
        now: SystemTime,
    ) -> Answer {
        let mut answer = Answer::default();
        for name in names {
            match self.find(mesh, proxy, caller, name, now) {
                Ok((secret, due)) => {
                    answer.secrets.push(secret);
                    answer.due = answer.due.into_iter().chain(due).min();
                }
                Err(refusal) => {
                    self.refused.inc();
                    tracing::warn!(id = %caller.id, proxy = proxy.name, "secret {name:?} {refusal}");
                }
            }
        }
        answer
    }

    fn find(
        &self,
        mesh: &Mesh,
        proxy: &Proxy,
        caller: &Caller,
        name: &str,
        now: SystemTime,
    ) -> Result<(Secret, Option<SystemTime>), Refusal> {
        if !caller.may_be(proxy) {
            return Err(Refusal::Forbidden("the proxy says that it is another workload"));
        }
        match name {
            CERTIFICATE => {
                let issued = self.issue(&caller.id, now)?;
                Ok((issued.secret, Some(issued.due)))
            }
            ROOTS => {
                let roots = self.ca()?.current().trust_pem().to_owned();
                Ok((trusting(name, roots.into_bytes(), None), None))
            }
            _ => {
                let reference =
                    Reference::parse(name, caller.namespace()).ok_or(Refusal::Unknown)?;
                allowed::check(mesh, proxy, caller, &reference).map_err(Refusal::Forbidden)?;
                let secret = kubernetes::secret(mesh, name, &reference);
                Ok((secret.map_err(Refusal::Unusable)?, None))
            }
        }
    }

    /// A certificate with a key that is made here, for a proxy without agent to make one.
    fn issue(&self, id: &SpiffeId, now: SystemTime) -> Result<Issued, Refusal> {
        let ca = self.ca()?;
        let signer = Arc::clone(&ca.current().authority);
        let mut issued = self.issued.lock();
        if let Some(known) = issued.get(id)
            && now < known.due
            && Arc::ptr_eq(&known.by, &signer)
        {
            return Ok(known.clone());
        }
        let made = ca.issue(id, now);
        let (leaf, end, by) =
            made.map_err(|error| Refusal::Unusable(format!("cannot be made: {error}")))?;
        let left = end.duration_since(now).unwrap_or_default();
        let secret = certificate(CERTIFICATE, leaf.chain_pem.into(), leaf.key_pem.into());
        let made = Issued { secret, due: now + left / 2, by };
        // Those of proxies that are gone.
        issued.retain(|_, known| now < known.due);
        issued.insert(id.clone(), made.clone());
        Ok(made)
    }

    /// Which bundle of roots is handed out now ([`Current::generation`](super::authority::Current::generation)).
    pub(super) fn generation(&self) -> u64 {
        self.ca.as_ref().map_or(0, |ca| ca.current().generation())
    }

    fn ca(&self) -> Result<&Arc<MeshCa>, Refusal> {
        let none =
            || Refusal::Unusable("cannot be made: there is no authority; give --ca-dir".into());
        self.ca.as_ref().ok_or_else(none)
    }
}

fn certificate(name: &str, chain: Vec<u8>, key: Vec<u8>) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..TlsCertificate::default()
    };
    Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
}

fn trusting(name: &str, roots: Vec<u8>, crl: Option<Vec<u8>>) -> Secret {
    let context = CertificateValidationContext {
        trusted_ca: Some(inline(roots)),
        crl: crl.map(inline),
        ..CertificateValidationContext::default()
    };
    Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

fn inline(bytes: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() }
}

#[cfg(test)]
mod tests;
