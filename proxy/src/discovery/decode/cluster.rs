//! Clusters: how their connections are made, and what is spoken on them.

use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use xds::envoy::config::cluster::v3::{Cluster, Filter};
use xds::envoy::config::core::v3::TransportSocket;
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::circuit_breaker::circuit_breakers;
use super::cluster_type::discovery;
use super::connecting::connecting;
use super::endpoint::socket_criteria;
use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{self, unpack, unsupported};
use super::hash_lb;
use super::health_check::hosts;
use super::istio;
use super::listener::BUFFER_LIMIT;
use super::load_balancing::load_balancing;
use super::metadata::packed;
use super::outlier::outlier_detection;
use super::proxy_protocol;
use super::subset;
use super::tls;
use super::upstream_http::{Legacy, upstream_http};
use super::value::{name, non_empty, positive_duration};
use crate::config::Name;
use crate::config::cluster::{self, HostPolicy, UpstreamHttp, UpstreamProtocol};
use crate::config::connecting::ProxyProtocol;
use crate::config::tls::UpstreamTls;

/// Envoy's defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster.
pub(super) fn cluster(proto: &Cluster) -> Result<cluster::Cluster> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let Cluster {
        transport_socket_matches: matches, name: cluster_name, alt_stat_name, connect_timeout,
        health_checks: checks, close_connections_on_host_health_failure: cut_on_failure,
        ignore_health_on_host_removal: forgets_healthy_hosts, per_connection_buffer_limit_bytes,
        lb_policy: policy, max_requests_per_connection, circuit_breakers: breakers,
        upstream_http_protocol_options, common_http_protocol_options, http_protocol_options,
        http2_protocol_options, typed_extension_protocol_options, outlier_detection: outlier,
        common_lb_config, transport_socket, metadata, protocol_selection,
        upstream_connection_options, upstream_bind_config, track_cluster_stats: _, lb_config,
        load_balancing_policy, filters,
        // Read by `discovery` and `subset`.
        cluster_discovery_type: _discovery, load_assignment: _assignment, eds_cluster_config: _eds,
        dns_refresh_rate: _rate, dns_jitter: _jitter, dns_failure_refresh_rate: _failure,
        respect_dns_ttl: _ttl, dns_lookup_family: _family, dns_resolvers: _servers,
        use_tcp_for_dns_lookups: _tcp, dns_resolution_config: _resolution,
        typed_dns_resolver_config: _resolver, wait_for_warm_on_init: _warm,
        cleanup_interval: _cleanup, lb_subset_config: _subsets,
    } = proto;
    let cluster_name = name("name", cluster_name)?;
    each("filters", filters, upstream_filter)?;
    let legacy = Legacy {
        max_requests_per_connection: *max_requests_per_connection,
        upstream: upstream_http_protocol_options.as_ref(),
        common: common_http_protocol_options.as_ref(),
        http1: http_protocol_options.as_ref(),
        http2: http2_protocol_options.as_ref(),
        protocol_selection: *protocol_selection,
    };
    let mut http = upstream_http(typed_extension_protocol_options, &legacy)?;
    let discovery = discovery(proto, &mut http)?;
    let (tls, proxy) = outer_transport(transport_socket)?;
    needs_alpn(&http, tls.is_some())?;
    // There is no choice among endpoints that requests name; `discovery` has looked at the policy.
    let policy = if discovery.cleanup_interval().is_some() { 0 } else { *policy };
    hash_lb::may_hash_names(common_lb_config.as_ref(), &discovery)?;
    let lb = load_balancing(policy, lb_config.as_ref(), common_lb_config, load_balancing_policy)?;
    Ok(cluster::Cluster {
        stat_name: stat_name(alt_stat_name, &cluster_name),
        name: cluster_name,
        connect_timeout: connect_timeout_of(connect_timeout.as_ref())?,
        subsets: subset::subsets(proto, &discovery, &lb)?,
        lb_policy: lb.policy,
        locality_lb: lb.locality,
        panic_threshold: lb.panic_threshold,
        buffer_limit: per_connection_buffer_limit_bytes.unwrap_or(BUFFER_LIMIT),
        circuit_breakers: optional("circuit_breakers", breakers, circuit_breakers)?
            .unwrap_or_default(),
        hosts: HostPolicy {
            close_connections_on_failure: *cut_on_failure,
            ignore_health_on_removal: *forgets_healthy_hosts,
            ..hosts(checks, common_lb_config.as_ref(), &http)?
        },
        outlier_detection: optional("outlier_detection", outlier, outlier_detection)?,
        http: http.into(),
        tls,
        transport_socket_matches: each("transport_socket_matches", matches, socket_match)?,
        connecting: connecting(upstream_connection_options, upstream_bind_config, proxy)?.into(),
        keeps_alpn: metadata.as_ref().is_some_and(istio::keeps_alpn),
        metadata: packed(metadata),
        discovery,
    })
}

