//! Clusters as configured (Envoy `config.cluster.v3.Cluster`).

use std::sync::Arc;
use std::time::Duration;

use super::connecting::Connecting;
use super::dns::{Cache, DnsFamily, Refresh, Resolver};
use super::endpoint::{HealthStatus, HealthStatuses, LoadAssignment};
use super::health_check::HealthCheck;
use super::http::Http2Options;
use super::metadata::Packed;
use super::retry::RetryBudget;
use super::sharing::Shared;
use super::source::ResourceSource;
use super::subset::SubsetLb;
use super::tls::UpstreamTls;
use super::{HashMap, Name};

/// Envoy `Cluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its name, unique.
    pub name: Name,
    /// `alt_stat_name`, or the name.
    pub stat_name: Name,
    /// Where endpoints come from.
    pub discovery: Discovery,
    /// `connect_timeout`; 5 s by default.
    pub connect_timeout: Duration,
    /// How an endpoint is picked.
    pub lb_policy: LbPolicy,
    /// How localities are treated.
    pub locality_lb: LocalityLb,
    /// `lb_subset_config`, if it divides the endpoints.
    pub subsets: Option<Arc<SubsetLb>>,
    /// `common_lb_config.healthy_panic_threshold`, in whole percent 0 to 100; 50 by default.
    pub panic_threshold: u32,
    /// `per_connection_buffer_limit_bytes`; 1 MiB by default.
    pub buffer_limit: u32,
    /// Thresholds of priority DEFAULT and HIGH, in this order.
    pub circuit_breakers: Shared<[Thresholds; 2]>,
    /// Passive health checking; none means off.
    pub outlier_detection: Option<Shared<OutlierDetection>>,
    /// How hosts are watched, and what their coming and going means.
    pub hosts: HostPolicy,
    /// What is spoken to endpoints.
    pub http: Shared<UpstreamHttp>,
    /// TLS to endpoints; none means plain text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// `transport_socket_matches`, first match wins, else `tls`.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// How connections are made.
    pub connecting: Shared<Connecting>,
    /// `metadata`, if there is any.
    pub metadata: Option<Packed>,
    /// Whether `istio.alpn` leaves its ALPN alone (`alpn_override` of the metadata of `istio` is "false").
    pub keeps_alpn: bool,
}

/// How hosts are watched, and what their coming and going means.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPolicy {
    /// `health_checks`; none means off.
    pub health_check: Option<Arc<HealthCheck>>,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`: hosts do not count before their first check.
    pub ignore_new_until_first_check: bool,
    /// `common_lb_config.close_connections_on_host_set_change`: no connection outlives a change of hosts.
    pub close_connections_on_change: bool,
    /// `close_connections_on_host_health_failure`: no TCP connection outlives the health of its host.
    pub close_connections_on_failure: bool,
    /// `ignore_health_on_host_removal`: a host that is no longer listed goes at once, even if it passes its
    /// checks.
    pub ignore_health_on_removal: bool,
    /// `common_lb_config.override_host_status`: the health with which a host is taken that a session names.
    pub override_statuses: HealthStatuses,
}

impl Default for HostPolicy {
    fn default() -> Self {
        use HealthStatus::{Degraded, Healthy, Unknown};
        Self {
            health_check: None,
            ignore_new_until_first_check: false,
            close_connections_on_change: false,
            close_connections_on_failure: false,
            ignore_health_on_removal: false,
            override_statuses: [Unknown, Healthy, Degraded].into_iter().collect(),
        }
    }
}

/// Envoy `Cluster.DiscoveryType`.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// STATIC
    Static(Arc<LoadAssignment>),
    /// STRICT_DNS, LOGICAL_DNS and `envoy.clusters.dns`
    Dns(Box<Names>),
    /// EDS: the `ClusterLoadAssignment` by name.
    Eds(ResourceSource),
    /// ORIGINAL_DST: requests name their endpoint.
    OriginalDst(OriginalDst),
    /// `envoy.clusters.dynamic_forward_proxy`: requests name the host, which is looked up.
    ForwardProxy(Arc<Cache>),
}

impl Discovery {
    /// How long an endpoint that requests name themselves is kept unused; none if they do not.
    pub fn cleanup_interval(&self) -> Option<Duration> {
        match self {
            Self::OriginalDst(config) => Some(config.cleanup_interval),
            Self::ForwardProxy(cache) => Some(cache.host_ttl),
            Self::Static(_) | Self::Dns(_) | Self::Eds(_) => None,
        }
    }
}

/// Envoy `Cluster.OriginalDstLbConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginalDst {
    /// The header that names the endpoint, if `use_http_header`: `http_header_name`, or
    /// `x-envoy-original-dst-host`.
    pub http_header: Option<http::HeaderName>,
    /// `upstream_port_override`
    pub port_override: Option<u16>,
    /// `cleanup_interval`; 5 s by default.
    pub cleanup_interval: Duration,
}

