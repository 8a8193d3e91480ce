//! Listeners and filter chains as configured (Envoy `config.listener.v3.Listener`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::address::CidrRange;
use super::http::HttpConnectionManager;
use super::tls::DownstreamTls;

/// Envoy `Listener`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name, unique.
    pub name: Name,
    /// Where it listens.
    pub address: SocketAddr,
    /// `ipv4_compat`: an IPv6 wildcard also takes IPv4.
    pub ipv4_compat: bool,
    /// `stat_prefix`, or the address.
    pub stat_prefix: Name,
    /// Chains in configuration order.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Taken when no chain matches.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Whether `tls_inspector` is among the listener filters.
    pub tls_inspector: bool,
    /// `listener_filters_timeout`; 15 s by default, none means no limit.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`
    pub continue_on_timeout: bool,
    /// `per_connection_buffer_limit_bytes`; 1 MiB by default.
    pub buffer_limit: u32,
    /// `tcp_backlog_size`; 128 or the system's limit.
    pub backlog: i32,
    /// Whether inbound traffic of a sidecar, outbound, or neither is said.
    pub direction: TrafficDirection,
}

/// Envoy `core.v3.TrafficDirection`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficDirection {
    /// UNSPECIFIED
    #[default]
    Unspecified,
    /// INBOUND
    Inbound,
    /// OUTBOUND
    Outbound,
}

/// Envoy `FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Its name, unique within the listener; made from its position if not given.
    pub name: Name,
    /// When it is taken.
    pub matcher: FilterChainMatch,
    /// TLS termination; none means plain text.
    pub tls: Option<Arc<DownstreamTls>>,
    /// `transport_socket_connect_timeout`; 10 s by default (Envoy: none).
    pub handshake_timeout: Option<Duration>,
    /// What serves the connection.
    pub filter: NetworkFilter,
}

/// The terminal filter of a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    /// `http_connection_manager`
    Http(Arc<HttpConnectionManager>),
}

/// Envoy `FilterChainMatch`: an empty list or none matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    /// `destination_port`
    pub destination_port: Option<u16>,
    /// `prefix_ranges`
    pub destination: Vec<CidrRange>,
    /// `server_names`: exact or `*.suffix`, lower case
    pub server_names: Vec<Box<str>>,
    /// `transport_protocol`: `raw_buffer` or `tls`
    pub transport_protocol: Option<Box<str>>,
    /// `application_protocols`
    pub application_protocols: Vec<Box<str>>,
    /// `direct_source_prefix_ranges`
    pub direct_source: Vec<CidrRange>,
    /// `source_type`
    pub source_type: SourceType,
    /// `source_prefix_ranges`
    pub source: Vec<CidrRange>,
    /// `source_ports`
    pub source_ports: Vec<u16>,
}

/// Envoy `FilterChainMatch.ConnectionSourceType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// ANY
    #[default]
    Any,
    /// SAME_IP_OR_LOOPBACK
    SameIpOrLoopback,
    /// EXTERNAL
    External,
}
