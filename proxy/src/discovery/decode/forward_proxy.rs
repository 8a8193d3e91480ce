//! Forward proxying to hosts that requests name: the cluster, the HTTP filter, and what routes say to it.

use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::LbPolicy;
use xds::envoy::config::core::v3::SocketAddress;
use xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use xds::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
use xds::envoy::extensions::common::dynamic_forward_proxy::v3::{
    DnsCacheCircuitBreakers, DnsCacheConfig,
};
use xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3::filter_config::ImplementationSpecifier;
use xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3::per_route_config::HostRewriteSpecifier;
use xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, PerRouteConfig,
};

use xds::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::FilterConfig as SniFilterConfig;
use xds::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3::filter_config::PortSpecifier;

use super::address::{port_number, socket_address};
use super::dns::{self, ResolverFields};
use super::errors::{At, Result, each, optional, refuse, required};
use super::original_dst::no_other_policy;
use super::value::{
    bounded, enumeration, header_name, name, optional_duration, positive_duration, unless_zero,
};
use crate::config::Name;
use crate::config::cluster::UpstreamHttp;
use crate::config::dns::{Cache, Refresh};
use crate::config::http_filter::ForwardRewrite;

/// Envoy's defaults.
const REFRESH: Duration = Duration::from_secs(60);
const MIN_REFRESH: Duration = Duration::from_secs(5);
const HOST_TTL: Duration = Duration::from_secs(300);
const MAX_HOSTS: u32 = 1024;
const MAX_PENDING: u32 = 1024;
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Refuses `cluster` if it wants to choose among hosts that requests have named.
pub(super) fn needs_own_policy(cluster: &Cluster) -> Result<()> {
    if enumeration::<LbPolicy>("lb_policy", cluster.lb_policy)? == LbPolicy::ClusterProvided {
        return no_other_policy(cluster);
    }
    refuse("lb_policy", "only CLUSTER_PROVIDED is allowed for a dynamic_forward_proxy cluster")
}

/// What `cluster` says of names. Unless it says anything about HTTP, TLS follows the name that a request is for.
pub(super) fn cluster(
    proto: &ClusterConfig,
    cluster: &Cluster,
    http: &mut UpstreamHttp,
) -> Result<Arc<Cache>> {
    let ClusterConfig {
        cluster_implementation_specifier,
        allow_insecure_cluster_options,
        allow_coalesced_connections: _,
    } = proto;
    let ClusterImplementationSpecifier::DnsCacheConfig(proto) =
        required("dns_cache_config", cluster_implementation_specifier)?;
    if cluster.upstream_http_protocol_options.is_none()
        && cluster.typed_extension_protocol_options.is_empty()
    {
        (http.auto_sni, http.auto_san_validation) = (true, true);
    }
    let is_secure = http.auto_sni && http.auto_san_validation;
    if !is_secure && !allow_insecure_cluster_options {
        return refuse(
            "",
            "dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless \
             allow_insecure_cluster_options is set",
        );
    }
    cache(proto).at("dns_cache_config")
}

/// The HTTP filter: its cache.
pub(super) fn filter(proto: &FilterConfig) -> Result<Arc<Cache>> {
    let FilterConfig { implementation_specifier } = proto;
    let ImplementationSpecifier::DnsCacheConfig(proto) =
        required("dns_cache_config", implementation_specifier)?;
    cache(proto).at("dns_cache_config")
}

/// The network filter: its cache, and the port of every server.
pub(super) fn sni_filter(proto: &SniFilterConfig) -> Result<(Arc<Cache>, u16)> {
    let SniFilterConfig { dns_cache_config, port_specifier } = proto;
    let cache = cache(required("dns_cache_config", dns_cache_config)?).at("dns_cache_config")?;
    let PortSpecifier::PortValue(port) = required("port_value", port_specifier)?;
    match port_number("port_value", *port)? {
        0 => refuse("port_value", "must be 1 to 65535"),
        port => Ok((cache, port)),
    }
}

/// What a route says to the filter.
pub(super) fn route(proto: &PerRouteConfig) -> Result<ForwardRewrite> {
    let PerRouteConfig { host_rewrite_specifier } = proto;
    Ok(match host_rewrite_specifier {
        None => ForwardRewrite::None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            ForwardRewrite::Literal(host.as_str().into())
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(header)) => {
            ForwardRewrite::Header(header_name(header).at("host_rewrite_header")?)
        }
    })
}

/// A cache of names.
pub(super) fn cache(proto: &DnsCacheConfig) -> Result<Arc<Cache>> {
    let DnsCacheConfig {
        name: cache_name,
        dns_lookup_family,
        dns_refresh_rate,
        dns_min_refresh_rate,
        host_ttl,
        max_hosts,
        dns_failure_refresh_rate,
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        preresolve_hostnames,
        dns_query_timeout,
    } = proto;
    let resolver = ResolverFields {
        typed: typed_dns_resolver_config.as_ref(),
        resolution: dns_resolution_config.as_ref(),
        servers: &[],
        tcp: *use_tcp_for_dns_lookups,
    };
    let min = optional_duration("dns_min_refresh_rate", dns_min_refresh_rate.as_ref())?;
    if min.is_some_and(|min| min < Duration::from_secs(1)) {
        return refuse("dns_min_refresh_rate", "must be at least 1s");
    }
    let failure = "dns_failure_refresh_rate";
    let refresh = Refresh {
        rate: dns::interval("dns_refresh_rate", dns_refresh_rate.as_ref())?.unwrap_or(REFRESH),
        respect_ttl: true,
        min: min.unwrap_or(MIN_REFRESH),
        jitter: Duration::ZERO,
        failure: optional(failure, dns_failure_refresh_rate, dns::back_off)?,
    };
    let timeout = optional_duration("dns_query_timeout", dns_query_timeout.as_ref())?;
    let max_hosts = bounded("max_hosts", *max_hosts, MAX_HOSTS, (1, u32::MAX))?;
    if preresolve_hostnames.len() > max_hosts as usize {
        return refuse("preresolve_hostnames", format!("are more than max_hosts: {max_hosts}"));
    }
    Ok(Arc::new(Cache {
        name: name("name", cache_name)?,
        family: dns::family(*dns_lookup_family)?,
        refresh,
        resolver: resolver.decode()?,
        host_ttl: positive_duration("host_ttl", host_ttl.as_ref())?.unwrap_or(HOST_TTL),
        max_hosts,
        max_pending: optional("dns_cache_circuit_breaker", dns_cache_circuit_breaker, breaker)?
            .unwrap_or(MAX_PENDING),
        preresolve: each("preresolve_hostnames", preresolve_hostnames, host)?,
        timeout: timeout.map_or(Some(QUERY_TIMEOUT), unless_zero),
    }))
}

fn breaker(proto: &DnsCacheCircuitBreakers) -> Result<u32> {
    let DnsCacheCircuitBreakers { max_pending_requests } = proto;
    Ok(max_pending_requests.unwrap_or(MAX_PENDING))
}

fn host(proto: &SocketAddress) -> Result<(Name, u16)> {
    let socket = socket_address(proto)?;
    Ok((socket.host.into(), socket.port))
}
