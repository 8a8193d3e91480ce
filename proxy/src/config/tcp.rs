//! The TCP proxy as configured (Envoy `TcpProxy`).

use std::sync::Arc;

use super::Name;
use super::access_log::AccessLog;

/// Envoy `filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpProxy {
    /// Prefix of its statistics.
    pub stat_prefix: Name,
    /// Where connections go, unless a filter before this one says otherwise.
    pub cluster: Name,
    /// Its access logs.
    pub access_logs: Vec<Arc<AccessLog>>,
}
