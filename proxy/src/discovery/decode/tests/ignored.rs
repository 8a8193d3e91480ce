//! What the declarations mark as ignored is what the decoders pass over, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

/// One-ofs of which every field is ignored; a decoder sees only the one-of.
const ONE_OFS: [(&str, &str); 2] =
    [("engine_type", "google_re2"), ("user_agent_version_type", "user_agent_version")];

#[test]
fn ignored_fields_and_only_those_are_marked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = root.join("../xds/proto/envoy");
    let packages = ["config", "extensions", "type"];
    let declared: BTreeSet<_> =
        packages.iter().flat_map(|package| marked(&protos.join(package))).collect();
    let decoded = passed_over(&root.join("src/discovery/decode"));
    let unmarked: Vec<_> = decoded.difference(&declared).collect();
    assert!(unmarked.is_empty(), "ignored without a reason in the .proto file: {unmarked:?}");
    let read: Vec<_> = declared.difference(&decoded).collect();
    assert!(read.is_empty(), "marked as ignored, but no decoder passes over it: {read:?}");
}

/// The names of fields marked `// ignored: …`. A message that no decoder sees, as its own field is ignored, does
/// not count.
fn marked(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in lines(folder, "proto") {
        if let Some((declaration, reason)) = line.split_once("; // ignored: ") {
            if reason == "so is the field that holds this message" {
                continue;
            }
            let (name, _number) = declaration.split_once(" = ").unwrap();
            names.extend(name.rsplit(' ').next().map(str::to_owned));
        }
    }
    names
}

/// The names of fields that a decoder binds to nothing: `name: _`.
fn passed_over(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in lines(folder, "rs") {
        for part in line.split([',', '{', '}']) {
            let Some(name) = part.trim().strip_suffix(": _") else { continue };
            let one_of = ONE_OFS.iter().find(|(one_of, _)| *one_of == name);
            names.insert(one_of.map_or(name, |(_, field)| field).to_owned());
        }
    }
    assert!(names.len() > 20, "the decoders' spelling has changed");
    names
}

fn lines(folder: &Path, extension: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(lines(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            all.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    all
}
