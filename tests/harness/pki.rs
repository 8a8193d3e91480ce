//! A certificate authority of a test's own, its identities as files, and TLS contexts that use them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Authority, Request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::tls::TlsOptions;
use crate::discovery_files::replace;

/// The DNS name in every certificate that [`Pki::workload`] issues.
pub const SERVER_NAME: &str = "server.test";

/// One authority.
#[derive(Debug)]
pub struct Pki {
    authority: Authority,
    dir: TempDir,
}

/// A certificate and its key, in memory and in files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The chain's file, in PEM.
    pub chain: PathBuf,
    /// The key's file, in PEM.
    pub key: PathBuf,
    chain_pem: String,
    key_pem: String,
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// A new root.
    pub fn new() -> Self {
        let authority = Authority::self_signed("test root").unwrap();
        let dir = tempfile::Builder::new().prefix("outrigger-pki-").tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.root_pem()).unwrap();
        Self { authority, dir }
    }

    /// The root's file, in PEM.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The root in PEM.
    pub fn root_pem(&self) -> &str {
        self.authority.root_pem()
    }

    /// An identity `spiffe://cluster.local/ns/default/sa/{account}` that is also [`SERVER_NAME`].
    pub fn workload(&self, account: &str) -> Identity {
        let uri = format!("spiffe://cluster.local/ns/default/sa/{account}");
        self.issue(account, &Request::default().uri(uri).dns(SERVER_NAME))
    }

    /// An identity that says what `request` says; its files are named after `name`.
    pub fn issue(&self, name: &str, request: &Request) -> Identity {
        let leaf = self.authority.issue(request).unwrap();
        let file = |suffix: &str| self.dir.path().join(format!("{name}-{suffix}.pem"));
        let identity = Identity {
            chain: file("cert"),
            key: file("key"),
            chain_pem: leaf.chain_pem,
            key_pem: leaf.key_pem,
        };
        identity.write();
        identity
    }

    /// A directory for files that belong to the certificates.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Envoy's `CommonTlsContext` with this identity, trusting this authority's root.
    pub fn common(&self, identity: &Identity) -> Value {
        json!({
            "tls_certificates": [identity.certificate()],
            "validation_context": {"trusted_ca": {"filename": self.root()}},
        })
    }

    /// A `DownstreamTlsContext` that demands a client certificate of this authority.
    pub fn mutual(&self, identity: &Identity) -> Value {
        json!({"common_tls_context": self.common(identity), "require_client_certificate": true})
    }

    /// A `DownstreamTlsContext` that asks no certificate of the client.
    pub fn server_only(identity: &Identity) -> Value {
        json!({"common_tls_context": {"tls_certificates": [identity.certificate()]}})
    }

    /// A test client that trusts this authority and presents `identity`, if there is one.
    pub fn client(&self, identity: Option<&Identity>) -> TlsOptions {
        let config = Arc::new(self.client_config(identity));
        TlsOptions { config, server_name: SERVER_NAME.to_owned() }
    }

    fn client_config(&self, identity: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root_pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain_der(), identity.key_der()).unwrap()
            }
        }
    }
}

impl Identity {
    /// Envoy's `TlsCertificate` of the files.
    pub fn certificate(&self) -> Value {
        json!({
            "certificate_chain": {"filename": self.chain},
            "private_key": {"filename": self.key},
        })
    }

    /// The certificate chain in PEM.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Moves this identity into the files of `other`, as a rotation does.
    pub fn replace(&self, other: &Self) {
        replace(&other.key, &self.key_pem);
        replace(&other.chain, &self.chain_pem);
    }

    fn write(&self) {
        std::fs::write(&self.chain, &self.chain_pem).unwrap();
        std::fs::write(&self.key, &self.key_pem).unwrap();
    }

    fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).map(Result::unwrap).collect()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap()
    }
}
