//! A `CertificateValidationContext`, loaded and ready to judge.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, OtherError};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};

use crate::config::Invalid;
use crate::config::tls::{
    CommonTls, DataSource, SanMatcher, SecretRef, ValidationContext, ValidationSource,
};
use crate::tls::certificate::{Certificate, CertificateFile, sha256};
use crate::tls::options::algorithms;
use crate::tls::pem;
use crate::tls::roots::Roots;
use crate::tls::san::{NameError, Names};
use crate::tls::secrets::{Secrets, place};

/// What a peer's certificate must satisfy.
#[derive(Debug)]
pub(in crate::tls) struct Policy {
    roots: Option<Arc<Roots>>,
    revocation_lists: Vec<CertRevocationList<'static>>,
    names: Vec<SanMatcher>,
    certificate_hashes: Vec<[u8; 32]>,
    spki_hashes: Vec<[u8; 32]>,
    allow_expired: bool,
    accept_untrusted: bool,
}

/// What is known of a certificate that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tls) enum Trust {
    /// It passed every configured check.
    Validated,
    /// There was nothing to check it by, or the checks were told not to matter.
    NotValidated,
}

/// A certificate that is not on the configured lists of hashes.
#[derive(Debug, thiserror::Error)]
#[error(
    "the peer's certificate matches neither verify_certificate_hash nor verify_certificate_spki"
)]
struct NotPinned;

impl Policy {
    /// Loads what `context` says about its peer; none if it says nothing.
    pub(in crate::tls) fn load(
        context: &CommonTls,
        secrets: &Secrets,
    ) -> Result<Option<Self>, Invalid> {
        let Some(source) = &context.validation else { return Ok(None) };
        let path = match source {
            ValidationSource::Single(SecretRef::Inline(_)) => {
                "common_tls_context.validation_context"
            }
            ValidationSource::Single(SecretRef::Sds(_)) => {
                "common_tls_context.validation_context_sds_secret_config"
            }
            ValidationSource::Combined { .. } => "common_tls_context.combined_validation_context",
        };
        let validation = secrets.validation(source).map_err(|invalid| invalid.under(path))?;
        Self::build(validation, secrets).map(Some).map_err(|invalid| invalid.under(path))
    }

    fn build(context: ValidationContext, secrets: &Secrets) -> Result<Self, Invalid> {
        let ValidationContext {
            trusted_ca,
            crl,
            san,
            certificate_hashes,
            spki_hashes,
            allow_expired,
            accept_untrusted,
        } = context;
        if trusted_ca.is_none() && !san.is_empty() {
            return Err(Invalid::new(
                "match_typed_subject_alt_names",
                "anybody can make a certificate with any name: names need trusted_ca",
            ));
        }
        let roots = trusted_ca.as_ref().map(|source| secrets.roots(source)).transpose();
        let roots = roots.map_err(|reason| Invalid::new("trusted_ca", reason))?;
        let mut revocation_lists = Vec::new();
        for (field, source) in [("trusted_ca", &trusted_ca), ("crl", &crl)] {
            let Some(source) = source else { continue };
            let lists = load_revocation_lists(source, secrets);
            revocation_lists.extend(lists.map_err(|reason| Invalid::new(field, reason))?);
        }
        if crl.is_some() && revocation_lists.is_empty() {
            return Err(Invalid::new("crl", "no `-----BEGIN X509 CRL-----` block found"));
        }
        Ok(Self {
            roots,
            revocation_lists,
            names: san,
            certificate_hashes,
            spki_hashes,
            allow_expired,
            accept_untrusted,
        })
    }

    /// Whether a certificate can be judged at all, and so is worth asking for.
    pub(in crate::tls) fn checks_anything(&self) -> bool {
        self.roots.is_some() || self.pins()
    }

    /// The trusted roots.
    pub(in crate::tls) fn roots(&self) -> Option<&Roots> {
        self.roots.as_deref()
    }

    /// The bundle of roots, as the admin API shows it.
    pub(in crate::tls) fn file(&self) -> Option<CertificateFile> {
        self.roots.as_deref().and_then(Roots::file)
    }

