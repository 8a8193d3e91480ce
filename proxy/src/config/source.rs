//! Where discovered resources come from (Envoy `core.v3.ConfigSource`): files and management servers.

use std::path::PathBuf;

use super::Name;
use super::service::GrpcService;

/// Where discovered resources come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigSource {
    /// `path_config_source`: a file.
    File(FileSource),
    /// `ads`: the stream that the bootstrap's `ads_config` describes.
    Ads,
    /// `api_config_source`: a stream of its own.
    Grpc(Box<GrpcSource>),
}

impl ConfigSource {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&FileSource> {
        match self {
            Self::File(file) => Some(file),
            Self::Ads | Self::Grpc(_) => None,
        }
    }
}

/// A management server (Envoy `core.v3.ApiConfigSource`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcSource {
    /// `grpc_services`, the first of which is used.
    pub service: GrpcService,
    /// `api_type: DELTA_GRPC`: whether only changes are sent.
    pub delta: bool,
}

/// A watched file of resources (Envoy `core.v3.PathConfigSource`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileSource {
    /// The file: a DiscoveryResponse as YAML, JSON or protobuf.
    pub path: PathBuf,
    /// `watched_directory`: moves in this directory also trigger a reload.
    pub watched_directory: Option<PathBuf>,
}

/// Where a discovered resource comes from, and what it is called there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceSource {
    /// The resource's name.
    pub name: Name,
    /// What holds it.
    pub source: ConfigSource,
}
