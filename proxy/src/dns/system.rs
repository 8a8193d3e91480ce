//! One lookup as the system's own resolver does it: its hosts file, its search list, its name servers.
//!
//! hickory's lookup of addresses takes any error of one name of the search list for a reason to try the next, and
//! tells of the last one: a name server that fails for a moment would seem to say that there is no such name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};

use super::{AT_ONCE, NO_DATA, NO_NAME, Resolved};
use crate::config::dns::{DnsFamily, Resolver};

/// What the system's resolver is made of.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// The name server of a system that names none (resolv.conf(5)).
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// The system's resolver, changed as one configuration says.
pub(super) struct System {
    resolver: TokioResolver,
    hosts: Hosts,
    search: Vec<Name>,
    /// A name with as many dots is first taken as it is.
    dots: usize,
    made_of: [Option<SystemTime>; 2],
}

impl System {
    /// Reads the system's files.
    ///
    /// # Errors
    /// If hickory can make no resolver of it.
    pub(super) fn new(config: &Resolver) -> Result<Self, NetError> {
        let made_of = changes();
        let (system, mut options) = read_system_conf().unwrap_or_else(|error| {
            tracing::warn!("{}: {error}", FILES[0]);
            (ResolverConfig::default(), ResolverOpts::default())
        });
        let (domain, mut search, mut servers) = system.into_parts();
        if servers.is_empty() && config.servers.is_empty() {
            servers = vec![server(LOCAL)];
        }
        if !config.servers.is_empty() && (servers.is_empty() || !config.fallback) {
            servers = config.servers.iter().map(|address| server(*address)).collect();
        }
        if config.tcp {
            for server in &mut servers {
                server.connections.retain(|it| matches!(it.protocol, ProtocolConfig::Tcp));
            }
        }
        if search.is_empty() {
            search.extend(domain);
        }
        if config.no_search {
            search.clear();
        }
        let dots = options.ndots;
        set(&mut options, config);
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
        let builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build()?;
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { resolver, hosts, search, dots, made_of })
    }

    /// Whether the system's files are still those that it was made of.
    pub(super) fn is_current(&self) -> bool {
        self.made_of == changes()
    }

    /// Looks `host` up, and what the search list makes of it: the next name only if the one before has no
    /// address, as c-ares does.
    ///
    /// # Errors
    /// No name server gave an answer.
    pub(super) async fn resolve(
        &self,
        host: &str,
        family: DnsFamily,
    ) -> Result<Resolved, NetError> {
        let name = Name::from_utf8(host)?;
        let mut resolved = Resolved::nothing(NO_NAME);
        for name in names(&name, &self.search, self.dots) {
            resolved = self.addresses(&name, family).await?;
            if !resolved.addresses.is_empty() {
                break;
            }
        }
        Ok(resolved)
    }

    async fn addresses(&self, name: &Name, family: DnsFamily) -> Result<Resolved, NetError> {
        let v4 = self.records(name, RecordType::A);
        let v6 = self.records(name, RecordType::AAAA);
        match family {
            DnsFamily::V4Only => v4.await,
            DnsFamily::V6Only => v6.await,
            DnsFamily::V4Preferred => first_of(v4, v6).await,
            DnsFamily::Auto => first_of(v6, v4).await,
            DnsFamily::All => {
                let (v4, v6) = tokio::join!(v4, v6);
                both(v4, v6)
            }
        }
    }

    async fn records(&self, name: &Name, kind: RecordType) -> Result<Resolved, NetError> {
        if let Some(listed) = self.hosts.lookup_static_host(&Query::query(name.clone(), kind)) {
            return Ok(Resolved { ttl: Duration::ZERO, ..resolved(&listed) });
        }
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(found) => Ok(resolved(&found)),
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))) => {
                let is_unknown = response_code == ResponseCode::NXDomain;
                Ok(Resolved::nothing(if is_unknown { NO_NAME } else { NO_DATA }))
            }
            Err(error) => Err(error),
        }
    }
}

/// When the system's files were changed last.
fn changes() -> [Option<SystemTime>; 2] {
    FILES.map(|file| std::fs::metadata(file).and_then(|it| it.modified()).ok())
}