/// Endpoints that are what names resolve to.
#[derive(Debug, Clone, PartialEq)]
pub struct Names {
    /// The names to look up.
    pub assignment: Arc<LoadAssignment>,
    /// LOGICAL_DNS: the one name is one endpoint, at the first of its addresses. Else every address of every
    /// name is an endpoint.
    pub logical: bool,
    /// `dns_lookup_family`
    pub family: DnsFamily,
    /// When a name is looked up again; every 5 s by default.
    pub refresh: Refresh,
    /// `typed_dns_resolver_config`; none means the bootstrap's.
    pub resolver: Option<Arc<Resolver>>,
    /// `wait_for_warm_on_init`: whether the first answer is waited for.
    pub warming: bool,
}

/// How an endpoint is picked: Envoy `Cluster.LbPolicy`, or the extension in `load_balancing_policy`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LbPolicy {
    /// ROUND_ROBIN
    RoundRobin {
        /// `slow_start_config`
        slow_start: Option<SlowStart>,
    },
    /// LEAST_REQUEST
    LeastRequest(LeastRequest),
    /// RANDOM
    Random,
    /// `envoy.load_balancing_policies.peak_ewma`
    PeakEwma(PeakEwma),
    /// RING_HASH or MAGLEV: a hash of the request finds the same endpoint each time.
    Hash(HashLb),
}

/// What governs consistent hashing (Envoy `RingHash` or `Maglev` with `ConsistentHashingLbConfig`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashLb {
    /// The table of endpoints.
    pub table: HashTableKind,
    /// `use_hostname_for_hashing`: whether an endpoint stands in the table by its name, not by its address.
    pub use_hostname: bool,
    /// `hash_balance_factor`: how many requests an endpoint may have under way before others take over, in percent
    /// of its share, at least 100; none means no bound.
    pub balance_factor: Option<u32>,
}

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashTableKind {
    /// RING_HASH
    Ring {
        /// `minimum_ring_size`; 1,024 by default.
        minimum: u32,
        /// `maximum_ring_size`, up to 8,388,608, which is the default.
        maximum: u32,
        /// `hash_function`
        function: HashFunction,
    },
    /// MAGLEV
    Maglev {
        /// `table_size`, a prime number up to 5,000,011; 65,537 by default.
        size: u32,
    },
}

/// Envoy `RingHashLbConfig.HashFunction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// XX_HASH
    #[default]
    XxHash,
    /// MURMUR_HASH_2: that of C++'s standard library.
    MurmurHash2,
}

impl Default for LbPolicy {
    fn default() -> Self {
        Self::RoundRobin { slow_start: None }
    }
}

impl LbPolicy {
    /// `slow_start_config`, if endpoints are to start slowly.
    pub fn slow_start(&self) -> Option<&SlowStart> {
        match self {
            Self::RoundRobin { slow_start } => slow_start.as_ref(),
            Self::LeastRequest(LeastRequest { slow_start, .. }) => slow_start.as_ref(),
            Self::Random | Self::PeakEwma(_) | Self::Hash(_) => None,
        }
    }
}

/// Envoy `LeastRequestLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeastRequest {
    /// `choice_count`, at least 2; 2 by default.
    pub choices: u32,
    /// `selection_method` FULL_SCAN: all endpoints are compared rather than some random ones.
    pub full_scan: bool,
    /// `active_request_bias`, at least 0; 1 by default. Of weight where weights differ.
    pub active_request_bias: f64,
    /// `slow_start_config`
    pub slow_start: Option<SlowStart>,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self { choices: 2, full_scan: false, active_request_bias: 1.0, slow_start: None }
    }
}

/// Envoy `PeakEwma`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakEwma {
    /// `decay_time`: age at which a measurement counts for a third, longer than 0; 10 s by default.
    pub decay: Duration,
    /// `default_rtt`: what is expected of an endpoint that was never measured; 10 ms by default.
    pub default_rtt: Duration,
    /// `penalty_value`: what stands for milliseconds of waiting where requests are under way and none was ever
    /// answered, at least 0; a million by default.
    pub penalty: f64,
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(10),
            penalty: 1e6,
        }
    }
}

/// Envoy `SlowStartConfig`: how a new endpoint's weight grows to its full size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// `slow_start_window`, longer than 0.
    pub window: Duration,
    /// `aggression`, larger than 0; 1 (linear) by default.
    pub aggression: f64,
    /// `min_weight_percent` as a share of 1; 0.1 by default.
    pub min_weight: f64,
}

/// How localities are treated (Envoy `locality_config_specifier`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalityLb {
    /// `zone_aware_lb_config`; also when neither is given. Without effect unless this proxy's own cluster is
    /// known.
    ZoneAware(ZoneAware),
    /// `locality_weighted_lb_config`: localities get traffic by their weights.
    Weighted,
}

impl Default for LocalityLb {
    fn default() -> Self {
        Self::ZoneAware(ZoneAware::default())
    }
}

