//! Which clients a server takes.

use certs::Usage;

use super::*;
use crate::tls::verify::Policy;

/// A client that shows `leaf` to a server with this validation.
async fn present(
    leaf: Option<&Leaf>,
    validation: Option<ValidationSource>,
    required: bool,
) -> Outcome {
    let authority = Authority::self_signed("server root").unwrap();
    let own = authority.issue(&Request::default().dns("localhost")).unwrap();
    let mut context = downstream(&[&own], validation);
    context.require_client_certificate = required;
    let server = server(&context).unwrap();
    let client = client(&upstream(leaf.as_slice(), None)).unwrap();
    connect(&server, &client, Ask::default()).await
}

#[tokio::test]
async fn an_optional_certificate_may_be_absent_but_not_wrong() {
    let (authority, _, leaf) = mesh();
    let trusted = || validation(trusting(&authority));
    let absent = present(None, trusted(), false).await;
    assert!(absent.works);
    let peer = absent.server.unwrap();
    assert!(!peer.presented() && !peer.validated());

    let good = present(Some(&leaf), trusted(), false).await;
    assert!(good.works);
    let peer = good.server.unwrap();
    assert!(peer.presented() && peer.validated());
    assert_eq!(peer.certificate().unwrap().uri_sans(), [OURS]);

    let stranger = Authority::self_signed("stranger").unwrap();
    let stranger = stranger.issue(&Request::default().uri(OURS)).unwrap();
    let wrong = present(Some(&stranger), trusted(), false).await;
    assert!(!wrong.works);
    assert!(wrong.server_error().contains("trusted_ca"), "{}", wrong.server_error());
}

#[tokio::test]
async fn a_required_certificate_must_be_there() {
    let (authority, _, leaf) = mesh();
    let trusted = || validation(trusting(&authority));
    assert!(present(Some(&leaf), trusted(), true).await.works);
    let absent = present(None, trusted(), true).await;
    assert!(!absent.works);
    assert!(absent.server_error().contains("no certificates"), "{}", absent.server_error());
}

#[tokio::test]
async fn a_server_that_does_not_ask_gets_none() {
    let (_, _, leaf) = mesh();
    let outcome = present(Some(&leaf), None, false).await;
    assert!(outcome.works && !outcome.server.unwrap().presented());
}

#[tokio::test]
async fn a_certificate_required_without_roots_is_taken_but_not_validated() {
    let (_, _, leaf) = mesh();
    let outcome = present(Some(&leaf), None, true).await;
    let peer = outcome.server.unwrap();
    assert!(outcome.works && peer.presented() && !peer.validated());
    assert!(!present(None, None, true).await.works);
}

#[tokio::test]
async fn time_and_usage_are_checked() {
    let authority = Authority::self_signed("root").unwrap();
    let request = Request::default().uri(OURS);
    for (request, error) in [
        (request.clone().validity(past()), "expired"),
        (request.clone().validity(future()), "not valid yet"),
        (request.clone().usage(Usage::Server), "extended key usage"),
    ] {
        let leaf = authority.issue(&request).unwrap();
        let outcome = present(Some(&leaf), validation(trusting(&authority)), true).await;
        assert!(!outcome.works);
        assert!(outcome.server_error().contains(error), "{}", outcome.server_error());
    }
    let usable = authority.issue(&request.usage(Usage::Client)).unwrap();
    assert!(present(Some(&usable), validation(trusting(&authority)), true).await.works);
}

#[tokio::test]
async fn an_expired_certificate_can_be_allowed_but_not_one_of_a_stranger() {
    let authority = Authority::self_signed("root").unwrap();
    let context = ValidationContext { allow_expired: true, ..trusting(&authority) };
    for validity in [past(), future(), Validity::default()] {
        let leaf = authority.issue(&Request::default().uri(OURS).validity(validity)).unwrap();
        let outcome = present(Some(&leaf), validation(context.clone()), true).await;
        assert!(outcome.works, "{}", outcome.server_error());
    }
    let stranger = Authority::self_signed("stranger").unwrap();
    let stranger = stranger.issue(&Request::default().uri(OURS).validity(past())).unwrap();
    assert!(!present(Some(&stranger), validation(context), true).await.works);
}

#[tokio::test]
async fn an_expired_root_vouches_for_nobody() {
    let kind = certs::KeyKind::default();
    let old = Authority::self_signed_for("old", past(), kind).unwrap();
    let leaf = old.issue(&Request::default().uri(OURS)).unwrap();
    let outcome = present(Some(&leaf), validation(trusting(&old)), true).await;
    assert!(!outcome.works);
    assert!(outcome.server_error().contains("expired"), "{}", outcome.server_error());
}

#[tokio::test]
async fn intermediates_lead_to_the_root() {
    let root = Authority::self_signed("root").unwrap();
    let leaf = root.intermediate("middle").unwrap().issue(&Request::default().uri(OURS)).unwrap();
    let outcome = present(Some(&leaf), validation(trusting(&root)), true).await;
    assert!(outcome.works);
    let peer = outcome.server.unwrap();
    let chain = peer.url_encoded_chain().unwrap();
    assert_eq!(chain.matches("-----BEGIN%20CERTIFICATE-----%0A").count(), 2);
    assert!(chain.starts_with(peer.certificate().unwrap().url_encoded_pem()));
}

