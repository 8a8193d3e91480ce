//! What each proxy is told, computed beside the streams: once for all proxies with the same inputs, and again whenever
//! the mesh changes. What several have in common is translated and kept once.

mod audiences;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::{Semaphore, watch};
use xds::snapshot::{self, Entry, Snapshot};
use xds::type_url::ResourceType;

use self::audiences::Audiences;
use super::metrics::Metrics;
use super::world::World;
use crate::translate::audience::audience;
use crate::translate::proxy::Proxy;
use crate::translate::resources::{Own, Resources, own};

/// What proxies with the same inputs are told.
#[derive(Debug, Clone)]
pub struct Told {
    /// Of which mesh ([`World::number`]); 0: not computed yet.
    pub number: u64,
    /// When the changes began that made it.
    pub since: Instant,
    /// The resources.
    pub snapshot: Arc<Snapshot>,
}

/// Keeps up to date what proxies with the same inputs are told, as long as somebody holds it.
#[derive(Debug)]
pub struct Plan {
    told: watch::Receiver<Told>,
}

impl Plan {
    /// What there is now, and everything that comes.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }
}

/// All plans.
pub struct Cache {
    worlds: watch::Receiver<Arc<World>>,
    metrics: Arc<Metrics>,
    plans: Mutex<Plans>,
    sets: Mutex<snapshot::Cache>,
    audiences: Arc<Audiences>,
    /// As many are computed at a time as there are processors.
    turns: Semaphore,
}

#[derive(Default)]
struct Plans {
    made: u64,
    by_inputs: HashMap<String, Weak<Plan>>,
}

impl Cache {
    /// Plans for these worlds.
    pub fn new(worlds: watch::Receiver<Arc<World>>, metrics: Arc<Metrics>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            worlds,
            metrics,
            plans: Mutex::default(),
            sets: Mutex::default(),
            audiences: Arc::default(),
            turns: Semaphore::new(processors),
        }
    }

    /// The plan for a proxy.
    pub fn plan(self: &Arc<Self>, proxy: &Proxy) -> Arc<Plan> {
        let key = format!("{proxy:?}");
        let mut plans = self.plans.lock();
        if let Some(plan) = plans.by_inputs.get(&key).and_then(Weak::upgrade) {
            return plan;
        }
        plans.made += 1;
        let nothing = Told { number: 0, since: Instant::now(), snapshot: Arc::default() };
        let (sender, told) = watch::channel(nothing);
        let plan = Arc::new(Plan { told });
        plans.by_inputs.insert(key.clone(), Arc::downgrade(&plan));
        let name = plans.made.to_string();
        tokio::spawn(Arc::clone(self).keep(proxy.clone(), key, name, sender));
        plan
    }

    /// How many plans there are.
    pub fn len(&self) -> usize {
        self.plans.lock().by_inputs.len()
    }

    /// Whether nobody wants anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn keep(
        self: Arc<Self>,
        proxy: Proxy,
        key: String,
        name: String,
        sender: watch::Sender<Told>,
    ) {
        let proxy = Arc::new(proxy);
        let mut worlds = self.worlds.clone();
        worlds.mark_changed();
        loop {
            tokio::select! {
                changed = worlds.changed() => if changed.is_err() { break },
                () = sender.closed() => break,
            }
            let world = Arc::clone(&worlds.borrow_and_update());
            if world.number > 0 {
                self.compute(&world, &proxy, &name, &sender).await;
            }
        }
        self.sets.lock().remove(&name);
        let mut plans = self.plans.lock();
        if plans.by_inputs.get(&key).is_some_and(|it| it.strong_count() == 0) {
            plans.by_inputs.remove(&key);
        }
    }

    async fn compute(
        self: &Arc<Self>,
        world: &Arc<World>,
        proxy: &Arc<Proxy>,
        name: &str,
        sender: &watch::Sender<Told>,
    ) {
        let queued = Instant::now();
        let Ok(_turn) = self.turns.acquire().await else { return };
        self.metrics.queued(queued.elapsed());
        let (audiences, of, to) =
            (Arc::clone(&self.audiences), Arc::clone(world), Arc::clone(proxy));
        let computed = tokio::task::spawn_blocking(move || snapshot(&audiences, &of, &to)).await;
        let Ok(Ok(snapshot)) = computed else {
            // A mistake of ours; what was served before is still right for the mesh before.
            tracing::error!(namespace = proxy.namespace, addresses = ?proxy.addresses, mesh = world.number,
                "cannot translate the mesh for a proxy: it keeps what it has");
            self.metrics.translation_failed();
            return;
        };
        let mut sets = self.sets.lock();
        let changed = sets.set(name, snapshot);
        let kept = sets.get(name).cloned().unwrap_or_default();
        drop(sets);
        self.metrics.translated(&changed);
        let (number, since) = (world.number, world.since);
        sender.send_replace(Told { number, since, snapshot: kept });
    }
}

/// Everything a proxy is told, as it is sent. Fails where translating does.
fn snapshot(audiences: &Audiences, world: &World, proxy: &Proxy) -> std::thread::Result<Snapshot> {
    catch_unwind(AssertUnwindSafe(|| {
        let common = audiences.of(world, &audience(&world.mesh, proxy));
        let shared = common.set(ResourceType::Routes);
        let has_routes = |name: &str| shared.is_some_and(|set| set.get(name).is_some());
        let Own { resources, routes } = own(&world.mesh, proxy, has_routes);
        let clusters = common.set(ResourceType::Cluster).into_iter();
        let clusters = clusters.flat_map(|set| set.entries().values()).cloned();
        // Sets that are the audience's as they are need not be made again.
        let same = resources.routes.is_empty()
            && shared.is_none_or(|set| set.entries().len() == routes.len());
        let routes = routes.iter().filter(|_| !same);
        let routes = routes.filter_map(|name| shared?.get(name).cloned());
        common.with(clusters.chain(routes).chain(entries(resources)))
    }))
}

fn entries(resources: Resources) -> impl Iterator<Item = Arc<Entry>> {
    let Resources { clusters, endpoints, listeners, routes } = resources;
    let packed = clusters.iter().map(pack).collect::<Vec<_>>().into_iter();
    let packed = packed.chain(endpoints.iter().map(pack).collect::<Vec<_>>());
    let packed = packed.chain(listeners.iter().map(pack).collect::<Vec<_>>());
    let packed = packed.chain(routes.iter().map(pack).collect::<Vec<_>>());
    packed.filter_map(|body| match Entry::new(body) {
        Ok(entry) => Some(Arc::new(entry)),
        Err(error) => {
            tracing::error!("a resource that cannot be served: {error}");
            None
        }
    })
}

fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// How many resources of each kind there are.
pub fn counts(snapshot: &Snapshot) -> impl Iterator<Item = (ResourceType, usize)> {
    ResourceType::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, snapshot.set(kind)?.entries().len())))
}
