//! Versions, cipher suites, application protocols, sessions, and what cannot be built.

use std::path::PathBuf;

use super::*;

#[tokio::test]
async fn versions_are_kept_within_their_bounds() {
    let (_, own, _) = mesh();
    for (version, text) in [(TlsVersion::V1_2, "TLSv1.2"), (TlsVersion::V1_3, "TLSv1.3")] {
        let mut context = downstream(&[&own], None);
        (context.common.min_version, context.common.max_version) = (version, version);
        let client = client(&upstream(&[], None)).unwrap();
        let outcome = connect(&server(&context).unwrap(), &client, Ask::default()).await;
        assert_eq!(outcome.server.unwrap().version(), text);
        assert_eq!(outcome.client.unwrap().version(), text);
    }
    let mut old = upstream(&[], None);
    old.common.max_version = TlsVersion::V1_2;
    let mut new = downstream(&[&own], None);
    new.common.min_version = TlsVersion::V1_3;
    let outcome = connect(&server(&new).unwrap(), &client(&old).unwrap(), Ask::default()).await;
    assert!(!outcome.works);
}

#[tokio::test]
async fn the_configured_cipher_suite_is_used() {
    let (_, own, _) = mesh();
    let mut context = downstream(&[&own], None);
    context.common.max_version = TlsVersion::V1_2;
    context.common.cipher_suites = vec!["ECDHE-ECDSA-CHACHA20-POLY1305".into()];
    let client = client(&upstream(&[], None)).unwrap();
    let outcome = connect(&server(&context).unwrap(), &client, Ask::default()).await;
    assert_eq!(outcome.server.unwrap().cipher(), "ECDHE-ECDSA-CHACHA20-POLY1305");
}

#[tokio::test]
async fn the_servers_order_of_protocols_decides_and_none_in_common_is_no_error() {
    let (_, own, _) = mesh();
    let mut context = downstream(&[&own], None);
    context.common.alpn = vec!["h2".into(), "http/1.1".into()];
    let server = server(&context).unwrap();
    let client = client(&upstream(&[], None)).unwrap();
    for (offered, agreed) in [
        (&["http/1.1", "h2"][..], Some(&b"h2"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["istio"], None),
        (&[], None),
    ] {
        let outcome = connect(&server, &client, Ask { alpn: offered, ..Ask::default() }).await;
        assert!(outcome.works, "{offered:?}");
        assert_eq!(outcome.server.unwrap().alpn(), agreed);
        assert_eq!(outcome.client.unwrap().alpn(), agreed);
    }
}

/// Whether a second connection resumes the session of the first.
async fn resumes(context: &DownstreamTls, version: TlsVersion) -> bool {
    let server = server(context).unwrap();
    let mut context = upstream(&[], None);
    (context.common.min_version, context.common.max_version) = (version, version);
    let client = client(&context).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (near, far) = duplex(64 * 1024);
        let (served, asked) =
            tokio::join!(server.accept(far), client.connect(near, Some("localhost"), None, &[]));
        let ((mut served, _), (mut asked, _)) = (served.unwrap(), asked.unwrap());
        served.write_all(b"x").await.unwrap();
        asked.read_exact(&mut [0]).await.unwrap();
        kinds.push(served.get_ref().1.handshake_kind().unwrap());
    }
    kinds[1] == rustls::HandshakeKind::Resumed
}

#[tokio::test]
async fn sessions_resume_unless_told_otherwise() {
    let (_, own, _) = mesh();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let mut context = downstream(&[&own], None);
        assert!(resumes(&context, version).await);
        context.session_timeout = Some(Duration::from_secs(60));
        assert!(resumes(&context, version).await);
        context.session_timeout = Some(Duration::ZERO);
        assert!(!resumes(&context, version).await);
        context.session_timeout = None;
        context.disable_tickets = true;
        assert!(!resumes(&context, version).await);
    }
}

#[test]
fn what_does_not_fit_together_is_refused_with_its_path() {
    let (authority, own, other) = mesh();
    let swapped = Leaf { chain_pem: own.chain_pem.clone(), key_pem: other.key_pem };
    let empty = Leaf { chain_pem: "nothing".into(), key_pem: own.key_pem.clone() };
    let keyless = Leaf { chain_pem: own.chain_pem.clone(), key_pem: "nothing".into() };
    let names = ValidationContext { san: vec![uri(OURS)], ..ValidationContext::default() };
    let rootless =
        ValidationContext { trusted_ca: Some(inline("nothing")), ..ValidationContext::default() };
    let listless = ValidationContext { crl: Some(inline("nothing")), ..trusting(&authority) };
    let certificate = "common_tls_context.tls_certificates";
    let context = "common_tls_context.validation_context";
    for (built, path, reason) in [
        (downstream(&[], None), certificate.to_owned(), "at least one"),
        (downstream(&[&swapped], None), format!("{certificate}[0].private_key"), "belong"),
        (downstream(&[&own, &empty], None), format!("{certificate}[1].certificate_chain"), "PEM"),
        (downstream(&[&keyless], None), format!("{certificate}[0].private_key"), "PEM"),
        (
            downstream(&[&own], validation(names)),
            format!("{context}.match_typed_subject_alt_names"),
            "trusted_ca",
        ),
        (downstream(&[&own], validation(rootless)), format!("{context}.trusted_ca"), "PEM"),
        (downstream(&[&own], validation(listless)), format!("{context}.crl"), "CRL"),
    ] {
        let error = server(&built).unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.reason.contains(reason), "{error}");
    }
    let two = upstream(&[&own, &own], None);
    assert_eq!(client(&two).unwrap_err().path, format!("{certificate}[1]"));
    let mut narrow = downstream(&[&own], None);
    narrow.common.min_version = TlsVersion::V1_3;
    narrow.common.max_version = TlsVersion::V1_2;
    assert!(server(&narrow).unwrap_err().path.ends_with("tls_maximum_protocol_version"));
}

#[test]
fn a_missing_file_is_named() {
    let (_, own, _) = mesh();
    let mut context = downstream(&[], None);
    let chain = DataSource::File(PathBuf::from("/nowhere/cert.pem"));
    let secret = TlsCertificate { chain, key: inline(&own.key_pem) };
    context.common.certificates = vec![SecretRef::Inline(secret)];
    let error = server(&context).unwrap_err();
    assert!(error.reason.contains("/nowhere/cert.pem"), "{error}");
    assert!(error.path.ends_with("certificate_chain"), "{error}");
}

#[tokio::test]
async fn session_keys_are_logged_for_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_, own, _) = mesh();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let mut context = downstream(&[&own], None);
    context.common.key_log = Some(path.clone());
    let client = client(&upstream(&[], None)).unwrap();
    assert!(connect(&server(&context).unwrap(), &client, Ask::default()).await.works);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("CLIENT_TRAFFIC_SECRET_0 "), "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
