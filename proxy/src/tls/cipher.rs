//! Cipher suites by the names OpenSSL and Envoy give them.

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::{CipherSuite, SupportedCipherSuite};

use crate::config::Invalid;

/// A cipher suite the library has, and what it is called.
struct Known {
    openssl: &'static str,
    iana: &'static str,
    suite: SupportedCipherSuite,
}

/// Every suite, in order of preference. TLS 1.3 comes first and cannot be configured, as in Envoy.
const KNOWN: [Known; 9] = [
    Known {
        openssl: "TLS_AES_256_GCM_SHA384",
        iana: "TLS_AES_256_GCM_SHA384",
        suite: suite::TLS13_AES_256_GCM_SHA384,
    },
    Known {
        openssl: "TLS_AES_128_GCM_SHA256",
        iana: "TLS_AES_128_GCM_SHA256",
        suite: suite::TLS13_AES_128_GCM_SHA256,
    },
    Known {
        openssl: "TLS_CHACHA20_POLY1305_SHA256",
        iana: "TLS_CHACHA20_POLY1305_SHA256",
        suite: suite::TLS13_CHACHA20_POLY1305_SHA256,
    },
    Known {
        openssl: "ECDHE-ECDSA-AES256-GCM-SHA384",
        iana: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    },
    Known {
        openssl: "ECDHE-ECDSA-AES128-GCM-SHA256",
        iana: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    },
    Known {
        openssl: "ECDHE-ECDSA-CHACHA20-POLY1305",
        iana: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        suite: suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    },
    Known {
        openssl: "ECDHE-RSA-AES256-GCM-SHA384",
        iana: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        suite: suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    },
    Known {
        openssl: "ECDHE-RSA-AES128-GCM-SHA256",
        iana: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        suite: suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    },
    Known {
        openssl: "ECDHE-RSA-CHACHA20-POLY1305",
        iana: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        suite: suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    },
];

/// Suites that Envoy has and the library has not: without forward secrecy, or with CBC.
const LACKING: [&str; 9] = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// The suites that `names` ask for, besides those of TLS 1.3. An empty list asks for all.
///
/// Weak suites that Envoy would also offer are left out with a warning, so that a list made for
/// Envoy can be used as it is; a list of nothing else is refused.
pub(super) fn choose(names: &[Box<str>]) -> Result<Vec<SupportedCipherSuite>, Invalid> {
    let is_tls13 = |known: &&Known| known.suite.tls13().is_some();
    let mut chosen: Vec<_> = KNOWN.iter().filter(is_tls13).map(|known| known.suite).collect();
    if names.is_empty() {
        return Ok(KNOWN.iter().map(|known| known.suite).collect());
    }
    let always = chosen.len();
    for (position, entry) in names.iter().enumerate() {
        for name in entry.split(['[', ']', '|', ':']).filter(|name| !name.is_empty()) {
            let fits =
                |known: &&Known| !is_tls13(known) && [known.openssl, known.iana].contains(&name);
            match KNOWN.iter().find(fits) {
                Some(known) if chosen.contains(&known.suite) => {}
                Some(known) => chosen.push(known.suite),
                None if LACKING.contains(&name) => {
                    tracing::warn!(cipher = name, "a weak cipher suite is not offered");
                }
                None => return Err(Invalid::new(format!("[{position}]"), unknown(name))),
            }
        }
    }
    if chosen.len() == always {
        let reason = "only names cipher suites without forward secrecy or with CBC, which are not \
                      offered; add ECDHE-ECDSA-AES128-GCM-SHA256 or ECDHE-RSA-AES128-GCM-SHA256";
        return Err(Invalid::new("", reason));
    }
    Ok(chosen)
}

fn unknown(name: &str) -> String {
    let names = KNOWN.iter().filter(|known| known.suite.tls13().is_none());
    let names: Vec<_> = names.map(|known| known.openssl).collect();
    format!("`{name}` is no cipher suite for TLS 1.2; known are {}", names.join(", "))
}

/// The OpenSSL spelling of a negotiated suite; empty for one that was never offered.
pub(super) fn openssl_name(suite: CipherSuite) -> &'static str {
    KNOWN.iter().find(|known| known.suite.suite() == suite).map_or("", |known| known.openssl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Result<Vec<&'static str>, Invalid> {
        let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
        let suites = choose(&names)?;
        Ok(suites.iter().map(|suite| openssl_name(suite.suite())).collect())
    }

    #[test]
    fn no_list_offers_everything() {
        assert_eq!(names(&[]).unwrap().len(), KNOWN.len());
    }

    #[test]
    fn a_list_limits_tls_1_2_and_keeps_its_order() {
        let list = ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"];
        assert_eq!(
            names(&list).unwrap()[3..],
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]
        );
        let group = ["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "AES256-SHA"];
        assert_eq!(
            names(&group).unwrap()[3..],
            ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"]
        );
    }

    #[test]
    fn names_that_cannot_be_honoured_are_refused() {
        let error = names(&["ECDHE-RSA-AES128-GCM-SHA256", "RC4-MD5"]).unwrap_err();
        assert_eq!(error.path, "[1]");
        assert!(error.reason.contains("RC4-MD5"), "{error}");
        assert!(names(&["AES128-SHA", "AES128-GCM-SHA256"]).is_err());
        assert!(names(&["TLS_AES_128_GCM_SHA256"]).is_err());
    }
}
