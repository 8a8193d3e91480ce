//! Resolves names: one lookup at a time of what configuration says, bounded in number, never on a worker.

pub mod cache;
pub mod caches;
pub mod schedule;
mod system;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::system::System;
use crate::config::dns::{DnsFamily, Resolver};
use crate::telemetry::metrics::{DnsStats, Metrics};

/// Most lookups at once: thousands of names must not flood the name server, nor run out of sockets.
const AT_ONCE: usize = 64;
/// Envoy's words for a name that does not exist.
const NO_NAME: &str = "cares_norecords:Domain_name_not_found";
/// Envoy's words for a name that has other records.
const NO_DATA: &str = "cares_norecords:DNS_server_returned_answer_with_no_data";

/// Envoy's word for a lookup that was given up.
const TOO_LATE: &str = "resolve_timeout";

/// What a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// In the order in which they were answered, without repetition. None if the name does not exist or has
    /// no address of the kind asked for.
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be used; zero if it does not say.
    pub ttl: Duration,
    /// Why there is none, in Envoy's words; empty if there is one.
    pub reason: &'static str,
}

impl Resolved {
    fn nothing(reason: &'static str) -> Self {
        Self { addresses: Vec::new(), ttl: Duration::ZERO, reason }
    }

    fn literal(address: IpAddr, family: DnsFamily) -> Self {
        let is_wanted = match family {
            DnsFamily::V4Only => address.is_ipv4(),
            DnsFamily::V6Only => address.is_ipv6(),
            DnsFamily::Auto | DnsFamily::V4Preferred | DnsFamily::All => true,
        };
        if !is_wanted {
            return Self::nothing(NO_NAME);
        }
        Self { addresses: vec![address], ttl: Duration::ZERO, reason: "" }
    }
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
        Self { message: "no answer within the time for it".to_owned(), reason: TOO_LATE }
    }

    /// Whether the time for it was over.
    pub fn is_too_late(&self) -> bool {
        self.reason == TOO_LATE
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

/// All resolvers of the process, one for each configuration in use.
pub struct Resolvers {
    known: Mutex<BTreeMap<Arc<Resolver>, Arc<System>>>,
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

    /// Looks `host` up once, for no longer than `limit` from when its turn comes. To be awaited on the control
    /// runtime.
    ///
    /// # Errors
    /// No name server gave an answer.
    pub async fn lookup(
        &self,
        host: &str,
        family: DnsFamily,
        config: &Arc<Resolver>,
        limit: Option<Duration>,
    ) -> Result<Resolved, Failed> {
        let stats = self.stats.get_or_init(|| self.metrics.dns());
        stats.resolve_total.inc();
        let pending = Pending::new(stats);
        // The semaphore is never closed: with an error there is merely no limit.
        let _permit = self.at_once.acquire().await.ok();
        let asking = self.ask(host, family, config);
        let result = match limit {
            None => asking.await,
            Some(limit) => match timeout(limit, asking).await {
                Ok(result) => result,
                Err(_) => return Err(Failed::too_late()),
            },
        };
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
        let mut resolved = match host.parse() {
            // Never a name, whatever the search list makes of it.
            Ok(address) => Resolved::literal(address, family),
            Err(_) => self.system(config)?.resolve(host, family).await?,
        };
        if config.only_routable {
            resolved.addresses.retain(|address| is_routable(*address));
        }
        if resolved.addresses.is_empty() && resolved.reason.is_empty() {
            resolved = Resolved::nothing(NO_DATA);
        }
        Ok(resolved)
    }

    fn system(&self, config: &Arc<Resolver>) -> Result<Arc<System>, NetError> {
        let mut known = self.known.lock();
        if let Some(system) = known.get(config).filter(|system| system.is_current()) {
            return Ok(Arc::clone(system));
        }
        // Those that only this map knows of are for configurations of the past.
        known.retain(|config, _| Arc::strong_count(config) > 1);
        let system = Arc::new(System::new(config)?);
        known.insert(Arc::clone(config), Arc::clone(&system));
        Ok(system)
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

/// Whether this machine has a way to `address`: the kernel knows without a packet being sent.
fn is_routable(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53))).is_ok()
}
