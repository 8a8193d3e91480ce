//! Istio's certificate service over real TLS: who gets a certificate, for whom, and who does not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certs::{Authority, CaFiles, Csr, Key, KeyKind, Lifetimes, SpiffeId, bundle};
use control_api::serve::auth::Authenticator;
use control_api::serve::authority::MeshCa;
use control_api::serve::ca::{CaMetrics, CertificateService};
use control_api::serve::connection::accepted;
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Request, Status};
use xds::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use xds::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A control plane that only signs certificates, with its files.
struct World {
    folder: tempfile::TempDir,
    files: CaFiles,
    ca: Arc<MeshCa>,
    address: SocketAddr,
    registry: Registry,
}

/// What a client proves itself with.
#[derive(Default)]
struct Client<'a> {
    token: Option<&'a str>,
    /// Its certificate with its key.
    certificate: Option<(&'a str, &'a str)>,
    /// What it trusts; the mesh's roots by default.
    roots: Option<String>,
}

impl World {
    async fn start(trusts_claims: bool, per_minute: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = CaFiles::within(folder.path());
        files.write(&Authority::self_signed("root").unwrap()).unwrap();
        let tokens = folder.path().join("tokens.csv");
        std::fs::write(&tokens, "abc,system:serviceaccount:shop:cart\n").unwrap();
        let ca = MeshCa::open(files.clone(), Lifetimes::default(), Vec::new()).unwrap();
        let authenticator = Authenticator {
            trust_domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            token_file: Some(tokens),
            service_accounts: None,
            trusts_claims,
        };
        let (ca, registry) = (Arc::new(ca), Registry::new());
        let metrics = CaMetrics::new(&registry).unwrap();
        metrics.note_expiry(&ca.current());
        let service =
            CertificateService::new(Arc::clone(&ca), Arc::new(authenticator), metrics, per_minute);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = accepted(listener, Some(Arc::clone(&ca)));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { folder, files, ca, address, registry }
    }

    async fn ask(
        &self,
        client: Client<'_>,
        request: IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let mut roots = RootCertStore::empty();
        let trusted = client.roots.unwrap_or_else(|| self.ca.current().trust_pem().to_owned());
        for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match client.certificate {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(config)), self.address);
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://istiod.istio-system.svc:15012");
        let channel = endpoint.connect_with_connector(connect).await;
        let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let mut request = Request::new(request);
        if let Some(token) = client.token {
            let token = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", token);
        }
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// What a counter without labels shows.
    fn counted(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(prometheus::proto::MetricFamily::get_metric).unwrap_or_default();
        metrics.iter().map(|it| it.get_counter().get_value() + it.get_gauge().get_value()).sum()
    }
}

fn with_token(token: &str) -> Client<'_> {
    Client { token: Some(token), ..Client::default() }
}

fn key() -> Key {
    Key::generate(KeyKind::default()).unwrap()
}

/// A request for this service account.
fn request(key: &Key, account: &str) -> IstioCertificateRequest {
    let id = SpiffeId::of_service_account("cluster.local", "shop", account).unwrap();
    let csr = certs::csr::build(key, &id).unwrap();
    IstioCertificateRequest { csr, validity_duration: 86_400, metadata: None }
}

fn names(chain: &[String]) -> Vec<String> {
    let described = bundle::describe(&chain[0], SystemTime::now()).unwrap();
    described[0].names.clone()
}

#[tokio::test]
async fn a_workload_gets_a_certificate_for_itself_and_renews_with_it() {
    let world = World::start(false, 10).await;
    let first_key = key();
    let signed = world.ask(with_token("abc"), request(&first_key, "cart")).await.unwrap();
    let chain = signed.cert_chain;
    assert_eq!(names(&chain), ["spiffe://cluster.local/ns/shop/sa/cart"]);
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], world.ca.current().authority.root_pem());
    let validity = bundle::validities(&chain[0]).unwrap()[0];
    let left = validity.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left <= DAY && left > DAY - Duration::from_secs(60), "{left:?}");

    // Whatever else it asks for, it is itself.
    let other = world.ask(with_token("abc"), request(&key(), "admin")).await.unwrap();
    assert_eq!(names(&other.cert_chain), ["spiffe://cluster.local/ns/shop/sa/cart"]);

    let key_pem = first_key.to_pem();
    let client = Client { certificate: Some((&chain[0], &key_pem)), ..Client::default() };
    let renewed = world.ask(client, request(&key(), "cart")).await.unwrap();
    assert_eq!(names(&renewed.cert_chain), ["spiffe://cluster.local/ns/shop/sa/cart"]);
    assert_eq!(world.counted("citadel_server_success_cert_issuance_count"), 3.0);
    assert_eq!(world.counted("citadel_server_csr_count"), 3.0);
    assert!(world.counted("citadel_server_root_cert_expiry_timestamp") > 1.7e9);
    // The root is there for ten years.
    for left in ["root_cert_expiry_seconds", "cert_chain_expiry_seconds"] {
        let left = world.counted(&format!("citadel_server_{left}")) / 86_400.0;
        assert!((3_649.0..=3_650.0).contains(&left), "{left} days");
    }
}