    /// Judges the certificate `leaf`, presented together with `others`. `server_name` is checked
    /// instead of the configured names.
    pub(in crate::tls) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        server_name: Option<&str>,
    ) -> Result<Trust, CertificateError> {
        match self.check(leaf, others, now, usage, server_name) {
            Ok(()) if self.checks_anything() => Ok(Trust::Validated),
            Ok(()) => Ok(Trust::NotValidated),
            Err(_) if self.accept_untrusted => Ok(Trust::NotValidated),
            Err(error) => Err(error),
        }
    }

    /// What is known of a certificate that this policy let through a finished handshake.
    pub(in crate::tls) fn trust(
        &self,
        chain: &[CertificateDer<'_>],
        usage: KeyUsage,
        server_name: Option<&str>,
    ) -> Trust {
        if !self.accept_untrusted {
            let checked = self.checks_anything() && !chain.is_empty();
            return if checked { Trust::Validated } else { Trust::NotValidated };
        }
        // The verdict of the handshake is not kept, for the library has no place for it.
        let Some((leaf, others)) = chain.split_first() else { return Trust::NotValidated };
        let verdict = self.verify(leaf, others, UnixTime::now(), usage, server_name);
        verdict.unwrap_or(Trust::NotValidated)
    }

    /// Whether the certificate that begins `chain` holds `name`, beside what [`Self::verify`] asks of it.
    pub(in crate::tls) fn check_name(
        &self,
        chain: &[CertificateDer<'_>],
        name: &str,
    ) -> Result<(), CertificateError> {
        if self.accept_untrusted {
            return Ok(());
        }
        let leaf = chain.first().map_or(&[][..], |leaf| leaf);
        Names::of(leaf).and_then(|names| names.are_for(name)).map_err(name_error)
    }

    /// Whether certificates that were good when a session began are still within their time.
    pub(in crate::tls) fn still_valid(
        &self,
        chain: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> bool {
        let lenient = self.roots.is_none() || self.allow_expired || self.accept_untrusted;
        lenient || chain.iter().all(|der| Certificate::new(der.clone()).is_valid_at(now))
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
        server_name: Option<&str>,
    ) -> Result<(), CertificateError> {
        if let Some(roots) = &self.roots {
            self.check_chain(roots, leaf, others, now, usage).map_err(certificate_error)?;
        }
        let names = match server_name {
            Some(name) => Names::of(leaf).and_then(|names| names.are_for(name)),
            None if self.names.is_empty() => Ok(()),
            None => Names::of(leaf).and_then(|names| names.satisfy(&self.names)),
        };
        names.map_err(name_error)?;
        if self.pins() && !self.is_pinned(leaf)? { Err(other(NotPinned)) } else { Ok(()) }
    }

    fn check_chain(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let check = |at| self.check_chain_at(roots, leaf, others, at, usage);
        let error = match check(now) {
            Err(
                error @ (webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. }),
            ) if self.allow_expired => error,
            result => return result,
        };
        // Path building has no way to disregard time, so it is tried at other times at which the
        // presented certificates are valid.
        let mut times = std::iter::once(leaf).chain(others).take(4).flat_map(bounds);
        times.find(|at| check(*at).is_ok()).map(drop).ok_or(error)
    }

    fn check_chain_at(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let certificate = EndEntityCert::try_from(leaf)?;
        let lists: Vec<_> = self.revocation_lists.iter().collect();
        // As in OpenSSL, once there is any list, every issuer in the chain needs one.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let root_in_time = |path: &VerifiedPath<'_>| self.check_root(roots, path, now);
        let verified = certificate.verify_for_usage(
            algorithms().all,
            roots.anchors(),
            others,
            now,
            usage,
            revocation,
            Some(&root_in_time),
        );
        match verified {
            Ok(_) => Ok(()),
            // A self-signed certificate that is itself trusted has no path to build.
            Err(webpki::Error::CaUsedAsEndEntity) if roots.contains(leaf) => {
                within(&Certificate::new(leaf.clone().into_owned()), now)
            }
            Err(error) => Err(error),
        }
    }

    /// Roots expire too, which path building does not look at.
    fn check_root(
        &self,
        roots: &Roots,
        path: &VerifiedPath<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        match roots.certificate(path.anchor()) {
            Some(root) if !self.allow_expired => within(root, now),
            _ => Ok(()),
        }
    }

    fn pins(&self) -> bool {
        !self.certificate_hashes.is_empty() || !self.spki_hashes.is_empty()
    }

    fn is_pinned(&self, leaf: &CertificateDer<'_>) -> Result<bool, CertificateError> {
        let in_list = |list: &[[u8; 32]], bytes: &[u8]| {
            let hash = sha256(bytes);
            list.iter().any(|known| known == hash.as_ref())
        };
        if in_list(&self.certificate_hashes, leaf) {
            return Ok(true);
        }
        let parsed = EndEntityCert::try_from(leaf).map_err(certificate_error)?;
        Ok(in_list(&self.spki_hashes, &parsed.subject_public_key_info()))
    }
}

fn load_revocation_lists(
    source: &DataSource,
    secrets: &Secrets,
) -> Result<Vec<CertRevocationList<'static>>, String> {
    let content = secrets.read(source)?;
    let at = |reason: String| format!("{}: {reason}", place(source));
    let lists = pem::revocation_lists(&content).map_err(at)?;
    lists
        .iter()
        .map(|der| OwnedCertRevocationList::from_der(der).map(CertRevocationList::from))
        .collect::<Result<_, _>>()
        .map_err(|error| at(format!("a revocation list cannot be read: {error}")))
}

/// Whether `now` lies in a certificate's validity.
fn within(certificate: &Certificate, now: UnixTime) -> Result<(), webpki::Error> {
    let unix = |time: Option<SystemTime>| {
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO))
    };
    let (not_before, not_after) = (unix(certificate.not_before()), unix(certificate.not_after()));
    if now < not_before {
        Err(webpki::Error::CertNotValidYet { time: now, not_before })
    } else if now > not_after {
        Err(webpki::Error::CertExpired { time: now, not_after })
    } else {
        Ok(())
    }
}

/// The first and the last moment at which a certificate is valid.
fn bounds(der: &CertificateDer<'_>) -> impl Iterator<Item = UnixTime> + use<> {
    let certificate = Certificate::new(der.clone().into_owned());
    [certificate.not_after(), certificate.not_before()].into_iter().filter_map(|time| {
        let since = time?.duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    })
}

fn name_error(error: NameError) -> CertificateError {
    match error {
        NameError::Malformed => CertificateError::BadEncoding,
        error => other(error),
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(error)))
}

/// The error that makes the library send the fitting alert.
fn certificate_error(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        error => other(error),
    }
}
