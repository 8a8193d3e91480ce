//! `TLSRoute`, `TCPRoute` and `UDPRoute`: backends of connections.

use serde::Deserialize;

use super::reference::{BackendRef, DefaultScope, ParentReference};

/// Backends of TLS connections by server name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRoute {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    #[serde(default)]
    pub use_default_gateways: DefaultScope,
    #[serde(default)]
    pub hostnames: Vec<String>,
    pub rules: Vec<StreamRouteRule>,
}

/// Backends of connections or datagrams.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpRoute {
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    #[serde(default)]
    pub use_default_gateways: DefaultScope,
    pub rules: Vec<StreamRouteRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteRule {
    pub name: Option<String>,
    pub backend_refs: Vec<BackendRef>,
}
