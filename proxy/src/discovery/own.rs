//! Secrets that this process has itself: its agent's certificate and roots, and files that are named like secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::source::{ConfigSource, ResourceSource, Server, ServerSource};
use crate::config::tls::{DataSource, Secret, SecretKind, TlsCertificate, ValidationContext};

/// The cluster that stands for an SDS server beside the proxy wherever Istio writes configuration.
const LOCAL_SERVER: &str = "sds-grpc";
/// The secret that is the workload's certificate with its key.
const CERTIFICATE: &str = "default";
/// The secret that is what its peers' certificates are verified against.
const ROOTS: &str = "ROOTCA";
/// Begins the name of a certificate in files: `file-cert:CERTIFICATE~KEY`.
const FILE_CERTIFICATE: &str = "file-cert:";
/// Begins the name of roots in a file.
const FILE_ROOTS: &str = "file-root:";
/// The roots that the system trusts, in `file-root:system`.
const SYSTEM: &str = "system";
/// Where systems keep what they trust, the most common place first.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What an agent has obtained for the workload that this proxy stands beside.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Its certificate with all above it but the root.
    pub certificate: TlsCertificate,
    /// PEM bundle of what it trusts.
    pub roots: Vec<u8>,
}

/// Secrets that need no server.
#[derive(Debug, Default)]
pub(super) struct OwnSecrets {
    /// How an agent tells what it obtained; none if no agent runs in this process.
    agent: Option<watch::Receiver<Option<Identity>>>,
    certificate: Option<Arc<Secret>>,
    roots: Option<Arc<Secret>>,
}

impl OwnSecrets {
    /// Those of an agent, and files.
    pub(super) fn of_agent(mut agent: watch::Receiver<Option<Identity>>) -> Self {
        let identity = agent.borrow_and_update().clone();
        let secret = |name: &str, kind| Some(Arc::new(Secret { name: name.into(), kind }));
        let (certificate, roots) = match identity {
            None => (None, None),
            Some(Identity { certificate, roots }) => (
                secret(CERTIFICATE, SecretKind::Certificate(certificate)),
                secret(ROOTS, SecretKind::Validation(trusting(DataSource::Inline(roots)))),
            ),
        };
        Self { agent: Some(agent), certificate, roots }
    }

    /// Whether secrets of this source are found here rather than asked of a server.
    pub(super) fn answer(&self, source: &ResourceSource) -> bool {
        let is_local = |source: &ConfigSource| match source {
            ConfigSource::Server(ServerSource { server: Server::Grpc(source), .. }) => {
                source.services.iter().any(|service| &*service.cluster == LOCAL_SERVER)
            }
            ConfigSource::File(_) | ConfigSource::Server(_) => false,
        };
        self.agent.is_some() && is_local(&source.source)
    }

    /// The secret called `name`, unless it is still to come or there is none.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Secret>> {
        match name {
            CERTIFICATE => self.certificate.clone(),
            ROOTS => self.roots.clone(),
            _ => in_files(name).map(|kind| Arc::new(Secret { name: name.into(), kind })),
        }
    }

    /// Resolves once the agent has obtained something else, and gives what there is then.
    pub(super) async fn changed(&self) -> Self {
        let Some(agent) = &self.agent else { return std::future::pending().await };
        let mut agent = agent.clone();
        match agent.changed().await {
            Ok(()) => Self::of_agent(agent),
            // The agent has ended; so will the process.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The secret in files that `name` means.
fn in_files(name: &str) -> Option<SecretKind> {
    let file = |path: &str| DataSource::File(PathBuf::from(path));
    if let Some(paths) = name.strip_prefix(FILE_CERTIFICATE) {
        let (chain, key) = paths.split_once('~')?;
        return Some(SecretKind::Certificate(TlsCertificate {
            chain: file(chain),
            key: file(key),
        }));
    }
    let path = match name.strip_prefix(FILE_ROOTS)? {
        SYSTEM => SYSTEM_ROOTS.into_iter().find(|path| Path::new(path).exists())?,
        path => path,
    };
    Some(SecretKind::Validation(trusting(file(path))))
}

fn trusting(roots: DataSource) -> ValidationContext {
    ValidationContext { trusted_ca: Some(roots), ..ValidationContext::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_like_secrets() {
        let (_agent, receiver) = watch::channel(None);
        let own = OwnSecrets::of_agent(receiver);
        let file = |path: &str| DataSource::File(PathBuf::from(path));
        let certificate = own.get("file-cert:/c.pem~/k.pem").unwrap();
        let expected = TlsCertificate { chain: file("/c.pem"), key: file("/k.pem") };
        assert_eq!(certificate.kind, SecretKind::Certificate(expected));
        let roots = own.get("file-root:/r.pem").unwrap();
        assert_eq!(roots.kind, SecretKind::Validation(trusting(file("/r.pem"))));
        for name in ["default", "ROOTCA", "file-cert:/c.pem", "other"] {
            assert_eq!(own.get(name), None, "{name}");
        }
    }
}
