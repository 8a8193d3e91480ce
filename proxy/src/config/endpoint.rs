//! The endpoints of a cluster (Envoy `endpoint.v3.ClusterLoadAssignment`).

use std::net::SocketAddr;
use std::sync::Arc;

use super::address::Address;
use super::{HashMap, Name};

/// All endpoints of one cluster, as configured or discovered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadAssignment {
    /// The cluster (or EDS service) these endpoints belong to.
    pub cluster_name: Name,
    /// Endpoints in configuration order.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint (Envoy `endpoint.v3.LbEndpoint` with its locality flattened in).
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Other addresses of the same endpoint, tried in this order when the first does not answer at once.
    pub additional_addresses: Arc<[SocketAddr]>,
    /// The name it was configured or resolved by; empty if none.
    pub hostname: Name,
    /// Share of traffic relative to its siblings, 1 to u32::MAX; default 1.
    pub weight: u32,
    /// Locality and priority it was declared under.
    pub locality: Arc<Locality>,
    /// Health as the configuration states it.
    pub health: HealthStatus,
    /// `envoy.transport_socket_match` metadata: decides which transport socket match is used.
    pub transport_socket_match: HashMap<String, String>,
}

/// Region, zone and sub-zone with the priority of one locality group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region, may be empty.
    pub region: String,
    /// Zone, may be empty.
    pub zone: String,
    /// Sub-zone, may be empty.
    pub sub_zone: String,
    /// 0 is the highest priority.
    pub priority: u32,
}

/// Health stated by the management server (Envoy `core.v3.HealthStatus`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// UNKNOWN or HEALTHY: may be used.
    #[default]
    Healthy,
    /// UNHEALTHY or TIMEOUT: not used unless in panic.
    Unhealthy,
    /// DRAINING: not used unless in panic.
    Draining,
    /// DEGRADED: used when healthy ones do not suffice.
    Degraded,
}
