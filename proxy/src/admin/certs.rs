//! `/certs`: the certificates of every TLS context in use.

use std::time::SystemTime;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::AdminState;
use super::parameters::Parameters;
use super::reply::Reply;
use crate::snapshot::Snapshot;
use crate::tls::certificate::CertificateFile;

pub(super) fn answer(state: &AdminState, _: &Parameters) -> Reply {
    let now = SystemTime::now();
    let contexts = contexts(&state.snapshots.load());
    let certificates: Vec<_> = contexts.iter().map(|context| context.json(now)).collect();
    Reply::json(&json!({"certificates": certificates}))
}

/// Days until the first of all certificates expires; none without certificates.
pub(super) fn days_until_first_expires(snapshot: &Snapshot, now: SystemTime) -> Option<u64> {
    let contexts = contexts(snapshot);
    let all = contexts.iter().flat_map(|context| context.trusted.iter().chain(&context.own));
    all.map(|file| file.certificate.days_until_expiration(now)).min()
}

/// The certificates of one TLS context.
struct Context {
    trusted: Option<CertificateFile>,
    own: Vec<CertificateFile>,
}

/// The contexts of all filter chains, then of all clusters, by the name of their owner.
fn contexts(snapshot: &Snapshot) -> Vec<Context> {
    let mut listeners: Vec<_> = snapshot.listeners.values().collect();
    listeners.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    let chains = listeners.iter().flat_map(|listener| {
        listener.chains.iter().chain(&listener.default_chain).filter_map(|chain| chain.tls.as_ref())
    });
    let server = chains.map(|tls| {
        let (trusted, own) = tls.certificates();
        Context { trusted, own }
    });
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    let client = clusters
        .iter()
        .flat_map(|cluster| cluster.tls.iter().chain(cluster.match_tls.iter().flatten()))
        .map(|tls| {
            let (trusted, own) = tls.certificates();
            Context { trusted, own: own.into_iter().collect() }
        });
    server.chain(client).collect()
}

impl Context {
    fn json(&self, now: SystemTime) -> Value {
        let trusted = self.trusted.iter().map(|file| details(file, now)).collect::<Vec<_>>();
        let own = self.own.iter().map(|file| details(file, now)).collect::<Vec<_>>();
        json!({"ca_cert": trusted, "cert_chain": own})
    }
}

fn details(file: &CertificateFile, now: SystemTime) -> Value {
    let certificate = &file.certificate;
    let dns = certificate.dns_sans().iter().map(|name| json!({"dns": name}));
    let uris = certificate.uri_sans().iter().map(|uri| json!({"uri": uri}));
    let addresses = certificate.ip_sans().iter().map(|ip| json!({"ip_address": ip.to_string()}));
    json!({
        "path": &*file.path,
        "serial_number": certificate.serial(),
        "subject_alt_names": dns.chain(uris).chain(addresses).collect::<Vec<_>>(),
        "days_until_expiration": certificate.days_until_expiration(now).to_string(),
        "valid_from": certificate.not_before().and_then(rfc3339),
        "expiration_time": certificate.not_after().and_then(rfc3339),
    })
}

/// None for years no certificate can name.
fn rfc3339(moment: SystemTime) -> Option<String> {
    OffsetDateTime::from(moment).format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use certs::authority::{Authority, Request, Validity};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls::certificate::Certificate;

    #[test]
    fn a_certificate_is_shown_as_envoy_shows_it() {
        let issued = UNIX_EPOCH + Duration::from_secs(1_795_411_533);
        let lifetime = Duration::from_secs(50 * 24 * 60 * 60);
        let validity = Validity { not_before: issued, not_after: issued + lifetime };
        let request = Request::default()
            .dns("x.test")
            .uri("spiffe://a/b")
            .ip([10, 0, 0, 1])
            .validity(validity);
        let leaf = Authority::self_signed("root").unwrap().issue(&request).unwrap();
        let der = CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).unwrap();
        let certificate = Arc::new(Certificate::new(der));
        let serial = certificate.serial().to_owned();
        let file = CertificateFile { path: "/c.pem".into(), certificate };
        let names = json!([{"dns": "x.test"}, {"uri": "spiffe://a/b"}, {"ip_address": "10.0.0.1"}]);
        assert_eq!(
            details(&file, issued + Duration::from_secs(60)),
            json!({
                "path": "/c.pem",
                "serial_number": serial,
                "subject_alt_names": names,
                "days_until_expiration": "49",
                "valid_from": "2026-11-23T05:25:33Z",
                "expiration_time": "2027-01-12T05:25:33Z",
            })
        );
    }
}
