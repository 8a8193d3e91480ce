//! A certificate authority: a root or an intermediate that signs workload certificates.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_parser::pem::Pem;

use crate::key::{Key, KeyKind};
use crate::{Error, bundle};

/// How far back validity starts, for peers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(300);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate authority with its private key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Own certificate first, root last.
    path: Vec<String>,
}

/// What a workload certificate should say. The default is valid for a day, for both sides of TLS.
#[derive(Debug, Clone, Default)]
pub struct Request {
    uris: Vec<String>,
    dns: Vec<String>,
    emails: Vec<String>,
    ips: Vec<IpAddr>,
    common_name: Option<String>,
    organization: Option<String>,
    validity: Validity,
    usage: Usage,
    key: KeyKind,
}

/// A workload's certificate and key.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate and the intermediates above it, without the root.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

/// What a workload certificate may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Usage {
    /// As server and as client, as mesh workloads need it.
    #[default]
    Both,
    /// As server only.
    Server,
    /// As client only.
    Client,
}

impl Validity {
    /// Valid for `lifetime` from `now`, and a little before `now` for peers with a slow clock.
    pub fn from(now: SystemTime, lifetime: Duration) -> Self {
        Self { not_before: now - BACKDATE, not_after: now + lifetime }
    }
}

impl Default for Validity {
    fn default() -> Self {
        Self::from(SystemTime::now(), DAY)
    }
}

impl Request {
    /// Adds a URI, usually a [`crate::SpiffeId`].
    #[must_use]
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uris.push(uri.into());
        self
    }

    /// Adds a DNS name, which may begin with `*.`.
    #[must_use]
    pub fn dns(mut self, name: impl Into<String>) -> Self {
        self.dns.push(name.into());
        self
    }

    /// Adds an e-mail address.
    #[must_use]
    pub fn email(mut self, address: impl Into<String>) -> Self {
        self.emails.push(address.into());
        self
    }

    /// Adds an IP address.
    #[must_use]
    pub fn ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.ips.push(address.into());
        self
    }

    /// Sets the subject's common name. Without any subject the other names alone identify the owner.
    #[must_use]
    pub fn common_name(mut self, name: impl Into<String>) -> Self {
        self.common_name = Some(name.into());
        self
    }

    /// Sets the subject's organization.
    #[must_use]
    pub fn organization(mut self, name: impl Into<String>) -> Self {
        self.organization = Some(name.into());
        self
    }

    /// Sets when the certificate is valid.
    #[must_use]
    pub fn validity(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// Sets what the certificate may be used for.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the kind of key to make.
    #[must_use]
    pub fn key(mut self, kind: KeyKind) -> Self {
        self.key = kind;
        self
    }

    fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = blank(self.validity);
        for (kind, name) in [
            (DnType::OrganizationName, &self.organization),
            (DnType::CommonName, &self.common_name),
        ] {
            if let Some(name) = name {
                params.distinguished_name.push(kind, name);
            }
        }
        let ascii = |name: &String| name.as_str().try_into().map_err(|_| Error::Name(name.clone()));
        let names = &mut params.subject_alt_names;
        for uri in &self.uris {
            names.push(SanType::URI(ascii(uri)?));
        }
        for name in &self.dns {
            names.push(SanType::DnsName(ascii(name)?));
        }
        for address in &self.emails {
            names.push(SanType::Rfc822Name(ascii(address)?));
        }
        names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match self.usage {
            Usage::Both => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(params)
    }
}

impl Authority {
    /// A new root that is valid for ten years.
    pub fn self_signed(name: &str) -> Result<Self, Error> {
        let validity = Validity::from(SystemTime::now(), 3650 * DAY);
        Self::self_signed_for(name, validity, KeyKind::default())
    }

    /// A new root.
    pub fn self_signed_for(name: &str, validity: Validity, key: KeyKind) -> Result<Self, Error> {
        let params = authority_params(name, validity);
        let key = Key::generate(key)?.into_pair();
        let certificate = params.self_signed(&key).map_err(Error::Certificate)?;
        Ok(Self { path: vec![certificate.pem()], issuer: Issuer::new(params, key) })
    }

    /// A new authority below this one, valid for a year.
    pub fn intermediate(&self, name: &str) -> Result<Self, Error> {
        let params = authority_params(name, Validity::from(SystemTime::now(), 365 * DAY));
        let key = Key::generate(KeyKind::default())?.into_pair();
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::Certificate)?;
        let mut path = vec![certificate.pem()];
        path.extend_from_slice(&self.path);
        Ok(Self { path, issuer: Issuer::new(params, key) })
    }

    /// An authority from its PEM certificates, its own first and the root last, and its key.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, Error> {
        let path = bundle::split(certificates)?;
        let own = path.first().ok_or(Error::Empty)?;
        let key = Key::from_pem(key)?.into_pair();
        let issuer = Issuer::from_ca_cert_pem(own, key).map_err(Error::Certificate)?;
        Ok(Self { path, issuer })
    }

    /// An authority from the files that hold its certificates and its key.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| {
            let file = |source| Error::File { path: path.to_owned(), source };
            std::fs::read_to_string(path).map_err(file)
        };
        Self::from_pem(&read(certificates)?, &read(key)?)
    }

    /// Makes a key and signs a certificate for it.
    pub fn issue(&self, request: &Request) -> Result<Leaf, Error> {
        let key = Key::generate(request.key)?;
        let signed = request.params()?.signed_by(key.pair(), &self.issuer);
        let mut chain_pem = signed.map_err(Error::Certificate)?.pem();
        let (_root, intermediates) = self.path.split_last().ok_or(Error::Empty)?;
        chain_pem.extend(intermediates.iter().map(String::as_str));
        Ok(Leaf { chain_pem, key_pem: key.to_pem() })
    }

    /// A list, valid for a day, that revokes `leaves`.
    pub fn revoke(&self, leaves: &[&Leaf]) -> Result<String, Error> {
        let now = SystemTime::now();
        let revoked = |leaf: &&Leaf| {
            Ok(RevokedCertParams {
                serial_number: serial(&leaf.chain_pem)?,
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            })
        };
        let validity = Validity::from(now, DAY);
        let list = CertificateRevocationListParams {
            this_update: validity.not_before.into(),
            next_update: validity.not_after.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: leaves.iter().map(revoked).collect::<Result<_, Error>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(Error::Certificate)
    }

    /// The certificate to trust.
    pub fn root_pem(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// All certificates from its own up to the root.
    pub fn path_pem(&self) -> String {
        self.path.concat()
    }

    /// The private key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

fn authority_params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = blank(validity);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn blank(validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    params.use_authority_key_identifier_extension = true;
    params
}

fn serial(chain_pem: &str) -> Result<SerialNumber, Error> {
    let unreadable = || Error::Certificate(rcgen::Error::CouldNotParseCertificate);
    let pem = Pem::iter_from_buffer(chain_pem.as_bytes()).next();
    let pem = pem.and_then(Result::ok).ok_or_else(unreadable)?;
    let certificate = pem.parse_x509().map_err(|_| unreadable())?;
    Ok(SerialNumber::from_slice(certificate.raw_serial()))
}

#[cfg(test)]
mod tests {
    use x509_parser::certificate::X509Certificate;
    use x509_parser::extensions::GeneralName;

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
}
