//! Certificates, intermediates and three roots are replaced while workloads shake hands all the time: real TLS, whose
//! clock is the test's.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct,
    Error, RootCertStore, ServerConfig, ServerConnection, SideData, SignatureScheme,
};

use super::{DAY, HOUR, start};
use crate::rotation::{Attempts, RootRotation, Rotation};
use crate::{Authority, Csr, Key, KeyKind, SpiffeId, Validity, bundle, csr};

/// Threads that shake hands.
const CALLERS: usize = 2;
/// Handshakes of each in an hour of the test's time, at least.
const PER_HOUR: u64 = 6;

/// The test's time in seconds since 1970.
#[derive(Debug)]
struct Clock(AtomicU64);

impl Clock {
    fn at(moment: SystemTime) -> Arc<Self> {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Arc::new(Self(AtomicU64::new(since.as_secs())))
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(SeqCst))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(SeqCst))))
    }
}

/// Accepts servers that its roots vouch for, whatever their name: they have SPIFFE ids only.
#[derive(Debug)]
struct Servers {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, others, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate with its key.
#[derive(Debug, Clone)]
struct Held {
    chain: String,
    key: String,
    validity: Validity,
}

impl Held {
    fn signed_by(authority: &Authority, id: &SpiffeId, now: SystemTime) -> Self {
        let key = Key::generate(KeyKind::default()).unwrap();
        let csr = Csr::from_pem(&csr::build(&key, id).unwrap()).unwrap();
        let chain = authority.sign(&csr, id, None, now).unwrap();
        let validity = bundle::validities(&chain).unwrap()[0];
        Self { chain, key: key.to_pem(), validity }
    }
}

/// TLS for both sides, with one certificate and one bundle.
#[derive(Debug, Clone)]
struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    fn new(held: &Held, trust: &str, clock: &Arc<Clock>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let read = |pem: &str| {
            let all = CertificateDer::pem_slice_iter(pem.as_bytes());
            all.map(Result::unwrap).collect::<Vec<_>>()
        };
        let key = || PrivateKeyDer::from_pem_slice(held.key.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        assert_eq!(roots.add_parsable_certificates(read(trust)).1, 0);
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let time = || Arc::clone(clock) as Arc<dyn TimeProvider>;
        let mut server = ServerConfig::builder_with_details(Arc::clone(&provider), time())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(read(&held.chain), key())
            .unwrap();
        server.send_tls13_tickets = 0;
        let servers = Arc::new(Servers { roots, provider: Arc::clone(&provider) });
        let mut client = ClientConfig::builder_with_details(provider, time())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(servers)
            .with_client_auth_cert(read(&held.chain), key())
            .unwrap();
        // What is resumed is not verified.
        client.resumption = Resumption::disabled();
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// A whole handshake, in which each verifies the other.
    fn shake_hands_with(&self, other: &Self) -> Result<(), Error> {
        let name = ServerName::try_from("mesh.invalid").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.client), name)?;
        let mut server = ServerConnection::new(Arc::clone(&other.server))?;
        while client.is_handshaking() || server.is_handshaking() {
            carry(&mut client, &mut server)?;
            carry(&mut server, &mut client)?;
        }
        Ok(())
    }
}

/// Brings what one side has to say to the other.
fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// TLS as callers find it.
type Shared = Arc<Mutex<Tls>>;

/// Renews its certificate by itself, and hears of new roots with a delay.
struct Workload {
    id: SpiffeId,
    chance: f64,
    trust: String,
    held: Held,
    /// What the callers use.
    tls: Shared,
}

impl Workload {
    fn new(number: u8, signer: &Authority, trust: &str, clock: &Arc<Clock>) -> Self {
        let id: SpiffeId = format!("spiffe://cluster.local/ns/shop/sa/w{number}").parse().unwrap();
        let held = Held::signed_by(signer, &id, clock.now());
        let tls = Arc::new(Mutex::new(Tls::new(&held, trust, clock)));
        Self { id, chance: f64::from(number) / 3.0, trust: trust.to_owned(), held, tls }
    }

    fn use_what_is_held(&self, clock: &Arc<Clock>) {
        *self.tls.lock() = Tls::new(&self.held, &self.trust, clock);
    }
}

/// The authority that signs for them, while its roots are replaced.
struct Mesh {
    clock: Arc<Clock>,
    root: Authority,
    next: Option<Authority>,
    signer: Authority,
    trust: String,
    state: RootRotation,
    workloads: Vec<Workload>,
    hours: u32,
    /// Roots that were replaced, and certificates that were signed.
    replaced: u32,
    signed: u32,
}

/// A root with a year of life. All have one name, as roots that are replaced do.
fn new_root(now: SystemTime) -> Authority {
    let life = Validity::from(now, 365 * DAY);
    Authority::self_signed_for("root", life, KeyKind::default()).unwrap()
}

/// A new intermediate.
fn new_signer(root: &Authority, now: SystemTime) -> Authority {
    let life = Validity::from(now, 60 * DAY);
    root.intermediate_for("signer", life, KeyKind::default()).unwrap()
}

impl Mesh {
    fn new() -> Self {
        let (clock, root) = (Clock::at(start()), new_root(start()));
        let (signer, trust) = (new_signer(&root, start()), root.root_pem().to_owned());
        let workloads = (0..4).map(|n| Workload::new(n, &signer, &trust, &clock)).collect();
        let (next, state) = (None, RootRotation::Settled);
        let (hours, replaced, signed) = (0, 0, 0);
        Self { clock, root, next, signer, trust, state, workloads, hours, replaced, signed }
    }

