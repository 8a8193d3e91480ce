//! `/certs`: the certificates of every TLS context.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::AdminState;
use super::parameters::Parameters;
use super::reply::Reply;

/// The certificates of one TLS context.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateChain {
    /// Trusted authorities.
    pub authorities: Vec<CertificateStatus>,
    /// Own certificates: the leaf of each chain.
    pub own: Vec<CertificateStatus>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Its file, or what stands for it (Envoy: `<inline>`).
    pub path: String,
    /// Lower-case hexadecimal.
    pub serial_number: String,
    /// DNS names, URIs and addresses.
    pub subject_alt_names: Vec<AltName>,
    /// Not valid before.
    pub valid_from: SystemTime,
    /// Not valid after.
    pub expires: SystemTime,
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AltName {
    /// A DNS name.
    Dns(String),
    /// A URI, such as a SPIFFE id.
    Uri(String),
    /// An address.
    Ip(std::net::IpAddr),
}

pub(super) fn answer(state: &AdminState, _: &Parameters) -> Reply {
    let now = SystemTime::now();
    let chains = state.certificates.list();
    let certificates = chains.iter().map(|chain| {
        let list = |certificates: &[CertificateStatus]| {
            certificates.iter().map(|certificate| details(certificate, now)).collect::<Vec<_>>()
        };
        json!({"ca_cert": list(&chain.authorities), "cert_chain": list(&chain.own)})
    });
    Reply::json(&json!({"certificates": certificates.collect::<Vec<_>>()}))
}

/// Days until the first of all certificates expires; none without certificates.
pub(super) fn days_until_first_expires(
    chains: &[CertificateChain],
    now: SystemTime,
) -> Option<u64> {
    let all = chains.iter().flat_map(|chain| chain.authorities.iter().chain(&chain.own));
    all.map(|certificate| days_until(certificate.expires, now)).min()
}

fn details(certificate: &CertificateStatus, now: SystemTime) -> Value {
    let names = certificate.subject_alt_names.iter().map(|name| match name {
        AltName::Dns(name) => json!({"dns": name}),
        AltName::Uri(uri) => json!({"uri": uri}),
        AltName::Ip(address) => json!({"ip_address": address.to_string()}),
    });
    json!({
        "path": certificate.path,
        "serial_number": certificate.serial_number,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "days_until_expiration": days_until(certificate.expires, now).to_string(),
        "valid_from": rfc3339(certificate.valid_from),
        "expiration_time": rfc3339(certificate.expires),
    })
}

/// Whole days; 0 for the past.
fn days_until(expires: SystemTime, now: SystemTime) -> u64 {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    expires.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs()
}

fn rfc3339(moment: SystemTime) -> String {
    // Fails only for years no certificate can name.
    OffsetDateTime::from(moment).format(&Rfc3339).unwrap_or_default()
}
