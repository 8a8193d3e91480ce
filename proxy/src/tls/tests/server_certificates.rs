//! Which certificate a server shows, and which servers a client takes.

use certs::{KeyKind, Usage};

use super::*;

fn ask(name: &str) -> Ask<'_> {
    Ask { name: Some(name), ..Ask::default() }
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_name_asked_for() {
    let authority = Authority::self_signed("root").unwrap();
    let issue = |request: Request| authority.issue(&request).unwrap();
    let leaves = [
        issue(Request::default().dns("first.example")),
        issue(Request::default().dns("*.Shop.example").dns("shop.example")),
        issue(Request::default().dns("cart.shop.example")),
        issue(Request::default().common_name("old.example")),
    ];
    let context = downstream(&leaves.iter().collect::<Vec<_>>(), None);
    let server = server(&context).unwrap();
    let client = client(&upstream(&[], None)).unwrap();
    for (name, chosen) in [
        (Some("first.example"), 0),
        (Some("shop.example"), 1),
        (Some("other.shop.example"), 1),
        (Some("cart.shop.example"), 2),
        (Some("OLD.example"), 3),
        (Some("a.b.shop.example"), 0),
        (Some("unknown.example"), 0),
        (None, 0),
    ] {
        let outcome = connect(&server, &client, Ask { name, ..Ask::default() }).await;
        let (near, far) = (outcome.client.unwrap(), outcome.server.unwrap());
        let all = server.certificates().1;
        assert_eq!(
            near.certificate().unwrap().der(),
            all[chosen].certificate.der(),
            "{name:?} does not get certificate {chosen}"
        );
        assert_eq!(far.local().unwrap().der(), all[chosen].certificate.der());
        assert_eq!(far.sni().map(str::to_owned), name.map(str::to_ascii_lowercase));
    }
}

#[tokio::test]
async fn ecdsa_is_preferred_to_rsa() {
    let authority = Authority::self_signed("root").unwrap();
    let rsa = Request::default().dns("a.example").key(KeyKind::Rsa2048);
    let rsa = authority.issue(&rsa).unwrap();
    let ecdsa = authority.issue(&Request::default().dns("a.example")).unwrap();
    let mut context = downstream(&[&rsa, &ecdsa], None);
    context.common.max_version = TlsVersion::V1_2;
    let client = client(&upstream(&[], None)).unwrap();
    let outcome = connect(&server(&context).unwrap(), &client, ask("a.example")).await;
    assert_eq!(outcome.client.unwrap().cipher(), "ECDHE-ECDSA-AES256-GCM-SHA384");
    context.common.certificates.pop();
    let outcome = connect(&server(&context).unwrap(), &client, ask("a.example")).await;
    assert_eq!(outcome.client.unwrap().cipher(), "ECDHE-RSA-AES256-GCM-SHA384");
}

#[tokio::test]
async fn a_client_without_roots_takes_any_server_and_says_so() {
    let (_, own, _) = mesh();
    let client = client(&upstream(&[], None)).unwrap();
    assert!(!client.verifies());
    let outcome = connect(&server(&downstream(&[&own], None)).unwrap(), &client, ask("x.y")).await;
    assert!(outcome.works && !outcome.client.unwrap().validated());
}

#[tokio::test]
async fn a_client_with_roots_checks_chain_time_and_usage_but_no_hostname() {
    let (authority, own, _) = mesh();
    let trusting_client = client(&upstream(&[], validation(trusting(&authority)))).unwrap();
    assert!(trusting_client.verifies());
    let outcome =
        connect(&server(&downstream(&[&own], None)).unwrap(), &trusting_client, ask("x.y")).await;
    assert!(outcome.works && outcome.client.unwrap().validated());

    let stranger = Authority::self_signed("stranger").unwrap();
    let request = Request::default().uri(OURS);
    for (leaf, error) in [
        (stranger.issue(&request).unwrap(), "trusted_ca"),
        (authority.issue(&request.clone().validity(past())).unwrap(), "expired"),
        (authority.issue(&request.clone().usage(Usage::Client)).unwrap(), "extended key usage"),
    ] {
        let server = server(&downstream(&[&leaf], None)).unwrap();
        let outcome = connect(&server, &trusting_client, ask("x.y")).await;
        assert!(!outcome.works);
        assert!(outcome.client_error().contains(error), "{}", outcome.client_error());
    }
}

#[tokio::test]
async fn a_client_checks_the_configured_names() {
    let (authority, own, _) = mesh();
    let server = server(&downstream(&[&own], None)).unwrap();
    for (name, taken) in [(OURS, true), ("spiffe://cluster.local/ns/shop/sa/other", false)] {
        let context = ValidationContext { san: vec![uri(name)], ..trusting(&authority) };
        let client = client(&upstream(&[], validation(context))).unwrap();
        let outcome = connect(&server, &client, Ask::default()).await;
        assert_eq!(outcome.works, taken, "{name}");
    }
}

