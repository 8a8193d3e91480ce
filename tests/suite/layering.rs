//! The rules of the source tree: one direction of imports, one job per file, files of a readable size.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules of crate `proxy`, top to bottom: a module uses only those after it.
const LAYERS: [&str; 25] = [
    "server",
    "offline",
    "admin",
    "discovery",
    "listener",
    "tcp",
    "http",
    "rbac",
    "worker",
    "call",
    "snapshot",
    "filter_chain",
    "cluster",
    "pool",
    "upstream",
    "jwt",
    "route",
    "tls",
    "dns",
    "overload",
    "telemetry",
    "config",
    "net",
    "drain",
    "main",
];

/// Modules of crate `control-api`, top to bottom.
const CONTROL_LAYERS: [&str; 10] = [
    "ctl",
    "server",
    "serve",
    "analyze",
    "translate",
    "validate",
    "source",
    "model",
    "yaml",
    "main",
];

/// Sources with layers.
const CRATES: [(&str, &[&str]); 2] = [("proxy/src", &LAYERS), ("control-api/src", &CONTROL_LAYERS)];

/// Lines of code in one file, its tests not counted.
const LONGEST_FILE: usize = 400;

#[test]
fn modules_use_only_the_layers_below_them() {
    let mut violations = Vec::new();
    for (sources, layers) in CRATES {
        for file in rust_files(&workspace().join(sources)) {
            let Some(own) = layer_in(sources, layers, &file) else { continue };
            let text = std::fs::read_to_string(&file).unwrap();
            for used in references(&code(&text)) {
                let below = layers.iter().position(|layer| *layer == used);
                if below.is_some_and(|below| below < own) {
                    violations.push(format!("{} uses crate::{used}", shown(&file)));
                }
            }
        }
    }
    assert!(violations.is_empty(), "against the layers of ARCHITECTURE.md:\n{violations:#?}");
}

#[test]
fn every_layer_is_listed_in_its_place() {
    for (sources, layers) in CRATES {
        let text = std::fs::read_to_string(workspace().join(sources).join("lib.rs")).unwrap();
        let modules: Vec<&str> = text
            .lines()
            .filter_map(|line| {
                line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')
            })
            .collect();
        let places: Vec<_> =
            modules.iter().map(|module| layers.iter().position(|layer| layer == module)).collect();
        assert!(places.iter().all(Option::is_some), "a module without a layer: {modules:?}");
        assert!(places.is_sorted(), "lib.rs names its modules from top to bottom: {modules:?}");
    }
}

#[test]
fn every_file_says_its_job_and_stays_readable() {
    let mut violations = Vec::new();
    for file in all_sources() {
        let text = std::fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") || first.contains("placeholder") {
            violations.push(format!("{} does not begin with its job", shown(&file)));
        }
        let lines = code(&text).lines().count();
        if lines > LONGEST_FILE && !is_test(&file) {
            violations.push(format!("{} has {lines} lines of code", shown(&file)));
        }
        if matches!(stem(&file), "mod" | "util" | "utils" | "common" | "helpers" | "misc") {
            violations.push(format!("{}: a name that says nothing", shown(&file)));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn only_discovery_knows_the_wire_format_of_configuration() {
    // What speaks with a service knows that service's messages.
    let services = ["xds::envoy::service::", "xds::envoy::data::", "xds::opentelemetry::"];
    let knows = |text: &str| text.contains("xds::") && !services.iter().any(|it| text.contains(it));
    let allowed = ["discovery", "server", "offline", "admin", "main"];
    let offenders: Vec<_> = rust_files(&workspace().join("proxy/src"))
        .into_iter()
        .filter(|file| !layer_of(file).is_some_and(|layer| allowed.contains(&LAYERS[layer])))
        .filter(|file| knows(&code(&std::fs::read_to_string(file).unwrap())))
        .map(|file| shown(&file))
        .collect();
    assert!(offenders.is_empty(), "protobuf types end at `discovery`: {offenders:?}");
}

#[test]
fn the_scan_sees_every_form_of_reference() {
    let text = "use crate::net::{socket, copy};\nuse crate::{config::Name, http, tls::{self, server}};\n\
        fn f() { crate::route::find(); }\nuse super::x;\n";
    let found: BTreeSet<_> = references(text).into_iter().collect();
    assert_eq!(found, BTreeSet::from(["config", "http", "net", "route", "tls"]));
}

/// First path segments of all `crate::…` in `text`, also those of `crate::{…}`.
fn references(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, mark) in text.match_indices("crate::") {
        let rest = &text[at + mark.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level_items(list).map(first_word)),
            None => found.push(first_word(rest)),
        }
    }
    found
}

/// The items of a brace list up to its end, split at commas outside of inner braces.
fn top_level_items(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let end = list
        .char_indices()
        .find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth < 0
        })
        .map_or(list.len(), |(at, _)| at);
    let mut depth = 0;
    list[..end]
        .split(move |c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .map(str::trim)
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// `text` without its unit tests, empty lines and lines of comment.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().filter(|line| is_code(line)).map(|line| format!("{line}\n")).collect()
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}

/// Index in [`LAYERS`] of the module that `file` belongs to; none for `lib.rs`.
/// The place of a file of the proxy among its layers.
fn layer_of(file: &Path) -> Option<usize> {
    layer_in("proxy/src", &LAYERS, file)
}

fn layer_in(sources: &str, layers: &[&str], file: &Path) -> Option<usize> {
    let inside = file.strip_prefix(workspace().join(sources)).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    layers.iter().position(|layer| *layer == module)
}

fn all_sources() -> Vec<PathBuf> {
    let crates = ["benches", "certs", "control-api", "examples", "proxy", "tests", "xds"];
    crates.iter().flat_map(|name| rust_files(&workspace().join(name))).collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Whether `file` is unit tests and nothing else: `tests.rs`, or in a folder `tests` of the sources.
fn is_test(file: &Path) -> bool {
    let inside = file.strip_prefix(workspace()).unwrap_or(file);
    inside.components().skip(1).any(|part| part.as_os_str() == "tests") || stem(file) == "tests"
}

fn stem(file: &Path) -> &str {
    file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

fn shown(file: &Path) -> String {
    file.strip_prefix(workspace()).unwrap_or(file).display().to_string()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
