//! Details of a certificate with awkward names, against what Envoy 1.40 printed for it.

use certs::{Authority, Request};

use super::*;

const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIICQzCCAeqgAwIBAgIDCgsMMAoGCCqGSM49BAMCMDMxCzAJBgNVBAYTAkRFMRMw
EQYDVQQKDApBY21lLCBJbmMuMQ8wDQYDVQQDDAZyb290K3gwHhcNMjYxMTIzMDUy
ODM2WhcNMjYxMTI4MDUyODM2WjCBqzELMAkGA1UEBhMCREUxDzANBgNVBAgMBkJh
eWVybjERMA8GA1UECgwIQsO8O2NoZXIxDDAKBgNVBAsMA2E9YjEKMAgGA1UEBRMB
NzESMBAGCgmSJomT8ixkAQEMAnUxMRIwEAYKCZImiZPyLGQBGRYCZGMxFDASBgkq
hkiG9w0BCQEWBWFAYi5jMRIwEAYDVQQDDAkgbGVhZCM8eD4xDDAKBgNVBA8MA2ht
bTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOp6B4zZBViKfVdFYZTYXFL6UGHb
tKIpNAuVOXjMNGVXUAynmomcoskk0NGKnqww7A2/PC8O1VZdrKSAWzr48gyjdDBy
MDAGA1UdEQQpMCeGDnNwaWZmZTovL2EuYi9jggN4LnmCAyoueocEfwAAAYEFYUBi
LmMwHQYDVR0OBBYEFANbK3NJMuedNcjSDooFYfQS9TvyMB8GA1UdIwQYMBaAFIhG
X5qKFW8MjIs4mVyMEROuA8b8MAoGCCqGSM49BAMCA0cAMEQCIFdd3Yz1UA2ETKMX
bbd6SkjFn6Wp5M8iD/S+h9VJdzreAiABUKGDNjRlE6FN6mlzPr1kNeFw9yA1RNrE
8x1dTrGR4Q==
-----END CERTIFICATE-----
";

fn awkward() -> Certificate {
    Certificate::new(crate::tls::pem::certificates(PEM.as_bytes()).unwrap().remove(0))
}

#[test]
fn names_are_printed_as_envoy_prints_them() {
    let certificate = awkward();
    assert_eq!(
        certificate.subject(),
        "businessCategory=hmm,CN=\\ lead#\\<x\\>,emailAddress=a@b.c,DC=dc,UID=u1,serialNumber=7,\
         OU=a=b,O=B\\C3\\BC\\;cher,ST=Bayern,C=DE"
    );
    assert_eq!(certificate.issuer(), "CN=root\\+x,O=Acme\\, Inc.,C=DE");
    assert_eq!(certificate.common_name(), Some(" lead#<x>"));
    assert_eq!(certificate.uri_sans(), ["spiffe://a.b/c"]);
    assert_eq!(certificate.dns_sans(), ["x.y", "*.z"]);
    assert_eq!(certificate.ip_sans(), [IpAddr::from([127, 0, 0, 1])]);
    assert_eq!(certificate.email_sans(), ["a@b.c"]);
}

#[test]
fn numbers_are_printed_as_envoy_prints_them() {
    let certificate = awkward();
    assert_eq!(certificate.serial(), "0a0b0c");
    assert_eq!(certificate.sha1(), "3c922f257b7668b0382576d415852b0a378ed32b");
    assert_eq!(
        certificate.sha256(),
        "11f284bd71dbc57d3510cac8198ed74aa511e1eec669309ea6281fde69e335be"
    );
    assert_eq!(serial(&[0, 0x80]), "80");
    assert_eq!(serial(&[0]), "0");
}

#[test]
fn the_pem_form_is_escaped_as_envoy_escapes_it() {
    let escaped = PEM.replace('\n', "%0A").replace(' ', "%20");
    let escaped = escaped.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    assert_eq!(awkward().url_encoded_pem(), escaped);
    let begins = "-----BEGIN%20CERTIFICATE-----%0AMIICQzCCAeqgAwIBAgIDCgsMMAoGCCqGSM49";
    assert!(awkward().url_encoded_pem().starts_with(begins));
}

#[test]
fn validity_is_counted_in_whole_days() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let now = UNIX_EPOCH + hours(500_000);
    let validity = certs::Validity::from(now, hours(49));
    let leaf = Authority::self_signed("root").unwrap();
    let leaf = leaf.issue(&Request::default().dns("a").validity(validity)).unwrap();
    let der = crate::tls::pem::certificates(leaf.chain_pem.as_bytes()).unwrap().remove(0);
    let certificate = Certificate::new(der);
    assert_eq!(certificate.days_until_expiration(now), 2);
    assert_eq!(certificate.days_until_expiration(now + hours(2)), 1);
    assert_eq!(certificate.days_until_expiration(now + hours(50)), 0);
    assert!(certificate.is_valid_at(now) && !certificate.is_valid_at(now + hours(50)));
    assert!(!certificate.is_valid_at(now - hours(1)));
}

#[test]
fn garbage_has_no_details_and_is_never_valid() {
    let garbage = Certificate::new(vec![1, 2, 3].into());
    assert_eq!((garbage.subject(), garbage.serial(), garbage.not_after()), ("", "", None));
    assert!(!garbage.is_valid_at(SystemTime::now()));
    assert_eq!(garbage.days_until_expiration(UNIX_EPOCH), 0);
}