#[tokio::test]
async fn the_server_name_is_checked_when_asked_for() {
    let (authority, own, _) = mesh();
    let server = server(&downstream(&[&own], None)).unwrap();
    let mut context = upstream(&[], validation(trusting(&authority)));
    context.auto_sni_san_validation = true;
    let checking = client(&context).unwrap();
    assert!(connect(&server, &checking, ask("localhost")).await.works);
    let wrong = connect(&server, &checking, ask("other.example")).await;
    assert!(wrong.client_error().contains("not for the server name"), "{}", wrong.client_error());
    let (near, _far) = duplex(1024);
    let error = checking.connect(near, None, None, &[]).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoServerName));
    context.common.validation = None;
    assert_eq!(client(&context).unwrap_err().path, "auto_sni_san_validation");
}

#[tokio::test]
async fn a_name_can_be_asked_for_beside_the_configured_ones() {
    let authority = Authority::self_signed("root").unwrap();
    let request = Request::default().uri(OURS).dns("shop.example").ip([127, 0, 0, 1]);
    let server = server(&downstream(&[&authority.issue(&request).unwrap()], None)).unwrap();
    let named = ValidationContext { san: vec![uri(OURS)], ..trusting(&authority) };
    let other = vec![uri("spiffe://cluster.local/ns/shop/sa/other")];
    let misnamed = ValidationContext { san: other, ..trusting(&authority) };
    let lenient = ValidationContext { accept_untrusted: true, ..trusting(&authority) };
    for (context, certified, taken) in [
        (Some(trusting(&authority)), "shop.example", true),
        (Some(trusting(&authority)), "127.0.0.1", true),
        (Some(trusting(&authority)), "bank.example", false),
        (Some(trusting(&authority)), "127.0.0.2", false),
        (Some(named), "bank.example", false),
        (Some(misnamed), "shop.example", false),
        (Some(lenient), "bank.example", true),
        (None, "shop.example", false),
    ] {
        let client = client(&upstream(&[], context.clone().and_then(validation))).unwrap();
        // The second connection resumes the session of the first, whose name was the same.
        for _ in 0..2 {
            let one = Ask { name: Some("one.example"), certified: Some(certified), alpn: &[] };
            assert_eq!(connect(&server, &client, one).await.works, taken, "{context:?}");
        }
    }
}

#[tokio::test]
async fn a_resumed_session_vouches_for_no_other_name() {
    let (authority, own, _) = mesh();
    let server = server(&downstream(&[&own], None)).unwrap();
    let client = client(&upstream(&[], validation(trusting(&authority)))).unwrap();
    let asking = |name| Ask { name: Some("one.example"), certified: Some(name), alpn: &[] };
    assert!(connect(&server, &client, asking("localhost")).await.works);
    let wrong = connect(&server, &client, asking("other.example")).await;
    assert!(wrong.client_error().contains("not for the server name"), "{}", wrong.client_error());
}

#[tokio::test]
async fn a_self_signed_server_can_be_trusted_by_itself() {
    let authority = Authority::self_signed("alone").unwrap();
    let own = Leaf { chain_pem: authority.root_pem().to_owned(), key_pem: authority.key_pem() };
    let server = server(&downstream(&[&own], None)).unwrap();
    let client = client(&upstream(&[], validation(trusting(&authority)))).unwrap();
    let outcome = connect(&server, &client, ask("localhost")).await;
    assert!(outcome.works, "{}", outcome.client_error());
}

#[tokio::test]
async fn names_of_istio_subsets_can_be_sent() {
    let (_, own, _) = mesh();
    let name = "outbound_.8000_.v1_._.reviews.shop.svc.cluster.local";
    let server = server(&downstream(&[&own], None)).unwrap();
    let outcome = connect(&server, &client(&upstream(&[], None)).unwrap(), ask(name)).await;
    assert_eq!(outcome.server.unwrap().sni(), Some(name));
}

#[tokio::test]
async fn a_text_that_is_no_name_is_an_error() {
    let client = client(&upstream(&[], None)).unwrap();
    let (near, _far) = duplex(1024);
    let error = client.connect(near, Some("not a name"), None, &[]).await.unwrap_err();
    assert!(matches!(error, ConnectError::ServerName(_)));
}

#[tokio::test]
async fn a_server_that_hangs_up_is_an_io_error() {
    let client = client(&upstream(&[], None)).unwrap();
    let (near, far) = duplex(1024);
    drop(far);
    let error = client.connect(near, None, None, &[]).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io(_)), "{error}");
}

#[tokio::test]
async fn plain_text_on_either_side_is_named() {
    let (_, own, _) = mesh();
    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = server(&downstream(&[&own], None)).unwrap().accept(far).await.unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");
    let (near, mut far) = duplex(1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error =
        client(&upstream(&[], None)).unwrap().connect(near, None, None, &[]).await.unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");
}
