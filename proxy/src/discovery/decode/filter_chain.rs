//! Filter chains: when one is taken, its TLS, its filter.

use std::sync::Arc;

use prost_types::Any;
use xds::envoy::config::core::v3::TransportSocket;
use xds::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use xds::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use xds::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};
use xds::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use xds::envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;

use super::address::{cidr_range, port_number};
use super::errors::{At, Result, both, each, optional, refuse, required};
use super::ext_authz;
use super::extension::{self, unpack, unsupported};
use super::forward_proxy;
use super::http::connection_manager;
use super::istio;
use super::local_rate_limit;
use super::metadata::packed;
use super::rbac;
use super::tcp::tcp_proxy;
use super::tls;
use super::value::{self, enumeration, feature, limit, non_empty, optional_duration, unless_empty};
use crate::config::Name;
use crate::config::listener::{self, NetworkFilter, SourceType, TerminalFilter};
use crate::config::tls::DownstreamTls;

/// How long a client may take for its handshake; Envoy has no limit.
const HANDSHAKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A chain; `unnamed` is its name if it has none.
pub(super) fn filter_chain(proto: &FilterChain, unnamed: &str) -> Result<listener::FilterChain> {
    let FilterChain {
        filter_chain_match: matcher,
        filters,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = proto;
    let ((filters, terminal), tls) =
        both(network_filters(filters), optional("transport_socket", transport_socket, transport))?;
    Ok(listener::FilterChain {
        name: Name::from(if name.is_empty() { unnamed } else { name }),
        is_named: !name.is_empty(),
        matcher: optional("filter_chain_match", matcher, chain_match)?.unwrap_or_default(),
        tls: tls.flatten(),
        handshake_timeout: limit(
            "transport_socket_connect_timeout",
            transport_socket_connect_timeout.as_ref(),
            Some(HANDSHAKE_TIMEOUT),
        )?,
        filters,
        terminal,
        metadata: packed(metadata),
    })
}

/// One filter of a chain, by its place.
enum Decoded {
    Passed(NetworkFilter),
    /// One that changes nothing.
    Skipped,
    Terminal(TerminalFilter),
}

fn network_filters(protos: &[Filter]) -> Result<(Vec<NetworkFilter>, TerminalFilter)> {
    let mut passed = Vec::new();
    let decoded = each("filters", protos, network_filter)?;
    let last = protos.len().saturating_sub(1);
    for (index, filter) in decoded.into_iter().enumerate() {
        match filter {
            Decoded::Passed(filter) if index < last => passed.push(filter),
            Decoded::Skipped if index < last => {}
            Decoded::Terminal(filter) if index == last => return Ok((passed, filter)),
            Decoded::Passed(_) | Decoded::Skipped => {
                let reason = "the last filter of a chain must be a terminal filter, \
                    such as the HTTP connection manager or the TCP proxy";
                return refuse(&format!("filters[{index}]"), reason);
            }
            Decoded::Terminal(_) => {
                let reason = "a terminal filter must be the last filter of the chain";
                return refuse(&format!("filters[{index}]"), reason);
            }
        }
    }
    refuse(
        "filters",
        "a chain needs a filter, such as the HTTP connection manager or the TCP proxy",
    )
}

fn network_filter(proto: &Filter) -> Result<Decoded> {
    let Filter { name, config_type } = proto;
    non_empty("name", name)?;
    let FilterConfig::TypedConfig(any) = required("typed_config", config_type)?;
    extension::carried(any).and_then(|any| filter_config(&any)).at("typed_config")
}

fn filter_config(any: &Any) -> Result<Decoded> {
    if let Some(proto) = unpack::<HttpConnectionManager>(any)? {
        let manager = Arc::new(connection_manager(&proto)?);
        return Ok(Decoded::Terminal(TerminalFilter::Http(manager)));
    }
    if let Some(proto) = unpack::<TcpProxy>(any)? {
        return Ok(Decoded::Terminal(TerminalFilter::Tcp(Arc::new(tcp_proxy(&proto)?))));
    }
    if istio::is_stats(any)? || istio::is_metadata_exchange(any)? || istio::is_mongo_proxy(any)? {
        return Ok(Decoded::Skipped);
    }
    if let Some(SniCluster {}) = unpack(any)? {
        return Ok(Decoded::Passed(NetworkFilter::SniCluster));
    }
    if let Some(proto) = unpack(any)? {
        let (cache, port) = forward_proxy::sni_filter(&proto)?;
        return Ok(Decoded::Passed(NetworkFilter::SniForwardProxy { cache, port }));
    }
    if let Some(proto) = unpack(any)? {
        let filter = Arc::new(rbac::network_filter(&proto)?);
        return Ok(Decoded::Passed(NetworkFilter::Rbac(filter)));
    }
    if let Some(proto) = unpack(any)? {
        let filter = Arc::new(ext_authz::network(&proto)?);
        return Ok(Decoded::Passed(NetworkFilter::ExtAuthz(filter)));
    }
    if let Some(proto) = unpack(any)? {
        let rate = Arc::new(local_rate_limit::network_filter(&proto)?);
        return Ok(Decoded::Passed(NetworkFilter::ConnectionRate(rate)));
    }
    match unpack::<ConnectionLimit>(any)? {
        Some(proto) => {
            let limit = Arc::new(connection_limit(&proto)?);
            Ok(Decoded::Passed(NetworkFilter::ConnectionLimit(limit)))
        }
        None => unsupported(any),
    }
}

fn connection_limit(proto: &ConnectionLimit) -> Result<listener::ConnectionLimit> {
    let ConnectionLimit { stat_prefix, max_connections, delay, runtime_enabled } = proto;
    let enabled = optional("runtime_enabled", runtime_enabled, feature)?;
    let max_connections = *required("max_connections", max_connections)?;
    if max_connections == 0 {
        return refuse("max_connections", "must be at least 1");
    }
    Ok(listener::ConnectionLimit {
        stat_prefix: value::name("stat_prefix", stat_prefix)?,
        max_connections,
        delay: optional_duration("delay", delay.as_ref())?,
        enabled: enabled.unwrap_or(true),
    })
}

fn transport(proto: &TransportSocket) -> Result<Option<Arc<DownstreamTls>>> {
    let TransportSocket { name, config_type } = proto;
    non_empty("name", name)?;
    let SocketConfig::TypedConfig(any) = required("typed_config", config_type)?;
    if let Some(RawBuffer {}) = unpack(any).at("typed_config")? {
        return Ok(None);
    }
    match unpack::<DownstreamTlsContext>(any).at("typed_config")? {
        Some(proto) => Ok(Some(Arc::new(tls::downstream(&proto).at("typed_config")?))),
        None => unsupported(any).at("typed_config"),
    }
}

fn chain_match(proto: &FilterChainMatch) -> Result<listener::FilterChainMatch> {
    let FilterChainMatch {
        destination_port,
        prefix_ranges,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = proto;
    Ok(listener::FilterChainMatch {
        destination_port: destination_port
            .map(|port| some_port("destination_port", port))
            .transpose()?,
        destination: each("prefix_ranges", prefix_ranges, cidr_range)?,
        server_names: each("server_names", server_names, |name| server_name(name))?,
        transport_protocol: unless_empty(transport_protocol),
        application_protocols: application_protocols.iter().map(|it| it.as_str().into()).collect(),
        direct_source: each(
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            cidr_range,
        )?,
        source_type: match enumeration("source_type", *source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source: each("source_prefix_ranges", source_prefix_ranges, cidr_range)?,
        source_ports: each("source_ports", source_ports, |port| some_port("", *port))?,
    })
}

fn some_port(field: &str, port: u32) -> Result<u16> {
    match port_number(field, port)? {
        0 => refuse(field, "must be 1 to 65535"),
        port => Ok(port),
    }
}

fn server_name(name: &str) -> Result<Box<str>> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if rest.is_empty() {
        return refuse("", "must not be empty");
    }
    if rest.contains('*') {
        return refuse("", "partial wildcards are not supported in \"server_names\"");
    }
    Ok(name.to_ascii_lowercase().into())
}