fn set(options: &mut ResolverOpts, config: &Resolver) {
    options.use_hosts_file = ResolveHosts::Never;
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
}

fn server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// The names that `name` may stand for, in the order to try them (resolv.conf(5), `search` and `ndots`).
fn names(name: &Name, search: &[Name], dots: usize) -> Vec<Name> {
    let mut alone = name.clone();
    alone.set_fqdn(true);
    if name.is_fqdn() || name.is_localhost() {
        return vec![alone];
    }
    // A name that is too long with a domain is none.
    let searched = search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
    let mut names: Vec<Name> = searched.collect();
    let labels = usize::from(name.num_labels());
    names.insert(if labels > dots { 0 } else { names.len() }, alone);
    names
}

fn resolved(found: &Lookup) -> Resolved {
    let mut addresses = Vec::new();
    for address in found.answers().iter().filter_map(|record| record.data.ip_addr()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    let reason = if addresses.is_empty() { NO_DATA } else { "" };
    Resolved { addresses, ttl: whole_seconds(ttl), reason }
}

/// What `one` finds; if that is nothing, what `other` does.
async fn first_of(
    one: impl Future<Output = Result<Resolved, NetError>>,
    other: impl Future<Output = Result<Resolved, NetError>>,
) -> Result<Resolved, NetError> {
    match one.await {
        Ok(found) if !found.addresses.is_empty() => Ok(found),
        nothing => both(nothing, other.await),
    }
}

/// What both have found. That there is nothing counts only if both say so.
fn both(
    one: Result<Resolved, NetError>,
    other: Result<Resolved, NetError>,
) -> Result<Resolved, NetError> {
    match (one, other) {
        (Ok(one), Ok(other)) if one.addresses.is_empty() => Ok(other),
        (Ok(one), Ok(other)) if other.addresses.is_empty() => Ok(one),
        (Ok(mut one), Ok(other)) => {
            one.addresses.extend(other.addresses);
            one.ttl = one.ttl.min(other.ttl);
            Ok(one)
        }
        (Ok(found), Err(error)) | (Err(error), Ok(found)) => {
            if found.addresses.is_empty() {
                Err(error)
            } else {
                Ok(found)
            }
        }
        (Err(error), Err(_)) => Err(error),
    }
}

/// A time to live counts from when the answer came: what passed since is rounding.
fn whole_seconds(ttl: Duration) -> Duration {
    Duration::from_secs(ttl.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &str, search: &[&str], dots: usize) -> Vec<String> {
        let search: Vec<Name> = search.iter().map(|it| Name::from_utf8(it).unwrap()).collect();
        let name = Name::from_utf8(name).unwrap();
        names(&name, &search, dots).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_tried_as_the_search_list_says() {
        let search = ["shop.svc.local.", "svc.local."];
        assert_eq!(tried("cart", &search, 1), ["cart.shop.svc.local.", "cart.svc.local.", "cart."]);
        assert_eq!(
            tried("api.example.com", &search, 1),
            ["api.example.com.", "api.example.com.shop.svc.local.", "api.example.com.svc.local."]
        );
        assert_eq!(tried("a.b", &search, 5)[2], "a.b.");
        assert_eq!(tried("cart.", &search, 5), ["cart."]);
        assert_eq!(tried("localhost", &search, 5), ["localhost."]);
        assert_eq!(tried("cart", &[], 5), ["cart."]);
    }

    #[test]
    fn nothing_is_an_answer_only_if_both_say_so() {
        let one = || Resolved::literal(IpAddr::V4(Ipv4Addr::LOCALHOST), DnsFamily::All);
        let none = || Resolved::nothing(NO_DATA);
        let failed = || Err(NetError::Timeout);
        assert!(both(Ok(none()), failed()).is_err());
        assert!(both(failed(), Ok(none())).is_err());
        assert_eq!(both(failed(), Ok(one())).unwrap(), one());
        assert_eq!(both(Ok(none()), Ok(one())).unwrap(), one());
        assert_eq!(both(Ok(none()), Ok(none())).unwrap(), none());
    }
}