fn connect_timeout_of(proto: Option<&prost_types::Duration>) -> Result<Duration> {
    Ok(positive_duration("connect_timeout", proto)?.unwrap_or(CONNECT_TIMEOUT))
}

/// A network filter to endpoints. The only one is Istio's exchange of metadata, in which nobody here takes part.
fn upstream_filter(proto: &Filter) -> Result<()> {
    let Filter { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = extension::carried(required("typed_config", typed_config)?).at("typed_config")?;
    if istio::is_metadata_exchange(&any).at("typed_config")? {
        return Ok(());
    }
    unsupported(&any).at("typed_config")
}

fn stat_name(alternative: &str, name: &Name) -> Name {
    if alternative.is_empty() { Arc::clone(name) } else { alternative.into() }
}

fn needs_alpn(http: &UpstreamHttp, tls: bool) -> Result<()> {
    if tls || http.protocol != UpstreamProtocol::Alpn {
        return Ok(());
    }
    refuse("transport_socket", "auto_config needs a TLS transport socket, whose ALPN decides")
}

/// TLS, and the PROXY header before it.
type Transport = (Option<Arc<UpstreamTls>>, Option<Arc<ProxyProtocol>>);

fn outer_transport(proto: &Option<TransportSocket>) -> Result<Transport> {
    Ok(optional("transport_socket", proto, wrapped_transport)?.unwrap_or_default())
}

fn wrapped_transport(proto: &TransportSocket) -> Result<Transport> {
    let TransportSocket { name, config_type } = proto;
    non_empty("name", name)?;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    let Some(outer) = unpack::<ProxyProtocolUpstreamTransport>(any).at("typed_config")? else {
        return Ok((transport(proto)?, None));
    };
    let ProxyProtocolUpstreamTransport { config, transport_socket } = outer;
    let inner = required("transport_socket", &transport_socket).at("typed_config")?;
    let tls = transport(inner).at("transport_socket").at("typed_config")?;
    let header =
        proxy_protocol::sent(&config.unwrap_or_default()).at("config").at("typed_config")?;
    Ok((tls, Some(Arc::new(header))))
}

fn transport(proto: &TransportSocket) -> Result<Option<Arc<UpstreamTls>>> {
    let TransportSocket { name, config_type } = proto;
    non_empty("name", name)?;
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    if let Some(RawBuffer {}) = unpack(any).at("typed_config")? {
        return Ok(None);
    }
    match unpack::<UpstreamTlsContext>(any).at("typed_config")? {
        Some(proto) => Ok(Some(Arc::new(tls::upstream(&proto).at("typed_config")?))),
        None => unsupported(any).at("typed_config"),
    }
}

fn socket_match(proto: &TransportSocketMatch) -> Result<cluster::TransportSocketMatch> {
    let TransportSocketMatch { name: match_name, r#match, transport_socket } = proto;
    Ok(cluster::TransportSocketMatch {
        name: name("name", match_name)?,
        criteria: optional("match", r#match, socket_criteria)?.unwrap_or_default(),
        tls: transport(required("transport_socket", transport_socket)?).at("transport_socket")?,
    })
}
