//! Trust bundles: several root certificates in one PEM text, so that roots can be replaced without a gap.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use rcgen::PublicKeyData as _;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use crate::{Error, Key, Validity, utc};

/// The certificates in `pem`, each as its own PEM block, in order and without duplicates.
pub fn split(pem: &str) -> Result<Vec<String>, Error> {
    let mut blocks: Vec<String> = Vec::new();
    let mut rest = pem;
    while let Some(start) = rest.find(BEGIN) {
        let block = rest.get(start..).unwrap_or_default();
        let Some(end) = block.find(END) else { break };
        let (block, after) = block.split_at(end + END.len());
        let block = format!("{block}\n");
        if !blocks.contains(&block) {
            blocks.push(block);
        }
        rest = after;
    }
    for block in &blocks {
        read(block, |_| ())?;
    }
    if blocks.is_empty() { Err(Error::Empty) } else { Ok(blocks) }
}

/// One bundle that trusts everything any of `bundles` trusts: the state between two roots.
pub fn merge(bundles: &[&str]) -> Result<String, Error> {
    Ok(split(&bundles.concat())?.concat())
}

/// `bundle` without the certificates that are also in `gone`; never empty, since whoever trusts
/// nothing can talk to nobody.
pub fn without(bundle: &str, gone: &str) -> Result<String, Error> {
    let gone = split(gone)?;
    let mut kept = split(bundle)?;
    kept.retain(|root| !gone.contains(root));
    if kept.is_empty() { Err(Error::Empty) } else { Ok(kept.concat()) }
}

/// When each certificate in `pem` is valid, in order.
pub fn validities(pem: &str) -> Result<Vec<Validity>, Error> {
    split(pem)?.iter().map(|block| read(block, Validity::of)).collect()
}

/// `bundle` without what has expired; never empty.
pub fn unexpired(bundle: &str, now: SystemTime) -> Result<String, Error> {
    let mut kept = String::new();
    for block in split(bundle)? {
        if read(&block, Validity::of)?.not_after >= now {
            kept.push_str(&block);
        }
    }
    if kept.is_empty() { Err(Error::Empty) } else { Ok(kept) }
}

/// Whether the first certificate of `pem` names itself as its issuer, as roots do.
pub fn is_self_signed(pem: &str) -> Result<bool, Error> {
    read(pem, |certificate| certificate.subject() == certificate.issuer() && certificate.is_ca())
}

/// Whether the first certificate of `pem` is for `key`.
pub fn is_for(pem: &str, key: &Key) -> Result<bool, Error> {
    let public =
        |own: &X509Certificate<'_>| *own.public_key().subject_public_key.data == *key.der_bytes();
    read(pem, public)
}

/// The URIs that the certificate `der` is for, and when it is valid.
pub fn uris_and_validity(der: &[u8]) -> Result<(Vec<String>, Validity), Error> {
    let unreadable = || Error::Certificate(rcgen::Error::CouldNotParseCertificate);
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
    let names = certificate.subject_alternative_name().map_err(|_| unreadable())?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Ok((names.iter().filter_map(uri).collect(), Validity::of(&certificate)))
}

/// Writes certificates to `path`. The file appears whole or not at all, for a proxy may watch it.
pub fn write(path: &Path, pem: &str) -> Result<(), Error> {
    let file = |source| Error::File { path: path.to_owned(), source };
    let beside = path.with_extension("tmp");
    fs::write(&beside, pem).and_then(|()| fs::rename(&beside, path)).map_err(file)
}

/// What a certificate says, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Whose it is; often empty for a workload, which its names identify.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The URIs, DNS names and others that it is for.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub authority: bool,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// When it begins to be valid, in UTC.
    pub not_before: String,
    /// When it ends to be valid, in UTC.
    pub not_after: String,
    /// Days from now to the end, with two digits; negative once it has expired.
    pub days_left: f64,
}

/// What each certificate in `pem` says, in order.
pub fn describe(pem: &str, now: SystemTime) -> Result<Vec<Description>, Error> {
    let now = time::OffsetDateTime::from(now);
    let describe = |certificate: &X509Certificate<'_>| {
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let validity = Validity::of(certificate);
        let left = time::OffsetDateTime::from(validity.not_after) - now;
        Description {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names: names.iter().map(name).collect(),
            authority: certificate.is_ca(),
            serial: certificate.raw_serial_as_string(),
            not_before: utc(validity.not_before),
            not_after: utc(validity.not_after),
            days_left: (left.as_seconds_f64() / 864.0).round() / 100.0,
        }
    };
    split(pem)?.iter().map(|block| read(block, describe)).collect()
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) | GeneralName::RFC822Name(text) => {
            (*text).to_owned()
        }
        GeneralName::IPAddress(bytes) => {
            match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(address), _) => IpAddr::from(address).to_string(),
                (_, Ok(address)) => IpAddr::from(address).to_string(),
                _ => name.to_string(),
            }
        }
        _ => name.to_string(),
    }
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What `inspect` finds in the first certificate of `pem`.
pub(crate) fn read<T>(
    pem: &str,
    inspect: impl FnOnce(&X509Certificate<'_>) -> T,
) -> Result<T, Error> {
    let unreadable = || Error::Certificate(rcgen::Error::CouldNotParseCertificate);
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next();
    let pem = pem.and_then(Result::ok).ok_or_else(unreadable)?;
    let certificate = pem.parse_x509().map_err(|_| unreadable())?;
    Ok(inspect(&certificate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    #[test]
    fn merging_keeps_every_root_once() {
        let old = Authority::self_signed("old").unwrap();
        let new = Authority::self_signed("new").unwrap();
        let both = merge(&[old.root_pem(), new.root_pem()]).unwrap();
        assert_eq!(both, format!("{}{}", old.root_pem(), new.root_pem()));
        assert_eq!(merge(&[&both, old.root_pem()]).unwrap(), both);
        assert_eq!(split(&both).unwrap().len(), 2);
    }

    #[test]
    fn a_root_leaves_the_bundle_and_the_last_one_stays() {
        let old = Authority::self_signed("root").unwrap();
        let new = Authority::self_signed("root").unwrap();
        let both = merge(&[old.root_pem(), new.root_pem()]).unwrap();
        assert_eq!(without(&both, old.root_pem()).unwrap(), new.root_pem());
        assert!(matches!(without(&both, &both), Err(Error::Empty)));
    }

    #[test]
    fn what_has_expired_leaves_the_bundle() {
        let now = SystemTime::now();
        let root = |hours: u64| {
            let validity = Validity::from(now, std::time::Duration::from_secs(hours * 3600));
            Authority::self_signed_for("root", validity, crate::KeyKind::default()).unwrap()
        };
        let (short, long) = (root(1), root(3));
        let both = merge(&[short.root_pem(), long.root_pem()]).unwrap();
        let hours = |hours: u64| now + std::time::Duration::from_secs(hours * 3600);
        assert_eq!(unexpired(&both, now).unwrap(), both);
        assert_eq!(unexpired(&both, hours(2)).unwrap(), long.root_pem());
        assert!(matches!(unexpired(&both, hours(4)), Err(Error::Empty)));
        assert!(validities(&both).unwrap()[0].not_after < validities(&both).unwrap()[1].not_after);
    }

    #[test]
    fn a_bundle_without_certificates_is_an_error() {
        assert!(matches!(split("nothing here"), Err(Error::Empty)));
        let broken = format!("{BEGIN}\nAAAA\n{END}\n");
        assert!(matches!(split(&broken), Err(Error::Certificate(_))));
    }
}
