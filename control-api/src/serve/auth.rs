//! Who is asking: proved by a client certificate of the mesh or by a token, or merely claimed where somebody has
//! allowed that.

mod service_account;
mod token_file;

use std::path::PathBuf;
use std::time::SystemTime;

use certs::{SpiffeId, bundle};
use tonic::Status;
use tonic::metadata::MetadataMap;

pub use self::service_account::{AUDIENCE, ServiceAccountTokens};
use super::connection::Peer;
use crate::translate::proxy::Proxy;

/// Longest token in bytes; Kubernetes' have about 1200.
const MAX_TOKEN: usize = 16 * 1024;
/// The header in which agents name their Kubernetes cluster.
const CLUSTER_ID: &str = "clusterid";

/// Whom the control plane believes.
#[derive(Debug, Clone)]
pub struct Authenticator {
    /// The trust domain that callers belong to.
    pub trust_domain: String,
    /// The cluster that they are in; one that names another is refused. Istio's default is `Kubernetes`.
    pub cluster_id: String,
    /// Accepted tokens with whose they are, as the API server's `--token-auth-file` has them.
    pub token_file: Option<PathBuf>,
    /// How tokens of Kubernetes' service accounts are verified.
    pub service_accounts: Option<ServiceAccountTokens>,
    /// Whether callers on this machine may be whoever they say. For development: everybody who has a
    /// process here can then be anybody in the mesh.
    pub trusts_claims: bool,
}

/// Somebody who proved to be a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The workload.
    pub id: SpiffeId,
    /// How it was proved.
    pub proof: Proof,
}

/// How a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By a client certificate that the mesh's authority signed.
    Certificate,
    /// By a token from the file of accepted ones.
    Token,
    /// By the token of a service account.
    ServiceAccountToken,
    /// Not at all: it is on this machine, where that is allowed.
    Claim,
}

/// Why nobody is known to be asking. The text is for the one who asks, and tells nothing that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// Neither certificate nor token.
    #[error(
        "neither client certificate nor token: mount a service-account token with audience istio-ca, or connect with TLS \
         and the certificate of the workload"
    )]
    Nothing,
    /// A token where others can read it.
    #[error("a token is taken over TLS only, or from this machine: connect to the port with TLS")]
    Readable,
    /// A certificate that is no workload's of this mesh.
    #[error("the client certificate {0}")]
    Certificate(String),
    /// A token that is not accepted.
    #[error("the token {0}")]
    Token(String),
    /// From another cluster.
    #[error("cluster {0:?} is not known here: check ISTIO_META_CLUSTER_ID")]
    Cluster(String),
}

impl From<Unauthenticated> for Status {
    fn from(error: Unauthenticated) -> Self {
        Self::unauthenticated(format!("request authenticate failure: {error}"))
    }
}

impl Caller {
    /// The namespace of its workload.
    pub fn namespace(&self) -> &str {
        self.id.service_account().map_or("", |(namespace, _)| namespace)
    }

    /// The service account of its workload.
    pub fn service_account(&self) -> &str {
        self.id.service_account().map_or("", |(_, account)| account)
    }

    /// Whether it may be told what this proxy is told: the proxy stands for the same service account, or does not
    /// say for which, of the same namespace.
    pub fn may_be(&self, proxy: &Proxy) -> bool {
        let account = &proxy.service_account;
        proxy.namespace == self.namespace()
            && (account.is_empty() || account == self.service_account())
    }
}

impl Authenticator {
    /// Who sends a request with this metadata.
    ///
    /// # Errors
    /// If that is not proved.
    pub fn caller(
        &self,
        peer: &Peer,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<Caller, Unauthenticated> {
        let cluster = metadata.get(CLUSTER_ID).and_then(|cluster| cluster.to_str().ok());
        if let Some(cluster) = cluster.filter(|it| !it.is_empty() && *it != self.cluster_id) {
            return Err(Unauthenticated::Cluster(cluster.to_owned()));
        }
        let mut why = Unauthenticated::Nothing;
        if let Some(certificate) = &peer.certificate {
            match self.of_certificate(certificate, now) {
                Ok(id) => return Ok(Caller { id, proof: Proof::Certificate }),
                Err(reason) => why = Unauthenticated::Certificate(reason),
            }
        }
        let Some(token) = bearer(metadata) else { return Err(why) };
        if !peer.encrypted && !peer.is_local() {
            return Err(Unauthenticated::Readable);
        }
        self.of_token(token).map_err(Unauthenticated::Token)
    }

    /// A caller that says who it is, without proof; none where that is not enough.
    pub fn claim(&self, peer: &Peer, id: SpiffeId) -> Option<Caller> {
        let allowed = self.trusts_claims && peer.is_local() && self.is_ours(&id);
        allowed.then_some(Caller { id, proof: Proof::Claim })
    }

    fn of_certificate(&self, der: &[u8], now: SystemTime) -> Result<SpiffeId, String> {
        let unreadable = |error| format!("cannot be read: {error}");
        let (uris, validity) = bundle::uris_and_validity(der).map_err(unreadable)?;
        let [uri] = uris.as_slice() else {
            return Err(format!("must have exactly one URI name, it has {}", uris.len()));
        };
        // A connection may live longer than the certificate it began with.
        if !validity.contains(now) {
            return Err("has expired, or is not valid yet: check the clocks".to_owned());
        }
        let id: SpiffeId = uri.parse().map_err(|error| format!("names {uri:?}: {error}"))?;
        if self.is_ours(&id) {
            return Ok(id);
        }
        Err(format!("is for {id}, which is no service account of {}", self.trust_domain))
    }

    fn of_token(&self, token: &str) -> Result<Caller, String> {
        if token.len() > MAX_TOKEN {
            return Err("is longer than 16 KiB".to_owned());
        }
        let mut why = "is not one that is accepted here".to_owned();
        if let Some(file) = &self.token_file {
            match token_file::owner(file, token) {
                Ok(Some((namespace, account))) => {
                    let id = self.id(&namespace, &account)?;
                    return Ok(Caller { id, proof: Proof::Token });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "the file of accepted tokens cannot be used");
                }
            }
        }
        if let Some(tokens) = &self.service_accounts {
            match tokens.verify(token) {
                Ok((namespace, account)) => {
                    let id = self.id(&namespace, &account)?;
                    return Ok(Caller { id, proof: Proof::ServiceAccountToken });
                }
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn id(&self, namespace: &str, account: &str) -> Result<SpiffeId, String> {
        SpiffeId::of_service_account(&self.trust_domain, namespace, account).map_err(|error| {
            format!("is of {namespace}/{account}, which gives no SPIFFE id: {error}")
        })
    }

    fn is_ours(&self, id: &SpiffeId) -> bool {
        id.trust_domain() == self.trust_domain && id.service_account().is_some()
    }
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let (scheme, token) = metadata.get("authorization")?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests;
