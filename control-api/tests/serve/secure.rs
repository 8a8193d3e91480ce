//! Who gets secrets over the aggregated stream, and who gets no stream at all.

use std::sync::Arc;
use std::time::SystemTime;

use certs::{Authority, CaFiles, Lifetimes};
use control_api::serve::Setup;
use control_api::serve::access::Access;
use control_api::serve::auth::Authenticator;
use control_api::serve::authority::MeshCa;
use control_api::serve::sds::Secrets;
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use xds::envoy::config::core::v3::Node;
use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use xds::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use xds::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use xds::google::rpc;
use xds::type_url::{ResourceType, Variant};

use crate::plane::{Plane, eventually, node, service};
use crate::sidecar::{Sidecar, channel};

/// A control plane with an authority, which believes claims from this machine or nobody.
async fn plane(trusts_claims: bool, with_tls: bool) -> (Plane, Arc<MeshCa>) {
    let root = Authority::self_signed("root").unwrap();
    let ca = MeshCa::of(root, Lifetimes::default(), Vec::new()).unwrap();
    with(Arc::new(ca), trusts_claims, with_tls).await
}

async fn with(ca: Arc<MeshCa>, trusts_claims: bool, with_tls: bool) -> (Plane, Arc<MeshCa>) {
    let authenticator = Authenticator {
        trust_domain: "cluster.local".into(),
        cluster_id: "Kubernetes".into(),
        token_file: None,
        service_accounts: None,
        trusts_claims,
    };
    let registry = Registry::new();
    let secrets = Secrets::new(Some(Arc::clone(&ca)), &registry).unwrap();
    let renewed = watch::Sender::default();
    let access = Some(Access { authenticator: Arc::new(authenticator), secrets, renewed });
    let setup = Setup { registry, access, ..Setup::default() };
    let plane = Plane::of(setup, with_tls.then(|| Arc::clone(&ca))).await;
    plane.publish(&service("reviews", &["10.0.0.1"]));
    (plane, ca)
}

/// A node that says which service account it has.
fn of_account(account: &str) -> Node {
    let account = Value { kind: Some(Kind::StringValue(account.into())) };
    let fields = [("SERVICE_ACCOUNT".to_owned(), account)].into();
    Node { metadata: Some(Struct { fields }), ..node("web", "10.0.0.9") }
}

async fn tls(plane: &Plane, ca: &MeshCa) -> Channel {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(ca.current().trust_pem().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, address) = (TlsConnector::from(Arc::new(config)), plane.xds);
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://istiod.istio-system.svc:15012");
    endpoint.connect_with_connector(connect).await.unwrap()
}

#[tokio::test]
async fn a_proxy_that_is_known_gets_its_certificate_and_the_roots_and_new_ones_when_they_are_due() {
    let (plane, _) = plane(true, false).await;
    let names = ["default", "ROOTCA"];
    let (channel, node) = (channel(plane.xds).await, of_account("web"));
    let sidecar = Sidecar::asking(channel, Variant::Incremental, node, &names);
    plane.settled(1, 1).await;
    let held = |name| sidecar.held::<Secret>(ResourceType::Secret, name);
    assert!(held("ROOTCA").is_some() && held("default").is_some());
    let sent = plane.shared.fleet().sent();
    // The same authority makes the same secrets: nothing is sent again.
    plane.shared.renew_secrets();
    plane.settled(plane.publish(&service("reviews", &["10.0.0.1"])), 1).await;
    assert_eq!(plane.shared.fleet().sent(), sent);
}

/// What a secret holds: a chain, or roots.
fn pem(secret: Secret) -> String {
    let source = match secret.r#type.unwrap() {
        Type::TlsCertificate(it) => it.certificate_chain,
        Type::ValidationContext(it) => it.trusted_ca,
    };
    let Some(Specifier::InlineBytes(bytes)) = source.unwrap().specifier else { panic!() };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_root_signs_only_once_every_proxy_that_is_connected_trusts_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = CaFiles::within(folder.path());
    let old = Authority::self_signed("root").unwrap();
    files.write(&old).unwrap();
    let ca = MeshCa::open(files.clone(), Lifetimes::default(), Vec::new()).unwrap();
    let (plane, ca) = with(Arc::new(ca), true, false).await;
    let names = ["default", "ROOTCA"];
    let ask = async |name: &str, variant| {
        let node = Node { metadata: of_account("web").metadata, ..node(name, "10.0.0.9") };
        Sidecar::asking(channel(plane.xds).await, variant, node, &names)
    };
    let willing = ask("willing", Variant::Incremental).await;
    let mut late = ask("late", Variant::StateOfTheWorld).await;
    plane.settled(1, 2).await;
    let held = |of: &Sidecar, name| of.held::<Secret>(ResourceType::Secret, name).map(pem);
    let before = held(&willing, "default").unwrap();

    // The folder is another authority's from one moment to the next.
    late.seen.lock().refuses.push("ROOTCA".into());
    let new = Authority::self_signed("root").unwrap();
    files.write(&new).unwrap();
    assert!(ca.reload().unwrap());
    let proceed = || {
        if ca.proceed(SystemTime::now(), |bundle| plane.shared.fleet().lacking(bundle)).unwrap() {
            plane.shared.renew_secrets();
        }
    };
    let both = old.root_pem().to_owned() + new.root_pem();
    eventually("both roots", || {
        proceed();
        held(&willing, "ROOTCA").as_deref() == Some(&both)
    })
    .await;
    let waits_for = || plane.shared.fleet().lacking(ca.current().generation());
    eventually("one to be waited for", || {
        proceed();
        waits_for() == ["sidecar~10.0.0.9~late.shop~shop.svc.cluster.local"]
    })
    .await;
    assert_eq!(held(&willing, "default").unwrap(), before, "the old root still signs");

    // It comes again, and takes it.
    late.seen.lock().refuses.clear();
    late.reconnect(plane.xds, Variant::StateOfTheWorld).await;
    for sidecar in [&willing, &late] {
        eventually("certificates of the new root", || {
            proceed();
            let chain = held(sidecar, "default").unwrap();
            assert!(held(sidecar, "ROOTCA").is_none_or(|it| chain == before || it == both));
            chain != before
        })
        .await;
    }
    assert_eq!(held(&late, "ROOTCA").unwrap(), both, "something under the old root is valid");
}

