//! A certificate authority: a root or an intermediate that signs workload certificates.

mod files;
mod request;

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;

pub use self::files::CaFiles;
pub use self::request::{Request, Usage};
pub use crate::validity::Validity;

use crate::key::{Key, KeyKind};
use crate::validity::DAY;
use crate::{Csr, Error, SpiffeId, bundle};

/// A certificate authority with its private key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, Key>,
    /// Own certificate first, root last.
    path: Vec<String>,
    /// Roots to trust beside the own one, while roots are replaced.
    others: Vec<String>,
    /// When the whole path is valid.
    validity: Validity,
    lifetimes: Lifetimes,
}

/// How long signed certificates are valid, counted from when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// For a caller that asks for no lifetime.
    pub default: Duration,
    /// At most, whatever the caller asks for.
    pub maximum: Duration,
}

impl Default for Lifetimes {
    /// A day for both.
    fn default() -> Self {
        Self { default: DAY, maximum: DAY }
    }
}

/// A workload's certificate and key.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate and the intermediates above it, without the root.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
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
        let params = authority_params(name, validity, BasicConstraints::Unconstrained)?;
        let key = Key::generate(key)?;
        let certificate = params.self_signed(&key).map_err(Error::Certificate)?;
        Ok(Self {
            path: vec![certificate.pem()],
            others: Vec::new(),
            validity,
            issuer: Issuer::new(params, key),
            lifetimes: Lifetimes::default(),
        })
    }

    /// A new authority below this one, valid for a year but not longer than this one.
    pub fn intermediate(&self, name: &str) -> Result<Self, Error> {
        let validity = Validity::from(SystemTime::now(), 365 * DAY);
        self.intermediate_for(name, validity, KeyKind::default())
    }

    /// A new authority below this one, valid as asked but not longer than this one. It signs
    /// workloads, not further authorities.
    pub fn intermediate_for(
        &self,
        name: &str,
        validity: Validity,
        key: KeyKind,
    ) -> Result<Self, Error> {
        let validity = validity.within(self.validity);
        let params = authority_params(name, validity, BasicConstraints::Constrained(0))?;
        let key = Key::generate(key)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::Certificate)?;
        let mut path = vec![certificate.pem()];
        path.extend_from_slice(&self.path);
        Ok(Self {
            path,
            others: self.others.clone(),
            validity,
            issuer: Issuer::new(params, key),
            lifetimes: self.lifetimes,
        })
    }

    /// Replaces how long signed certificates are valid.
    #[must_use]
    pub fn with_lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Signs a certificate for the key of `csr` and the workload `id`, which the caller has proved to
    /// be, and gives it with the intermediates above it, without the root.
    ///
    /// As istiod does, it takes no name from the request: what a caller asks for proves nothing.
    /// `lifetime` is shortened to the longest allowed and to what is left of the authority's own.
    pub fn sign(
        &self,
        csr: &Csr,
        id: &SpiffeId,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<String, Error> {
        if !self.validity.contains(now) {
            return Err(Error::NotValid(self.validity));
        }
        let lifetime = lifetime.filter(|lifetime| !lifetime.is_zero());
        let lifetime = lifetime.unwrap_or(self.lifetimes.default).min(self.lifetimes.maximum);
        let mut params = blank(Validity::from(now, lifetime).within(self.validity))?;
        let text = |name: &str| name.try_into().map_err(|_| Error::Name(name.to_owned()));
        params.subject_alt_names.push(SanType::URI(text(id.as_str())?));
        usages(&mut params, Usage::Both);
        self.finish(&params, csr.key())
    }

    /// Makes a key and signs a certificate for it that says what `request` does, whatever that is:
    /// this is for whoever owns the authority, not for callers over a network.
    pub fn issue(&self, request: &Request) -> Result<Leaf, Error> {
        let key = Key::generate(request.key)?;
        let chain_pem = self.finish(&request.params()?, &key)?;
        Ok(Leaf { chain_pem, key_pem: key.to_pem() })
    }

    fn finish(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<String, Error> {
        let signed = params.signed_by(key, &self.issuer).map_err(Error::Certificate)?;
        let (_root, intermediates) = self.path.split_last().ok_or(Error::Empty)?;
        Ok(signed.pem() + &intermediates.concat())
    }

    /// A list, valid for a day, that revokes `leaves`.
    pub fn revoke(&self, leaves: &[&Leaf]) -> Result<String, Error> {
        let now = SystemTime::now();
        let revoked = |leaf: &&Leaf| {
            let serial = bundle::read(&leaf.chain_pem, |own| own.raw_serial().to_vec())?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(serial),
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

    /// All certificates to trust: the own root, and others while roots are replaced.
    pub fn trust_pem(&self) -> String {
        self.root_pem().to_owned() + &self.others.concat()
    }

    /// All certificates from its own up to the root.
    pub fn path_pem(&self) -> String {
        self.path.concat()
    }

    /// The private key.
    pub fn key_pem(&self) -> String {
        self.issuer.key().to_pem()
    }

    /// How long signed certificates are valid.
    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// When the authority and everything above it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

fn authority_params(
    name: &str,
    validity: Validity,
    constraints: BasicConstraints,
) -> Result<CertificateParams, Error> {
    let mut params = blank(validity)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn blank(validity: Validity) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = OffsetDateTime::from(validity.not_before);
    params.not_after = OffsetDateTime::from(validity.not_after);
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(unique_serial()?);
    Ok(params)
}

/// 126 random bits: unique without anything to remember. One derived from the key would repeat
/// itself when a key is certified again.
fn unique_serial() -> Result<SerialNumber, Error> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| Error::Random)?;
    // The first bit is the sign; a first byte of 0 would not be the shortest form.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

fn usages(params: &mut CertificateParams, usage: Usage) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let (server, client) =
        (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    params.extended_key_usages = match usage {
        Usage::Both => vec![server, client],
        Usage::Server => vec![server],
        Usage::Client => vec![client],
    };
}

#[cfg(test)]
mod tests;