    /// What happens in an hour: the intermediate changes every few hours, one workload hears of the roots that are
    /// trusted, the replacement of a root goes a step further if it may, and who is due renews.
    fn hour(&mut self) {
        self.clock.0.fetch_add(HOUR.as_secs(), SeqCst);
        let now = self.clock.now();
        self.hours += 1;
        if self.hours.is_multiple_of(7) {
            self.signer = new_signer(&self.root, now);
        }
        if let Some(late) = self.workloads.iter_mut().find(|it| it.trust != self.trust) {
            late.trust.clone_from(&self.trust);
            late.use_what_is_held(&self.clock);
        }
        self.replace(now);
        for workload in &mut self.workloads {
            let (validity, chance) = (workload.held.validity, workload.chance);
            if Rotation::default().decide(validity, Attempts::default(), now, chance).renew {
                workload.held = Held::signed_by(&self.signer, &workload.id, now);
                workload.use_what_is_held(&self.clock);
                self.signed += 1;
            }
        }
    }

    fn replace(&mut self, now: SystemTime) {
        let everyone = self.workloads.iter().all(|it| it.trust == self.trust);
        match self.state {
            RootRotation::Settled if everyone => {
                let new = new_root(now);
                self.trust = bundle::merge(&[self.root.root_pem(), new.root_pem()]).unwrap();
                (self.next, self.state) = (Some(new), self.state.trust().unwrap());
            }
            RootRotation::Trusting => {
                if let Ok(signing) = self.state.sign(everyone, now) {
                    (self.root, self.state) = (self.next.take().unwrap(), signing);
                    self.signer = new_signer(&self.root, now);
                }
            }
            _ => {
                if let Ok(settled) = self.state.forget(DAY, now) {
                    self.trust = self.root.root_pem().to_owned();
                    (self.state, self.replaced) = (settled, self.replaced + 1);
                }
            }
        }
    }
}

/// Calls every workload from every other, in turn, until it is told to stop.
fn call(
    pairs: &[(Shared, Shared)],
    stop: &AtomicBool,
    done: &AtomicU64,
    failed: &Mutex<Vec<Error>>,
) {
    for (client, server) in pairs.iter().cycle() {
        if stop.load(SeqCst) {
            return;
        }
        // One lock at a time: others take them in another order.
        let client = client.lock().clone();
        let server = server.lock().clone();
        if let Err(error) = client.shake_hands_with(&server) {
            failed.lock().push(error);
        }
        done.fetch_add(1, SeqCst);
    }
}

#[test]
fn three_roots_are_replaced_and_no_handshake_fails() {
    let mut mesh = Mesh::new();
    let first = (mesh.workloads[0].held.clone(), mesh.trust.clone());
    let all = &mesh.workloads;
    let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (one, other)));
    let pairs = pairs.filter(|(one, other)| one.id != other.id);
    let pairs: Vec<_> =
        pairs.map(|(one, other)| (Arc::clone(&one.tls), Arc::clone(&other.tls))).collect();
    let (stop, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let done: Vec<AtomicU64> = (0..CALLERS).map(|_| AtomicU64::new(0)).collect();
    let mut signers = HashSet::new();
    std::thread::scope(|scope| {
        for (number, done) in done.iter().enumerate() {
            let mut pairs = pairs.clone();
            pairs.rotate_left(number * 5);
            let (stop, failed) = (&stop, &failed);
            scope.spawn(move || call(&pairs, stop, done, failed));
        }
        while mesh.replaced < 3 && failed.lock().is_empty() {
            mesh.hour();
            signers.insert(mesh.signer.path_pem());
            // Nobody is left behind: a handshake ends within the hour after the one it began in.
            let goals = done.iter().map(|done| (done, done.load(SeqCst) + PER_HOUR));
            for (done, goal) in goals.collect::<Vec<_>>() {
                while done.load(SeqCst) < goal {
                    std::thread::yield_now();
                }
            }
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(failed.into_inner(), [], "after {} hours, {:?}", mesh.hours, mesh.state);
    assert!(mesh.signed > 20 && signers.len() > 10, "{} by {}", mesh.signed, signers.len());
    a_root_that_is_gone_vouches_for_nobody(&mesh, &first);
}

/// Whose certificate is under the first root is refused, by servers and by clients, though it is in its time.
fn a_root_that_is_gone_vouches_for_nobody(mesh: &Mesh, (held, trust): &(Held, String)) {
    let then = Clock::at(start() + HOUR);
    let both = bundle::merge(&[trust, &mesh.trust]).unwrap();
    let stopped = Tls::new(held, &both, &mesh.clock);
    let young = Held::signed_by(&mesh.signer, &mesh.workloads[1].id, mesh.clock.now());
    let before = Tls::new(&young, &both, &then);
    before.shake_hands_with(&stopped).unwrap();
    stopped.shake_hands_with(&before).unwrap();
    let now = Tls::new(&young, &mesh.trust, &then);
    for refused in [now.shake_hands_with(&stopped), stopped.shake_hands_with(&now)] {
        // The roots have one name: whether that or a signature is what does not fit makes no difference.
        let unknown = [CertificateError::UnknownIssuer, CertificateError::BadSignature];
        let error = refused.unwrap_err();
        let is_unknown = unknown.into_iter().any(|it| error == Error::InvalidCertificate(it));
        assert!(is_unknown, "{error}");
    }
}
