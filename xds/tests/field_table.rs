//! Keeps `docs/FIELDS.md` in step with the .proto files and the marks behind their fields.
//!
//! `UPDATE_FIELDS=1 cargo test -p xds --test field_table` writes it anew.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

const INTRODUCTION: &str = "\
# What of Envoy's v3 API is supported

A **honoured** field means what it means in Envoy. An *ignored* one is accepted without effect, for the reason given.
Everything else, be it *refused* here or not listed at all, is an error that names the field's path: a configuration is
never accepted and then silently not followed.

An ignored field's value is not looked at.

Of runtime values, a `static_layer` may have `envoy.resource_limits.listener.NAME.connection_limit` and
`overload.global_downstream_max_connections`; `tracing.opentelemetry.min_flush_spans` and `flush_interval_ms`, and the
same of `tracing.zipkin`; `envoy.reloadable_features.http_reject_path_with_fragment`; and, without effect, keys that
begin with `re2.` or `envoy.deprecated_features`, `envoy.reloadable_features.no_extension_lookup_by_name` and
`envoy.reloadable_features.google_grpc_disable_tls_13`. All others are refused.

Types from `google.protobuf` are read in their usual YAML form. This file is made from the `.proto` files of crate
`xds`: `UPDATE_FIELDS=1 cargo test -p xds --test field_table`.
";

/// Packages that no configuration is written in.
const NOT_CONFIGURATION: [&str; 3] =
    ["envoy.admin.v3", "envoy.extensions.common.ratelimit.v3", "google.rpc"];

fn is_configuration(package: &str) -> bool {
    !NOT_CONFIGURATION.contains(&package)
        && !package.starts_with("envoy.service.")
        && !package.starts_with("opentelemetry.")
}

#[test]
fn the_table_of_fields_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../docs/FIELDS.md");
    let table = table(&root.join("proto"));
    if std::env::var_os("UPDATE_FIELDS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == table,
        "docs/FIELDS.md is stale: UPDATE_FIELDS=1 cargo test -p xds --test field_table"
    );
}

fn table(protos: &Path) -> String {
    let mut files = Vec::new();
    proto_files(protos, &mut files);
    let mut packages: Vec<Package> =
        files.iter().map(|file| Package::read(&std::fs::read_to_string(file).unwrap())).collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = INTRODUCTION.to_owned();
    for package in packages.iter().filter(|it| is_configuration(&it.name)) {
        write!(out, "\n## `{}`\n\n{}\n", package.name, package.description).unwrap();
        package.types.iter().for_each(|it| it.print(&mut out));
    }
    out
}

fn proto_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            proto_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
}

/// One .proto file.
#[derive(Default)]
struct Package {
    name: String,
    description: String,
    types: Vec<Type>,
}

/// A message or an enumeration with its fields or values.
struct Type {
    name: String,
    is_enum: bool,
    members: Vec<Member>,
}

/// A field or a value.
struct Member {
    name: String,
    /// `ignored: reason` or `refused: reason`.
    mark: Option<String>,
}

impl Package {
    /// Reads a file that is written as ours are: one declaration a line.
    fn read(text: &str) -> Self {
        let mut package = Self::default();
        // What is open: a message or an enumeration by its place among the types, or a one-of.
        let mut open: Vec<Option<usize>> = Vec::new();
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("//"), _) if package.description.is_empty() => {
                    line[2..].trim().clone_into(&mut package.description);
                }
                (Some("package"), Some(name)) => {
                    name.trim_end_matches(';').clone_into(&mut package.name);
                }
                (Some(kind @ ("message" | "enum")), Some(name)) => {
                    let outer = open.iter().flatten().last().map(|at| &package.types[*at].name);
                    let name = outer.map_or(name.into(), |outer| format!("{outer}.{name}"));
                    let is_enum = kind == "enum";
                    if line.ends_with('{') {
                        open.push(Some(package.types.len()));
                    }
                    package.types.push(Type { name, is_enum, members: Vec::new() });
                }
                (Some("oneof" | "service"), _) => open.push(None),
                (Some("}"), _) => drop(open.pop()),
                _ => {
                    let owner = open.iter().flatten().last();
                    if let (Some(at), Some(member)) = (owner, Member::read(line)) {
                        package.types[*at].members.push(member);
                    }
                }
            }
        }
        package
    }
}

impl Member {
    fn read(line: &str) -> Option<Self> {
        let (declaration, comment) = line.split_once(';')?;
        let name = declaration.split_once(" = ")?.0.rsplit(' ').next()?.to_owned();
        let mark = comment.trim().strip_prefix("// ").map(str::to_owned);
        Some(Self { name, mark })
    }
}

impl Type {
    fn print(&self, out: &mut String) {
        let honoured: Vec<String> = self
            .members
            .iter()
            .filter(|member| member.mark.is_none())
            .map(|member| format!("`{}`", member.name))
            .collect();
        let kind = if self.is_enum { "values of " } else { "" };
        writeln!(out, "\n**{kind}{}**", self.name).unwrap();
        match honoured.as_slice() {
            [] => writeln!(out, "\n- honoured; it has no fields of effect").unwrap(),
            names => writeln!(out, "\n- honoured: {}", names.join(", ")).unwrap(),
        }
        for member in &self.members {
            let Some(mark) = &member.mark else { continue };
            let (class, reason) = mark.split_once(": ").expect("a mark is a class and a reason");
            assert!(matches!(class, "ignored" | "refused"), "{}: unknown mark {mark}", member.name);
            writeln!(out, "- {class}: `{}` ({reason})", member.name).unwrap();
        }
    }
}
