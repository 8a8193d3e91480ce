//! What an authority signs and refuses to sign, read back by other programs.

use std::process::Command;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::*;

/// Runs `inspect` on each certificate of a PEM text.
fn certificates<T>(pem: &str, inspect: impl Fn(&X509Certificate<'_>) -> T) -> Vec<T> {
    Pem::iter_from_buffer(pem.as_bytes())
        .map(|pem| inspect(&pem.unwrap().parse_x509().unwrap()))
        .collect()
}

#[test]
fn a_leaf_carries_the_names_asked_for() {
    let request = Request::default()
        .uri("spiffe://example.org/ns/shop/sa/cart")
        .dns("cart.shop")
        .email("ops@example.org")
        .ip([127, 0, 0, 1])
        .organization("acme")
        .common_name("cart");
    let leaf = Authority::self_signed("root").unwrap().issue(&request).unwrap();
    let names = certificates(&leaf.chain_pem, |certificate| {
        assert_eq!(certificate.subject().to_string(), "O=acme, CN=cart");
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        names.value.general_names.iter().map(ToString::to_string).collect::<Vec<_>>()
    });
    let text = names.concat().join(" ");
    for name in ["spiffe://example.org/ns/shop/sa/cart", "cart.shop", "ops@example.org"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(
        certificates(&leaf.chain_pem, |certificate| {
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            names.value.general_names.contains(&GeneralName::IPAddress(&[127, 0, 0, 1]))
        })[0]
    );
}

#[test]
fn each_certificate_is_signed_by_the_next() {
    let root = Authority::self_signed("root").unwrap();
    let middle = root.intermediate("middle").unwrap();
    let leaf = middle.issue(&Request::default().dns("a")).unwrap();
    let chain = format!("{}{}", leaf.chain_pem, root.root_pem());
    let pems: Vec<_> = Pem::iter_from_buffer(chain.as_bytes()).map(Result::unwrap).collect();
    let chain: Vec<_> = pems.iter().map(|pem| pem.parse_x509().unwrap()).collect();
    assert_eq!(chain.len(), 3);
    for pair in chain.windows(2) {
        pair[0].verify_signature(Some(pair[1].public_key())).unwrap();
    }
    assert!(!chain[0].is_ca() && chain[1].is_ca() && chain[2].is_ca());
    assert_eq!(middle.root_pem(), root.root_pem());
}

#[test]
fn an_authority_read_back_signs_the_same_way() {
    let root = Authority::self_signed("root").unwrap();
    let again = Authority::from_pem(&root.path_pem(), &root.key_pem()).unwrap();
    let leaf = again.issue(&Request::default().dns("a")).unwrap();
    let both = format!("{}{}", leaf.chain_pem, root.root_pem());
    let pems: Vec<_> = Pem::iter_from_buffer(both.as_bytes()).map(Result::unwrap).collect();
    let chain: Vec<_> = pems.iter().map(|pem| pem.parse_x509().unwrap()).collect();
    chain[0].verify_signature(Some(chain[1].public_key())).unwrap();
}

#[test]
fn validity_and_usage_are_as_asked() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let request = Request::default()
        .validity(Validity::from(now, Duration::from_secs(60)))
        .usage(Usage::Client);
    let leaf = Authority::self_signed("root").unwrap().issue(&request).unwrap();
    certificates(&leaf.chain_pem, |certificate| {
        assert_eq!(certificate.validity().not_before.timestamp(), 1_800_000_000 - 300);
        assert_eq!(certificate.validity().not_after.timestamp(), 1_800_000_060);
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
    });
}

#[test]
fn names_that_are_not_ascii_are_refused() {
    let authority = Authority::self_signed("root").unwrap();
    let error = authority.issue(&Request::default().dns("bücher.example")).unwrap_err();
    assert!(error.to_string().contains("bücher.example"), "{error}");
}

#[test]
fn a_revocation_list_names_the_serial_numbers() {
    let authority = Authority::self_signed("root").unwrap();
    let leaf = authority.issue(&Request::default().dns("a")).unwrap();
    assert!(authority.revoke(&[&leaf]).unwrap().starts_with("-----BEGIN X509 CRL-----"));
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::of_service_account("cluster.local", "shop", account).unwrap()
}

fn root_at(now: SystemTime, lifetime: Duration) -> Authority {
    Authority::self_signed_for("root", Validity::from(now, lifetime), KeyKind::default()).unwrap()
}

fn csr(account: &str) -> Csr {
    let key = Key::generate(KeyKind::default()).unwrap();
    Csr::from_pem(&crate::csr::build(&key, &id(account)).unwrap()).unwrap()
}

#[test]
fn a_certificate_is_for_the_caller_whatever_its_request_names() {
    let authority = root_at(now(), 10 * DAY);
    let params = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = Key::generate(KeyKind::default()).unwrap();
        Csr::from_pem(&params.serialize_request(&key).unwrap().pem().unwrap()).unwrap()
    };
    let uri = |account| SanType::URI(id(account).as_str().try_into().unwrap());
    let dns = || SanType::DnsName("cart.shop".try_into().unwrap());
    for asked in [vec![], vec![uri("cart")], vec![uri("web")], vec![uri("a"), uri("b"), dns()]] {
        let chain = authority.sign(&params(asked), &id("cart"), None, now()).unwrap();
        let names = certificates(&chain, |certificate| {
            assert!(!certificate.is_ca());
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            names.value.general_names.iter().map(ToString::to_string).collect::<Vec<_>>()
        });
        assert_eq!(names, [[format!("URI({})", id("cart"))]]);
    }
}

