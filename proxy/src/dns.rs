//! Resolves names: one lookup at a time of what configuration says, bounded in number, never on a worker.

pub mod cache;
pub mod caches;
pub mod schedule;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig,
    ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::system_conf::read_system_conf;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::config::dns::{DnsFamily, Resolver};
use crate::telemetry::metrics::{DnsStats, Metrics};

/// Most lookups at once: thousands of names must not flood the name server, nor run out of sockets.
const AT_ONCE: usize = 64;
/// Envoy's words for a name that does not exist.
const NO_NAME: &str = "cares_norecords:Domain_name_not_found";
/// Envoy's words for a name that has other records.
const NO_DATA: &str = "cares_norecords:DNS_server_returned_answer_with_no_data";

/// What a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// In the order in which they were answered, without repetition. None if the name does not exist or has
    /// no address of the kind asked for.
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be used; zero if there is none.
    pub ttl: Duration,
    /// Why there is none, in Envoy's words; empty if there is one.
    pub reason: &'static str,
}

/// Why a name was not resolved: no server answered, or none wanted to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    message: String,
    reason: &'static str,
}

impl Failed {
    /// The answer was that there is no address, where there has to be one.
    pub fn no_address() -> Self {
        Self { message: "it has no address".to_owned(), reason: NO_NAME }
    }

    /// The answer would have come too late.
    pub fn too_late() -> Self {
        Self { message: "no answer within the time for it".to_owned(), reason: "resolve_timeout" }
    }

    /// What was the matter, in Envoy's words.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl From<NetError> for Failed {
    fn from(error: NetError) -> Self {
        let reason = match &error {
            NetError::Timeout => "cares_failure:Timeout_while_contacting_DNS_servers",
            NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
                "cares_failure:DNS_server_refused_query"
            }
            NetError::Dns(DnsError::ResponseCode(_)) => {
                "cares_failure:DNS_server_returned_general_failure"
            }
            _ => "cares_failure:Could_not_contact_DNS_servers",
        };
        Self { message: error.to_string(), reason }
    }
}

/// What makes a resolver another one.
type Key = (Arc<Resolver>, DnsFamily);

/// All resolvers of the process, one for each configuration in use.
pub struct Resolvers {
    /// None if there can be none.
    known: Mutex<BTreeMap<Key, Option<TokioResolver>>>,
    at_once: Semaphore,
    metrics: Arc<Metrics>,
    /// From the first lookup on.
    stats: OnceLock<Arc<DnsStats>>,
}

impl Resolvers {
    /// No resolvers yet. Lookups are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            known: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            metrics,
            stats: OnceLock::new(),
        }
    }

    /// Looks `host` up once. To be awaited on the control runtime.
    ///
    /// # Errors
    /// No name server gave an answer.
    pub async fn lookup(
        &self,
        host: &str,
        family: DnsFamily,
        config: &Arc<Resolver>,
    ) -> Result<Resolved, Failed> {
        let stats = self.stats.get_or_init(|| self.metrics.dns());
        stats.resolve_total.inc();
        let pending = Pending::new(stats);
        let result = self.ask(host, family, config).await;
        drop(pending);
        match &result {
            Ok(resolved) if resolved.addresses.is_empty() => stats.not_found.inc(),
            Ok(_) => {}
            Err(NetError::Timeout) => stats.timeouts.inc(),
            Err(_) => stats.get_addr_failure.inc(),
        }
        result.map_err(Failed::from)
    }

    async fn ask(
        &self,
        host: &str,
        family: DnsFamily,
        config: &Arc<Resolver>,
    ) -> Result<Resolved, NetError> {
        // The semaphore is never closed: with an error there is merely no limit.
        let _permit = self.at_once.acquire().await.ok();
        let resolver = self.resolver(family, config).ok_or(NetError::NoConnections)?;
        let found = match resolver.lookup_ip(host).await {
            Ok(found) => found,
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
                let reason =
                    if response_code == ResponseCode::NXDomain { NO_NAME } else { NO_DATA };
                return Ok(Resolved { addresses: Vec::new(), ttl: Duration::ZERO, reason });
            }
            Err(error) => return Err(error),
        };
        let ttl = found.valid_until().saturating_duration_since(std::time::Instant::now());
        let mut addresses = Vec::new();
        for address in found.iter() {
            if !addresses.contains(&address) && (!config.only_routable || is_routable(address)) {
                addresses.push(address);
            }
        }
        let reason = if addresses.is_empty() { NO_DATA } else { "" };
        Ok(Resolved { addresses, ttl: whole_seconds(ttl), reason })
    }

    fn resolver(&self, family: DnsFamily, config: &Arc<Resolver>) -> Option<TokioResolver> {
        let mut known = self.known.lock();
        let make = || {
            build(family, config)
                .inspect_err(|error| tracing::error!("names cannot be resolved: {error}"))
                .ok()
        };
        known.entry((Arc::clone(config), family)).or_insert_with(make).clone()
    }
}

impl std::fmt::Debug for Resolvers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolvers").finish_non_exhaustive()
    }
}

/// A lookup under way; it may be given up.
struct Pending<'a>(&'a DnsStats);

impl<'a> Pending<'a> {
    fn new(stats: &'a DnsStats) -> Self {
        stats.pending_resolutions.add(1);
        Self(stats)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending_resolutions.add(-1);
    }
}

/// A time to live counts from when the answer came: what passed since is rounding.
fn whole_seconds(ttl: Duration) -> Duration {
    Duration::from_millis(
        ttl.as_millis().div_ceil(1000).saturating_mul(1000).try_into().unwrap_or(u64::MAX),
    )
}

fn build(family: DnsFamily, config: &Resolver) -> Result<TokioResolver, NetError> {
    let (system, mut options) = match read_system_conf() {
        Ok(system) => system,
        Err(error) if config.servers.is_empty() => return Err(error),
        Err(_) => (ResolverConfig::default(), ResolverOpts::default()),
    };
    let (domain, search, mut servers) = system.into_parts();
    let keeps_system = config.fallback && !servers.is_empty();
    if !config.servers.is_empty() && !keeps_system {
        servers = config.servers.iter().map(|address| server(*address)).collect();
    }
    if config.tcp {
        for server in &mut servers {
            server.connections.retain(|it| matches!(it.protocol, ProtocolConfig::Tcp));
        }
    }
    let parts = if config.no_search {
        ResolverConfig::from_parts(None, Vec::new(), servers)
    } else {
        ResolverConfig::from_parts(domain, search, servers)
    };
    options.ip_strategy = match family {
        DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    // The refresh rate says how old an answer may be.
    options.cache_size = 0;
    options.max_active_requests = AT_ONCE;
    options.timeout = config.timeout.unwrap_or(options.timeout);
    if let Some(tries) = config.tries {
        options.attempts = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    }
    if config.rotate {
        options.server_ordering_strategy = ServerOrderingStrategy::RoundRobin;
    }
    if let Some(payload) = config.max_payload {
        options.edns0 = true;
        options.edns_payload_len = payload;
    }
    let builder = TokioResolver::builder_with_config(parts, TokioRuntimeProvider::default());
    builder.with_options(options).build()
}

fn server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Whether this machine has a way to `address`: the kernel knows without a packet being sent.
fn is_routable(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53))).is_ok()
}
