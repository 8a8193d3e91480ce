//! Clusters: where endpoints come from, how one is picked, what is spoken to it.

use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, TransportSocketMatch,
};
use xds::envoy::config::cluster::v3::{Cluster, UpstreamConnectionOptions};
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::config::core::v3::{TcpKeepalive, TransportSocket};
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::circuit_breaker::circuit_breakers;
use super::endpoint::{load_assignment, socket_criteria};
use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::listener::BUFFER_LIMIT;
use super::load_balancing::{self, LoadBalancing, load_balancing};
use super::outlier::outlier_detection;
use super::source::file_source;
use super::tls;
use super::upstream_http::{Legacy, upstream_http};
use super::value::{enumeration, name, non_empty, positive_duration};
use crate::config::address::Address;
use crate::config::cluster::{self, Discovery, DnsFamily, UpstreamHttp, UpstreamProtocol};
use crate::config::endpoint::LoadAssignment;
use crate::config::source::ResourceSource;
use crate::config::tls::UpstreamTls;

/// Envoy's defaults.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DNS_REFRESH: Duration = Duration::from_secs(5);

/// A cluster.
pub(super) fn cluster(proto: &Cluster) -> Result<cluster::Cluster> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let Cluster {
        transport_socket_matches, name: cluster_name, alt_stat_name, eds_cluster_config,
        connect_timeout, per_connection_buffer_limit_bytes, lb_policy: policy, load_assignment,
        max_requests_per_connection, circuit_breakers: breakers, upstream_http_protocol_options,
        common_http_protocol_options, http_protocol_options, http2_protocol_options,
        typed_extension_protocol_options, dns_refresh_rate, respect_dns_ttl, dns_lookup_family,
        outlier_detection: outlier, common_lb_config, transport_socket, metadata: _,
        protocol_selection, upstream_connection_options, track_cluster_stats: _,
        cluster_discovery_type, lb_config, load_balancing_policy,
    } = proto;
    let cluster_name = name("name", cluster_name)?;
    let endpoints = Endpoints {
        kind: cluster_discovery_type.as_ref(),
        assignment: load_assignment.as_ref(),
        eds: eds_cluster_config.as_ref(),
        refresh: dns_refresh_rate.as_ref(),
        respect_ttl: *respect_dns_ttl,
        family: *dns_lookup_family,
    };
    let legacy = Legacy {
        max_requests_per_connection: *max_requests_per_connection,
        upstream: upstream_http_protocol_options.as_ref(),
        common: common_http_protocol_options.as_ref(),
        http1: http_protocol_options.as_ref(),
        http2: http2_protocol_options.as_ref(),
        protocol_selection: *protocol_selection,
    };
    let http = upstream_http(typed_extension_protocol_options, &legacy)?;
    let tls = optional("transport_socket", transport_socket, transport)?.flatten();
    needs_alpn(&http, tls.is_some())?;
    let LoadBalancing { policy: lb_policy, locality: locality_lb, panic_threshold } =
        load_balancing(&load_balancing::Fields {
            policy: *policy,
            config: lb_config.as_ref(),
            common: common_lb_config,
            extension: load_balancing_policy,
        })?;
    Ok(cluster::Cluster {
        stat_name: if alt_stat_name.is_empty() {
            Arc::clone(&cluster_name)
        } else {
            alt_stat_name.as_str().into()
        },
        discovery: endpoints.decode(&cluster_name)?,
        name: cluster_name,
        connect_timeout: positive_duration("connect_timeout", connect_timeout.as_ref())?
            .unwrap_or(CONNECT_TIMEOUT),
        lb_policy,
        locality_lb,
        panic_threshold,
        buffer_limit: per_connection_buffer_limit_bytes.unwrap_or(BUFFER_LIMIT),
        circuit_breakers: optional("circuit_breakers", breakers, circuit_breakers)?
            .unwrap_or_default(),
        outlier_detection: optional("outlier_detection", outlier, outlier_detection)?,
        http,
        tls,
        transport_socket_matches: each(
            "transport_socket_matches",
            transport_socket_matches,
            socket_match,
        )?,
        tcp_keepalive: upstream_connection_options.as_ref().and_then(tcp_keepalive),
    })
}

