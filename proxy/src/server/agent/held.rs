//! A certificate that was obtained, checked before it is used.

use std::time::SystemTime;

use certs::{Key, Validity, bundle};

use crate::config::tls::{DataSource, TlsCertificate};
use crate::discovery::Identity;

/// The workload's certificate, with the key that only this process has.
pub(super) struct Held {
    /// From when it came until when it can be used.
    pub(super) validity: Validity,
    /// When the first of those above it ends, and when the first root does.
    pub(super) ends: [Option<SystemTime>; 2],
    /// Decides when exactly it is renewed.
    pub(super) chance: f64,
    /// The certificate and the ones above it, without roots.
    pub(super) chain: String,
    pub(super) key: String,
    roots: String,
}

impl Held {
    /// PEM bundle of what is trusted.
    pub(super) fn roots(&self) -> &str {
        &self.roots
    }

    /// It as the configuration takes it.
    pub(super) fn identity(&self) -> Identity {
        let inline = |pem: &String| DataSource::Inline(pem.clone().into_bytes());
        let certificate = TlsCertificate { chain: inline(&self.chain), key: inline(&self.key) };
        Identity { certificate, roots: self.roots.clone().into_bytes() }
    }
}

/// What a CA answered to a request for `key`.
///
/// # Errors
/// If that is of no use.
pub(super) fn from(answer: &[String], key: &Key) -> Result<Held, String> {
    let wrong = |error: certs::Error| format!("the CA's answer is of no use: {error}");
    let all = bundle::split(&answer.concat()).map_err(wrong)?;
    let (mut roots, mut chain) = (Vec::new(), Vec::new());
    for pem in all {
        if bundle::is_self_signed(&pem).map_err(wrong)? {
            roots.push(pem);
        } else {
            chain.push(pem);
        }
    }
    if roots.is_empty() && chain.len() > 1 {
        // The last one is what Istio's agent takes as root, self-signed or not.
        roots.extend(chain.pop());
    }
    let (Some(leaf), false) = (chain.first(), roots.is_empty()) else {
        return Err("the CA's answer holds no certificate with a root: check the CA".to_owned());
    };
    if !bundle::is_for(leaf, key).map_err(wrong)? {
        return Err("the CA certified another key than was asked for".to_owned());
    }
    let end = |pem: &[String]| -> Result<Option<SystemTime>, String> {
        if pem.is_empty() {
            return Ok(None);
        }
        let validities = bundle::validities(&pem.concat()).map_err(wrong)?;
        Ok(validities.iter().map(|it| it.not_after).min())
    };
    let now = SystemTime::now();
    let leaf = bundle::validities(leaf).map_err(wrong)?;
    let leaf = *leaf.first().ok_or("the CA's answer is empty")?;
    if !leaf.contains(now) {
        return Err("the CA's certificate is not valid now: check both clocks".to_owned());
    }
    // Its life begins now: what it is dated back by is not there to be used.
    let validity = Validity { not_before: now.max(leaf.not_before), ..leaf };
    let above = chain.get(1..).unwrap_or_default();
    Ok(Held {
        validity,
        ends: [end(above)?, end(&roots)?],
        chance: fastrand::f64(),
        chain: chain.concat(),
        key: key.to_pem(),
        roots: roots.concat(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use certs::{Authority, Csr, KeyKind, SpiffeId};

    use super::*;

    fn key() -> Key {
        Key::generate(KeyKind::default()).unwrap()
    }

    fn signed(by: &Authority, key: &Key) -> Vec<String> {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let csr = Csr::from_pem(&certs::csr::build(key, &id).unwrap()).unwrap();
        let chain = by.sign(&csr, &id, Some(Duration::from_secs(60)), SystemTime::now()).unwrap();
        bundle::split(&chain).unwrap()
    }

    #[test]
    fn an_answer_is_taken_apart_into_chain_and_roots() {
        let (root, other) =
            (Authority::self_signed("root").unwrap(), Authority::self_signed("old").unwrap());
        let middle = root.intermediate("middle").unwrap();
        let key = key();
        let mut answer = signed(&middle, &key);
        let chain = answer.concat();
        answer.extend([other.root_pem().to_owned(), root.root_pem().to_owned()]);
        let held = from(&answer, &key).unwrap();
        assert_eq!(held.chain, chain);
        assert_eq!(held.roots, other.root_pem().to_owned() + root.root_pem());
        assert!(held.validity.length() <= Duration::from_secs(60));
        assert!(held.ends[0] < held.ends[1]);
    }

    #[test]
    fn an_answer_of_no_use_is_refused() {
        let root = Authority::self_signed("root").unwrap();
        let key = key();
        let leaf = signed(&root, &key);
        let refused = |answer: Vec<String>| from(&answer, &key).err().unwrap();
        assert!(refused(leaf).contains("no certificate with a root"));
        assert!(refused(vec!["nonsense".into()]).contains("of no use"));
        assert!(refused(vec![root.root_pem().into()]).contains("no certificate with a root"));
        let foreign = signed(&root, &super::tests::key());
        assert!(refused([foreign, vec![root.root_pem().into()]].concat()).contains("another key"));
    }
}
