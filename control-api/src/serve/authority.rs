//! The authority that signs for the mesh: read from its files, again when they change, and serving TLS with a
//! certificate of its own. Another root signs only once it is trusted, and goes only when nothing needs it.

mod succession;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use certs::{Authority, CaFiles, Csr, Leaf, Lifetimes, Request, SpiffeId, Usage, Validity, bundle};
use parking_lot::{Mutex, RwLock};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use self::succession::{Ledger, Step, Succession};

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
    /// Read while signing: what is replaced has signed for the last time.
    signing: RwLock<()>,
    succession: Mutex<Succession>,
}

/// Who signs, and what is trusted, at one time.
#[derive(Debug)]
pub struct Current {
    /// Signs.
    pub authority: Arc<Authority>,
    /// The roots that everyone is to trust, in PEM.
    trust: String,
    /// Counts the bundles of roots, from 1.
    generation: u64,
    server: Arc<ServerConfig>,
    /// Until when what it signed is valid.
    ledger: Arc<Ledger>,
}

impl Current {
    /// How to serve TLS: with a certificate of this authority, to clients with a certificate that its roots vouch for,
    /// or with none.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The roots that everyone is to trust, in PEM: more than the authority's own while another one comes or goes.
    pub fn trust_pem(&self) -> &str {
        &self.trust
    }

    /// Which bundle of roots that is, counted from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When the first root ends to be valid, and when what is below the roots does.
    pub fn ends(&self) -> (Option<SystemTime>, SystemTime) {
        let roots = bundle::validities(&self.trust).unwrap_or_default();
        let first = roots.iter().map(|validity| validity.not_after).min();
        (first, self.authority.validity().not_after)
    }

    fn new(
        authority: Arc<Authority>,
        trust: String,
        generation: u64,
        ledger: Arc<Ledger>,
        names: &[String],
    ) -> Result<Self, Error> {
        let server = Arc::new(server(&authority, &trust, names)?);
        Ok(Self { authority, trust, generation, server, ledger })
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
        let (trust, authority) = (authority.trust_pem(), Arc::new(authority));
        let current = Current::new(Arc::clone(&authority), trust, 1, Arc::default(), &names)?;
        Ok(Self {
            files,
            lifetimes,
            names,
            current: ArcSwap::from_pointee(current),
            signing: RwLock::new(()),
            succession: Mutex::new(Succession::new(authority, lifetimes.maximum)),
        })
    }

    /// The authority as it is now.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Signs for a workload that has an agent, and gives the certificate with what is above it and the roots to trust.
    ///
    /// # Errors
    /// As [`Authority::sign`].
    pub fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, certs::Error> {
        let _signing = self.signing.read();
        let current = self.current();
        let chain = current.authority.sign(csr, id, lifetime, now)?;
        let mut chain = bundle::split(&chain)?;
        let end = chain.first().map(|leaf| bundle::validities(leaf)).transpose()?;
        if let Some(leaf) = end.iter().flatten().next() {
            current.ledger.note(leaf.not_after, true);
        }
        // Agents that know of one root only take the last one: the one that this is under.
        let own = current.authority.root_pem();
        let others = bundle::split(&current.trust)?;
        chain.extend(others.into_iter().filter(|root| root != own));
        chain.push(own.to_owned());
        Ok(chain)
    }

    /// Makes a key and a certificate for a workload that has no agent, and says until when it is valid and who signed.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue(
        &self,
        id: &SpiffeId,
        now: SystemTime,
    ) -> Result<(Leaf, SystemTime, Arc<Authority>), certs::Error> {
        let _signing = self.signing.read();
        let current = self.current();
        let authority = &current.authority;
        let lifetime = authority.lifetimes().default;
        let validity = Validity::from(now, lifetime).within(authority.validity());
        let leaf = authority.issue(&Request::default().uri(id).validity(validity))?;
        current.ledger.note(validity.not_after, false);
        Ok((leaf, validity.not_after, Arc::clone(authority)))
    }

    /// Reads the files again; whether they ask for something else than before. It comes with [`proceed`](Self::proceed):
    /// what they asked for before stays where they cannot be used.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn reload(&self) -> Result<bool, Error> {
        let Some(files) = &self.files else { return Ok(false) };
        let authority = files.read()?.with_lifetimes(self.lifetimes);
        if !authority.validity().contains(SystemTime::now()) {
            return Err(certs::Error::NotValid(authority.validity()).into());
        }
        Ok(self.succession.lock().wish(authority))
    }

    /// Goes one step towards what the files ask for, if it may: first all roots are trusted, then the new one signs,
    /// then the old one goes. `lacking` names the proxies that have not yet taken a bundle of at least this
    /// generation. Whether something changed.
    ///
    /// # Errors
    /// If what is next cannot be used for TLS.
    pub fn proceed(
        &self,
        now: SystemTime,
        lacking: impl Fn(u64) -> Vec<String>,
    ) -> Result<bool, Error> {
        let _not_signing = self.signing.write();
        let current = self.current();
        let (authority, ledger) = (&current.authority, &current.ledger);
        let generation = current.generation;
        let lacking = || lacking(generation);
        let mut succession = self.succession.lock();
        let step = succession.step(authority, &current.trust, ledger, now, lacking)?;
        let next = match step {
            Step::Stay => return Ok(false),
            Step::Trust(trust) => {
                let (authority, ledger) = (Arc::clone(authority), Arc::clone(ledger));
                Current::new(authority, trust, generation + 1, ledger, &self.names)?
            }
            Step::Sign(next) => {
                let trust = current.trust.clone();
                // The ledger of a root: an intermediate that is replaced leaves what it signed to the next.
                let same = next.root_pem() == authority.root_pem();
                let ledger = if same { Arc::clone(ledger) } else { Arc::default() };
                Current::new(next, trust, generation, ledger, &self.names)?
            }
        };
        self.current.store(Arc::new(next));
        Ok(true)
    }
}

fn server(
    authority: &Arc<Authority>,
    trust: &str,
    names: &[String],
) -> Result<ServerConfig, Error> {
    let tls = |error: &dyn fmt::Display| Error::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trust.as_bytes()) {
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
