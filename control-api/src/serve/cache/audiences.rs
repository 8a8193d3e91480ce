//! What proxies of the same audience are told alike: translated and encoded once for each mesh.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use xds::snapshot::{Entry, Snapshot};
use xds::type_url::ResourceType;

use super::World;
use crate::translate::proxy::Proxy;
use crate::translate::resources::common;

/// What there is for each audience.
#[derive(Debug, Default)]
pub(super) struct Audiences(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of which mesh ([`World::number`]).
    number: u64,
    by_audience: HashMap<String, Arc<OnceLock<Arc<Snapshot>>>>,
    /// By version, which is a hash of the content: resources that several audiences or meshes have are kept once.
    entries: HashMap<(ResourceType, Arc<str>), Weak<Entry>>,
}

impl Audiences {
    /// What proxies of this audience are told alike. Who asks while it is made waits for it.
    pub(super) fn of(&self, world: &World, audience: &Proxy) -> Arc<Snapshot> {
        let made = self.place(world, audience);
        Arc::clone(made.get_or_init(|| {
            let entries: Vec<_> = super::entries(common(&world.mesh, audience)).collect();
            let mut state = self.0.lock();
            Arc::new(entries.into_iter().map(|it| state.share(it)).collect())
        }))
    }

    fn place(&self, world: &World, audience: &Proxy) -> Arc<OnceLock<Arc<Snapshot>>> {
        let mut state = self.0.lock();
        if state.number > world.number {
            // Nobody will ask for it again.
            return Arc::default();
        }
        if state.number < world.number {
            state.number = world.number;
            state.by_audience.clear();
            state.entries.retain(|_, entry| entry.strong_count() > 0);
        }
        Arc::clone(state.by_audience.entry(format!("{audience:?}")).or_default())
    }
}

impl State {
    fn share(&mut self, entry: Arc<Entry>) -> Arc<Entry> {
        let key = (entry.kind(), Arc::clone(entry.version()));
        let known = self.entries.entry(key).or_default();
        known.upgrade().unwrap_or_else(|| {
            *known = Arc::downgrade(&entry);
            entry
        })
    }
}
