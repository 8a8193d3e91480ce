//! One worker's shards of what HTTP filters count.

use std::cell::RefCell;
use std::hash::Hash;
use std::sync::Arc;

use crate::config::http_filter::SessionScope;
use crate::config::{HashMap, Name};
use crate::telemetry::metrics::{CorsStats, Metrics, SessionStats};

/// Shards of one kind by what they are counted under.
#[derive(Debug)]
pub struct Shards<S, K = Name>(RefCell<HashMap<K, Arc<S>>>);

impl<S, K> Default for Shards<S, K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<S, K: Clone + Eq + Hash> Shards<S, K> {
    /// The shard for `key`, which `make` makes if it is new.
    pub fn get(&self, key: &K, make: impl FnOnce() -> Arc<S>) -> Arc<S> {
        let mut known = self.0.borrow_mut();
        if let Some(shard) = known.get(key) {
            return Arc::clone(shard);
        }
        let shard = make();
        known.insert(key.clone(), Arc::clone(&shard));
        shard
    }
}

/// See the module.
#[derive(Debug)]
pub struct FilterStats {
    metrics: Arc<Metrics>,
    cors: Shards<CorsStats>,
    sessions: Shards<SessionStats, SessionScope>,
}

impl FilterStats {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), cors: Shards::default(), sessions: Shards::default() }
    }

    /// Of `cors` filters of connection managers with this stat prefix.
    pub fn cors(&self, stat_prefix: &Name) -> Arc<CorsStats> {
        self.cors.get(stat_prefix, || self.metrics.cors(stat_prefix))
    }

    /// Of sessions.
    pub fn sessions(&self, scope: &SessionScope) -> Arc<SessionStats> {
        self.sessions.get(scope, || self.metrics.session(&scope.manager, &scope.prefix))
    }
}
