//! Counts what became of each update, under Envoy's names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::candidates::{Fault, Source};
use super::state::{State, chains};
use crate::config::http::RouteSource;
use crate::discovery::file::{self, FileKey, Kind};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{Metrics, Scope, SubscriptionStats};

/// The statistics of all subscriptions.
pub(super) struct Stats {
    metrics: Arc<Metrics>,
    /// Held here, as a subscription nobody holds is no longer shown.
    subscriptions: BTreeMap<Scope, Arc<SubscriptionStats>>,
}

impl Stats {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, subscriptions: BTreeMap::new() }
    }

    /// Where everything is counted.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let version = version(source, state);
        for stats in self.of(source, state) {
            stats.update_attempt.inc();
            stats.update_success.inc();
            stats.update_time.set(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
            stats.version.set(version);
        }
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
        let metrics = &self.metrics;
        scopes(key, state)
            .into_iter()
            .map(|scope| {
                let entry = self.subscriptions.entry(scope.clone());
                Arc::clone(entry.or_insert_with(|| metrics.subscription(scope)))
            })
            .collect()
    }
}

/// A number that stands for the version of a file, as dashboards compare it between proxies.
fn version(source: &Source, state: &State) -> i64 {
    let Source::File(key) = source else { return 0 };
    let file = state.files.get(key);
    // Halved, for a gauge is signed.
    file.map_or(0, |file| (file::digest(file.version.as_bytes()) >> 1).cast_signed())
}

/// The subscriptions that a file serves.
fn scopes(key: &FileKey, state: &State) -> Vec<Scope> {
    let names = || state.files.get(key).into_iter().flat_map(|file| file.items.keys());
    match key.kind {
        Kind::Listener => vec![Scope::Lds],
        Kind::Cluster => vec![Scope::Cds],
        Kind::Endpoints => names().map(|name| Scope::cluster(name)).collect(),
        Kind::Secret => names().map(|name| Scope::sds(name)).collect(),
        Kind::Routes => {
            let mut scopes = Vec::new();
            for listener in state.listeners() {
                for (_, chain) in chains(listener.value) {
                    if let Some(http) = chain.http()
                        && let RouteSource::Rds(source) = &http.routes
                        && source.source.file().is_some_and(|file| file.path == key.path)
                    {
                        scopes.push(Scope::rds(&http.stat_prefix, &source.name));
                    }
                }
            }
            scopes.sort();
            scopes.dedup();
            scopes
        }
    }
}
