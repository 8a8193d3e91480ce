//! Listeners and filter chains as configured (Envoy `config.listener.v3.Listener`).

pub mod filter;

use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::access_log::AccessLog;
use super::address::{CidrRange, HostAddress};
use super::dns::Cache;
use super::ext_authz::NetworkAuthz;
use super::http::HttpConnectionManager;
use super::http_filter::{FilterKind, HttpFilter};
use super::jwt::JwtAuthn;
use super::local_rate_limit::ConnectionRate;
use super::metadata::Packed;
use super::rbac::NetworkRbac;
use super::tcp::TcpProxy;
use super::tls::DownstreamTls;
use crate::net::listening;
use crate::net::socket::ListenOptions;

pub use filter::{ListenerFilter, ListenerFilterKind};

/// Envoy `Listener`.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name, unique.
    pub name: Name,
    /// `address`, then `additional_addresses`; never empty.
    pub addresses: Vec<ListenAddress>,
    /// `bind_to_port`: without a socket, it takes the connections that another listener hands on.
    pub bind_to_port: bool,
    /// `use_original_dst`: hands connections on to the listener at the address they were made to.
    pub use_original_dst: bool,
    /// `stat_prefix`, or the address.
    pub stat_prefix: Name,
    /// Chains in configuration order.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Taken when no chain matches.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// `listener_filters`, in the order they run.
    pub listener_filters: Vec<ListenerFilter>,
    /// `listener_filters_timeout`; 15 s by default, none means no limit.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`
    pub continue_on_timeout: bool,
    /// `per_connection_buffer_limit_bytes`; 1 MiB by default.
    pub buffer_limit: u32,
    /// `ignore_global_conn_limit`: its connections do not count among those of all listeners.
    pub ignore_global_conn_limit: bool,
    /// `bypass_overload_manager`: it serves however little memory is left.
    pub bypass_overload_manager: bool,
    /// `connection_balance_config.exact_balance`: connections go to the worker that has the fewest of them.
    pub exact_balance: bool,
    /// Whether inbound traffic of a sidecar, outbound, or neither is said.
    pub direction: TrafficDirection,
    /// `access_log`, of connections.
    pub access_logs: Vec<Arc<AccessLog>>,
    /// `metadata`, if there is any.
    pub metadata: Option<Packed>,
}

impl Listener {
    /// `address`
    pub fn main_address(&self) -> &HostAddress {
        const NOWHERE: HostAddress = HostAddress::Ip(listening::NOWHERE);
        self.addresses.first().map_or(&NOWHERE, |main| &main.address)
    }
}

/// One of a listener's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Where; port 0 asks for any.
    pub address: HostAddress,
    /// How its sockets are opened.
    pub options: ListenOptions,
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

impl TrafficDirection {
    /// Envoy's number of it.
    pub fn number(self) -> u64 {
        match self {
            Self::Unspecified => 0,
            Self::Inbound => 1,
            Self::Outbound => 2,
        }
    }
}

/// Envoy `FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Its name, unique within the listener; made from its position if not given.
    pub name: Name,
    /// Whether the configuration gives its name.
    pub is_named: bool,
    /// When it is taken.
    pub matcher: FilterChainMatch,
    /// TLS termination; none means plain text.
    pub tls: Option<Arc<DownstreamTls>>,
    /// `transport_socket_connect_timeout`; 10 s by default (Envoy: none).
    pub handshake_timeout: Option<Duration>,
    /// Filters that a connection passes before it is served, in their order.
    pub filters: Vec<NetworkFilter>,
    /// The last of `filters`, which serves the connection.
    pub terminal: TerminalFilter,
    /// `metadata`, if there is any.
    pub metadata: Option<Packed>,
}

impl FilterChain {
    /// The caches of names that its filters use.
    pub fn dns_caches(&self) -> impl Iterator<Item = &Arc<Cache>> {
        let http = self.http_filters().iter().filter_map(|filter| match &filter.kind {
            FilterKind::ForwardProxy(cache) => Some(cache),
            _ => None,
        });
        let passed = self.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::SniForwardProxy { cache, .. } => Some(cache),
            NetworkFilter::SniCluster
            | NetworkFilter::ConnectionLimit(_)
            | NetworkFilter::Rbac(_)
            | NetworkFilter::ExtAuthz(_)
            | NetworkFilter::ConnectionRate(_) => None,
        });
        passed.chain(http)
    }

    /// Its `jwt_authn` filters.
    pub fn jwt_authn(&self) -> impl Iterator<Item = &Arc<JwtAuthn>> {
        self.http_filters().iter().filter_map(|filter| match &filter.kind {
            FilterKind::JwtAuthn(config) => Some(config),
            _ => None,
        })
    }

    fn http_filters(&self) -> &[HttpFilter] {
        match &self.terminal {
            TerminalFilter::Http(http) => &http.filters,
            TerminalFilter::Tcp(_) => &[],
        }
    }
}

/// A filter that a connection passes before it is served.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilter {
    /// `sni_cluster`: the server name asked for is the name of the cluster.
    SniCluster,
    /// `connection_limit`
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `rbac`
    Rbac(Arc<NetworkRbac>),
    /// `ext_authz`
    ExtAuthz(Arc<NetworkAuthz>),
    /// `local_ratelimit`
    ConnectionRate(Arc<ConnectionRate>),
    /// `sni_dynamic_forward_proxy`: the connection goes to this port of the server name asked for.
    SniForwardProxy {
        /// `dns_cache_config`
        cache: Arc<Cache>,
        /// `port_value`
        port: u16,
    },
}

/// Envoy `ConnectionLimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// Prefix of its statistics.
    pub stat_prefix: Name,
    /// `max_connections`, over all workers; at least 1.
    pub max_connections: u64,
    /// `delay`: how long a connection beyond the limit is kept before it is closed.
    pub delay: Option<Duration>,
    /// `runtime_enabled`, whose default is used.
    pub enabled: bool,
}

/// The last filter of a chain: it serves the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum TerminalFilter {
    /// `http_connection_manager`
    Http(Arc<HttpConnectionManager>),
    /// `tcp_proxy`
    Tcp(Arc<TcpProxy>),
}

impl FilterChain {
    /// Its connection manager, if it serves HTTP.
    pub fn http(&self) -> Option<&Arc<HttpConnectionManager>> {
        match &self.terminal {
            TerminalFilter::Http(http) => Some(http),
            TerminalFilter::Tcp(_) => None,
        }
    }

    /// The access logs of whatever serves the connection.
    pub fn access_logs(&self) -> &[Arc<AccessLog>] {
        match &self.terminal {
            TerminalFilter::Http(http) => &http.access_logs,
            TerminalFilter::Tcp(tcp) => &tcp.access_logs,
        }
    }

    /// Path of its last filter's configuration, from the chain's root.
    pub fn terminal_path(&self) -> String {
        format!("filters[{}].typed_config", self.filters.len())
    }
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
    /// `transport_protocol`: `raw_buffer`, `tls`, or one that no connection here has
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