/// Envoy `ZoneAwareLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneAware {
    /// `routing_enabled`: whole percent of requests it is applied to; 100 by default.
    pub routing_enabled: u32,
    /// `min_cluster_size`: healthy endpoints below which it is not applied; 6 by default.
    pub min_cluster_size: u64,
    /// `fail_traffic_on_panic`: whether nothing is picked in panic.
    pub fail_traffic_on_panic: bool,
    /// `force_local_zone.min_size`: healthy endpoints in this proxy's zone from which on they get everything.
    pub force_local_zone: Option<u32>,
    /// `locality_basis` HEALTHY_HOSTS_WEIGHT: whether the weights of endpoints are compared rather than their
    /// number.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_local_zone: None,
            by_weight: false,
        }
    }
}

/// Envoy `CircuitBreakers.Thresholds` of one priority.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// `max_connections`; 1,024 by default.
    pub max_connections: u32,
    /// `max_pending_requests`; 1,024 by default.
    pub max_pending_requests: u32,
    /// `max_requests`; 1,024 by default.
    pub max_requests: u32,
    /// `max_retries`; 3 by default.
    pub max_retries: u32,
    /// `retry_budget`, in place of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// `track_remaining`: whether the `remaining_*` gauges are kept.
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// Envoy `OutlierDetection`. Percentages are 0 to 100; an `enforcing_*` of 0 only counts.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    /// 5xx in a row that eject; 5 by default.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row that eject; 5 by default.
    pub consecutive_gateway_failure: u32,
    /// Locally originated failures in a row that eject; 5 by default.
    pub consecutive_local_origin_failure: u32,
    /// 100 by default.
    pub enforcing_consecutive_5xx: u32,
    /// 0 by default.
    pub enforcing_consecutive_gateway_failure: u32,
    /// 100 by default.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Whether local failures are counted apart from responses.
    pub split_external_local_origin_errors: bool,
    /// Time between sweeps; 10 s by default.
    pub interval: Duration,
    /// Ejection lasts this, times the number of ejections; 30 s by default.
    pub base_ejection_time: Duration,
    /// Longest ejection; the larger of 300 s and the base by default.
    pub max_ejection_time: Duration,
    /// Random addition to the ejection time; 0 by default.
    pub max_ejection_time_jitter: Duration,
    /// Share of hosts that may be ejected, at least one host; 10 by default.
    pub max_ejection_percent: u32,
    /// Success-rate ejection: hosts needed (5), requests needed per host (100), deviations × 1,000 (1,900), enforcing (100).
    pub success_rate: RateDetection,
    /// `success_rate_stdev_factor`
    pub success_rate_stdev_factor: u32,
    /// Failure-percentage ejection: hosts needed (5), requests needed (50), enforcing (0).
    pub failure_percentage: RateDetection,
    /// `failure_percentage_threshold`; 85 by default.
    pub failure_percentage_threshold: u32,
    /// `always_eject_one_host`
    pub always_eject_one_host: bool,
    /// `successful_active_health_check_uneject_host`: a passed active check ends an ejection; true by
    /// default.
    pub uneject_on_active_success: bool,
}

/// Conditions of a rate-based detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDetection {
    /// Hosts with enough requests that are needed.
    pub minimum_hosts: u32,
    /// Requests a host needs in one interval.
    pub request_volume: u32,
    /// Percent of detections enforced.
    pub enforcing: u32,
}

/// Envoy `HttpProtocolOptions` of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamHttp {
    /// Which protocol is spoken.
    pub protocol: UpstreamProtocol,
    /// HTTP/2 settings.
    pub http2: Http2Options,
    /// `common_http_protocol_options.idle_timeout`; 1 h by default.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`; 0 means no limit.
    pub max_requests_per_connection: u32,
    /// `common_http_protocol_options.max_stream_duration`
    pub max_stream_duration: Option<Duration>,
    /// `upstream_http_protocol_options.auto_sni`
    pub auto_sni: bool,
    /// `upstream_http_protocol_options.override_auto_sni_header`: names the host for both where a request has it.
    pub override_auto_sni_header: Option<http::HeaderName>,
    /// `upstream_http_protocol_options.auto_san_validation`
    pub auto_san_validation: bool,
    /// `http_protocol_options.enable_trailers`
    pub enable_trailers: bool,
    /// `common_http_protocol_options.max_headers_count` of responses; 100 by default.
    pub max_headers_count: u32,
    /// `max_response_headers_kb` in bytes; 60 KiB by default.
    pub max_response_headers: u32,
}

/// Which protocol is spoken to endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// `explicit_http_config.http_protocol_options`, and the default
    #[default]
    Http1,
    /// `explicit_http_config.http2_protocol_options`
    Http2,
    /// `auto_config`: ALPN decides
    Alpn,
    /// `use_downstream_protocol_config`
    Downstream,
}

/// Envoy `Cluster.TransportSocketMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportSocketMatch {
    /// Its name, for statistics.
    pub name: Name,
    /// All must equal the endpoint's `envoy.transport_socket_match` metadata.
    pub criteria: HashMap<String, String>,
    /// TLS to use; none means plain text (`raw_buffer`).
    pub tls: Option<Arc<UpstreamTls>>,
}