#[tokio::test]
async fn the_names_must_satisfy_one_matcher() {
    let (authority, _, leaf) = mesh();
    for (matchers, taken) in [
        (vec![uri(OURS)], true),
        (vec![uri("spiffe://other/a"), uri(OURS)], true),
        (vec![uri("spiffe://cluster.local/ns/shop/sa/ca")], false),
        (vec![san(SanKind::Dns, StringPattern::Exact(OURS.into()))], false),
    ] {
        let context = ValidationContext { san: matchers.clone(), ..trusting(&authority) };
        let outcome = present(Some(&leaf), validation(context), true).await;
        assert_eq!(outcome.works, taken, "{matchers:?}");
        if !taken {
            let error = outcome.server_error();
            assert!(error.contains("match_typed_subject_alt_names"), "{error}");
            assert!(error.contains(OURS), "{error}");
        }
    }
}

#[tokio::test]
async fn hashes_pin_a_certificate_with_or_without_roots() {
    let (authority, _, leaf) = mesh();
    let other = authority.issue(&Request::default().uri(OURS)).unwrap();
    let der = super::super::pem::certificates(leaf.chain_pem.as_bytes()).unwrap().remove(0);
    let hash = |bytes: &[u8]| {
        <[u8; 32]>::try_from(super::super::certificate::sha256(bytes).as_ref()).unwrap()
    };
    let spki = webpki::EndEntityCert::try_from(&der).unwrap().subject_public_key_info();
    let pinned =
        ValidationContext { certificate_hashes: vec![hash(&der)], ..ValidationContext::default() };
    let pinned_key = ValidationContext { spki_hashes: vec![hash(&spki)], ..trusting(&authority) };
    for context in [pinned, pinned_key] {
        let good = present(Some(&leaf), validation(context.clone()), true).await;
        assert!(good.works && good.server.unwrap().validated());
        assert!(!present(Some(&other), validation(context), true).await.works);
    }
}

#[tokio::test]
async fn revoked_certificates_are_refused() {
    let (authority, _, leaf) = mesh();
    let revoked = authority.issue(&Request::default().uri(OURS)).unwrap();
    let list = authority.revoke(&[&revoked]).unwrap();
    let separate = ValidationContext { crl: Some(inline(&list)), ..trusting(&authority) };
    let together = ValidationContext {
        trusted_ca: Some(inline(&format!("{}{list}", authority.root_pem()))),
        ..ValidationContext::default()
    };
    for context in [separate, together] {
        assert!(present(Some(&leaf), validation(context.clone()), true).await.works);
        let outcome = present(Some(&revoked), validation(context), true).await;
        assert!(!outcome.works);
        assert!(outcome.server_error().contains("revoked"), "{}", outcome.server_error());
    }
}

#[tokio::test]
async fn accepting_untrusted_clients_still_tells_them_apart() {
    let (authority, _, leaf) = mesh();
    let context = ValidationContext { accept_untrusted: true, ..trusting(&authority) };
    let stranger = Authority::self_signed("stranger").unwrap();
    let stranger = stranger.issue(&Request::default().uri(OURS)).unwrap();
    for (leaf, validated) in [(&leaf, true), (&stranger, false)] {
        let outcome = present(Some(leaf), validation(context.clone()), true).await;
        assert!(outcome.works);
        assert_eq!(outcome.server.unwrap().validated(), validated);
    }
}

#[tokio::test]
async fn a_resumed_session_keeps_the_identity_and_ends_with_its_configuration() {
    let (authority, own, leaf) = mesh();
    let mut context = downstream(&[&own], validation(trusting(&authority)));
    context.require_client_certificate = true;
    let client = client(&upstream(&[&leaf], None)).unwrap();
    let ask = Ask { name: Some("localhost"), ..Ask::default() };
    let first = server(&context).unwrap();
    for _ in 0..2 {
        let outcome = connect(&first, &client, ask).await;
        assert!(outcome.works);
        assert_eq!(outcome.server.unwrap().certificate().unwrap().uri_sans(), [OURS]);
    }
    // The root is replaced: a ticket from before must not let the old identity in.
    let next = Authority::self_signed("next").unwrap();
    context.common.validation = validation(trusting(&next));
    let second = server(&context).unwrap();
    assert!(!connect(&second, &client, ask).await.works);
}

#[test]
fn a_session_outlives_its_certificates_only_when_they_may_be_expired() {
    let (authority, _, leaf) = mesh();
    let chain = super::super::pem::certificates(leaf.chain_pem.as_bytes()).unwrap();
    let lenient = ValidationContext { allow_expired: true, ..trusting(&authority) };
    for (context, outlives) in [(trusting(&authority), false), (lenient, true)] {
        let common = common(&[], validation(context));
        let policy = Policy::load(&common, &Secrets::default()).unwrap().unwrap();
        let now = SystemTime::now();
        assert!(policy.still_valid(&chain, now));
        assert_eq!(policy.still_valid(&chain, now + Duration::from_secs(25 * 3600)), outlives);
    }
}
