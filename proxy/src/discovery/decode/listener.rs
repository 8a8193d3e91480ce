//! Listeners and their listener filters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::core::v3::TrafficDirection as Direction;
use xds::envoy::config::listener::v3::{FilterChain, Listener, ListenerFilter};

use super::address::listening;
use super::errors::{At, Result, each, refuse, required};
use super::filter_chain::filter_chain;
use super::listener_filter::listener_filter;
use super::overlap::overlap;
use super::value::{bounded, enumeration, limit, unless_empty};
use crate::config::Name;
use crate::config::listener::{self, FilterChainMatch, ListenerFilterKind, TrafficDirection};

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
        name, address, stat_prefix, filter_chains, default_filter_chain,
        per_connection_buffer_limit_bytes, metadata: _, drain_type: _, listener_filters,
        listener_filters_timeout, continue_on_listener_filters_timeout, traffic_direction,
        reuse_port: _, enable_reuse_port: _, tcp_backlog_size,
        max_connections_to_accept_per_socket_event: _, bind_to_port, ignore_global_conn_limit: _,
        bypass_overload_manager: _,
    } = proto;
    if *bind_to_port == Some(false) {
        return refuse(
            "bind_to_port",
            "a listener without a socket is not supported by this version",
        );
    }
    let (address, ipv4_compat) = listening(required("address", address)?).at("address")?;
    let chains = chains(filter_chains)?;
    let default = match default_filter_chain {
        Some(proto) => Some(filter_chain(proto, "default").at("default_filter_chain")?),
        None if chains.is_empty() => return refuse("filter_chains", "no filter chains specified"),
        None => None,
    };
    let backlog = bounded("tcp_backlog_size", *tcp_backlog_size, BACKLOG, (1, u32::MAX))?;
    Ok(listener::Listener {
        name: unless_empty(name).map_or_else(|| address.to_string().into(), Name::from),
        address,
        ipv4_compat,
        stat_prefix: unless_empty(stat_prefix)
            .map_or_else(|| address.to_string().replace(':', "_").into(), Name::from),
        listener_filters: filters(listener_filters, &chains)?,
        filter_chains: chains.into_iter().map(Arc::new).collect(),
        default_filter_chain: default.map(Arc::new),
        listener_filters_timeout: limit(
            "listener_filters_timeout",
            listener_filters_timeout.as_ref(),
            Some(LISTENER_FILTERS_TIMEOUT),
        )?,
        continue_on_timeout: *continue_on_listener_filters_timeout,
        buffer_limit: per_connection_buffer_limit_bytes.unwrap_or(BUFFER_LIMIT),
        backlog: i32::try_from(backlog).unwrap_or(i32::MAX),
        direction: match enumeration("traffic_direction", *traffic_direction)? {
            Direction::Unspecified => TrafficDirection::Unspecified,
            Direction::Inbound => TrafficDirection::Inbound,
            Direction::Outbound => TrafficDirection::Outbound,
        },
    })
}

/// The filters as configured. Like Envoy, looks at the TLS hello where a chain depends on it, even unasked.
fn filters(
    protos: &[ListenerFilter],
    chains: &[listener::FilterChain],
) -> Result<Vec<listener::ListenerFilter>> {
    let mut filters = each("listener_filters", protos, listener_filter)?;
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
