//! How names are resolved: name servers, kinds of addresses, times.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;
use xds::envoy::config::cluster::v3::cluster::{DnsLookupFamily, RefreshRate};
use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use xds::envoy::config::core::v3::{
    Address, DnsResolutionConfig, DnsResolverOptions, SocketAddress, TypedExtensionConfig,
};
use xds::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use xds::envoy::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;

use super::address::port_number;
use super::errors::{At, Result, each, refuse, required};
use super::extension::{unpack, unsupported};
use super::value::{bounded, enumeration, non_empty, optional_duration};
use crate::config::dns::{BackOff, DnsFamily, Resolver};

/// Envoy's limit: a duration has to be longer.
const SHORTEST: Duration = Duration::from_millis(1);

/// The fields that name a resolver; the newest that is set counts.
pub(super) struct ResolverFields<'a> {
    pub(super) typed: Option<&'a TypedExtensionConfig>,
    pub(super) resolution: Option<&'a DnsResolutionConfig>,
    /// `dns_resolvers`
    pub(super) servers: &'a [Address],
    /// `use_tcp_for_dns_lookups`
    pub(super) tcp: bool,
}

impl ResolverFields<'_> {
    /// The resolver; none if nothing is set.
    pub(super) fn decode(&self) -> Result<Option<Arc<Resolver>>> {
        let resolver = if let Some(typed) = self.typed {
            typed_resolver(typed).at("typed_dns_resolver_config")?
        } else if let Some(DnsResolutionConfig { resolvers, dns_resolver_options }) =
            self.resolution
        {
            let at = "dns_resolution_config";
            non_empty_list(resolvers).at("resolvers").at(at)?;
            let servers = each("resolvers", resolvers, name_server).at(at)?;
            with_options(Resolver { servers, ..Resolver::default() }, dns_resolver_options.as_ref())
        } else if !self.servers.is_empty() || self.tcp {
            let servers = each("dns_resolvers", self.servers, name_server)?;
            Resolver { servers, tcp: self.tcp, ..Resolver::default() }
        } else {
            return Ok(None);
        };
        Ok(Some(Arc::new(resolver)))
    }
}

fn non_empty_list<T>(items: &[T]) -> Result<()> {
    if items.is_empty() { refuse("", "must have at least 1 item") } else { Ok(()) }
}

fn typed_resolver(proto: &TypedExtensionConfig) -> Result<Resolver> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any: &Any = required("typed_config", typed_config)?;
    if let Some(cares) = unpack(any).at("typed_config")? {
        return cares_resolver(&cares).at("typed_config");
    }
    match unpack(any).at("typed_config")? {
        Some(GetAddrInfoDnsResolverConfig { num_retries: _, num_resolver_threads: _ }) => {
            Ok(Resolver::default())
        }
        None => unsupported(any).at("typed_config"),
    }
}

fn cares_resolver(proto: &CaresDnsResolverConfig) -> Result<Resolver> {
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries: _,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration: _,
        reinit_channel_on_timeout: _,
    } = proto;
    if *query_timeout_seconds == Some(0) {
        return refuse("query_timeout_seconds", "must be at least 1");
    }
    let positive = |field, value: Option<u32>| {
        value.map(|_| bounded(field, value, 1, (1, u32::MAX))).transpose()
    };
    let payload = edns0_max_payload_size.map(|size| match u16::try_from(size) {
        Ok(size @ 512..=4096) => Ok(size),
        _ => refuse("edns0_max_payload_size", "must be 512 to 4096"),
    });
    let resolver = Resolver {
        servers: each("resolvers", resolvers, name_server)?,
        fallback: *use_resolvers_as_fallback,
        only_routable: *filter_unroutable_families,
        timeout: query_timeout_seconds.map(Duration::from_secs),
        tries: positive("query_tries", *query_tries)?,
        rotate: *rotate_nameservers,
        max_payload: payload.transpose()?,
        ..Resolver::default()
    };
    Ok(with_options(resolver, dns_resolver_options.as_ref()))
}

fn with_options(resolver: Resolver, options: Option<&DnsResolverOptions>) -> Resolver {
    let Some(DnsResolverOptions { use_tcp_for_dns_lookups, no_default_search_domain }) = options
    else {
        return resolver;
    };
    Resolver { tcp: *use_tcp_for_dns_lookups, no_search: *no_default_search_domain, ..resolver }
}

/// The address of a name server, which is asked over UDP and TCP whatever the protocol field says.
fn name_server(proto: &Address) -> Result<SocketAddr> {
    let Address { address } = proto;
    let socket = match required("", address)? {
        AddressKind::SocketAddress(socket) => socket,
        AddressKind::Pipe(_) => return refuse("pipe", "a name server has an IP address"),
    };
    let SocketAddress { protocol, address, ipv4_compat: _compat, port_specifier } = socket;
    let decode = || {
        let (Protocol::Tcp | Protocol::Udp) = enumeration("protocol", *protocol)?;
        let PortSpecifier::PortValue(port) = required("port_value", port_specifier)?;
        let port = port_number("port_value", *port)?;
        match non_empty("address", address)?.parse() {
            Ok(ip) => Ok(SocketAddr::new(ip, port)),
            Err(_) => refuse("address", format!("{address:?} is no IP address")),
        }
    };
    decode().at("socket_address")
}

/// `dns_lookup_family`
pub(super) fn family(proto: i32) -> Result<DnsFamily> {
    Ok(match enumeration("dns_lookup_family", proto)? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    })
}

/// The time in `field` between two lookups, if it is there.
pub(super) fn interval(
    field: &str,
    proto: Option<&prost_types::Duration>,
) -> Result<Option<Duration>> {
    match optional_duration(field, proto)? {
        Some(duration) if duration <= SHORTEST => refuse(field, "must be longer than 0.001s"),
        duration => Ok(duration),
    }
}

/// `dns_failure_refresh_rate`
pub(super) fn back_off(proto: &RefreshRate) -> Result<BackOff> {
    let RefreshRate { base_interval, max_interval } = proto;
    let base = interval("base_interval", Some(required("base_interval", base_interval)?))?;
    let base = base.unwrap_or(SHORTEST);
    let max = interval("max_interval", max_interval.as_ref())?;
    let max = max.unwrap_or(base.saturating_mul(10));
    if max < base {
        return refuse("max_interval", "must be greater than or equal to the base_interval");
    }
    Ok(BackOff { base, max })
}
