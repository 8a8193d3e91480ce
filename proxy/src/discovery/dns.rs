//! Resolves the names of STRICT_DNS clusters, again and again; what was found last stays until something
//! else is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Name;
use crate::config::cluster::DnsFamily;

/// Longest time that a record's own time to live may put off the next look.
const MAX_TTL: Duration = Duration::from_secs(3600);
/// Most lookups at once: thousands of clusters must not flood the name server, nor run out of sockets.
const AT_ONCE: usize = 64;
/// Shortest time between two looks at the same name.
const MIN_REFRESH: Duration = Duration::from_millis(100);

/// A name to resolve, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Query {
    pub(super) host: Name,
    pub(super) family: DnsFamily,
    pub(super) refresh: Duration,
    pub(super) respect_ttl: bool,
}

/// The addresses last found, sorted.
pub(super) type Found = BTreeMap<Query, Arc<[IpAddr]>>;

/// What a lookup brought: no addresses if it failed.
#[derive(Debug)]
pub(super) struct Answer {
    query: Query,
    addresses: Option<Arc<[IpAddr]>>,
}

/// Lookups in the background, one task for each query.
pub(super) struct Lookups {
    /// None if there can be none.
    resolvers: BTreeMap<DnsFamily, Option<TokioResolver>>,
    running: BTreeMap<Query, AbortHandle>,
    unanswered: BTreeSet<Query>,
    at_once: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Lookups {
    /// No lookups yet.
    pub(super) fn new() -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            resolvers: BTreeMap::new(),
            running: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            sender,
            answers,
        }
    }

    /// Resolves these names from now on, and no others.
    pub(super) fn want(&mut self, queries: &BTreeSet<Query>) {
        self.running.retain(|query, task| {
            let wanted = queries.contains(query);
            if !wanted {
                task.abort();
            }
            wanted
        });
        self.unanswered.retain(|query| queries.contains(query));
        for query in queries {
            if self.running.contains_key(query) {
                continue;
            }
            let Some(resolver) = self.resolver(query.family) else { continue };
            let lookup =
                Lookup { query: query.clone(), resolver, at_once: Arc::clone(&self.at_once) };
            let task = tokio::spawn(lookup.keep_resolving(self.sender.clone()));
            self.running.insert(query.clone(), task.abort_handle());
            self.unanswered.insert(query.clone());
        }
    }

    fn resolver(&mut self, family: DnsFamily) -> Option<TokioResolver> {
        let known = self.resolvers.entry(family).or_insert_with(|| {
            resolver(family)
                .inspect_err(|error| tracing::error!("names cannot be resolved: {error}"))
                .ok()
        });
        known.clone()
    }

    /// Takes the first answers into `found` until each query has one, or `limit` has passed.
    pub(super) async fn first_answers(&mut self, found: &mut Found, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.unanswered.is_empty() {
            match timeout_at(deadline, self.answers.recv()).await {
                Ok(Some(answer)) => drop(self.take_all(answer, found)),
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// Waits for the next answer. May be dropped while waiting.
    pub(super) async fn answer(&mut self) -> Answer {
        loop {
            // The channel stays open: this value holds a sender itself.
            if let Some(answer) = self.answers.recv().await {
                return answer;
            }
        }
    }

    /// Takes an answer and all that wait behind it into `found`; whether they change anything.
    pub(super) fn take_all(&mut self, answer: Answer, found: &mut Found) -> bool {
        let mut changed = self.take(answer, found);
        while let Ok(answer) = self.answers.try_recv() {
            changed |= self.take(answer, found);
        }
        changed
    }

    fn take(&mut self, answer: Answer, found: &mut Found) -> bool {
        self.unanswered.remove(&answer.query);
        let Some(addresses) = answer.addresses else { return false };
        if !self.running.contains_key(&answer.query) {
            return false;
        }
        let old = found.insert(answer.query, Arc::clone(&addresses));
        old.as_ref() != Some(&addresses)
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

fn resolver(family: DnsFamily) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::warn!("no name servers ({error}): check /etc/resolv.conf");
        TokioResolver::builder_with_config(
            ResolverConfig::default(),
            TokioRuntimeProvider::default(),
        )
    });
    let options = builder.options_mut();
    options.ip_strategy = match family {
        DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    // The refresh rate says how old an answer may be.
    options.cache_size = 0;
    builder.build()
}

/// One name that is resolved again and again.
struct Lookup {
    query: Query,
    resolver: TokioResolver,
    at_once: Arc<Semaphore>,
}

impl Lookup {
    async fn keep_resolving(self, answers: mpsc::UnboundedSender<Answer>) {
        let mut failing = false;
        loop {
            let mut wait = self.query.refresh;
            let addresses = match self.resolve().await {
                Ok((addresses, ttl)) => {
                    failing = false;
                    if self.query.respect_ttl && !ttl.is_zero() {
                        wait = ttl.min(MAX_TTL);
                    }
                    Some(addresses)
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!("{} cannot be resolved: {error}", self.query.host);
                    }
                    failing = true;
                    None
                }
            };
            if answers.send(Answer { query: self.query.clone(), addresses }).is_err() {
                return;
            }
            sleep(wait.max(MIN_REFRESH)).await;
        }
    }

    /// The addresses, sorted, and how long they may be used.
    async fn resolve(&self) -> Result<(Arc<[IpAddr]>, Duration), NetError> {
        // The semaphore is never closed: with an error there is merely no limit.
        let _permit = self.at_once.acquire().await.ok();
        let found = self.resolver.lookup_ip(&*self.query.host).await?;
        let ttl = found.valid_until().saturating_duration_since(std::time::Instant::now());
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok((addresses.into(), ttl))
    }
}
