//! Keeps the names of clusters resolved; what was found last stays until something else is found.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Name;
use crate::config::dns::{DnsFamily, Refresh, Resolver};
use crate::dns::schedule::Schedule;
use crate::dns::{Failed, Resolved, Resolvers};
use crate::telemetry::metrics::{Metrics, ResolutionStats, Scope};

/// A name to resolve, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Query {
    pub(super) host: Name,
    pub(super) family: DnsFamily,
    pub(super) refresh: Refresh,
    pub(super) resolver: Arc<Resolver>,
    /// LOGICAL_DNS: the order of addresses counts, and there is always at least one.
    pub(super) logical: bool,
}

/// The queries of all clusters, with who asks.
pub(super) type Queries = BTreeMap<Query, Asking>;

/// Those who ask for one name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Asking {
    /// Stat names of the clusters, each as often as it names the name.
    pub(super) clusters: Vec<Name>,
    /// Whether one of them is warm only once there is an answer (`wait_for_warm_on_init`).
    pub(super) warming: bool,
}

/// The addresses last found: sorted, but for LOGICAL_DNS.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<Name, Vec<Answered>>);

type Answered = (Query, Arc<[IpAddr]>);

impl Found {
    /// The addresses of a query. One that has no answer yet, because its configuration has just changed, has
    /// those of another for the same host: they are better than none.
    pub(super) fn get(&self, query: &Query) -> Option<&Arc<[IpAddr]>> {
        let all = self.0.get(&query.host)?;
        let own = all.iter().find(|(it, _)| it == query);
        own.or(all.first()).map(|(_, addresses)| addresses)
    }

    /// Takes an answer; whether it is another than the one before.
    fn insert(&mut self, query: Query, addresses: Arc<[IpAddr]>) -> bool {
        let changed = self.get(&query).map_or(!addresses.is_empty(), |old| *old != addresses);
        let all = self.0.entry(Arc::clone(&query.host)).or_default();
        all.retain(|(it, _)| *it != query);
        all.push((query, addresses));
        changed
    }

    /// Forgets what nobody asks for any more, once those who ask now for the same host have their answer.
    pub(super) fn keep(&mut self, queries: &Queries) {
        let mut hosts: BTreeMap<&Name, Vec<&Query>> = BTreeMap::new();
        for query in queries.keys() {
            hosts.entry(&query.host).or_default().push(query);
        }
        self.0.retain(|host, all| {
            let Some(wanted) = hosts.get(host) else { return false };
            let is_answered = |query: &&Query| all.iter().any(|(it, _)| it == *query);
            if wanted.iter().all(is_answered) {
                all.retain(|(query, _)| wanted.contains(&query));
            }
            true
        });
    }
}

/// What became of a lookup.
#[derive(Debug)]
pub(super) struct Event {
    query: Query,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Begun,
    Found(Arc<[IpAddr]>),
    Failed,
}

/// Lookups in the background, one task for each query.
pub(super) struct Lookups {
    resolvers: Arc<Resolvers>,
    metrics: Arc<Metrics>,
    running: BTreeMap<Query, Running>,
    unanswered: BTreeSet<Query>,
    sender: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// A task, ended when this is dropped.
struct Running {
    task: AbortHandle,
    asking: Asking,
    stats: Vec<Arc<ResolutionStats>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lookups {
    /// No lookups yet.
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            resolvers: Arc::new(Resolvers::new(Arc::clone(metrics))),
            metrics: Arc::clone(metrics),
            running: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            sender,
            events,
        }
    }

    /// Resolves these names from now on, and no others.
    pub(super) fn want(&mut self, queries: &Queries) {
        self.running.retain(|query, _| queries.contains_key(query));
        self.unanswered.retain(|query| queries.contains_key(query));
        for (query, asking) in queries {
            match self.running.get_mut(query) {
                Some(running) if running.asking == *asking => {}
                Some(running) => {
                    running.stats = stats(&self.metrics, asking);
                    running.asking = asking.clone();
                }
                None => self.start(query, asking),
            }
        }
    }

    fn start(&mut self, query: &Query, asking: &Asking) {
        let lookup = Lookup { query: query.clone(), resolvers: Arc::clone(&self.resolvers) };
        let task = tokio::spawn(lookup.keep_resolving(self.sender.clone())).abort_handle();
        let stats = stats(&self.metrics, asking);
        self.running.insert(query.clone(), Running { task, asking: asking.clone(), stats });
        if asking.warming {
            self.unanswered.insert(query.clone());
        }
    }

    /// Takes the first answers into `found` until each query has one, or `limit` has passed.
    pub(super) async fn first_answers(&mut self, found: &mut Found, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.unanswered.is_empty() {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => drop(self.take_all(event, found)),
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// Waits until something comes of a lookup. May be dropped while waiting.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            // The channel stays open: this value holds a sender itself.
            if let Some(event) = self.events.recv().await {
                return event;
            }
        }
    }

    /// Takes an event and all that wait behind it into `found`; whether they change anything.
    pub(super) fn take_all(&mut self, event: Event, found: &mut Found) -> bool {
        let mut changed = self.take(event, found);
        while let Ok(event) = self.events.try_recv() {
            changed |= self.take(event, found);
        }
        changed
    }

    fn take(&mut self, Event { query, kind }: Event, found: &mut Found) -> bool {
        let Some(running) = self.running.get(&query) else { return false };
        let count = |counts: &dyn Fn(&ResolutionStats)| {
            running.stats.iter().for_each(|stats| counts(stats));
        };
        let addresses = match kind {
            Kind::Begun => {
                count(&|stats| stats.update_attempt.inc());
                return false;
            }
            Kind::Failed => {
                count(&|stats| stats.update_failure.inc());
                self.unanswered.remove(&query);
                return false;
            }
            Kind::Found(addresses) => addresses,
        };
        count(&|stats| stats.update_success.inc());
        self.unanswered.remove(&query);
        let is_changed = found.insert(query, addresses);
        if !is_changed {
            count(&|stats| stats.update_no_rebuild.inc());
        }
        is_changed
    }
}

fn stats(metrics: &Metrics, asking: &Asking) -> Vec<Arc<ResolutionStats>> {
    asking.clusters.iter().map(|name| metrics.resolution(Scope::cluster(name))).collect()
}

/// One name that is resolved again and again.
struct Lookup {
    query: Query,
    resolvers: Arc<Resolvers>,
}

impl Lookup {
    async fn keep_resolving(self, events: mpsc::UnboundedSender<Event>) {
        let mut schedule = Schedule::new(self.query.refresh);
        let mut random = Rng::new();
        let mut failing = false;
        let tell = |kind| events.send(Event { query: self.query.clone(), kind }).is_ok();
        while tell(Kind::Begun) {
            let (kind, wait) = match self.resolve().await {
                Ok(Resolved { addresses, ttl, .. }) => {
                    failing = false;
                    (Kind::Found(addresses.into()), schedule.after_answer(ttl, &mut random))
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!("{} cannot be resolved: {error}", self.query.host);
                    }
                    failing = true;
                    (Kind::Failed, schedule.after_failure(&mut random))
                }
            };
            if !tell(kind) {
                return;
            }
            sleep(wait).await;
        }
    }

    async fn resolve(&self) -> Result<Resolved, Failed> {
        let Query { host, family, resolver, logical, .. } = &self.query;
        let mut resolved = self.resolvers.lookup(host, *family, resolver, None).await?;
        if !logical {
            resolved.addresses.sort_unstable();
        } else if resolved.addresses.is_empty() {
            return Err(Failed::no_address());
        }
        Ok(resolved)
    }
}
