//! Serving proxies: a mesh goes in, and every proxy that is connected gets what it is to know of it.
//!
//! [`ControlPlane::publish`] takes a mesh; [`cache`] translates it for each proxy, beside the streams; [`ads`] sends
//! what has changed; [`fleet`] knows what every proxy made of it, and [`status`] tells. [`auth`] says who a proxy is, [`ca`]
//! gives it the certificate to prove it, and [`sds`] the secrets it may have, which [`secret_discovery`] sends to proxies
//! without agent.

pub mod access;
pub mod ads;
pub mod auth;
pub mod authority;
pub mod ca;
pub mod cache;
pub mod connection;
pub mod debounce;
pub mod dump;
pub mod fleet;
pub mod metrics;
pub mod pushes;
pub mod sds;
pub mod secret_discovery;
pub mod status;
mod streams;
pub mod world;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use prometheus::Registry;
use tokio::sync::watch;

use self::access::Access;
use self::ads::Limits;
use self::cache::Cache;
use self::fleet::Fleet;
use self::metrics::Metrics;
use self::pushes::Pushes;
use self::world::World;
use crate::model::Mesh;
use crate::translate::index::Index;
use crate::validate::finding::Findings;

/// What a control plane is made of.
#[derive(Debug, Default)]
pub struct Setup {
    /// Who answers, for people to read.
    pub name: String,
    /// Where the mesh is read from, for people to read.
    pub sources: Vec<String>,
    /// What a client may use.
    pub limits: Limits,
    /// Where statistics are shown.
    pub registry: Registry,
    /// How callers are known, and what they get; none: nobody is known, and there are no secrets.
    pub access: Option<Access>,
}

/// Everything that streams share.
pub struct ControlPlane {
    /// Who answers, for people to read.
    name: String,
    /// Where the mesh is read from, for people to read.
    sources: Vec<String>,
    limits: Limits,
    worlds: watch::Sender<Arc<World>>,
    cache: Arc<Cache>,
    fleet: Arc<Fleet>,
    pushes: Pushes,
    /// None: nobody is known, and there are no secrets.
    access: Option<Access>,
    metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
}

impl ControlPlane {
    /// One that has no mesh yet: proxies may connect, and wait.
    ///
    /// # Errors
    /// The statistics cannot be set up.
    pub fn new(setup: Setup) -> prometheus::Result<Arc<Self>> {
        let Setup { name, sources, limits, registry, access } = setup;
        let metrics = Arc::new(Metrics::new(registry)?);
        let (worlds, receiver) = watch::channel(Arc::new(World::nothing()));
        Ok(Arc::new(Self {
            name,
            sources,
            limits,
            worlds,
            cache: Arc::new(Cache::new(receiver, Arc::clone(&metrics))),
            fleet: Arc::new(Fleet::new(Arc::clone(&metrics))),
            pushes: Pushes::default(),
            access,
            metrics,
            draining: watch::Sender::new(false),
        }))
    }

    /// Serves this mesh from now on. `since` is when the first of the changes came that made it.
    pub fn publish(&self, mesh: Mesh, findings: Findings, since: Instant) -> Arc<World> {
        let number = self.worlds.borrow().number + 1;
        let world = Arc::new(World {
            number,
            mesh: Arc::new(Index::new(mesh)),
            findings: Arc::new(findings),
            at: SystemTime::now(),
            since,
        });
        self.metrics.published(&world);
        self.worlds.send_replace(Arc::clone(&world));
        world
    }

    /// Secrets have to be made anew: the authority is another one.
    pub fn renew_secrets(&self) {
        if let Some(access) = &self.access {
            access.renewed.send_replace(());
        }
    }

    /// How callers are known.
    pub fn access(&self) -> Option<&Access> {
        self.access.as_ref()
    }

    /// The mesh that is served.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.worlds.borrow())
    }

    /// The proxies that are connected.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// What each of them is told.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// What became of the last meshes.
    pub fn pushes(&self) -> &Pushes {
        &self.pushes
    }

    /// Where the mesh is read from.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// What was counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Until [`drain`](Self::drain).
    pub async fn drained(&self) {
        let _ = self.draining.subscribe().wait_for(|it| *it).await;
    }

    /// Ends all streams: proxies keep what they have, and look for another control plane.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }
}