#[test]
fn a_lifetime_is_bounded_by_policy_and_by_the_authority() {
    let authority = root_at(now(), 2 * DAY);
    let end = |lifetime, at| {
        let chain = authority.sign(&csr("cart"), &id("cart"), lifetime, at).unwrap();
        bundle::validities(&chain).unwrap()[0]
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(end(None, now()).not_after, now() + DAY);
    assert_eq!(end(Some(hour), now()).not_after, now() + hour);
    assert_eq!(end(Some(Duration::ZERO), now()).not_after, now() + DAY);
    assert_eq!(end(Some(90 * DAY), now()).not_after, now() + DAY);
    let later = now() + DAY + hour;
    assert_eq!(end(None, later).not_after, authority.validity().not_after);
    assert_eq!(end(None, later).not_before, later - crate::validity::BACKDATE);
    for at in [now() - hour, now() + 3 * DAY] {
        let error = authority.sign(&csr("cart"), &id("cart"), None, at).unwrap_err();
        assert!(matches!(error, Error::NotValid(_)), "{error}");
    }
    let middle =
        authority.intermediate_for("m", Validity::from(now(), 9 * DAY), KeyKind::default());
    assert_eq!(middle.unwrap().validity().not_after, authority.validity().not_after);
}

#[test]
fn no_two_serial_numbers_are_the_same() {
    let authority = root_at(now(), DAY);
    let csr = csr("cart");
    let mut serials: Vec<_> = (0..200)
        .map(|_| {
            let chain = authority.sign(&csr, &id("cart"), None, now()).unwrap();
            certificates(&chain, |certificate| certificate.raw_serial().to_vec()).remove(0)
        })
        .collect();
    assert!(serials.iter().all(|serial| serial.len() == 16 && serial[0] & 0x80 == 0));
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 200);
}

#[test]
fn plugged_in_files_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let files = CaFiles::within(folder.path());
    let root = Authority::self_signed("root").unwrap();
    let middle = root.intermediate("middle").unwrap();
    files.write(&middle).unwrap();
    let read = files.read().unwrap();
    assert_eq!((read.path_pem(), read.trust_pem()), (middle.path_pem(), middle.trust_pem()));

    let other = Authority::self_signed("root").unwrap();
    let both = bundle::merge(&[other.root_pem(), root.root_pem()]).unwrap();
    std::fs::write(&files.roots, both).unwrap();
    std::fs::remove_file(&files.chain).unwrap();
    let read = files.read().unwrap();
    assert_eq!(read.root_pem(), root.root_pem());
    assert!(read.trust_pem().contains(other.root_pem()));

    std::fs::write(&files.roots, other.root_pem()).unwrap();
    assert!(matches!(files.read(), Err(Error::Authority(_))));
    std::fs::write(&files.roots, root.root_pem()).unwrap();
    std::fs::write(&files.key, other.key_pem()).unwrap();
    assert!(files.read().unwrap_err().to_string().contains("key"));
}

#[test]
fn a_workload_is_no_authority() {
    let root = Authority::self_signed("root").unwrap();
    let leaf = root.issue(&Request::default().dns("a")).unwrap();
    let path = leaf.chain_pem + root.root_pem();
    assert!(matches!(Authority::from_pem(&path, &leaf.key_pem), Err(Error::Authority(_))));
}

/// Runs openssl in `folder`; `None` where it is not installed.
fn openssl(folder: &std::path::Path, arguments: &str) -> Option<String> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.ok()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {text}");
    Some(text.into_owned())
}

#[test]
fn openssl_understands_what_is_signed_and_its_requests_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let root = Authority::self_signed("root").unwrap();
    let middle = root.intermediate("middle").unwrap();
    std::fs::write(path.join("root.pem"), root.root_pem()).unwrap();
    std::fs::write(path.join("path.pem"), middle.path_pem()).unwrap();
    for (kind, options) in [
        ("p256", "ec -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "ec -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa", "rsa:2048"),
        ("ed25519", "ed25519"),
    ] {
        let name = id("cart");
        let request = format!(
            "req -new -newkey {options} -noenc -keyout {kind}.key -out {kind}.csr \
             -subj /O=none -addext subjectAltName=URI:{name}"
        );
        if openssl(path, &request).is_none() {
            return;
        }
        let csr =
            Csr::from_pem(&std::fs::read_to_string(path.join(format!("{kind}.csr"))).unwrap());
        let chain = middle.sign(&csr.unwrap(), &id("cart"), None, SystemTime::now()).unwrap();
        std::fs::write(path.join(format!("{kind}.pem")), chain).unwrap();
        let verify = format!("verify -x509_strict -CAfile root.pem -untrusted path.pem {kind}.pem");
        openssl(path, &verify).unwrap();
        let text = openssl(path, &format!("x509 -in {kind}.pem -noout -ext subjectAltName"));
        assert!(text.unwrap().contains(name.as_str()));
        let public = openssl(path, &format!("x509 -in {kind}.pem -noout -pubkey"));
        assert_eq!(public, openssl(path, &format!("pkey -in {kind}.key -pubout")));
    }
}

#[test]
fn keys_in_the_older_forms_of_openssl_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("rsa", "genrsa -traditional -out rsa 2048"),
        ("ec", "ecparam -name prime256v1 -genkey -out ec"),
    ] {
        if openssl(folder.path(), arguments).is_none() {
            return;
        }
        let key = Key::read(&folder.path().join(name)).unwrap();
        assert_eq!(Key::from_pem(&key.to_pem()).unwrap().to_pem(), key.to_pem());
    }
}
