//! Listeners and their listener filters.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::core::v3::{
    Address, SocketOptionsOverride, TcpKeepalive, TrafficDirection as Direction,
};
use xds::envoy::config::listener::v3::listener::ConnectionBalanceConfig;
use xds::envoy::config::listener::v3::listener::connection_balance_config::{
    BalanceType, ExactBalance,
};
use xds::envoy::config::listener::v3::{AdditionalAddress, FilterChain, Listener, ListenerFilter};

use super::access_log::access_log;
use super::address::{Listening, listening};
use super::errors::{At, Result, each, optional, refuse, required};
use super::filter_chain::filter_chain;
use super::listener_filter::listener_filter;
use super::metadata::packed;
use super::overlap::overlap;
use super::socket_option::{keepalive_options, socket_option};
use super::value::{bounded, enumeration, limit, unless_empty};
use crate::config::Name;
use crate::config::address::HostAddress;
use crate::config::listener::{
    self, FilterChainMatch, ListenAddress, ListenerFilterKind, TrafficDirection,
};
use crate::net::socket::ListenOptions;
use crate::net::socket::option::SocketOption;

/// Envoy's default for what a connection may buffer, in bytes.
pub(super) const BUFFER_LIMIT: u32 = 1 << 20;
/// Envoy's default.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// The kernel cuts this down to its own limit, `net.core.somaxconn`.
const BACKLOG: u32 = i32::MAX as u32;

/// A listener.
pub(super) fn listener(proto: &Listener) -> Result<listener::Listener> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let Listener {
        name, address, additional_addresses, stat_prefix, filter_chains, use_original_dst,
        default_filter_chain, per_connection_buffer_limit_bytes, metadata, drain_type: _,
        listener_filters, listener_filters_timeout, continue_on_listener_filters_timeout,
        transparent, freebind, socket_options, tcp_fast_open_queue_length, traffic_direction,
        connection_balance_config: balance, reuse_port: _, enable_reuse_port: _, tcp_backlog_size,
        max_connections_to_accept_per_socket_event: _, bind_to_port, enable_mptcp,
        ignore_global_conn_limit, bypass_overload_manager, tcp_keepalive, access_log: logs,
    } = proto;
    no_fast_open(*tcp_fast_open_queue_length)?;
    let bind_to_port = *bind_to_port != Some(false);
    let exact_balance =
        exact_balance(balance.as_ref(), bind_to_port).at("connection_balance_config")?;
    let backlog = bounded("tcp_backlog_size", *tcp_backlog_size, BACKLOG, (0, u32::MAX))?;
    let options = ListenOptions {
        backlog: i32::try_from(backlog).unwrap_or(i32::MAX),
        ipv4_compat: false,
        transparent: *transparent == Some(true),
        freebind: *freebind == Some(true),
        mptcp: *enable_mptcp,
        mode: 0,
        others: each("socket_options", socket_options, socket_option)?,
    };
    let addresses =
        listen_addresses(address, additional_addresses, &options, tcp_keepalive.as_ref())?;
    let main = addresses.first().map(|at| at.address.to_string()).unwrap_or_default();
    let chains = chains(filter_chains)?;
    let default = match default_filter_chain {
        Some(proto) => Some(filter_chain(proto, "default").at("default_filter_chain")?),
        None if chains.is_empty() => return refuse("filter_chains", "no filter chains specified"),
        None => None,
    };
    let use_original_dst = *use_original_dst == Some(true);
    Ok(listener::Listener {
        name: unless_empty(name).map_or_else(|| main.as_str().into(), Name::from),
        addresses,
        bind_to_port,
        use_original_dst,
        stat_prefix: unless_empty(stat_prefix)
            .map_or_else(|| main.replace(':', "_").into(), Name::from),
        listener_filters: filters(listener_filters, use_original_dst, &chains)?,
        filter_chains: chains.into_iter().map(Arc::new).collect(),
        default_filter_chain: default.map(Arc::new),
        listener_filters_timeout: limit(
            "listener_filters_timeout",
            listener_filters_timeout.as_ref(),
            Some(LISTENER_FILTERS_TIMEOUT),
        )?,
        continue_on_timeout: *continue_on_listener_filters_timeout,
        buffer_limit: per_connection_buffer_limit_bytes.unwrap_or(BUFFER_LIMIT),
        ignore_global_conn_limit: *ignore_global_conn_limit,
        bypass_overload_manager: *bypass_overload_manager,
        exact_balance,
        direction: direction(*traffic_direction)?,
        access_logs: each("access_log", logs, |log| access_log(log).map(Arc::new))?,
        metadata: packed(metadata),
    })
}

fn direction(proto: i32) -> Result<TrafficDirection> {
    Ok(match enumeration("traffic_direction", proto)? {
        Direction::Unspecified => TrafficDirection::Unspecified,
        Direction::Inbound => TrafficDirection::Inbound,
        Direction::Outbound => TrafficDirection::Outbound,
    })
}

