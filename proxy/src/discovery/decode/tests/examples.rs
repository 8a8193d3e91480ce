//! Configurations that others wrote, from the folder `../shared/suites` or `SUITES_DIR`; skipped where it is absent.

use std::io::Write;
use std::path::{Path, PathBuf};

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::route::v3::RouteConfiguration;

use super::super::{bootstrap, route_config};
use super::decode;

/// What each of Envoy's example bootstraps is refused for, by the end of the path; all others are accepted.
const REFUSED: [(&str, &[&str]); 1] =
    [("load-reporting-service__envoy.yaml", &["cluster_manager.load_stats_config"])];

/// A file or folder of the suites; none, and a note, where they are absent.
pub(super) fn suite(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SUITES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.exists() {
        assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no {}", path.display());
        // Not eprintln!, which the test runner swallows when a test passes.
        let skipped = format!("SKIPPED: no {}; set SUITES_DIR to where it is", path.display());
        let _ = writeln!(std::io::stderr(), "{skipped}");
        return None;
    }
    Some(path)
}

#[test]
fn envoys_examples_are_accepted_or_refused_for_what_is_not_supported() {
    let Some(folder) = suite("envoy-examples") else { return };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let refused = decode::<Bootstrap, _>(&text, bootstrap).err().unwrap_or_default();
        let expected = REFUSED.iter().find(|(file, _)| *file == name).map_or(&[][..], |it| it.1);
        assert_eq!(refused.is_empty(), expected.is_empty(), "{name}: {refused:?}");
        for error in &refused {
            let (path, _reason) = error.split_once(": ").unwrap();
            assert!(expected.iter().any(|end| path.ends_with(end)), "{name}: {error}");
        }
    }
}

#[test]
fn the_route_tables_of_envoys_own_tests_are_accepted() {
    let Some(file) = suite("envoy_router_check.jsonl") else { return };
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let (id, yaml) = (&case["id"], case["config_yaml"].as_str().unwrap());
        if let Err(errors) = decode::<RouteConfiguration, _>(yaml, route_config) {
            panic!("{id}: {errors:?}");
        }
    }
}
