//! Keys that are fetched: once for all workers, and the last good ones serve until there are newer ones.
//!
//! Nothing here fetches: the control runtime does, when a [`RemoteKeys`] is new or wanted, at the times that
//! [`Schedule`] gives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::HashMap;
use crate::config::jwt::jwks::Jwks;
use crate::config::jwt::{RemoteJwks, StatsScope};

/// Fetched ahead of time, keys are renewed this long before they grow stale.
const EARLY: Duration = Duration::from_secs(5);
/// The pause after a first failed fetch, if requests cause fetches.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between failed fetches that requests cause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between failed fetches ahead of time, in terms of the first.
const LONGEST_REFETCH: u32 = 30;

/// All key sets that the configuration has fetched.
#[derive(Debug)]
pub struct RemoteSets {
    known: Mutex<HashMap<Arc<RemoteJwks>, Arc<RemoteKeys>>>,
    new: mpsc::UnboundedSender<Weak<RemoteKeys>>,
}

/// A key set that is fetched.
#[derive(Debug)]
pub struct RemoteKeys {
    /// From where.
    pub config: Arc<RemoteJwks>,
    /// Filters that use it.
    scopes: Mutex<BTreeSet<StatsScope>>,
    keys: ArcSwapOption<Jwks>,
    /// Whether a request should have them fetched.
    stale: AtomicBool,
    /// Whether the last fetch has failed, and the next one is not due.
    pausing: AtomicBool,
    wanted: Arc<Notify>,
    /// Counts fetches that came to an end.
    finished: watch::Sender<u64>,
}

impl RemoteSets {
    /// No sets yet. Each new one comes out of the receiver.
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Weak<RemoteKeys>>) {
        let (new, created) = mpsc::unbounded_channel();
        (Arc::new(Self { known: Mutex::default(), new }), created)
    }

    /// Keeps the sets of `configs`, and forgets others once nobody uses them. To be called before workers see the
    /// configuration.
    pub fn publish<'a>(
        &self,
        configs: impl Iterator<Item = (&'a Arc<RemoteJwks>, &'a StatsScope)>,
    ) {
        let mut known = self.known.lock();
        let before = std::mem::take(&mut *known);
        for (config, scope) in configs {
            let keys = known.entry(Arc::clone(config)).or_insert_with(|| {
                before.get(config).map_or_else(|| self.create(config), Arc::clone)
            });
            keys.scopes.lock().insert(scope.clone());
        }
    }

    /// The set that is fetched like this. One of a configuration that has gone is its user's own.
    pub fn get(&self, config: &Arc<RemoteJwks>) -> Arc<RemoteKeys> {
        let known = self.known.lock().get(config).map(Arc::clone);
        known.unwrap_or_else(|| self.create(config))
    }

    fn create(&self, config: &Arc<RemoteJwks>) -> Arc<RemoteKeys> {
        let keys = Arc::new(RemoteKeys {
            config: Arc::clone(config),
            scopes: Mutex::default(),
            keys: ArcSwapOption::empty(),
            stale: AtomicBool::new(true),
            pausing: AtomicBool::new(false),
            wanted: Arc::new(Notify::new()),
            finished: watch::Sender::new(0),
        });
        // Without a receiver the process ends.
        let _ = self.new.send(Arc::downgrade(&keys));
        keys
    }
}

impl RemoteKeys {
    /// The last good keys. If they are old, or there are none, they are fetched.
    pub fn current(&self) -> Option<Arc<Jwks>> {
        if self.stale.load(Relaxed) {
            self.wanted.notify_one();
        }
        self.keys.load_full()
    }

    /// The last good keys, or those of the next fetch if there are none yet; none if that fails, or if one has failed
    /// a moment ago.
    pub async fn wait(&self) -> Option<Arc<Jwks>> {
        let mut finished = self.finished.subscribe();
        let keys = self.current();
        if keys.is_some() || self.pausing.load(Relaxed) {
            return keys;
        }
        // The sender is right here.
        let _ = finished.changed().await;
        self.keys.load_full()
    }

