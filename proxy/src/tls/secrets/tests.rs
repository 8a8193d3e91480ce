//! What a context reads, what it waits for, and whether it changed.

use std::fs;

use super::*;
use crate::config::matcher::{StringMatcher, StringPattern};
use crate::config::source::{ConfigSource, FileSource, ResourceSource};
use crate::config::tls::{SanKind, SanMatcher, TlsVersion};

fn context(
    certificates: Vec<SecretRef<TlsCertificate>>,
    validation: Option<ValidationSource>,
) -> CommonTls {
    CommonTls {
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        cipher_suites: Vec::new(),
        alpn: Vec::new(),
        certificates,
        validation,
        key_log: None,
    }
}

fn file(path: &Path) -> DataSource {
    DataSource::File(path.to_owned())
}

fn discovered(name: &str) -> SecretName {
    let file = FileSource { path: "/etc/sds/secrets.yaml".into(), watched_directory: None };
    SecretName::Discovered(ResourceSource { name: name.into(), source: ConfigSource::File(file) })
}

fn san(text: &str) -> SanMatcher {
    let pattern = StringPattern::Exact(text.into());
    SanMatcher { kind: SanKind::Uri, matcher: StringMatcher::new(pattern, false) }
}

fn trusting(path: &str) -> ValidationContext {
    ValidationContext { trusted_ca: Some(file(Path::new(path))), ..ValidationContext::default() }
}

#[test]
fn the_files_of_a_context_are_listed_once() {
    let pair = TlsCertificate { chain: file("/a/cert".as_ref()), key: file("/a/key".as_ref()) };
    let other = TlsCertificate { chain: file("/b/cert".as_ref()), key: file("/a/key".as_ref()) };
    let mut secrets = Secrets::default();
    secrets.insert(discovered("pair"), SecretKind::Certificate(pair));
    let context = context(
        vec![SecretRef::Sds(discovered("pair")), SecretRef::Inline(other)],
        Some(ValidationSource::Single(SecretRef::Inline(trusting("/a/ca")))),
    );
    let paths = ["/a/ca", "/a/cert", "/a/key", "/b/cert"].map(PathBuf::from);
    assert_eq!(secrets.files(&context), paths);
}

#[test]
fn secrets_that_are_not_there_are_named_with_their_place() {
    let context = context(
        vec![SecretRef::Sds(discovered("pair")), SecretRef::Sds(SecretName::Static("own".into()))],
        Some(ValidationSource::Single(SecretRef::Sds(discovered("roots")))),
    );
    let mut secrets = Secrets::default();
    assert_eq!(secrets.missing(&context).len(), 3);
    let error = secrets.certificate(&context.certificates[0]).unwrap_err().reason;
    assert!(error.contains("`pair`") && error.contains("/etc/sds/secrets.yaml"), "{error}");
    let error = secrets.certificate(&context.certificates[1]).unwrap_err().reason;
    assert!(error.contains("static_resources.secrets"), "{error}");
    secrets.insert(discovered("pair"), SecretKind::Validation(trusting("/a/ca")));
    let error = secrets.certificate(&context.certificates[0]).unwrap_err().reason;
    assert!(error.contains("not a certificate"), "{error}");
    assert_eq!(secrets.missing(&context).len(), 2);
}

#[test]
fn a_discovered_context_adds_to_the_default_one() {
    let mut secrets = Secrets::default();
    let found = ValidationContext {
        san: vec![san("spiffe://b")],
        allow_expired: true,
        ..trusting("/found/ca")
    };
    secrets.insert(discovered("roots"), SecretKind::Validation(found));
    let default = ValidationContext {
        san: vec![san("spiffe://a")],
        crl: Some(file("/default/crl".as_ref())),
        ..trusting("/default/ca")
    };
    let combined =
        ValidationSource::Combined { default: Box::new(default), sds: discovered("roots") };
    let merged = secrets.validation(&combined).unwrap();
    assert_eq!(merged.san, [san("spiffe://a"), san("spiffe://b")]);
    assert_eq!(merged.trusted_ca, Some(file("/found/ca".as_ref())));
    assert_eq!(merged.crl, Some(file("/default/crl".as_ref())));
    assert!(merged.allow_expired && !merged.accept_untrusted);
}

#[test]
fn the_fingerprint_follows_content_and_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let validation = |source| Some(ValidationSource::Single(source));
    let inline = ValidationContext { trusted_ca: Some(file(&path)), ..Default::default() };
    let by_file = context(Vec::new(), validation(SecretRef::Inline(inline)));
    let fingerprint = || Secrets::default().fingerprint(&by_file);
    let absent = fingerprint();
    fs::write(&path, "one").unwrap();
    let one = fingerprint();
    assert_ne!(absent, one);
    assert_eq!(fingerprint(), one);
    fs::write(&path, "two").unwrap();
    assert_ne!(fingerprint(), one);

    let by_name = context(Vec::new(), validation(SecretRef::Sds(discovered("roots"))));
    let mut secrets = Secrets::default();
    let missing = secrets.fingerprint(&by_name);
    secrets.insert(discovered("roots"), SecretKind::Validation(trusting("/a")));
    let known = secrets.fingerprint(&by_name);
    let other = ValidationContext { allow_expired: true, ..trusting("/a") };
    secrets.insert(discovered("roots"), SecretKind::Validation(other));
    assert!(missing != known && known != secrets.fingerprint(&by_name));
}

#[test]
fn one_set_of_secrets_sees_one_content_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cert.pem");
    fs::write(&path, "before").unwrap();
    let secrets = Secrets::default();
    assert_eq!(&*secrets.read(&file(&path)).unwrap(), b"before");
    fs::write(&path, "after").unwrap();
    assert_eq!(&*secrets.read(&file(&path)).unwrap(), b"before");
    assert_eq!(&*Secrets::default().read(&file(&path)).unwrap(), b"after");
}

#[test]
fn what_cannot_be_read_says_what_to_check() {
    let secrets = Secrets::default();
    let missing = secrets.read(&file("/nowhere/ca.pem".as_ref())).unwrap_err();
    assert!(missing.contains("/nowhere/ca.pem") && missing.contains("mounted"), "{missing}");
    let unset = secrets.read(&DataSource::Environment("OUTRIGGER_UNSET".into())).unwrap_err();
    assert!(unset.contains("OUTRIGGER_UNSET"), "{unset}");
    assert_eq!(&*secrets.read(&DataSource::Inline(b"x".to_vec())).unwrap(), b"x");
}