#[tokio::test]
async fn nobody_else_gets_one() {
    let world = World::start(false, 10).await;
    let code = async |client, request| world.ask(client, request).await.unwrap_err().code();
    let cart = || request(&key(), "cart");
    assert_eq!(code(Client::default(), cart()).await, Code::Unauthenticated);
    assert_eq!(code(with_token("wrong"), cart()).await, Code::Unauthenticated);
    let metadata = |name: &str| {
        let value = prost_types::Value {
            kind: Some(prost_types::value::Kind::StringValue("spiffe://x/y".into())),
        };
        Some(prost_types::Struct { fields: [(name.to_owned(), value)].into() })
    };
    let other = IstioCertificateRequest { metadata: metadata("ImpersonatedIdentity"), ..cart() };
    assert_eq!(code(with_token("abc"), other).await, Code::Unauthenticated);
    assert_eq!(world.counted("citadel_server_authentication_failure_count"), 3.0);
    let signer = IstioCertificateRequest { metadata: metadata("CertSigner"), ..cart() };
    assert_eq!(code(with_token("abc"), signer).await, Code::InvalidArgument);
    let nonsense = IstioCertificateRequest { csr: "x".into(), ..cart() };
    assert_eq!(code(with_token("abc"), nonsense).await, Code::InvalidArgument);
    assert_eq!(world.counted("citadel_server_csr_parsing_err_count"), 1.0);
    let long = IstioCertificateRequest { csr: "x".repeat(100_000), ..cart() };
    assert_eq!(code(with_token("abc"), long).await, Code::OutOfRange);

    // Signed by somebody else: the handshake ends it.
    let stranger = Authority::self_signed("root").unwrap();
    let leaf = certs::Request::default().uri("spiffe://cluster.local/ns/shop/sa/cart");
    let leaf = stranger.issue(&leaf).unwrap();
    let certificate = Some((leaf.chain_pem.as_str(), leaf.key_pem.as_str()));
    let client = Client { certificate, ..Client::default() };
    assert!(world.ask(client, cart()).await.is_err());
    let roots = Some(stranger.trust_pem());
    let client = Client { roots, ..with_token("abc") };
    assert!(world.ask(client, cart()).await.is_err());
    assert_eq!(world.counted("citadel_server_success_cert_issuance_count"), 0.0);
}

#[tokio::test]
async fn claims_count_only_where_they_are_allowed() {
    let world = World::start(true, 10).await;
    let signed = world.ask(Client::default(), request(&key(), "web")).await.unwrap();
    assert_eq!(names(&signed.cert_chain), ["spiffe://cluster.local/ns/shop/sa/web"]);
    // A wrong proof is not the same as none.
    let wrong = world.ask(with_token("wrong"), request(&key(), "web")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn who_asks_too_often_has_to_wait() {
    let world = World::start(false, 2).await;
    for _ in 0..2 {
        world.ask(with_token("abc"), request(&key(), "cart")).await.unwrap();
    }
    let error = world.ask(with_token("abc"), request(&key(), "cart")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("wait"), "{error}");
}

#[tokio::test]
async fn a_replaced_root_is_followed_and_a_broken_one_is_not() {
    let world = World::start(false, 10).await;
    let old_key = key();
    let old = world.ask(with_token("abc"), request(&old_key, "cart")).await.unwrap().cert_chain;
    let old_key = old_key.to_pem();
    let old_root = world.ca.current().trust_pem().to_owned();
    let now = SystemTime::now();
    let proceed = |now| {
        while world.ca.proceed(now, |_| Vec::new()).unwrap() {}
    };
    assert!(!world.ca.reload().unwrap());

    // All at once: the old root still signs, for a workload may have an agent that has not heard of the new one.
    let next = Authority::self_signed("next").unwrap();
    world.files.write(&next).unwrap();
    assert!(world.ca.reload().unwrap());
    proceed(now);
    let with_old = || Client { certificate: Some((&old[0], &old_key)), ..Client::default() };
    let renewed = world.ask(with_old(), request(&key(), "cart")).await.unwrap().cert_chain;
    // Leaf, the new root, and the one it is under last: an agent that knows of one takes that.
    assert_eq!(renewed[1..], [next.root_pem().to_owned(), old_root.clone()]);

    std::fs::write(&world.files.certificate, "half a").unwrap();
    assert!(world.ca.reload().is_err());
    proceed(now);
    world.ask(with_old(), request(&key(), "cart")).await.unwrap();

    // Once nothing under the old one is valid, the new one signs, and the old one goes.
    proceed(now + DAY + Duration::from_secs(60));
    assert_eq!(world.ca.current().trust_pem(), next.root_pem());
    assert!(world.ask(with_old(), request(&key(), "cart")).await.is_err(), "its root is gone");
    world.ask(with_token("abc"), request(&key(), "cart")).await.unwrap();
    drop(world.folder);
}

/// Where recorded exchanges are; none where they are not installed.
fn recordings() -> Option<PathBuf> {
    let given = std::env::var_os("SUITES_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let found = given.or_else(|| beside.is_dir().then_some(beside));
    if found.is_none() {
        assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no SUITES_DIR");
        eprintln!("SKIPPED: no SUITES_DIR with a recorded exchange of certificates");
    }
    Some(found?.join("istiod-1.30-ads/ca"))
}

#[tokio::test]
async fn the_answer_has_the_shape_of_a_recorded_one() {
    let Some(folder) = recordings() else { return };
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let recorded = read("create-certificate.request.pb");
    let recorded = IstioCertificateRequest::decode(recorded.as_slice()).unwrap();
    Csr::from_pem(&recorded.csr).unwrap();
    let expected = read("create-certificate.response.pb");
    let expected = IstioCertificateResponse::decode(expected.as_slice()).unwrap();

    let world = World::start(true, 10).await;
    let answer = world.ask(Client::default(), recorded).await.unwrap();
    let shape = |response: &IstioCertificateResponse| {
        let described = response.cert_chain.iter().map(|pem| {
            let mut all = bundle::describe(pem, SystemTime::now()).unwrap();
            let one = all.remove(0);
            assert!(all.is_empty() && pem.ends_with("-----END CERTIFICATE-----\n"));
            (one.names, one.authority)
        });
        described.collect::<Vec<_>>()
    };
    assert_eq!(shape(&answer), shape(&expected));
}
