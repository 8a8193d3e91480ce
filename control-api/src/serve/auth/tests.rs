//! What proves who is asking, and what does not.

use std::time::{Duration, UNIX_EPOCH};

use certs::{Authority, Key, KeyKind, Request, Validity};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::*;

fn authenticator() -> Authenticator {
    Authenticator {
        trust_domain: "cluster.local".into(),
        cluster_id: "Kubernetes".into(),
        token_file: None,
        service_accounts: None,
        trusts_claims: false,
    }
}

fn peer(address: &str, encrypted: bool) -> Peer {
    Peer { address: address.parse().unwrap(), encrypted, certificate: None }
}

fn far() -> Peer {
    peer("10.0.0.9:1", true)
}

fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in pairs {
        metadata.insert(*name, value.parse().unwrap());
    }
    metadata
}

fn bearer_of(token: &str) -> MetadataMap {
    metadata(&[("authorization", &format!("Bearer {token}"))])
}

/// Who a peer with such a certificate is, at the time it was issued and `later`.
fn with_certificate(names: &[&str], later: Duration) -> Result<String, Unauthenticated> {
    let now = SystemTime::now();
    let validity = Validity::from(now, Duration::from_secs(60));
    let request = names.iter().fold(Request::default(), |it, name| it.uri(*name));
    let leaf = Authority::self_signed("root").unwrap().issue(&request.validity(validity)).unwrap();
    let der = CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).unwrap();
    let peer = Peer { certificate: Some(der.as_ref().into()), ..far() };
    let caller = authenticator().caller(&peer, &MetadataMap::new(), now + later)?;
    assert_eq!(caller.proof, Proof::Certificate);
    Ok(caller.id.to_string())
}

#[test]
fn a_certificate_of_the_mesh_says_who_it_is() {
    let id = "spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(with_certificate(&[id], Duration::ZERO).as_deref(), Ok(id));
    let wrong: [&[&str]; 5] = [
        &[],
        &[id, "spiffe://cluster.local/ns/shop/sa/web"],
        &["spiffe://cluster.local.evil/ns/shop/sa/cart"],
        &["spiffe://cluster.local/ns/shop"],
        &["https://cluster.local"],
    ];
    for names in wrong {
        let error = with_certificate(names, Duration::ZERO).unwrap_err();
        assert!(matches!(error, Unauthenticated::Certificate(_)), "{names:?}: {error}");
    }
    let late = with_certificate(&[id], Duration::from_secs(61)).unwrap_err();
    assert!(late.to_string().contains("expired"), "{late}");
}

#[test]
fn a_token_in_the_file_says_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.csv");
    std::fs::write(&file, "abc,system:serviceaccount:shop:cart\n").unwrap();
    let authenticator = Authenticator { token_file: Some(file.clone()), ..authenticator() };
    let ask = |peer: &Peer, token| {
        let caller = authenticator.caller(peer, &bearer_of(token), SystemTime::now());
        caller.map(|caller| (caller.id.to_string(), caller.proof))
    };
    let cart = ("spiffe://cluster.local/ns/shop/sa/cart".to_owned(), Proof::Token);
    assert_eq!(ask(&far(), "abc").unwrap(), cart);
    assert_eq!(ask(&peer("127.0.0.1:1", false), "abc").unwrap(), cart);
    assert_eq!(ask(&peer("10.0.0.9:1", false), "abc"), Err(Unauthenticated::Readable));
    assert!(matches!(ask(&far(), "abd"), Err(Unauthenticated::Token(_))));
    assert_eq!(ask(&far(), " "), Err(Unauthenticated::Nothing));
    std::fs::write(&file, "").unwrap();
    assert!(ask(&far(), "abc").is_err(), "what was taken out is refused at once");
}

#[test]
fn another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.csv");
    std::fs::write(&file, "abc,system:serviceaccount:shop:cart\n").unwrap();
    let authenticator = Authenticator { token_file: Some(file), ..authenticator() };
    let of = |cluster: &str| {
        let metadata = metadata(&[("authorization", "bearer abc"), ("clusterid", cluster)]);
        authenticator.caller(&far(), &metadata, SystemTime::now())
    };
    assert!(of("Kubernetes").is_ok() && of("").is_ok());
    assert_eq!(of("other"), Err(Unauthenticated::Cluster("other".into())));
}

#[test]
fn a_claim_counts_where_it_is_allowed_and_on_this_machine() {
    let id = |text: &str| text.parse::<SpiffeId>().unwrap();
    let cart = id("spiffe://cluster.local/ns/shop/sa/cart");
    let near = peer("127.0.0.1:1", false);
    assert_eq!(authenticator().claim(&near, cart.clone()), None);
    let trusting = Authenticator { trusts_claims: true, ..authenticator() };
    assert_eq!(trusting.claim(&near, cart.clone()).unwrap().proof, Proof::Claim);
    assert!(trusting.claim(&peer("[::ffff:127.0.0.1]:1", false), cart.clone()).is_some());
    assert_eq!(trusting.claim(&far(), cart), None);
    assert_eq!(trusting.claim(&near, id("spiffe://other/ns/shop/sa/cart")), None);
}

