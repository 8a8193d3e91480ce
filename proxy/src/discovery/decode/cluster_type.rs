//! Where the endpoints of a cluster come from.

use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
    RefreshRate,
};
use xds::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as TypedFamily;
use xds::envoy::extensions::clusters::dns::v3::DnsCluster;
use xds::envoy::extensions::clusters::dns::v3::dns_cluster::RefreshRate as TypedRefreshRate;

use super::dns::{self, ResolverFields};
use super::endpoint::load_assignment;
use super::errors::{At, Result, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::forward_proxy;
use super::original_dst;
use super::source::config_source;
use super::value::{enumeration, non_empty, optional_duration};
use crate::config::address::Address;
use crate::config::cluster::{Discovery, Names, UpstreamHttp};
use crate::config::dns::Refresh;
use crate::config::endpoint::{Endpoint, LoadAssignment, Locality};
use crate::config::source::ResourceSource;

/// Envoy's default.
const REFRESH: Duration = Duration::from_secs(5);

/// Where the endpoints of `proto` come from. Fields for clusters of another type have no effect, but a mistake in
/// them is one, as in Envoy.
///
/// A forward proxy has its say about `http`, the cluster's protocol options.
pub(super) fn discovery(proto: &Cluster, http: &mut UpstreamHttp) -> Result<Discovery> {
    let kind = match &proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => enumeration("type", *kind)?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return extension(custom, proto, http);
        }
        None => DiscoveryType::Static,
    };
    let lookup = legacy(proto)?;
    let requested = original_dst::fields(proto)?;
    if kind != DiscoveryType::Eds {
        no_eds(proto)?;
    }
    match kind {
        DiscoveryType::Static => {
            let assignment = assignment(proto)?;
            only_addresses(&assignment)?;
            Ok(Discovery::Static(Arc::new(assignment)))
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            names(&lookup, kind == DiscoveryType::LogicalDns, proto)
        }
        DiscoveryType::Eds => discovered(proto),
        DiscoveryType::OriginalDst => {
            original_dst::cluster(proto, requested).map(Discovery::OriginalDst)
        }
    }
}

/// A cluster of a type that is an extension.
fn extension(
    custom: &CustomClusterType,
    proto: &Cluster,
    http: &mut UpstreamHttp,
) -> Result<Discovery> {
    let CustomClusterType { name, typed_config } = custom;
    legacy(proto)?;
    original_dst::fields(proto)?;
    no_eds(proto)?;
    non_empty("name", name).at("cluster_type")?;
    let any: &Any = required("typed_config", typed_config).at("cluster_type")?;
    let path = "cluster_type.typed_config";
    if let Some(config) = unpack(any).at(path)? {
        forward_proxy::needs_own_policy(proto)?;
        return forward_proxy::cluster(&config, proto, http).at(path).map(Discovery::ForwardProxy);
    }
    let Some(dns) = unpack::<DnsCluster>(any).at(path)? else {
        return unsupported(any).at(path);
    };
    let (fields, logical) = typed(&dns).at(path)?;
    names(&fields, logical, proto)
}

fn no_eds(proto: &Cluster) -> Result<()> {
    match proto.eds_cluster_config {
        Some(_) => {
            refuse("eds_cluster_config", "has no place in a cluster that is not of type EDS")
        }
        None => Ok(()),
    }
}

/// What is said of the lookup of names in either way.
struct Lookup {
    family: DnsLookupFamily,
    refresh: Refresh,
    resolver: Option<Arc<crate::config::dns::Resolver>>,
}

/// The fields of the cluster itself.
fn legacy(proto: &Cluster) -> Result<Lookup> {
    let resolver = ResolverFields {
        typed: proto.typed_dns_resolver_config.as_ref(),
        resolution: proto.dns_resolution_config.as_ref(),
        servers: &proto.dns_resolvers,
        tcp: proto.use_tcp_for_dns_lookups,
    };
    Ok(Lookup {
        family: enumeration("dns_lookup_family", proto.dns_lookup_family)?,
        refresh: Refresh {
            rate: dns::interval("dns_refresh_rate", proto.dns_refresh_rate.as_ref())?
                .unwrap_or(REFRESH),
            respect_ttl: proto.respect_dns_ttl,
            min: Duration::ZERO,
            jitter: optional_duration("dns_jitter", proto.dns_jitter.as_ref())?.unwrap_or_default(),
            failure: optional(
                "dns_failure_refresh_rate",
                &proto.dns_failure_refresh_rate,
                dns::back_off,
            )?,
        },
        resolver: resolver.decode()?,
    })
}

