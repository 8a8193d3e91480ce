//! The endpoints of a cluster (Envoy `endpoint.v3.ClusterLoadAssignment`).

use std::net::SocketAddr;
use std::sync::Arc;

use super::address::{Address, HostAddress};
use super::matcher::Fraction;
use super::metadata::Metadata;
use super::{HashMap, Name};

/// All endpoints of one cluster, as configured or discovered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadAssignment {
    /// The cluster (or EDS service) these endpoints belong to.
    pub cluster_name: Name,
    /// Endpoints in configuration order.
    pub endpoints: Vec<Endpoint>,
    /// `policy`
    pub policy: AssignmentPolicy,
}

/// Envoy `ClusterLoadAssignment.Policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignmentPolicy {
    /// `overprovisioning_factor`: how much of its share the healthy part of a priority or locality can carry, in
    /// percent, at least 1; 140 by default.
    pub overprovisioning_factor: u32,
    /// `weighted_priority_health`: whether a priority's health is reckoned by weight rather than by count.
    pub weighted_priority_health: bool,
    /// The one entry of `drop_overloads`: the share of requests that is dropped, at most all.
    pub drop_overload: Option<Fraction>,
}

impl Default for AssignmentPolicy {
    fn default() -> Self {
        Self { overprovisioning_factor: 140, weighted_priority_health: false, drop_overload: None }
    }
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
    /// Whether it is no longer listed, and stays only for as long as it passes its checks.
    pub is_leaving: bool,
    /// How it is checked; none means at its own address, by the cluster's name.
    pub health_check: Option<Arc<EndpointCheck>>,
    /// `hash_key` of `envoy.lb` metadata: what is hashed in its place, if anything but its address or name.
    pub hash_key: Option<Box<str>>,
    /// `metadata`, if there is any.
    pub metadata: Option<Arc<Metadata>>,
    /// `envoy.transport_socket_match` metadata: decides which transport socket match is used.
    pub transport_socket_match: HashMap<String, String>,
}

/// Envoy `endpoint.v3.Endpoint.HealthCheckConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointCheck {
    /// `port_value`, if it is not the endpoint's.
    pub port: Option<u16>,
    /// `address`, if it is not the endpoint's; `port` goes before its port.
    pub address: Option<HostAddress>,
    /// `hostname`: what is sent as `Host` or `:authority`; may be empty.
    pub hostname: Box<str>,
    /// `disable_active_health_check`
    pub disabled: bool,
}

/// Region, zone and sub-zone with the priority and weight of one locality group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region, may be empty.
    pub region: String,
    /// Zone, may be empty.
    pub zone: String,
    /// Sub-zone, may be empty.
    pub sub_zone: String,
    /// 0 is the highest priority; 128 the lowest there can be.
    pub priority: u32,
    /// `load_balancing_weight`: share of traffic relative to the other localities of its priority, with
    /// locality-weighted balancing; 0 (or absent) means none.
    pub weight: u32,
}

/// Health stated by the management server (Envoy `core.v3.HealthStatus`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// UNKNOWN: may be used.
    #[default]
    Unknown,
    /// HEALTHY: may be used.
    Healthy,
    /// UNHEALTHY: not used unless in panic.
    Unhealthy,
    /// TIMEOUT: not used unless in panic.
    Timeout,
    /// DRAINING: not used unless in panic.
    Draining,
    /// DEGRADED: used when healthy ones do not suffice.
    Degraded,
}

/// Some of the health statuses (Envoy `core.v3.HealthStatusSet`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthStatuses(u8);

impl HealthStatuses {
    /// Whether `status` is one of them.
    pub fn contains(self, status: HealthStatus) -> bool {
        self.0 & (1 << status as u8) != 0
    }
}

impl FromIterator<HealthStatus> for HealthStatuses {
    fn from_iter<I: IntoIterator<Item = HealthStatus>>(statuses: I) -> Self {
        Self(statuses.into_iter().fold(0, |all, status| all | 1 << status as u8))
    }
}
