//! How names become addresses: which name servers are asked, for which kind of address, and how often.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Name;

/// Who is asked (Envoy `CaresDnsResolverConfig`). The default is the system's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resolver {
    /// `resolvers`: name servers in place of the system's; empty means the system's.
    pub servers: Vec<SocketAddr>,
    /// `use_resolvers_as_fallback`: `servers` are asked only if the system has none.
    pub fallback: bool,
    /// `filter_unroutable_families`: addresses of a family that this machine has no way to are left out.
    pub only_routable: bool,
    /// `dns_resolver_options.use_tcp_for_dns_lookups`
    pub tcp: bool,
    /// `dns_resolver_options.no_default_search_domain`: names are taken as they are.
    pub no_search: bool,
    /// `query_timeout_seconds`
    pub timeout: Option<Duration>,
    /// `query_tries`, at least 1.
    pub tries: Option<u32>,
    /// `rotate_nameservers`
    pub rotate: bool,
    /// `edns0_max_payload_size` in bytes, 512 to 4,096.
    pub max_payload: Option<u16>,
}

/// Envoy `Cluster.DnsLookupFamily`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsFamily {
    /// AUTO: IPv6, and IPv4 if there is none.
    #[default]
    Auto,
    /// V4_ONLY
    V4Only,
    /// V6_ONLY
    V6Only,
    /// V4_PREFERRED
    V4Preferred,
    /// ALL
    All,
}

/// When a name is looked up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refresh {
    /// `dns_refresh_rate`: time after an answer.
    pub rate: Duration,
    /// `respect_dns_ttl`: an answer's own time to live goes before `rate`.
    pub respect_ttl: bool,
    /// `dns_min_refresh_rate`: the least that a time to live counts for.
    pub min: Duration,
    /// `dns_jitter`: up to this much is added after an answer.
    pub jitter: Duration,
    /// `dns_failure_refresh_rate`: time after a failure; none means `rate`.
    pub failure: Option<BackOff>,
}

/// Envoy `Cluster.RefreshRate`: a random time below an interval that doubles with every failure in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackOff {
    /// `base_interval`, the first.
    pub base: Duration,
    /// `max_interval`, not below `base`.
    pub max: Duration,
}

/// Names that requests bring, and what is known of them (Envoy `DnsCacheConfig`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// `name`: who uses the same name uses the same cache.
    pub name: Name,
    /// `dns_lookup_family`
    pub family: DnsFamily,
    /// When a name is looked up again: after its time to live, but not before `dns_min_refresh_rate` (5 s by
    /// default); after `dns_refresh_rate` (60 s by default) if it has none.
    pub refresh: Refresh,
    /// `typed_dns_resolver_config`; none means the bootstrap's.
    pub resolver: Option<Arc<Resolver>>,
    /// `host_ttl`: a name unused for longer is forgotten; 5 min by default.
    pub host_ttl: Duration,
    /// `max_hosts`: most names; 1,024 by default.
    pub max_hosts: u32,
    /// `dns_cache_circuit_breaker.max_pending_requests`: most requests waiting for a lookup; 1,024 by default.
    pub max_pending: u32,
    /// `preresolve_hostnames`: names with ports that are looked up from the start.
    pub preresolve: Vec<(Name, u16)>,
    /// `dns_query_timeout`; none means no limit, 5 s by default.
    pub timeout: Option<Duration>,
}
