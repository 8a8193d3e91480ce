//! Counts what became of each update, under Envoy's names.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::candidates::{Fault, Source};
use super::state::{State, chains};
use crate::config::Name;
use crate::config::cluster::{Cluster, Discovery};
use crate::config::http::RouteSource;
use crate::config::source::ResourceSource;
use crate::discovery::file::{self, FileKey, Kind, Resource};
use crate::discovery::served::ServedKey;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{ConfigCacheStats, Metrics, Scope, SubscriptionStats};

/// The statistics of all subscriptions.
pub(super) struct Stats {
    metrics: Arc<Metrics>,
    /// Held here, as a subscription nobody holds is no longer shown.
    subscriptions: BTreeMap<Scope, Arc<SubscriptionStats>>,
    config_cache: Option<Arc<ConfigCacheStats>>,
}

impl Stats {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, subscriptions: BTreeMap::new(), config_cache: None }
    }

    /// Where everything is counted.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Those of what is kept on disk.
    pub(super) fn config_cache(&mut self) -> Arc<ConfigCacheStats> {
        let metrics = &self.metrics;
        Arc::clone(self.config_cache.get_or_insert_with(|| metrics.config_cache()))
    }

    /// The present content of `source` is not in use.
    pub(super) fn refused(&mut self, source: &Source, state: &State, fault: Fault) {
        if *source == Source::Bootstrap {
            self.metrics.server().bootstrap_reload_attempt.inc();
            self.metrics.server().bootstrap_reload_failure.inc();
        }
        for stats in self.of(source, state) {
            stats.update_attempt.inc();
            match fault {
                Fault::Text => stats.update_failure.inc(),
                Fault::Content | Fault::Fit => stats.update_rejected.inc(),
            }
        }
    }

    /// The present content of `source` is in use now.
    pub(super) fn taken(&mut self, source: &Source, state: &State) {
        if *source == Source::Bootstrap {
            self.metrics.server().bootstrap_reload_attempt.inc();
            self.metrics.server().bootstrap_reload_success.inc();
        }
        let version = version(source, state);
        for stats in self.of(source, state) {
            stats.update_attempt.inc();
            note_success(&stats, version);
        }
    }

    /// A server sent resources with these names; whether all of that was taken.
    pub(super) fn heard(
        &mut self,
        key: &ServedKey,
        names: &[Name],
        taken: bool,
        version: &str,
        state: &State,
    ) {
        for stats in self.served(key, names, state) {
            stats.update_attempt.inc();
            match taken {
                true => note_success(&stats, number(version)),
                false => stats.update_rejected.inc(),
            }
        }
    }

    /// A resource has not come in time.
    pub(super) fn missing(&mut self, key: &ServedKey, name: &Name, state: &State) {
        for stats in self.served(key, std::slice::from_ref(name), state) {
            stats.init_fetch_timeout.inc();
        }
    }

    fn served(
        &mut self,
        key: &ServedKey,
        names: &[Name],
        state: &State,
    ) -> Vec<Arc<SubscriptionStats>> {
        let all: HashSet<&Name> = names.iter().collect();
        let scopes = match key.kind {
            Kind::Listener => vec![Scope::Lds],
            Kind::Cluster => vec![Scope::Cds],
            Kind::Secret => names.iter().map(|name| Scope::sds(name)).collect(),
            Kind::Endpoints => {
                let of = |cluster: &Cluster| match &cluster.discovery {
                    Discovery::Eds(source) => all.contains(&source.name),
                    _ => false,
                };
                let waiting = state.served.values().flat_map(|set| set.warming.values());
                let waiting = waiting.filter_map(|item| match &item.resource {
                    Resource::Cluster(cluster) => Some(cluster),
                    _ => None,
                });
                let clusters = state.clusters();
                let clusters = clusters.iter().map(|placed| placed.value).chain(waiting);
                let clusters = clusters.filter(|cluster| of(cluster));
                clusters.map(|cluster| Scope::cluster(&cluster.stat_name)).collect()
            }
            Kind::Routes => table_scopes(state, |source| {
                all.contains(&source.name)
                    && source.source.server().is_some_and(|source| source.server == key.server)
            }),
            Kind::Extension => Vec::new(),
        };
        self.shared(scopes)
    }

    fn shared(&mut self, scopes: Vec<Scope>) -> Vec<Arc<SubscriptionStats>> {
        let metrics = &self.metrics;
        scopes
            .into_iter()
            .map(|scope| {
                let entry = self.subscriptions.entry(scope.clone());
                Arc::clone(entry.or_insert_with(|| metrics.subscription(scope)))
            })
            .collect()
    }

    /// `new` has replaced `old`.
    pub(super) fn published(&self, old: &Snapshot, new: &Snapshot) {
        let server = self.metrics.server();
        for (name, cluster) in &new.clusters {
            match old.clusters.get(name) {
                None => server.cluster_added.inc(),
                Some(old) if old.config != cluster.config => server.cluster_modified.inc(),
                Some(_) => {}
            }
        }
        for name in old.clusters.keys().filter(|name| !new.clusters.contains_key(*name)) {
            tracing::debug!("cluster {name} is removed");
            server.cluster_removed.inc();
        }
        server.active_clusters.set(i64::try_from(new.clusters.len()).unwrap_or(i64::MAX));
    }

    fn of(&mut self, source: &Source, state: &State) -> Vec<Arc<SubscriptionStats>> {
        let Source::File(key) = source else { return Vec::new() };
        self.shared(scopes(key, state))
    }
}

fn note_success(stats: &SubscriptionStats, version: i64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stats.update_success.inc();
    stats.update_time.set(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    stats.version.set(version);
}

/// A number that stands for the version of a file, as dashboards compare it between proxies.
fn version(source: &Source, state: &State) -> i64 {
    let Source::File(key) = source else { return 0 };
    state.files.get(key).map_or(0, |file| number(&file.version))
}

/// A number that stands for a version.
fn number(version: &str) -> i64 {
    // Halved, for a gauge is signed.
    (file::digest(version.as_bytes()) >> 1).cast_signed()
}

/// The subscriptions that a file serves.
fn scopes(key: &FileKey, state: &State) -> Vec<Scope> {
    let names = || state.files.get(key).into_iter().flat_map(|file| file.items.keys());
    match key.kind {
        Kind::Listener => vec![Scope::Lds],
        Kind::Cluster => vec![Scope::Cds],
        Kind::Endpoints => names().map(|name| Scope::cluster(name)).collect(),
        Kind::Secret => names().map(|name| Scope::sds(name)).collect(),
        Kind::Routes => table_scopes(state, |source| {
            source.source.file().is_some_and(|file| file.path == key.path)
        }),
        Kind::Extension => Vec::new(),
    }
}

/// The subscriptions to route tables that come from where `is_it` says.
fn table_scopes(state: &State, is_it: impl Fn(&ResourceSource) -> bool) -> Vec<Scope> {
    let waiting = state.served.values().flat_map(|set| set.warming.values());
    let waiting = waiting.filter_map(|item| match &item.resource {
        Resource::Listener(listener) => Some(listener),
        _ => None,
    });
    let listeners = state.listeners();
    let mut scopes = Vec::new();
    for listener in listeners.iter().map(|placed| placed.value).chain(waiting) {
        for (_, chain) in chains(listener) {
            if let Some(http) = chain.http()
                && let RouteSource::Rds(source) = &http.routes
                && is_it(source)
            {
                scopes.push(Scope::rds(&http.stat_prefix, &source.name));
            }
        }
    }
    scopes.sort();
    scopes.dedup();
    scopes
}
