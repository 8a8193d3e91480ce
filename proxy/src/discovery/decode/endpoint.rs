//! The endpoints of a cluster.

use std::sync::Arc;

use prost_types::Struct;
use prost_types::value::Kind;
use xds::envoy::config::core::v3::{HealthStatus as Health, Locality, Metadata};
use xds::envoy::config::endpoint::v3::cluster_load_assignment::policy::DropOverload;
use xds::envoy::config::endpoint::v3::endpoint::{AdditionalAddress, HealthCheckConfig};
use xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment,
};

use super::address::{self, port_number};
use super::errors::{At, Result, each, optional, refuse, required};
use super::value::{bounded, enumeration, fraction, name, non_empty, unless_empty};
use crate::config::address::{Address, HostAddress};
use crate::config::endpoint::{
    self, AssignmentPolicy, EndpointCheck, HealthStatus, LoadAssignment,
};
use crate::config::matcher::Fraction;
use crate::config::subset::LOAD_BALANCING;
use crate::config::{HashMap, Name};

/// The namespace of metadata that chooses a transport socket.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// The lowest priority there can be.
const LAST_PRIORITY: u32 = 128;

/// All endpoints of a cluster.
pub(super) fn load_assignment(proto: &ClusterLoadAssignment) -> Result<LoadAssignment> {
    let ClusterLoadAssignment { cluster_name, endpoints, policy } = proto;
    let localities = each("endpoints", endpoints, locality_endpoints)?;
    // Exactly as many as there are: this stays in memory.
    let mut flat = Vec::with_capacity(localities.iter().map(Vec::len).sum());
    flat.extend(localities.into_iter().flatten());
    Ok(LoadAssignment {
        cluster_name: name("cluster_name", cluster_name)?,
        endpoints: flat,
        policy: optional("policy", policy, assignment_policy)?.unwrap_or_default(),
    })
}

fn assignment_policy(proto: &cluster_load_assignment::Policy) -> Result<AssignmentPolicy> {
    let cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = proto;
    if endpoint_stale_after.is_some() {
        return refuse("endpoint_stale_after", "endpoints are used until others are sent");
    }
    let drops = each("drop_overloads", drop_overloads, drop_overload)?;
    if drops.len() > 1 {
        return refuse("drop_overloads", "more than one category is not supported, nor by Envoy");
    }
    let absent = AssignmentPolicy::default().overprovisioning_factor;
    let field = "overprovisioning_factor";
    Ok(AssignmentPolicy {
        overprovisioning_factor: bounded(field, *overprovisioning_factor, absent, (1, u32::MAX))?,
        weighted_priority_health: *weighted_priority_health,
        drop_overload: drops.first().copied(),
    })
}

fn drop_overload(proto: &DropOverload) -> Result<Fraction> {
    let DropOverload { category, drop_percentage } = proto;
    non_empty("category", category)?;
    let share = fraction(required("drop_percentage", drop_percentage)?).at("drop_percentage")?;
    if share.numerator > share.denominator {
        return refuse("drop_percentage", "must not be more than all");
    }
    Ok(share)
}

fn locality_endpoints(proto: &LocalityLbEndpoints) -> Result<Vec<endpoint::Endpoint>> {
    let LocalityLbEndpoints {
        locality,
        metadata: _,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity: _,
    } = proto;
    let field = "load_balancing_weight";
    let weight = load_balancing_weight.map(|weight| bounded(field, Some(weight), 0, (1, u32::MAX)));
    let absent = Locality::default();
    let Locality { region, zone, sub_zone } = locality.as_ref().unwrap_or(&absent);
    let locality = Arc::new(endpoint::Locality {
        region: region.clone(),
        zone: zone.clone(),
        sub_zone: sub_zone.clone(),
        priority: bounded("priority", Some(*priority), 0, (0, LAST_PRIORITY))?,
        weight: weight.transpose()?.unwrap_or(0),
    });
    let endpoints = each("lb_endpoints", lb_endpoints, |proto| lb_endpoint(proto, &locality))?;
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    if total > u64::from(u32::MAX) {
        return refuse("lb_endpoints", format!("the sum of the weights exceeds {}", u32::MAX));
    }
    Ok(endpoints)
}

