//! Where discovered resources come from (Envoy `core.v3.ConfigSource`).

use std::path::PathBuf;

use super::Name;

/// A watched file of resources (Envoy `core.v3.PathConfigSource`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSource {
    /// The file: a DiscoveryResponse as YAML, JSON or protobuf.
    pub path: PathBuf,
    /// `watched_directory`: moves in this directory also trigger a reload.
    pub watched_directory: Option<PathBuf>,
}

/// Where a discovered resource comes from: its name and its file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceSource {
    /// The resource's name.
    pub name: Name,
    /// The file that holds it.
    pub file: FileSource,
}