/// A key that signs tokens, and what verifies them: a set of public keys and PEM.
struct Issuer {
    signing: EncodingKey,
    jwks: Value,
    pem: String,
}

impl Issuer {
    fn new() -> Self {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        use x509_parser::prelude::FromDer as _;
        let key = Key::generate(KeyKind::EcdsaP256).unwrap();
        let id: SpiffeId = "spiffe://a/b".parse().unwrap();
        let csr = certs::csr::build(&key, &id).unwrap();
        let csr = x509_parser::pem::Pem::iter_from_buffer(csr.as_bytes()).next().unwrap().unwrap();
        let (_, csr) =
            x509_parser::certification_request::X509CertificationRequest::from_der(&csr.contents)
                .unwrap();
        let public = &csr.certification_request_info.subject_pki;
        let point = public.subject_public_key.data.as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256",
            "use": "sig", "x": part(1..33), "y": part(33..65)}]});
        let body = STANDARD.encode(public.raw);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        let der = x509_parser::pem::Pem::iter_from_buffer(key.to_pem().as_bytes()).next();
        let der = der.unwrap().unwrap().contents;
        Self { signing: EncodingKey::from_ec_der(&der), jwks, pem }
    }

    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": "https://kubernetes.default.svc", "aud": ["istio-ca"], "exp": now + 600, "nbf": now,
            "sub": "system:serviceaccount:shop:cart",
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "cart"}},
        });
        change(&mut claims);
        let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.signing).unwrap()
    }
}

#[test]
fn tokens_of_service_accounts_are_verified_without_asking_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    for (name, text) in [("keys.json", issuer.jwks.to_string()), ("keys.pem", issuer.pem.clone())] {
        let keys = folder.path().join(name);
        std::fs::write(&keys, text).unwrap();
        let service_accounts = Some(ServiceAccountTokens {
            issuer: "https://kubernetes.default.svc".into(),
            audiences: vec![AUDIENCE.into()],
            keys,
        });
        let authenticator = Authenticator { service_accounts, ..authenticator() };
        let ask = |token: &str| {
            authenticator.caller(&far(), &bearer_of(token), SystemTime::now()).map(|it| it.proof)
        };
        assert_eq!(ask(&issuer.token(|_| ())), Ok(Proof::ServiceAccountToken), "{name}");
        let why = |token: &str| ask(token).unwrap_err().to_string();
        assert!(why(&issuer.token(|it| it["aud"] = json!(["api"]))).contains("another audience"));
        assert!(why(&issuer.token(|it| it["iss"] = json!("x"))).contains("another issuer"));
        assert!(why(&issuer.token(|it| it["exp"] = json!(1000))).contains("has expired"));
        assert!(
            why(&issuer.token(|it| drop(it.as_object_mut().unwrap().remove("exp"))))
                .contains("usable")
        );
        assert!(why(&issuer.token(|it| it["sub"] = json!("admin"))).contains("service account"));
        let two = issuer.token(|it| it["kubernetes.io"]["namespace"] = json!("kube-system"));
        assert!(why(&two).contains("two different things"));
        assert!(why(&Issuer::new().token(|_| ())).contains("not the issuer's"));
        assert!(why("nonsense").contains("no JSON Web Token"));
        // What everybody knows is no secret: the public key must not count as one.
        let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::HS256) };
        let forged = EncodingKey::from_secret(issuer.pem.as_bytes());
        let claims = json!({"sub": "system:serviceaccount:shop:cart", "aud": "istio-ca",
            "iss": "https://kubernetes.default.svc", "exp": 4_000_000_000_u32});
        assert!(ask(&jsonwebtoken::encode(&header, &claims, &forged).unwrap()).is_err());
    }
}

#[test]
fn a_caller_speaks_for_proxies_of_its_own_account() {
    use xds::envoy::config::core::v3::Node;
    let id = "sidecar~10.0.0.1~p.shop~shop.svc.cluster.local".to_owned();
    let mut proxy = Proxy::of(&Node { id, ..Node::default() }).unwrap();
    let caller = |text: &str| Caller { id: text.parse().unwrap(), proof: Proof::Token };
    let cart = caller("spiffe://cluster.local/ns/shop/sa/cart");
    assert!(cart.may_be(&proxy));
    proxy.service_account = "cart".into();
    assert!(cart.may_be(&proxy));
    assert!(!caller("spiffe://cluster.local/ns/shop/sa/web").may_be(&proxy));
    assert!(!caller("spiffe://cluster.local/ns/other/sa/cart").may_be(&proxy));
}