fn lb_endpoint(
    proto: &LbEndpoint,
    locality: &Arc<endpoint::Locality>,
) -> Result<endpoint::Endpoint> {
    let LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = proto;
    let HostIdentifier::Endpoint(proto) = required("endpoint", host_identifier)?;
    let Endpoint { address, health_check_config, hostname, additional_addresses } = proto;
    let address =
        address::upstream(required("endpoint.address", address)?).at("endpoint.address")?;
    let additional = each("endpoint.additional_addresses", additional_addresses, |proto| {
        let AdditionalAddress { address } = proto;
        address::to_connect_to(required("address", address)?).at("address")
    })?;
    Ok(endpoint::Endpoint {
        address,
        // Nothing costs nothing only as the default.
        additional_addresses: if additional.is_empty() {
            Arc::default()
        } else {
            additional.into()
        },
        hostname: unless_empty(hostname).map_or_else(Name::default, Name::from),
        weight: bounded("load_balancing_weight", *load_balancing_weight, 1, (1, u32::MAX))?,
        locality: Arc::clone(locality),
        health: health_status_of("health_status", *health_status)?,
        health_check: optional("endpoint.health_check_config", health_check_config, check)?
            .flatten(),
        hash_key: metadata.as_ref().and_then(hash_key),
        is_leaving: false,
        metadata: metadata.as_ref().and_then(super::metadata::metadata),
        transport_socket_match: optional("metadata", metadata, socket_match)?.unwrap_or_default(),
    })
}

/// The health in `field`.
pub(super) fn health_status_of(field: &str, proto: i32) -> Result<HealthStatus> {
    Ok(match enumeration(field, proto)? {
        Health::Unknown => HealthStatus::Unknown,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Timeout => HealthStatus::Timeout,
        Health::Draining => HealthStatus::Draining,
        Health::Degraded => HealthStatus::Degraded,
    })
}

/// How an endpoint is checked; none if nothing special is said.
fn check(proto: &HealthCheckConfig) -> Result<Option<Arc<EndpointCheck>>> {
    let HealthCheckConfig { port_value, hostname, address, disable_active_health_check } = proto;
    if *proto == HealthCheckConfig::default() {
        return Ok(None);
    }
    let address = optional("address", address, check_address)?;
    let port = port_number("port_value", *port_value)?;
    Ok(Some(Arc::new(EndpointCheck {
        port: (port != 0).then_some(port),
        address,
        hostname: hostname.as_str().into(),
        disabled: *disable_active_health_check,
    })))
}

fn check_address(proto: &xds::envoy::config::core::v3::Address) -> Result<HostAddress> {
    match address::upstream(proto)? {
        Address::Literal(address) => Ok(address),
        Address::Dns { host, .. } => {
            refuse("socket_address.address", format!("{host:?} is no IP address"))
        }
    }
}

/// Envoy too passes over a value that is no text.
fn hash_key(proto: &Metadata) -> Option<Box<str>> {
    match &proto.filter_metadata.get(LOAD_BALANCING)?.fields.get("hash_key")?.kind {
        Some(Kind::StringValue(text)) => unless_empty(text),
        _ => None,
    }
}

/// What decides about the transport socket.
fn socket_match(proto: &Metadata) -> Result<HashMap<String, String>> {
    let Metadata { filter_metadata } = proto;
    match filter_metadata.get(TRANSPORT_SOCKET_MATCH) {
        Some(criteria) => socket_criteria(criteria).at("filter_metadata").at(""),
        None => Ok(HashMap::default()),
    }
}

/// Values by name, as transport socket matches compare them: a number or a boolean is marked, so that no text
/// equals it.
pub(super) fn socket_criteria(proto: &Struct) -> Result<HashMap<String, String>> {
    let Struct { fields } = proto;
    let comparable = |(key, value): (&String, &prost_types::Value)| {
        let text = match &value.kind {
            Some(Kind::StringValue(text)) => text.clone(),
            Some(Kind::BoolValue(truth)) => format!("\0{truth}"),
            Some(Kind::NumberValue(number)) => format!("\0{number}"),
            _ => {
                return refuse(
                    &format!("[{key:?}]"),
                    "only texts, numbers and booleans can be compared",
                );
            }
        };
        Ok((key.clone(), text))
    };
    fields.iter().map(comparable).collect()
}