/// The fields of the extension `envoy.clusters.dns`, and whether it is logical.
fn typed(proto: &DnsCluster) -> Result<(Lookup, bool)> {
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
    } = proto;
    let resolver = ResolverFields {
        typed: typed_dns_resolver_config.as_ref(),
        resolution: None,
        servers: &[],
        tcp: false,
    };
    let failure = |proto: &TypedRefreshRate| {
        let TypedRefreshRate { base_interval, max_interval } = proto;
        dns::back_off(&RefreshRate { base_interval: *base_interval, max_interval: *max_interval })
    };
    let lookup = Lookup {
        family: match enumeration("dns_lookup_family", *dns_lookup_family)? {
            TypedFamily::Unspecified | TypedFamily::Auto => DnsLookupFamily::Auto,
            TypedFamily::V4Only => DnsLookupFamily::V4Only,
            TypedFamily::V6Only => DnsLookupFamily::V6Only,
            TypedFamily::V4Preferred => DnsLookupFamily::V4Preferred,
            TypedFamily::All => DnsLookupFamily::All,
        },
        refresh: Refresh {
            rate: dns::interval("dns_refresh_rate", dns_refresh_rate.as_ref())?.unwrap_or(REFRESH),
            respect_ttl: *respect_dns_ttl,
            min: Duration::ZERO,
            jitter: optional_duration("dns_jitter", dns_jitter.as_ref())?.unwrap_or_default(),
            failure: optional("dns_failure_refresh_rate", dns_failure_refresh_rate, failure)?,
        },
        resolver: resolver.decode()?,
    };
    Ok((lookup, *all_addresses_in_single_endpoint))
}

fn names(lookup: &Lookup, logical: bool, proto: &Cluster) -> Result<Discovery> {
    let mut assignment = assignment(proto)?;
    if logical {
        only_one(proto)?;
        for endpoint in &mut assignment.endpoints {
            of_first_priority(endpoint);
        }
    }
    Ok(Discovery::Dns(Box::new(Names {
        assignment: Arc::new(assignment),
        logical,
        family: dns::family(lookup.family.into())?,
        refresh: lookup.refresh,
        resolver: lookup.resolver.clone(),
        warming: proto.wait_for_warm_on_init.unwrap_or(true),
    })))
}

fn only_one(proto: &Cluster) -> Result<()> {
    let Some(assignment) = &proto.load_assignment else {
        return refuse("load_assignment", "LOGICAL_DNS clusters must have a single host");
    };
    match assignment.endpoints.as_slice() {
        [locality] if locality.lb_endpoints.len() == 1 => Ok(()),
        _ => refuse(
            "load_assignment",
            "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ),
    }
}

/// Envoy passes over the priority of an endpoint that has no other beside it.
fn of_first_priority(endpoint: &mut Endpoint) {
    if endpoint.locality.priority != 0 {
        endpoint.locality =
            Arc::new(Locality { priority: 0, ..Locality::clone(&endpoint.locality) });
    }
}

/// The endpoints in place; none at all is a cluster without endpoints.
fn assignment(proto: &Cluster) -> Result<LoadAssignment> {
    match &proto.load_assignment {
        Some(proto) => load_assignment(proto).at("load_assignment"),
        None => {
            Ok(LoadAssignment { cluster_name: proto.name.as_str().into(), ..Default::default() })
        }
    }
}

fn discovered(proto: &Cluster) -> Result<Discovery> {
    if proto.load_assignment.is_some() {
        return refuse("load_assignment", "has no place in a cluster of type EDS");
    }
    let Some(EdsClusterConfig { eds_config, service_name }) = &proto.eds_cluster_config else {
        return refuse("eds_cluster_config", "required by a cluster of type EDS");
    };
    let source = required("eds_cluster_config.eds_config", eds_config)?;
    let source = config_source(source).at("eds_cluster_config.eds_config")?;
    let name = if service_name.is_empty() { &proto.name } else { service_name };
    Ok(Discovery::Eds(ResourceSource { name: name.as_str().into(), source }))
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
