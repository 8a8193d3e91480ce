//! Certificates of secrets, with istioctl's columns: until when they are good.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::bundle;
use serde_json::Value;

/// The columns.
pub(super) const HEAD: [&str; 6] =
    ["RESOURCE NAME", "TYPE", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];

/// The kinds of secrets with what istioctl calls them, and where their certificates are.
const KINDS: [(&str, &str, &str); 4] = [
    ("tls_certificate", "Cert Chain", "/tls_certificate/certificate_chain"),
    ("validation_context", "CA", "/validation_context/trusted_ca"),
    ("generic_secret", "Generic", ""),
    ("session_ticket_keys", "Session Tickets", ""),
];

/// A line for the certificate itself, or for each of several roots; `-` where nothing can be read.
pub(super) fn lines(secret: &Value, now: SystemTime) -> Vec<[String; 6]> {
    let name = secret["name"].as_str().unwrap_or_default();
    let kind = KINDS.iter().find(|(key, ..)| secret.get(key).is_some());
    let (key, kind, place) = kind.copied().unwrap_or(("", "-", ""));
    let pem = secret.pointer(place).and_then(pem).unwrap_or_default();
    let mut described = bundle::describe(&pem, now).unwrap_or_default();
    if key == "tls_certificate" {
        // What is above it is told by the roots' own line, or not looked at.
        described.truncate(1);
    }
    let validities = bundle::validities(&pem).unwrap_or_default();
    let lines: Vec<_> = described
        .into_iter()
        .zip(validities)
        .map(|(it, validity)| {
            let valid = validity.contains(now);
            let serial = it.serial.replace(':', "");
            let serial = serial.trim_start_matches('0').to_owned();
            [name.into(), kind.into(), valid.to_string(), serial, it.not_after, it.not_before]
        })
        .collect();
    if lines.is_empty() {
        return vec![[name, kind, "-", "-", "-", "-"].map(ToOwned::to_owned)];
    }
    lines
}

fn pem(source: &Value) -> Option<String> {
    if let Some(text) = source["inline_string"].as_str() {
        return Some(text.to_owned());
    }
    String::from_utf8(STANDARD.decode(source["inline_bytes"].as_str()?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use certs::{Authority, Request};
    use serde_json::json;

    use super::*;

    #[test]
    fn every_certificate_says_until_when_it_is_good() {
        let (old, new) =
            (Authority::self_signed("old").unwrap(), Authority::self_signed("new").unwrap());
        let leaf = new.issue(&Request::default().uri("spiffe://td/ns/a/sa/b")).unwrap();
        let inline = |pem: &str| json!({"inline_bytes": STANDARD.encode(pem)});
        let certificate = json!({"name": "default",
            "tls_certificate": {"certificate_chain": inline(&leaf.chain_pem)}});
        let roots = json!({"name": "ROOTCA",
            "validation_context": {"trusted_ca": inline(&(old.root_pem().to_owned() + new.root_pem()))}});
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let [line] = &lines(&certificate, now)[..] else { panic!() };
        assert_eq!(line[..3], ["default", "Cert Chain", "true"]);
        assert!(line[3].len() > 20 && !line[3].contains(':'), "{line:?}");
        assert!(line[4] > line[5] && line[4].ends_with('Z'), "{line:?}");
        for wrong in [now + 2 * day, now - day] {
            assert_eq!(lines(&certificate, wrong)[0][2], "false");
        }
        let both = lines(&roots, now);
        assert_eq!(both.len(), 2);
        assert!(both.iter().all(|it| it[..3] == ["ROOTCA", "CA", "true"]));
        let hidden = json!({"name": "x", "tls_certificate": {"private_key": {}}});
        assert_eq!(lines(&hidden, now), [["x", "Cert Chain", "-", "-", "-", "-"]]);
    }
}