    /// Ends a wait when keys are wanted, or nobody is left to want them.
    pub fn wanted(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    /// Under which names a fetch is counted.
    pub fn scopes(&self) -> Vec<StatsScope> {
        self.scopes.lock().iter().cloned().collect()
    }

    /// Takes over the result of a fetch. Equal keys stay as they are, with the tokens that they have proved good.
    pub fn finish(&self, fetched: Option<Jwks>) {
        self.pausing.store(fetched.is_none(), Relaxed);
        if let Some(fetched) = fetched {
            let same = self.keys.load().as_deref().is_some_and(|known| *known == fetched);
            if !same {
                self.keys.store(Some(Arc::new(fetched)));
            }
            self.stale.store(false, Relaxed);
        }
        self.finished.send_modify(|count| *count += 1);
    }

    /// The time has come for the next fetch.
    pub fn expire(&self) {
        self.stale.store(true, Relaxed);
        self.pausing.store(false, Relaxed);
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

/// When keys are fetched anew.
#[derive(Debug, Default)]
pub struct Schedule {
    failures: u32,
}

impl Schedule {
    /// How long after a fetch the next one is due. Failed ones are repeated after pauses that grow, and differ as
    /// `random`, 0 to 1, does.
    pub fn after(&mut self, succeeded: bool, config: &RemoteJwks, random: f64) -> Duration {
        if succeeded {
            self.failures = 0;
            let whole = config.cache_duration;
            return match config.ahead {
                Some(_) => whole.checked_sub(EARLY).filter(|it| !it.is_zero()).unwrap_or(whole),
                None => whole,
            };
        }
        let (first, longest) = match config.ahead {
            Some(pause) => (pause, pause.saturating_mul(LONGEST_REFETCH)),
            None => (SHORTEST_PAUSE, LONGEST_PAUSE),
        };
        let pause = first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        pause.min(longest).mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::service::HttpUri;

    fn config(ahead: Option<Duration>) -> Arc<RemoteJwks> {
        Arc::new(RemoteJwks {
            uri: HttpUri {
                host: HeaderValue::from_static("a"),
                path: "/".into(),
                cluster: "c".into(),
                timeout: Duration::from_secs(1),
            },
            cache_duration: Duration::from_secs(600),
            ahead,
            retries: None,
        })
    }

    fn scope(prefix: &str) -> StatsScope {
        StatsScope { manager: "m".into(), prefix: prefix.into() }
    }

    fn jwks(secret: &str) -> Jwks {
        let set = format!(r#"{{"keys": [{{"kty": "oct", "k": "{secret}"}}]}}"#);
        Jwks::parse(set.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn the_first_request_waits_and_the_last_good_keys_stay() {
        let (sets, mut created) = RemoteSets::new();
        let keys = sets.get(&config(None));
        assert!(created.recv().await.unwrap().upgrade().is_some());
        assert!(keys.current().is_none());
        keys.wanted().notified().await;
        let (first, ()) = tokio::join!(keys.wait(), async { keys.finish(Some(jwks("YQ"))) });
        let first = first.unwrap();
        keys.finish(Some(jwks("YQ")));
        assert!(Arc::ptr_eq(&first, &keys.current().unwrap()));
        keys.expire();
        keys.finish(None);
        assert!(Arc::ptr_eq(&first, &keys.wait().await.unwrap()));
        keys.finish(Some(jwks("Yg")));
        assert_eq!(*keys.wait().await.unwrap(), jwks("Yg"));
    }

    #[tokio::test]
    async fn who_comes_just_after_a_failure_does_not_wait() {
        let (sets, _created) = RemoteSets::new();
        let keys = sets.get(&config(None));
        let (first, ()) = tokio::join!(keys.wait(), async { keys.finish(None) });
        assert!(first.is_none());
        assert!(keys.wait().await.is_none());
        keys.expire();
        let (second, ()) = tokio::join!(keys.wait(), async { keys.finish(Some(jwks("YQ"))) });
        assert!(second.is_some());
    }

    #[tokio::test]
    async fn a_change_of_the_configuration_leaves_equal_sets_alone() {
        let (sets, mut created) = RemoteSets::new();
        let (a, b) = (config(None), config(Some(Duration::from_secs(1))));
        sets.publish([(&a, &scope("x")), (&a, &scope("y")), (&b, &scope("x"))].into_iter());
        let before = sets.get(&a);
        assert_eq!(before.scopes(), [scope("x"), scope("y")]);
        sets.publish([(&config(None), &scope("x"))].into_iter());
        assert!(Arc::ptr_eq(&before, &sets.get(&a)));
        let mut alive = 0;
        while let Ok(set) = created.try_recv() {
            alive += usize::from(set.upgrade().is_some());
        }
        assert_eq!(alive, 1);
    }

    #[test]
    fn keys_are_renewed_before_they_grow_stale_and_pauses_grow() {
        let seconds = Duration::from_secs;
        let (ahead, on_demand) = (config(Some(seconds(1))), config(None));
        let mut schedule = Schedule::default();
        assert_eq!(schedule.after(true, &ahead, 0.0), seconds(595));
        assert_eq!(schedule.after(true, &on_demand, 0.0), seconds(600));
        let pauses: Vec<_> = (0..7).map(|_| schedule.after(false, &ahead, 1.0)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30].map(seconds));
        schedule.after(true, &ahead, 0.0);
        assert_eq!(schedule.after(false, &ahead, 0.0), Duration::from_millis(500));
        for _ in 0..100 {
            assert!(schedule.after(false, &on_demand, 1.0) <= LONGEST_PAUSE);
        }
    }
}
