//! Recordings and goldens of others, which are not part of this repository.
//!
//! They are looked for in `SUITES_DIR`, else beside the workspace.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The file or folder `name` of them; none, said loudly, where it is absent, and a failure with `REQUIRE_SUITES`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let suites = std::env::var_os("SUITES_DIR").map_or_else(beside, PathBuf::from);
    let path = suites.join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no {}", path.display());
    // Not eprintln!, which the test runner swallows when a test passes.
    let skipped = format!("SKIPPED: no {}; set SUITES_DIR to where it is", path.display());
    let _ = writeln!(std::io::stderr(), "{skipped}");
    None
}
