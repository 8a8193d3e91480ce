//! Trust bundles: several root certificates in one PEM text, so that roots can be replaced without a gap.

use x509_parser::pem::Pem;

use crate::Error;

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
        check(block)?;
    }
    if blocks.is_empty() { Err(Error::Empty) } else { Ok(blocks) }
}

/// One bundle that trusts everything any of `bundles` trusts: the state between two roots.
pub fn merge(bundles: &[&str]) -> Result<String, Error> {
    Ok(split(&bundles.concat())?.concat())
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn check(block: &str) -> Result<(), Error> {
    let unreadable = || Error::Certificate(rcgen::Error::CouldNotParseCertificate);
    let pem = Pem::iter_from_buffer(block.as_bytes()).next();
    let pem = pem.and_then(Result::ok).ok_or_else(unreadable)?;
    pem.parse_x509().map(drop).map_err(|_| unreadable())
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
    fn a_bundle_without_certificates_is_an_error() {
        assert!(matches!(split("nothing here"), Err(Error::Empty)));
        let broken = format!("{BEGIN}\nAAAA\n{END}\n");
        assert!(matches!(split(&broken), Err(Error::Certificate(_))));
    }
}
