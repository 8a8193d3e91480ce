//! How connections to endpoints are made, below TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::cluster::v3::UpstreamConnectionOptions;
use xds::envoy::config::cluster::v3::upstream_connection_options::{
    FirstAddressFamilyVersion, HappyEyeballsConfig,
};
use xds::envoy::config::core::v3::{self as core, ExtraSourceAddress};

use super::address::literal;
use super::errors::{At, Result, each, optional, refuse, required};
use super::socket_option::socket_option;
use super::value::{bounded, enumeration};
use crate::config::connecting::{
    BindConfig, Connecting, HappyEyeballs, ProxyProtocol, TcpKeepalive,
};
use crate::net::socket::option::State;

/// What `upstream_connection_options` and `upstream_bind_config` say.
pub(super) fn connecting(
    options: &Option<UpstreamConnectionOptions>,
    bind: &Option<core::BindConfig>,
    proxy_protocol: Option<Arc<ProxyProtocol>>,
) -> Result<Connecting> {
    let bind = optional("upstream_bind_config", bind, bind_config)?.map(Arc::new);
    let absent = UpstreamConnectionOptions::default();
    let UpstreamConnectionOptions {
        tcp_keepalive: keepalive,
        set_local_interface_name_on_upstream_connections: _,
        happy_eyeballs_config,
    } = options.as_ref().unwrap_or(&absent);
    let happy_eyeballs = optional("happy_eyeballs_config", happy_eyeballs_config, happy_eyeballs)
        .at("upstream_connection_options")?
        .unwrap_or_default();
    let tcp_keepalive = keepalive.as_ref().and_then(tcp_keepalive);
    Ok(Connecting { tcp_keepalive, happy_eyeballs, bind, proxy_protocol })
}

/// A value of 0 turns it off, as in Envoy.
fn tcp_keepalive(proto: &core::TcpKeepalive) -> Option<TcpKeepalive> {
    let core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = proto;
    let seconds = |seconds: &Option<u32>| seconds.map(|it| Duration::from_secs(u64::from(it)));
    let is_on = ![keepalive_probes, keepalive_time, keepalive_interval].contains(&&Some(0));
    is_on.then(|| TcpKeepalive {
        probes: *keepalive_probes,
        time: seconds(keepalive_time),
        interval: seconds(keepalive_interval),
    })
}

fn happy_eyeballs(proto: &HappyEyeballsConfig) -> Result<HappyEyeballs> {
    let HappyEyeballsConfig { first_address_family_version, first_address_family_count } = proto;
    let version = enumeration("first_address_family_version", *first_address_family_version)?;
    let range = (1, u32::MAX);
    let count = bounded("first_address_family_count", *first_address_family_count, 1, range)?;
    Ok(HappyEyeballs {
        ipv4_first: match version {
            FirstAddressFamilyVersion::Default => None,
            FirstAddressFamilyVersion::V4 => Some(true),
            FirstAddressFamilyVersion::V6 => Some(false),
        },
        first_family_count: count as usize,
    })
}

/// Our end of connections.
pub(super) fn bind_config(proto: &core::BindConfig) -> Result<BindConfig> {
    let core::BindConfig { source_address, freebind, socket_options, extra_source_addresses } =
        proto;
    let mut sources: Vec<SocketAddr> =
        optional("source_address", source_address, literal)?.into_iter().collect();
    if sources.is_empty() && !extra_source_addresses.is_empty() {
        return refuse("extra_source_addresses", "needs a source_address");
    }
    sources.extend(each("extra_source_addresses", extra_source_addresses, |proto| {
        let ExtraSourceAddress { address } = proto;
        literal(required("address", address)?).at("address")
    })?);
    for (index, source) in sources.iter().enumerate().skip(1) {
        if sources.iter().take(index).any(|other| other.is_ipv4() == source.is_ipv4()) {
            let reason = format!("{source}: only one source address of each family is supported");
            return refuse("extra_source_addresses", reason);
        }
    }
    let socket_options = each("socket_options", socket_options, |proto| {
        let option = socket_option(proto)?;
        match option.state {
            State::Prebind | State::Bound => Ok(option),
            State::Listening => refuse("state", "a connection to an endpoint never listens"),
        }
    })?;
    Ok(BindConfig { sources, freebind: freebind.unwrap_or(false), socket_options })
}
