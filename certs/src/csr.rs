//! Certificate requests: built by whoever has the key, checked by the authority that signs.

use rcgen::{CertificateParams, DistinguishedName, SanType, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use crate::{Error, Key, SpiffeId};

/// Longest request in bytes; one with an RSA key of 4096 bits has about 1700.
const MAX_PEM: usize = 16 * 1024;
/// Smallest RSA key in bits.
const MIN_RSA: usize = 2048;

/// A request that was read: well formed, and signed with the key that it is for.
#[derive(Debug, Clone)]
pub struct Csr {
    uris: Vec<String>,
    dns: Vec<String>,
    key: SubjectPublicKeyInfo,
}

/// A request in PEM for a certificate that names `id`, signed with `key`.
pub fn build(key: &Key, id: &SpiffeId) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let uri = id.as_str().try_into().map_err(|_| Error::Name(id.to_string()))?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.serialize_request(key).and_then(|request| request.pem()).map_err(Error::Certificate)
}

impl Csr {
    /// Reads a request in PEM.
    ///
    /// Of all that a request can ask for only names are taken up. The rest is the authority's to
    /// decide, and who asks to become an authority is refused.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_PEM {
            return Err(Error::Csr("it is longer than 16 KiB"));
        }
        let pem = Pem::iter_from_buffer(text.as_bytes()).next().and_then(Result::ok);
        let pem = pem.ok_or(Error::Csr("it is not in PEM form"))?;
        if !matches!(pem.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
            return Err(Error::Csr("its PEM block is not a CERTIFICATE REQUEST"));
        }
        Self::from_der(&pem.contents)
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|_| Error::Csr("it is not a PKCS #10 request"))?;
        if !rest.is_empty() {
            return Err(Error::Csr("bytes follow the request"));
        }
        request.verify_signature().map_err(|_| {
            Error::Csr("its signature is not by the key it is for, or of a kind not supported")
        })?;
        let public = &request.certification_request_info.subject_pki;
        if let Ok(PublicKey::RSA(rsa)) = public.parsed()
            && rsa.key_size() < MIN_RSA
        {
            return Err(Error::Csr("its RSA key has fewer than 2048 bits"));
        }
        // Not rcgen's own reader: it takes the key's kind from the signature's, which differ when
        // a key on P-384 signs with SHA-256.
        let key = SubjectPublicKeyInfo::from_der(public.raw)
            .map_err(|_| Error::Csr("its key is none of ECDSA, RSA and Ed25519"))?;
        let mut csr = Self { uris: Vec::new(), dns: Vec::new(), key };
        for extension in request.requested_extensions().into_iter().flatten() {
            csr.take(extension)?;
        }
        Ok(csr)
    }

    /// The URIs asked for, as they are: not yet known to be SPIFFE ids.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// The DNS names asked for.
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) -> Result<(), Error> {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
                        _ => return Err(Error::Csr("it asks for names other than URIs and DNS")),
                    }
                }
                Ok(())
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                Err(Error::Csr("it asks to become an authority"))
            }
            ParsedExtension::ParseError { .. } => Err(Error::Csr("an extension cannot be read")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, IsCa};

    use super::*;
    use crate::KeyKind;

    fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
    }

    fn refusal(params: &CertificateParams) -> String {
        let key = Key::generate(KeyKind::default()).unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        Csr::from_pem(&pem).unwrap_err().to_string()
    }

    #[test]
    fn what_is_built_is_read_with_every_kind_of_key() {
        for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048, KeyKind::Ed25519] {
            let key = Key::generate(kind).unwrap();
            let csr = Csr::from_pem(&build(&key, &id()).unwrap()).unwrap();
            assert_eq!((csr.uris(), csr.dns()), (&[id().to_string()][..], &[][..]), "{kind:?}");
        }
    }

    #[test]
    fn nobody_becomes_an_authority_by_asking() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(refusal(&params).contains("authority"));
    }

    #[test]
    fn names_that_no_workload_has_are_refused() {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::Rfc822Name("root@acme.org".try_into().unwrap()));
        assert!(refusal(&params).contains("names other than"));
    }

    #[test]
    fn a_changed_request_is_refused() {
        let key = Key::generate(KeyKind::default()).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().unwrap()));
        let der = params.serialize_request(&key).unwrap().der().to_vec();
        let at = der.windows(12).position(|part| part == b"spiffe://a/b").unwrap();
        let mut changed = der.clone();
        changed[at + 11] = b'c';
        Csr::from_der(&der).unwrap();
        assert!(Csr::from_der(&changed).unwrap_err().to_string().contains("signature"));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let certificate = crate::Authority::self_signed("root").unwrap();
        for text in ["", "nonsense", certificate.root_pem(), &"x".repeat(MAX_PEM + 1)] {
            assert!(matches!(Csr::from_pem(text), Err(Error::Csr(_))));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0..400_usize, byte in any::<u8>()) {
            let key = Key::generate(KeyKind::default()).unwrap();
            let mut text = build(&key, &id()).unwrap().into_bytes();
            let length = text.len();
            text[at % length] = byte;
            if let Ok(text) = String::from_utf8(text) && let Ok(csr) = Csr::from_pem(&text) {
                prop_assert_eq!(csr.uris(), &[id().to_string()][..]);
            }
        }
    }
}
