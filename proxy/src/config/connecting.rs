//! How connections to endpoints are made, below TLS (Envoy `UpstreamConnectionOptions`, `core.v3.BindConfig`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::tlv::PassedTlvs;
use crate::net::proxy_protocol::{Tlv, Version};
use crate::net::socket::option::SocketOption;

/// What a cluster says about its connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connecting {
    /// `upstream_connection_options.tcp_keepalive`
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `upstream_connection_options.happy_eyeballs_config`
    pub happy_eyeballs: HappyEyeballs,
    /// `upstream_bind_config`, of the cluster or of the cluster manager; none leaves our end to the kernel.
    pub bind: Option<Arc<BindConfig>>,
    /// `envoy.transport_sockets.upstream_proxy_protocol`: the header that every connection begins with. Such a
    /// connection serves one client only.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
}

/// Envoy `core.v3.ProxyProtocolConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// `version`
    pub version: Version,
    /// `added_tlvs`, sent in version 2.
    pub added_tlvs: Vec<Tlv>,
    /// `pass_through_tlvs`: which of the client's own are sent, too.
    pub passed_tlvs: PassedTlvs,
}

impl ProxyProtocol {
    /// What is sent to an endpoint if the client's own header had `passed`: of one type, ours alone.
    pub fn tlvs(&self, passed: &[Tlv]) -> Vec<Tlv> {
        let ours = |kind| self.added_tlvs.iter().any(|added| added.kind == kind);
        let passed =
            passed.iter().filter(|it| self.passed_tlvs.contains(it.kind) && !ours(it.kind));
        self.added_tlvs.iter().chain(passed).cloned().collect()
    }
}

/// Envoy `core.v3.TcpKeepalive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes before the connection counts as dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Envoy `UpstreamConnectionOptions.HappyEyeballsConfig`: in which order the addresses of one endpoint are
/// tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// `first_address_family_version`: whether IPv4 goes first; none takes the family of the first address.
    pub ipv4_first: Option<bool>,
    /// `first_address_family_count`: addresses of the first family before each one of the other; 1 by default.
    pub first_family_count: usize,
}

impl Default for HappyEyeballs {
    fn default() -> Self {
        Self { ipv4_first: None, first_family_count: 1 }
    }
}

/// Envoy `core.v3.BindConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindConfig {
    /// `source_address` and `extra_source_addresses`: at most one of each family.
    pub sources: Vec<SocketAddr>,
    /// `freebind`: whether these may be addresses that the machine does not have.
    pub freebind: bool,
    /// `socket_options`, for all connections, whether there is a source address or not.
    pub socket_options: Vec<SocketOption>,
}

impl BindConfig {
    /// Our end of a connection to `target`: the address of its family, else the first one.
    pub fn source(&self, target: SocketAddr) -> Option<SocketAddr> {
        let same_family = |source: &&SocketAddr| source.is_ipv4() == target.is_ipv4();
        self.sources.iter().find(same_family).or(self.sources.first()).copied()
    }
}
