//! The certificate on disk, if the operator wants it there: for a restart while the CA is gone.
//!
//! Without such a directory the key never leaves the process, and what needs the certificate is not served after a
//! restart until the CA answers. Where that would be worse than a key on a disk, `--output-certs` names a directory, as
//! `OUTPUT_CERTS` does for Istio's agent, in files that only their owner may read. It is used only if it is valid, and
//! for as long as the CA gives no other; asking goes on at once.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use certs::{Key, SpiffeId, bundle, key};

use super::held::{self, Held};

/// The chain, as Istio's agent calls it.
const CHAIN: &str = "cert-chain.pem";
/// Its key.
const KEY: &str = "key.pem";
/// What peers are verified against.
const ROOTS: &str = "root-cert.pem";

/// Writes all three files, each whole or not at all.
///
/// # Errors
/// What to check.
pub(super) fn write(directory: &Path, held: &Held) -> Result<(), String> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    created.map_err(|error| format!("{}: {error}", directory.display()))?;
    let wrong = |error: certs::Error| error.to_string();
    key::write_private(&directory.join(KEY), &held.key).map_err(wrong)?;
    bundle::write(&directory.join(CHAIN), &held.chain).map_err(wrong)?;
    bundle::write(&directory.join(ROOTS), held.roots()).map_err(wrong)
}

/// What was written last; none if nothing ever was.
///
/// # Errors
/// Why it is of no use.
pub(super) fn read(directory: &Path, id: &SpiffeId) -> Result<Option<Held>, String> {
    let read = |name: &str| {
        let path: PathBuf = directory.join(name);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(|error| format!("{}: {error}", path.display())),
        }
    };
    let (Some(key), Some(chain), Some(roots)) = (read(KEY)?, read(CHAIN)?, read(ROOTS)?) else {
        return Ok(None);
    };
    let key = Key::from_pem(&key).map_err(|error| error.to_string())?;
    let held = held::from(&[chain, roots], &key)?;
    let described = bundle::describe(&held.chain, SystemTime::now());
    let described = described.map_err(|error| error.to_string())?;
    let names = described.first().map(|leaf| leaf.names.as_slice()).unwrap_or_default();
    match names.iter().any(|name| name.ends_with(&id.to_string())) {
        true => Ok(Some(held)),
        false => Err(format!("it is not that of {id}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use certs::{Authority, Csr, KeyKind};

    use super::*;

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
    }

    fn signed(root: &Authority, account: &str, lifetime: Duration) -> Held {
        let key = Key::generate(KeyKind::default()).unwrap();
        let csr = Csr::from_pem(&certs::csr::build(&key, &id(account)).unwrap()).unwrap();
        let chain = root.sign(&csr, &id(account), Some(lifetime), SystemTime::now()).unwrap();
        held::from(&[chain, root.root_pem().to_owned()], &key).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_by_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("certs");
        assert!(read(&directory, &id("cart")).unwrap().is_none());
        let root = Authority::self_signed("root").unwrap();
        let held = signed(&root, "cart", Duration::from_secs(60));
        write(&directory, &held).unwrap();
        let again = read(&directory, &id("cart")).unwrap().unwrap();
        assert_eq!((again.chain, again.key), (held.chain, held.key));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&directory), mode(&directory.join(KEY))], [0o700, 0o600]);
    }

    #[test]
    fn what_is_of_no_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = Authority::self_signed("root").unwrap();
        let (one, other) = (
            signed(&root, "cart", Duration::from_secs(60)),
            signed(&root, "cart", Duration::from_secs(60)),
        );
        write(directory.path(), &one).unwrap();
        assert!(read(directory.path(), &id("other")).is_err_and(|it| it.contains("not that of")));
        // The machine stopped between two files.
        key::write_private(&directory.path().join(KEY), &other.key).unwrap();
        assert!(read(directory.path(), &id("cart")).is_err());
        std::fs::write(directory.path().join(KEY), "nonsense").unwrap();
        assert!(read(directory.path(), &id("cart")).is_err());
    }
}