fn needs_alpn(http: &UpstreamHttp, tls: bool) -> Result<()> {
    if tls || http.protocol != UpstreamProtocol::Alpn {
        return Ok(());
    }
    refuse("transport_socket", "auto_config needs a TLS transport socket, whose ALPN decides")
}

/// Where endpoints come from, as several fields of a cluster say it.
struct Endpoints<'a> {
    kind: Option<&'a ClusterDiscoveryType>,
    assignment: Option<&'a ClusterLoadAssignment>,
    eds: Option<&'a EdsClusterConfig>,
    refresh: Option<&'a prost_types::Duration>,
    respect_ttl: bool,
    family: i32,
}

impl Endpoints<'_> {
    fn decode(&self, cluster: &str) -> Result<Discovery> {
        let kind = match self.kind {
            Some(ClusterDiscoveryType::Type(kind)) => enumeration("type", *kind)?,
            None => DiscoveryType::Static,
        };
        match kind {
            DiscoveryType::Static => {
                let assignment = self.assignment(cluster)?;
                only_addresses(&assignment)?;
                Ok(Discovery::Static(Arc::new(assignment)))
            }
            DiscoveryType::StrictDns => Ok(Discovery::StrictDns {
                assignment: Arc::new(self.assignment(cluster)?),
                refresh: positive_duration("dns_refresh_rate", self.refresh)?
                    .unwrap_or(DNS_REFRESH),
                respect_ttl: self.respect_ttl,
                family: dns_family(self.family)?,
            }),
            DiscoveryType::Eds => self.discovered(cluster),
            DiscoveryType::LogicalDns | DiscoveryType::OriginalDst => {
                let kind = kind.as_str_name();
                refuse("type", format!("{kind} is not supported by this version"))
            }
        }
    }

    /// The endpoints in place; none at all is a cluster without endpoints.
    fn assignment(&self, cluster: &str) -> Result<LoadAssignment> {
        match self.assignment {
            Some(proto) => load_assignment(proto).at("load_assignment"),
            None => {
                Ok(LoadAssignment { cluster_name: cluster.into(), ..LoadAssignment::default() })
            }
        }
    }

    fn discovered(&self, cluster: &str) -> Result<Discovery> {
        if self.assignment.is_some() {
            return refuse("load_assignment", "has no place in a cluster of type EDS");
        }
        let Some(EdsClusterConfig { eds_config, service_name }) = self.eds else {
            return refuse("eds_cluster_config", "required by a cluster of type EDS");
        };
        let source = required("eds_cluster_config.eds_config", eds_config)?;
        let file = file_source(source).at("eds_cluster_config.eds_config")?;
        let name = if service_name.is_empty() { cluster } else { service_name };
        Ok(Discovery::Eds(ResourceSource { name: name.into(), file }))
    }
}

fn only_addresses(assignment: &LoadAssignment) -> Result<()> {
    let name = assignment.endpoints.iter().find_map(|endpoint| match &endpoint.address {
        Address::Literal(_) => None,
        Address::Dns { host, .. } => Some(host),
    });
    match name {
        Some(host) => refuse(
            "load_assignment",
            format!("{host:?} is no IP address; a cluster of type STRICT_DNS looks names up"),
        ),
        None => Ok(()),
    }
}

fn dns_family(proto: i32) -> Result<DnsFamily> {
    Ok(match enumeration("dns_lookup_family", proto)? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    })
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
        tls: optional("transport_socket", transport_socket, transport)?.flatten(),
    })
}

fn tcp_keepalive(proto: &UpstreamConnectionOptions) -> Option<cluster::TcpKeepalive> {
    let UpstreamConnectionOptions { tcp_keepalive } = proto;
    let TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } =
        tcp_keepalive.as_ref()?;
    let seconds = |seconds: &Option<u32>| seconds.map(|it| Duration::from_secs(u64::from(it)));
    Some(cluster::TcpKeepalive {
        probes: *keepalive_probes,
        time: seconds(keepalive_time),
        interval: seconds(keepalive_interval),
    })
}
