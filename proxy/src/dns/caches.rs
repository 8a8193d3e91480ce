//! All caches of names that the configuration has, by name.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Resolvers;
use super::cache::Cache;
use crate::config::dns::{self, Resolver};
use crate::config::{HashMap, Name};
use crate::telemetry::metrics::Metrics;

/// All caches of the process.
#[derive(Debug)]
pub struct Caches {
    known: Mutex<HashMap<Name, Arc<Cache>>>,
    resolvers: Arc<Resolvers>,
    metrics: Arc<Metrics>,
}

impl Caches {
    /// No caches yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let resolvers = Arc::new(Resolvers::new(Arc::clone(&metrics)));
        Self { known: Mutex::default(), resolvers, metrics }
    }

    /// Keeps a cache for each of `configs`, and no others. `resolver` is for those that name none. To be called
    /// before workers see the configuration, on the runtime that lookups are to run on.
    pub fn publish<'a>(
        &self,
        configs: impl Iterator<Item = &'a Arc<dns::Cache>>,
        resolver: &Arc<Resolver>,
    ) {
        let mut known = self.known.lock();
        let mut before = std::mem::take(&mut *known);
        for config in configs {
            if known.contains_key(&config.name) {
                continue;
            }
            let cache = match before.remove(&config.name) {
                Some(cache) if cache.serves(config, resolver) => cache,
                _ => Cache::new(
                    Arc::clone(config),
                    resolver,
                    &self.resolvers,
                    Handle::current(),
                    &self.metrics,
                ),
            };
            known.insert(Arc::clone(&config.name), cache);
        }
    }

    /// The cache of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<Arc<Cache>> {
        self.known.lock().get(name).map(Arc::clone)
    }
}
