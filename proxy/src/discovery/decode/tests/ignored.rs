//! What the declarations mark as ignored is what the decoders pass over, message by message, and nothing else.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// One-ofs of which every field is ignored; a decoder sees only the one-of.
const ONE_OFS: [(&str, &str); 4] = [
    ("Bootstrap.stats_eviction", "Bootstrap.stats_eviction_interval"),
    ("PluginConfig.vm", "PluginConfig.vm_config"),
    ("RegexMatcher.engine_type", "RegexMatcher.google_re2"),
    ("Node.user_agent_version_type", "Node.user_agent_version"),
];

/// What a decoder may bind to a name that begins with an underscore: fields that another function reads from the
/// same message, and one that says nothing about an address to connect to.
const READ_ELSEWHERE: [(&str, &[&str]); 6] = [
    ("AuthorizationRequest", &["allowed_headers"]),
    (
        "Cluster",
        &[
            "cleanup_interval",
            "cluster_discovery_type",
            "dns_failure_refresh_rate",
            "dns_jitter",
            "dns_lookup_family",
            "dns_refresh_rate",
            "dns_resolution_config",
            "dns_resolvers",
            "eds_cluster_config",
            "lb_subset_config",
            "load_assignment",
            "respect_dns_ttl",
            "typed_dns_resolver_config",
            "use_tcp_for_dns_lookups",
            "wait_for_warm_on_init",
        ],
    ),
    (
        "CommonLbConfig",
        &[
            "close_connections_on_host_set_change",
            "ignore_new_hosts_until_first_hc",
            "override_host_status",
        ],
    ),
    ("Node", &["metadata"]),
    ("SocketAddress", &["ipv4_compat"]),
    ("Subset", &["subset_lb_policy"]),
];

#[test]
fn ignored_fields_and_only_those_are_marked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = root.join("../xds/proto");
    let packages = ["envoy/config", "envoy/extensions", "envoy/type", "google/api", "istio"];
    let mut declared = BTreeSet::new();
    for package in packages {
        files(&protos.join(package), "proto", &mut |text| marked(text, &mut declared));
    }
    let (mut decoded, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    files(&root.join("src/discovery/decode"), "rs", &mut |text| {
        for (field, binding) in passed_over(text) {
            let set = if binding == "_" { &mut decoded } else { &mut elsewhere };
            let one_of = ONE_OFS.iter().find(|(one_of, _)| *one_of == field);
            set.insert(one_of.map_or(field, |(_, field)| (*field).to_owned()));
        }
    });
    assert!(decoded.len() > 40, "the decoders' spelling has changed");
    let unmarked: Vec<_> = decoded.difference(&declared).collect();
    assert!(unmarked.is_empty(), "ignored without a reason in the .proto file: {unmarked:?}");
    let read: Vec<_> = declared.difference(&decoded).collect();
    assert!(read.is_empty(), "marked as ignored, but no decoder passes over it: {read:?}");
    let known = READ_ELSEWHERE
        .iter()
        .flat_map(|(message, fields)| fields.iter().map(move |field| format!("{message}.{field}")));
    assert_eq!(elsewhere, known.collect(), "bound to a name, and not read");
}

/// The fields marked `// ignored: …`, each as `Message.field`. A message that no decoder sees, as its own field is
/// ignored, does not count.
fn marked(text: &str, names: &mut BTreeSet<String>) {
    let mut open: Vec<Option<&str>> = Vec::new();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            _ if line.starts_with("//") => {}
            (Some("message"), name) if line.ends_with('{') => open.push(name),
            _ if line.ends_with('{') => open.push(None),
            (Some("}"), _) => drop(open.pop()),
            _ => {
                let Some((declaration, reason)) = line.split_once("; // ignored: ") else {
                    continue;
                };
                let (name, _number) = declaration.split_once(" = ").unwrap();
                let (name, message) = (name.rsplit(' ').next(), open.iter().flatten().last());
                if reason != "so is the field that holds this message" {
                    // As prost spells it.
                    let message = message.unwrap().replace("HTTP", "Http");
                    names.insert(format!("{message}.{}", name.unwrap()));
                }
            }
        }
    }
}

/// The fields, each as `Message.field`, that a decoder's pattern binds to nothing (`name: _`) or to a name that
/// nobody reads (`name: _other`), with that binding.
fn passed_over(text: &str) -> Vec<(String, String)> {
    let text: Vec<&str> =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let text = text.join("\n");
    let tokens = tokens(&text);
    let aliases: HashMap<&str, &str> = tokens
        .windows(3)
        .filter(|three| three[1] == "as")
        .map(|three| (three[2], three[0]))
        .collect();
    let (mut open, mut found) = (Vec::new(), Vec::new());
    for (at, token) in tokens.iter().enumerate().skip(2) {
        match *token {
            "{" => open.push(tokens[at - 1]),
            "}" => drop(open.pop()),
            ":" if matches!(tokens[at - 2], "{" | ",") => {
                let binding = tokens.get(at + 1).copied().unwrap_or_default();
                let message = open.last().copied().unwrap_or_default();
                // Not the arm of a closure, nor a field's type.
                if binding.starts_with('_') && message.starts_with(char::is_uppercase) {
                    let message = aliases.get(message).copied().unwrap_or(message);
                    found.push((format!("{message}.{}", tokens[at - 1]), binding.to_owned()));
                }
            }
            _ => {}
        }
    }
    found
}

/// Names, and all other characters one by one.
fn tokens(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '#');
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match rest.find(|c| !is_name(c)).unwrap_or(rest.len()) {
            0 => first.len_utf8(),
            end => end,
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn files(folder: &Path, extension: &str, read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            files(&path, extension, read);
        } else if path.extension().is_some_and(|found| found == extension) {
            read(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn a_decoder_that_passes_over_a_field_is_found_out() {
    let text = "use a::{B as C};\nlet C { x: _, y, z: _later } = proto; // w: _\n\
        let D { e: F { g: _ } } = it;";
    let found: Vec<_> = passed_over(text);
    let expected = [("B.x", "_"), ("B.z", "_later"), ("F.g", "_")];
    assert_eq!(found, expected.map(|(field, binding)| (field.to_owned(), binding.to_owned())));
}
