//! The authority that signs for the mesh: read from its files, again when they change, and serving TLS with a
//! certificate of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use certs::{Authority, CaFiles, Lifetimes, Request, Usage, Validity, bundle};
use parking_lot::Mutex;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The names that agents of Istio know their control plane by.
pub const SERVER_NAMES: [&str; 4] = [
    "istiod.istio-system.svc",
    "istio-pilot.istio-system.svc",
    "istiod-remote.istio-system.svc",
    "localhost",
];

/// How long the control plane's own certificate is valid; it is replaced at half of that.
const OWN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files cannot be used.
    #[error(transparent)]
    Certificates(#[from] certs::Error),
    /// Its roots or its key cannot be used for TLS.
    #[error("the authority cannot be used for TLS: {0}")]
    Tls(String),
}

/// The authority that signs for the mesh.
#[derive(Debug)]
pub struct MeshCa {
    files: Option<CaFiles>,
    lifetimes: Lifetimes,
    names: Vec<String>,
    current: ArcSwap<Current>,
}

/// The authority as its files had it at one time.
#[derive(Debug)]
pub struct Current {
    /// Signs.
    pub authority: Arc<Authority>,
    server: Arc<ServerConfig>,
    /// All of its certificates, to tell whether they changed.
    text: String,
}

impl Current {
    /// How to serve TLS: with a certificate of this authority, to clients with a certificate that its roots vouch for,
    /// or with none.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// When the first root ends to be valid, and when what is below the roots does.
    pub fn ends(&self) -> (Option<SystemTime>, SystemTime) {
        let roots = bundle::validities(&self.authority.trust_pem()).unwrap_or_default();
        let first = roots.iter().map(|validity| validity.not_after).min();
        (first, self.authority.validity().not_after)
    }

    fn new(authority: Authority, names: &[String]) -> Result<Self, Error> {
        let text = authority.path_pem() + &authority.trust_pem();
        let authority = Arc::new(authority);
        let server = Arc::new(server(&authority, names)?);
        Ok(Self { authority, server, text })
    }
}

impl MeshCa {
    /// The authority in `files`, for a server that is reached by `names` beside [`SERVER_NAMES`].
    ///
    /// # Errors
    /// If the files cannot be read or do not fit together.
    pub fn open(files: CaFiles, lifetimes: Lifetimes, names: Vec<String>) -> Result<Self, Error> {
        let authority = files.read()?.with_lifetimes(lifetimes);
        Self::with(authority, Some(files), lifetimes, names)
    }

    /// An authority that is in no files, and so is gone with the process: for trying things out.
    ///
    /// # Errors
    /// If it cannot be used for TLS.
    pub fn of(
        authority: Authority,
        lifetimes: Lifetimes,
        names: Vec<String>,
    ) -> Result<Self, Error> {
        Self::with(authority.with_lifetimes(lifetimes), None, lifetimes, names)
    }

    fn with(
        authority: Authority,
        files: Option<CaFiles>,
        lifetimes: Lifetimes,
        names: Vec<String>,
    ) -> Result<Self, Error> {
        let names: Vec<_> = SERVER_NAMES.map(str::to_owned).into_iter().chain(names).collect();
        let current = ArcSwap::from_pointee(Current::new(authority, &names)?);
        Ok(Self { files, lifetimes, names, current })
    }

    /// The authority as it is now.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Reads the files again; whether something changed. The last good ones stay where they cannot be used.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn reload(&self) -> Result<bool, Error> {
        let Some(files) = &self.files else { return Ok(false) };
        let authority = files.read()?.with_lifetimes(self.lifetimes);
        if authority.path_pem() + &authority.trust_pem() == self.current.load().text {
            return Ok(false);
        }
        self.current.store(Arc::new(Current::new(authority, &self.names)?));
        Ok(true)
    }

    /// Looks at the files every so often, and follows them.
    pub async fn keep_following(&self, every: Duration) {
        let mut said = String::new();
        loop {
            tokio::time::sleep(every).await;
            match self.reload() {
                Ok(false) => {}
                Ok(true) => {
                    said.clear();
                    tracing::info!("the authority's files have changed and are in use");
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        tracing::error!(%error, "the authority's files cannot be used, the last good ones stay");
                        said = text;
                    }
                }
            }
        }
    }
}

fn server(authority: &Arc<Authority>, names: &[String]) -> Result<ServerConfig, Error> {
    let tls = |error: &dyn fmt::Display| Error::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority.trust_pem().as_bytes()) {
        roots.add(root.map_err(|error| tls(&error))?).map_err(|error| tls(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| tls(&error))?;
    let own =
        Own { authority: Arc::clone(authority), names: names.to_vec(), held: Mutex::default() };
    own.renew(SystemTime::now())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would outlive the certificate that was verified when it began.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The certificate that the control plane shows, made anew when half of its life is over.
struct Own {
    authority: Arc<Authority>,
    names: Vec<String>,
    held: Mutex<Option<(Arc<CertifiedKey>, SystemTime)>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Own {
    fn renew(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, Error> {
        let tls = |error: &dyn fmt::Display| Error::Tls(error.to_string());
        let validity = Validity::from(now, OWN_LIFETIME).within(self.authority.validity());
        let mut request = Request::default().usage(Usage::Server).validity(validity);
        for name in &self.names {
            request = match name.parse::<std::net::IpAddr>() {
                Ok(address) => request.ip(address),
                Err(_) => request.dns(name),
            };
        }
        let leaf = self.authority.issue(&request.ip([127, 0, 0, 1]))?;
        let chain = CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| tls(&error))?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes());
        let key = aws_lc_rs::sign::any_supported_type(&key.map_err(|error| tls(&error))?);
        let key = Arc::new(CertifiedKey::new(chain, key.map_err(|error| tls(&error))?));
        let left = validity.not_after.duration_since(now).unwrap_or_default();
        *self.held.lock() = Some((Arc::clone(&key), now + left / 2));
        Ok(key)
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now();
        let held = self.held.lock().clone();
        if let Some((key, due)) = &held
            && now < *due
        {
            return Some(Arc::clone(key));
        }
        match self.renew(now) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(%error, "the control plane's own certificate cannot be renewed");
                held.map(|(key, _)| key)
            }
        }
    }
}