fn no_fast_open(queue_length: Option<u32>) -> Result<()> {
    match queue_length {
        None | Some(0) => Ok(()),
        Some(_) => {
            refuse("tcp_fast_open_queue_length", "TCP Fast Open is not supported by this version")
        }
    }
}

/// Whether connections are balanced: exactly is the only way there is.
fn exact_balance(proto: Option<&ConnectionBalanceConfig>, bind_to_port: bool) -> Result<bool> {
    let Some(ConnectionBalanceConfig { balance_type }) = proto else { return Ok(false) };
    let BalanceType::ExactBalance(ExactBalance {}) = required("exact_balance", balance_type)?;
    if !bind_to_port {
        return refuse("", "a listener that others hand connections to serves them where they are");
    }
    Ok(true)
}

/// An address to listen on.
fn checked(address: &Option<Address>) -> Result<Listening> {
    let at = listening(required("address", address)?).at("address")?;
    let may_be = match at.address.ip().map(|address| address.ip()) {
        Some(IpAddr::V6(ip)) => ip.is_unspecified() || ip.to_ipv4_mapped().is_some(),
        Some(IpAddr::V4(_)) | None => false,
    };
    if at.ipv4_compat && !may_be {
        return refuse(
            "address.socket_address.ipv4_compat",
            "only the address '::' and IPv4 addresses mapped to IPv6 can be compatible",
        );
    }
    Ok(at)
}

/// All addresses of a listener, each opened with `options` and `keepalive` or with some of its own.
fn listen_addresses(
    main: &Option<Address>,
    additional: &[AdditionalAddress],
    options: &ListenOptions,
    keepalive: Option<&TcpKeepalive>,
) -> Result<Vec<ListenAddress>> {
    let at =
        |address: &Option<Address>, others: &[SocketOption], keepalive: Option<&TcpKeepalive>| {
            let Listening { address, ipv4_compat, mode } = checked(address)?;
            let is_path = matches!(address, HostAddress::Pipe(_));
            for (field, asked) in [
                ("transparent", options.transparent),
                ("freebind", options.freebind),
                ("enable_mptcp", options.mptcp),
            ] {
                if is_path && asked {
                    return refuse(field, "means nothing to a Unix socket");
                }
            }
            let others = [others, &keepalive_options(keepalive)?].concat();
            Ok(ListenAddress {
                address,
                options: ListenOptions { ipv4_compat, mode, others, ..options.clone() },
            })
        };
    let main = at(main, &options.others, keepalive)?;
    let others = each("additional_addresses", additional, |proto| {
        let AdditionalAddress { address, socket_options, tcp_keepalive } = proto;
        let own = optional("socket_options", socket_options, |own| {
            let SocketOptionsOverride { socket_options } = own;
            each("socket_options", socket_options, socket_option)
        })?;
        let keepalive = tcp_keepalive.as_ref().or(keepalive);
        at(address, own.as_ref().unwrap_or(&options.others), keepalive)
    })?;
    Ok([vec![main], others].concat())
}

/// The filters as configured. Like Envoy, looks at the TLS hello where a chain depends on it, even unasked.
fn filters(
    protos: &[ListenerFilter],
    use_original_dst: bool,
    chains: &[listener::FilterChain],
) -> Result<Vec<listener::ListenerFilter>> {
    let mut filters = each("listener_filters", protos, listener_filter)?;
    let finds_original = filters.iter().any(|it| it.kind == ListenerFilterKind::OriginalDst);
    if use_original_dst && !finds_original {
        filters.push(ListenerFilterKind::OriginalDst.into());
    }
    let inspects_tls = filters.iter().any(|filter| filter.kind == ListenerFilterKind::TlsInspector);
    if !inspects_tls && chains.iter().any(|chain| needs_inspection(&chain.matcher)) {
        filters.push(ListenerFilterKind::TlsInspector.into());
    }
    Ok(filters)
}

/// Whether a chain can only be told by the TLS hello.
fn needs_inspection(matcher: &FilterChainMatch) -> bool {
    match matcher.transport_protocol.as_deref() {
        Some(protocol) => protocol == "tls",
        None => !matcher.server_names.is_empty() || !matcher.application_protocols.is_empty(),
    }
}

/// The chains; names that are not given, or given twice, are made unique by position.
fn chains(protos: &[FilterChain]) -> Result<Vec<listener::FilterChain>> {
    let mut index = 0;
    let mut chains = each("filter_chains", protos, |proto| {
        let chain = filter_chain(proto, &format!("filter_chain_{index}"));
        index += 1;
        chain
    })?;
    if let Some((later, before)) = overlap(&chains) {
        let (name, other) = (&chains[later].name, &chains[before].name);
        return refuse(
            &format!("filter_chains[{later}].filter_chain_match"),
            format!("filter chain '{name}' has the same matching rules defined as '{other}'"),
        );
    }
    let mut uses = HashMap::<Name, u32>::new();
    for chain in &mut chains {
        let uses = uses.entry(Arc::clone(&chain.name)).or_default();
        *uses += 1;
        if *uses > 1 {
            chain.name = format!("{}#{uses}", chain.name).into();
        }
    }
    Ok(chains)
}
