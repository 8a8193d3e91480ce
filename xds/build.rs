//! Compiles every .proto file below `proto/` to Rust code and to an embedded descriptor set, without protoc.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;
use protox::prost_reflect::prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Packages of services that need no code: whoever speaks to them goes by the names of their methods.
const METHODS_ONLY: [&str; 5] = [
    "envoy.service.cluster.v3",
    "envoy.service.endpoint.v3",
    "envoy.service.extension.v3",
    "envoy.service.listener.v3",
    "envoy.service.route.v3",
];

/// Maps of messages that the control plane writes: in order, so that equal messages have equal bytes.
const WRITTEN_MAPS: [&str; 8] = [
    ".envoy.config.core.v3.Metadata.filter_metadata",
    ".envoy.config.rbac.v3.RBAC.policies",
    ".envoy.config.route.v3.Route.typed_per_filter_config",
    ".envoy.config.route.v3.RouteConfiguration.typed_per_filter_config",
    ".envoy.config.route.v3.VirtualHost.typed_per_filter_config",
    ".envoy.config.route.v3.WeightedCluster.ClusterWeight.typed_per_filter_config",
    ".envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication.providers",
    ".stats.MetricConfig.dimensions",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let root = Path::new("proto");
    let mut files = Vec::new();
    proto_files(root, &mut files)?;
    files.sort();
    let mut set = protox::Compiler::new([root])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(files)?
        .file_descriptor_set();

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("ignored.tsv"), ignored(&set))?;
    fs::write(out.join("descriptors.bin"), without_source_info(set.clone()).encode_to_vec())?;

    for file in &mut set.file {
        if METHODS_ONLY.contains(&file.package()) {
            file.service.clear();
        }
    }
    let mut config = prost_build::Config::new();
    config
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .btree_map(WRITTEN_MAPS)
        .include_file("packages.rs");
    tonic_prost_build::configure().compile_fds_with_config(set, config)?;
    Ok(())
}

/// The fields marked `// ignored: reason`: message, field and reason, one a line.
fn ignored(set: &FileDescriptorSet) -> String {
    let mut lines = Vec::new();
    for file in &set.file {
        for location in file.source_code_info.iter().flat_map(|info| &info.location) {
            let reason = location.trailing_comments().trim().strip_prefix("ignored: ");
            if let Some((reason, (message, field))) = reason.zip(field(file, &location.path)) {
                lines.push(format!("{message}\t{field}\t{reason}\n"));
            }
        }
    }
    lines.sort();
    lines.concat()
}

/// The field at `path` of the file (`SourceCodeInfo.Location.path`): its message and its name.
fn field(file: &FileDescriptorProto, path: &[i32]) -> Option<(String, String)> {
    // Numbers of the fields of FileDescriptorProto and DescriptorProto.
    const MESSAGE_TYPE: i32 = 4;
    const NESTED_TYPE: i32 = 3;
    const FIELD: i32 = 2;
    let [MESSAGE_TYPE, index, rest @ ..] = path else { return None };
    let mut message = file.message_type.get(usize::try_from(*index).ok()?)?;
    let mut name = format!("{}.{}", file.package(), message.name());
    let mut rest = rest;
    while let [NESTED_TYPE, index, deeper @ ..] = rest {
        message = message.nested_type.get(usize::try_from(*index).ok()?)?;
        name = format!("{name}.{}", message.name());
        rest = deeper;
    }
    let [FIELD, index] = rest else { return None };
    let field = message.field.get(usize::try_from(*index).ok()?)?;
    Some((name, field.name().to_owned()))
}

fn proto_files(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// Comments and positions serve the generated documentation only: the program need not carry them.
fn without_source_info(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}