#[tokio::test]
async fn a_proxy_that_nobody_knows_gets_everything_but_secrets() {
    let (plane, _) = plane(false, false).await;
    let (channel, node) = (channel(plane.xds).await, of_account("web"));
    let sidecar = Sidecar::asking(channel, Variant::StateOfTheWorld, node, &["default"]);
    eventually("clusters", || {
        sidecar.seen.lock().held.keys().any(|(kind, _)| *kind == ResourceType::Cluster)
    })
    .await;
    eventually("the fleet", || plane.shared.fleet().settled(1) == (1, 1)).await;
    assert!(sidecar.held::<Secret>(ResourceType::Secret, "default").is_none());
}

#[tokio::test]
async fn over_tls_everyone_has_to_prove_who_it_is() {
    let (plane, ca) = plane(false, true).await;
    let sidecar = Sidecar::over(tls(&plane, &ca).await, Variant::Incremental, of_account("web"));
    eventually("an end", || sidecar.seen.lock().ended.is_some()).await;
    assert_eq!(sidecar.seen.lock().ended.as_ref().unwrap().code(), Code::Unauthenticated);
    assert!(sidecar.arrived().is_empty());
}

/// A stream of the secret discovery service that asks for one secret, as Envoys open it.
async fn stream_of(
    plane: &Plane,
    secret: &str,
) -> Result<(mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>), Status> {
    let (sender, mut requests) = mpsc::channel(4);
    sender.send(asking_for(secret)).await.unwrap();
    let requests = futures_util::stream::poll_fn(move |context| requests.poll_recv(context));
    let mut service = SecretDiscoveryServiceClient::new(channel(plane.xds).await);
    Ok((sender, service.stream_secrets(requests).await?.into_inner()))
}

fn asking_for(secret: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(of_account("web")),
        type_url: ResourceType::Secret.url().into(),
        resource_names: vec![secret.into()],
        ..DiscoveryRequest::default()
    }
}

#[tokio::test]
async fn a_stream_of_secrets_alone_is_answered_and_waited_for() {
    let (plane, ca) = plane(true, false).await;
    let (_certificate, mut responses) = stream_of(&plane, "default").await.unwrap();
    let response = responses.message().await.unwrap().unwrap();
    let secret: Secret = response.resources[0].to_msg().unwrap();
    assert_eq!(secret.name, "default");
    assert!(pem(secret).contains("BEGIN CERTIFICATE"));

    // It refuses the roots, comes again, and takes them.
    let bundle = ca.current().generation();
    let waits_for = |bundle| plane.shared.fleet().lacking(bundle);
    let node = [of_account("web").id];
    for refuses in [true, false] {
        let (requests, mut responses) = stream_of(&plane, "ROOTCA").await.unwrap();
        let response = responses.message().await.unwrap().unwrap();
        let secret: Secret = response.resources[0].to_msg().unwrap();
        assert_eq!(pem(secret), ca.current().trust_pem());
        eventually("one to be waited for", || waits_for(bundle) == node).await;
        let (version_info, response_nonce) = (response.version_info, response.nonce);
        let answer = DiscoveryRequest { response_nonce, ..asking_for("ROOTCA") };
        if refuses {
            let error_detail = Some(rpc::Status { code: 3, ..Default::default() });
            requests.send(DiscoveryRequest { error_detail, ..answer }).await.unwrap();
            let rejects = "pilot_total_xds_rejects{type=\"sds\"}";
            eventually("refusal", || plane.count(rejects) > 0.0).await;
            assert_eq!(waits_for(bundle), node);
        } else {
            requests.send(DiscoveryRequest { version_info, ..answer }).await.unwrap();
            eventually("nobody to be waited for", || waits_for(bundle).is_empty()).await;
            assert_eq!(waits_for(bundle + 1), node);
        }
        drop((requests, responses));
        eventually("an end", || waits_for(bundle + 1).is_empty()).await;
    }
}

#[tokio::test]
async fn a_stream_of_secrets_alone_is_refused_if_nobody_knows_whose_it_is() {
    let (plane, _) = plane(false, false).await;
    let (_requests, mut responses) = stream_of(&plane, "ROOTCA").await.unwrap();
    let refused = responses.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
