//! Where discovered resources come from (Envoy `core.v3.ConfigSource`): files and management servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::service::GrpcService;

/// Where discovered resources come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConfigSource {
    /// `path_config_source`: a file.
    File(FileSource),
    /// `ads` or `api_config_source`: a management server.
    Server(ServerSource),
}

impl ConfigSource {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&FileSource> {
        match self {
            Self::File(file) => Some(file),
            Self::Server(_) => None,
        }
    }

    /// The management server, if it is one.
    pub fn server(&self) -> Option<&ServerSource> {
        match self {
            Self::File(_) => None,
            Self::Server(source) => Some(source),
        }
    }
}

/// Resources of a management server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerSource {
    /// Who has them.
    pub server: Server,
    /// `initial_fetch_timeout`: how long what needs a resource waits for it; zero: for ever.
    pub fetch_timeout: Duration,
}

/// A management server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    /// `ads`: what the bootstrap's `ads_config` describes; one stream for all kinds of resources.
    Ads,
    /// `api_config_source`: one stream for each kind.
    Grpc(Arc<GrpcSource>),
}

/// How a management server is asked (Envoy `core.v3.ApiConfigSource`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcSource {
    /// `grpc_services`: the next is tried when one fails. Not empty.
    pub services: Vec<GrpcService>,
    /// `api_type: DELTA_GRPC`: whether only changes are sent.
    pub delta: bool,
    /// `set_node_on_first_message_only`
    pub node_on_first_message_only: bool,
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
