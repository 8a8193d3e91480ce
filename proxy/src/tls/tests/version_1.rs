//! Certificates without extensions, as `openssl x509 -req` made them for decades.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use certs::KeyKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

#[tokio::test]
async fn they_are_served_and_taken_where_no_root_checks_them() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let (authority, leaf) = issue(kind);
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let mut context = downstream(&[&leaf], None);
            context.common.max_version = version;
            context.common.min_version = version;
            let server = server(&context).unwrap();
            let trusting_nobody = client(&upstream(&[], None)).unwrap();
            let ask = Ask { name: Some("old.example"), ..Ask::default() };
            let outcome = connect(&server, &trusting_nobody, ask).await;
            assert!(outcome.works, "{kind:?} {version:?}: {}", outcome.client_error());
            let shown = outcome.server.unwrap();
            assert_eq!(shown.local().unwrap().common_name(), Some("old.example"));

            let strict = client(&upstream(&[], validation(trusting(&authority)))).unwrap();
            assert!(!connect(&server, &strict, ask).await.works);
        }
    }
}

#[tokio::test]
async fn the_key_must_be_the_one_certified() {
    let (_, mut leaf) = issue(KeyKind::EcdsaP256);
    leaf.key_pem = issue(KeyKind::EcdsaP256).1.key_pem;
    let error = server(&downstream(&[&leaf], None)).unwrap_err();
    assert_eq!(error.path, "common_tls_context.tls_certificates[0].private_key");
    assert!(error.reason.contains("does not belong to"), "{}", error.reason);

    // Who shows another's certificate is refused, although no root is configured.
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let impostor = impostor(version);
        let taken = client(&upstream(&[], None)).unwrap();
        let (near, far) = duplex(64 * 1024);
        let accept = tokio_rustls::TlsAcceptor::from(impostor).accept(far);
        let (_, result) = tokio::join!(accept, taken.connect(near, Some("old.example"), None, &[]));
        assert!(result.is_err(), "{version:?}");
    }
}

/// A server that signs with a key of its own.
fn impostor(version: TlsVersion) -> std::sync::Arc<rustls::ServerConfig> {
    let versions: &[_] = match version {
        TlsVersion::V1_2 => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13],
    };
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![der(&issue(KeyKind::EcdsaP256).1)];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(
        issue(KeyKind::EcdsaP256).1.key_pem.as_bytes(),
    );
    let key = provider.key_provider.load_private_key(key.unwrap()).unwrap();
    let shown = rustls::sign::CertifiedKey::new(chain, key);
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(versions).unwrap().with_no_client_auth();
    let shown = rustls::sign::SingleCertAndKey::from(shown);
    std::sync::Arc::new(config.with_cert_resolver(std::sync::Arc::new(shown)))
}

/// A certificate for `old.example` in version 1. What is cut off leaves the issuer's signature wrong.
fn issue(kind: KeyKind) -> (Authority, Leaf) {
    let authority = Authority::self_signed("root").unwrap();
    let mut leaf =
        authority.issue(&Request::default().common_name("old.example").key(kind)).unwrap();
    let der = der(&leaf);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    let (signed, key) = (parsed.tbs_certificate.as_ref(), parsed.tbs_certificate.subject_pki.raw);
    let version = [0xa0, 3, 2, 1, 2];
    let start = signed.windows(5).position(|part| part == version).unwrap() + 5;
    let end = signed.windows(key.len()).position(|part| part == key).unwrap() + key.len();
    let after = der.windows(signed.len()).position(|part| part == signed).unwrap() + signed.len();
    let whole = sequence(&[&sequence(&signed[start..end]), &der[after..]].concat());
    let text = BASE64.encode(&whole);
    leaf.chain_pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    (authority, leaf)
}

fn der(leaf: &Leaf) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).unwrap()
}

/// DER's SEQUENCE of at least 128 bytes.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match length {
        [0, short] => vec![0x30, 0x81, short],
        [high, low] => vec![0x30, 0x82, high, low],
    };
    [&header, content].concat()
}
