//! Serving proxies: a mesh goes in, and every proxy that is connected gets what it is to know of it.
//!
//! [`ControlPlane::publish`] takes a mesh; [`cache`] translates it for each proxy, beside the streams; [`ads`] sends
//! what has changed; [`fleet`] knows what every proxy made of it, and [`status`] tells. [`auth`] says who a proxy is, [`ca`]
//! gives it the certificate to prove it, and [`sds`] the secrets it may have.

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
pub mod status;
pub mod world;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use self::ads::Limits;
use self::cache::Cache;
use self::fleet::Fleet;
use self::metrics::Metrics;
use self::pushes::Pushes;
use self::world::World;
use crate::model::Mesh;
use crate::validate::finding::Findings;

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
    metrics: Arc<Metrics>,
    draining: watch::Sender<bool>,
}

impl ControlPlane {
    /// One that has no mesh yet: proxies may connect, and wait.
    ///
    /// # Errors
    /// The statistics cannot be set up.
    pub fn new(
        name: impl Into<String>,
        sources: Vec<String>,
        limits: Limits,
    ) -> prometheus::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::new()?);
        let (worlds, receiver) = watch::channel(Arc::new(World::nothing()));
        Ok(Arc::new(Self {
            name: name.into(),
            sources,
            limits,
            worlds,
            cache: Arc::new(Cache::new(receiver, Arc::clone(&metrics))),
            fleet: Arc::new(Fleet::new(Arc::clone(&metrics))),
            pushes: Pushes::default(),
            metrics,
            draining: watch::Sender::new(false),
        }))
    }

    /// Serves this mesh from now on. `since` is when the first of the changes came that made it.
    pub fn publish(&self, mesh: Mesh, findings: Findings, since: Instant) -> Arc<World> {
        let number = self.worlds.borrow().number + 1;
        let world = Arc::new(World {
            number,
            mesh: Arc::new(mesh),
            findings: Arc::new(findings),
            at: SystemTime::now(),
            since,
        });
        self.metrics.published(&world);
        self.worlds.send_replace(Arc::clone(&world));
        world
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
