//! Circuit breakers: how many connections, pending requests, requests and retries a cluster may have at once,
//! counted exactly over all workers.
//!
//! A permit is taken with a compare-and-swap, so a count never passes its limit, not even for a moment. Each
//! count has its own cache line; the limits share one that is hardly ever written.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::config::cluster::Thresholds;
use crate::config::retry::RetryBudget;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Connections to endpoints.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
}

impl Resource {
    /// All of them, in the order of the counts.
    pub const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];
}

/// The circuit breaker of one cluster and priority, shared by all workers.
#[derive(Debug)]
pub struct Breaker {
    limits: Limits,
    counts: [Count; 4],
}

#[derive(Debug)]
#[repr(align(64))]
struct Limits {
    maxima: [AtomicU32; 4],
    /// Retry budget: 0 is none, else the percentage's bits.
    budget_percent: AtomicU64,
    budget_minimum: AtomicU32,
    track_remaining: AtomicBool,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU32);

/// A moment's readings of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Permits taken.
    pub taken: u32,
    /// The limit.
    pub limit: u32,
}

impl Reading {
    /// Whether no permit is to be had (Envoy `*_open` gauges).
    pub fn open(self) -> bool {
        self.taken >= self.limit
    }

    /// Permits left.
    pub fn remaining(self) -> u32 {
        self.limit.saturating_sub(self.taken)
    }
}

impl Breaker {
    /// A breaker with nothing taken.
    pub fn new(thresholds: &Thresholds) -> Self {
        let breaker = Self {
            limits: Limits {
                maxima: [const { AtomicU32::new(0) }; 4],
                budget_percent: AtomicU64::new(0),
                budget_minimum: AtomicU32::new(0),
                track_remaining: AtomicBool::new(false),
            },
            counts: Default::default(),
        };
        breaker.set_thresholds(thresholds);
        breaker
    }

    /// Changes the limits. What is taken beyond a lower limit stays taken until it is given back.
    pub fn set_thresholds(&self, thresholds: &Thresholds) {
        let maxima = [
            thresholds.max_connections,
            thresholds.max_pending_requests,
            thresholds.max_requests,
            thresholds.max_retries,
        ];
        for (limit, max) in self.limits.maxima.iter().zip(maxima) {
            limit.store(max, Relaxed);
        }
        let (percent, minimum) = match thresholds.retry_budget {
            Some(RetryBudget { percent, min_concurrency }) => {
                (percent.max(f64::MIN_POSITIVE), min_concurrency)
            }
            None => (0.0, 0),
        };
        self.limits.budget_percent.store(percent.to_bits(), Relaxed);
        self.limits.budget_minimum.store(minimum, Relaxed);
        self.limits.track_remaining.store(thresholds.track_remaining, Relaxed);
    }

    /// Whether the `remaining_*` gauges are wanted.
    pub fn tracks_remaining(&self) -> bool {
        self.limits.track_remaining.load(Relaxed)
    }

    /// What is taken now, and of how many. The limit of retries follows the retry budget, if there is one.
    pub fn read(&self, resource: Resource) -> Reading {
        Reading { taken: self.count(resource).load(Relaxed), limit: self.limit(resource) }
    }

    fn limit(&self, resource: Resource) -> u32 {
        let [connections, pending, requests, retries] = &self.limits.maxima;
        match resource {
            Resource::Connections => connections.load(Relaxed),
            Resource::Pending => pending.load(Relaxed),
            Resource::Requests => requests.load(Relaxed),
            Resource::Retries => self.retry_budget().unwrap_or_else(|| retries.load(Relaxed)),
        }
    }

    /// Retries the budget allows at the present load.
    fn retry_budget(&self) -> Option<u32> {
        let percent = f64::from_bits(self.limits.budget_percent.load(Relaxed));
        if percent == 0.0 {
            return None;
        }
        let load = u64::from(self.count(Resource::Requests).load(Relaxed))
            + u64::from(self.count(Resource::Pending).load(Relaxed));
        let share = (load as f64 * percent / 100.0) as u32;
        Some(share.max(self.limits.budget_minimum.load(Relaxed)))
    }

    fn count(&self, resource: Resource) -> &AtomicU32 {
        let [connections, pending, requests, retries] = &self.counts;
        match resource {
            Resource::Connections => &connections.0,
            Resource::Pending => &pending.0,
            Resource::Requests => &requests.0,
            Resource::Retries => &retries.0,
        }
    }

    fn take(&self, resource: Resource) -> bool {
        let limit = self.limit(resource);
        let count = self.count(resource);
        let mut taken = count.load(Relaxed);
        while taken < limit {
            match count.compare_exchange_weak(taken, taken + 1, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => taken = now,
            }
        }
        false
    }

    fn give_back(&self, resource: Resource) {
        self.count(resource).fetch_sub(1, Relaxed);
    }
}

/// A worker's handle on a shared breaker; cloning it costs no atomic operation.
#[derive(Debug, Clone)]
pub struct LocalBreaker(Rc<Handle>);

/// One worker's only reference to a shared breaker: the worker's own references are counted in an `Rc`.
#[derive(Debug)]
struct Handle {
    shared: Arc<Breaker>,
}

impl LocalBreaker {
    /// This worker's handle on `shared`.
    pub fn new(shared: Arc<Breaker>) -> Self {
        Self(Rc::new(Handle { shared }))
    }

    /// Leave to have one more request under way.
    pub fn try_request(&self) -> Option<Permit> {
        self.permit(Resource::Requests)
    }

    /// Leave to have one more request wait for a connection.
    pub fn try_pending(&self) -> Option<Permit> {
        self.permit(Resource::Pending)
    }

    /// Leave to have one more retry under way, by the retry budget if there is one, else by `max_retries`.
    pub fn try_retry(&self) -> Option<Permit> {
        self.permit(Resource::Retries)
    }

    /// Leave to open one more connection.
    pub fn try_connection(&self) -> Option<ConnectionPermit> {
        let shared = self.shared();
        shared.take(Resource::Connections).then(|| ConnectionPermit(Arc::clone(shared)))
    }

    /// The breaker that all workers share.
    pub fn shared(&self) -> &Arc<Breaker> {
        &self.0.shared
    }

    fn permit(&self, resource: Resource) -> Option<Permit> {
        self.shared().take(resource).then(|| Permit { breaker: self.clone(), resource })
    }
}

/// Leave to do one thing, given back when dropped. It stays with its worker.
#[derive(Debug)]
#[must_use = "a permit is given back when it is dropped"]
pub struct Permit {
    breaker: LocalBreaker,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.shared().give_back(self.resource);
    }
}

/// Leave to hold one connection, given back when dropped. It travels with the connection.
#[derive(Debug)]
#[must_use = "a permit is given back when it is dropped"]
pub struct ConnectionPermit(Arc<Breaker>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.give_back(Resource::Connections);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn breaker(thresholds: &Thresholds) -> LocalBreaker {
        LocalBreaker::new(Arc::new(Breaker::new(thresholds)))
    }

    #[test]
    fn a_permit_is_given_back_when_dropped() {
        let breaker = breaker(&Thresholds { max_requests: 1, ..Thresholds::default() });
        let permit = breaker.try_request().unwrap();
        assert!(breaker.try_request().is_none());
        assert!(breaker.shared().read(Resource::Requests).open());
        drop(permit);
        assert!(breaker.try_request().is_some());
    }

    #[test]
    fn resources_do_not_share_their_limits() {
        let breaker = breaker(&Thresholds {
            max_connections: 1,
            max_pending_requests: 0,
            ..Thresholds::default()
        });
        let _connection = breaker.try_connection().unwrap();
        assert!(breaker.try_connection().is_none());
        assert!(breaker.try_pending().is_none());
        assert!(breaker.try_request().is_some());
    }

    #[test]
    fn a_lower_limit_lets_what_is_taken_finish() {
        let breaker = breaker(&Thresholds::default());
        let permits: Vec<_> = (0..3).map(|_| breaker.try_request().unwrap()).collect();
        breaker.shared().set_thresholds(&Thresholds { max_requests: 2, ..Thresholds::default() });
        assert!(breaker.try_request().is_none());
        assert_eq!(breaker.shared().read(Resource::Requests).remaining(), 0);
        drop(permits);
        let _first = breaker.try_request().unwrap();
        let _second = breaker.try_request().unwrap();
        assert!(breaker.try_request().is_none());
    }

    #[test]
    fn a_retry_budget_follows_the_load() {
        let breaker = breaker(&Thresholds {
            retry_budget: Some(RetryBudget { percent: 25.0, min_concurrency: 1 }),
            max_retries: 1000,
            ..Thresholds::default()
        });
        let _minimum = breaker.try_retry().unwrap();
        assert!(breaker.try_retry().is_none(), "only the minimum without load");
        let _load: Vec<_> = (0..8).map(|_| breaker.try_request().unwrap()).collect();
        let _share = breaker.try_retry().unwrap();
        assert!(breaker.try_retry().is_none(), "a quarter of eight is two");
    }

    #[test]
    fn threads_never_pass_the_limit() {
        const LIMIT: u32 = 3;
        let shared =
            Arc::new(Breaker::new(&Thresholds { max_requests: LIMIT, ..Thresholds::default() }));
        let inside = AtomicU32::new(0);
        let granted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let breaker = LocalBreaker::new(Arc::clone(&shared));
                    for _ in 0..2_000 {
                        if let Some(permit) = breaker.try_request() {
                            assert!(inside.fetch_add(1, Relaxed) < LIMIT);
                            granted.fetch_add(1, Relaxed);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Relaxed);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!(granted.load(Relaxed) > 0);
        assert_eq!(shared.read(Resource::Requests).taken, 0);
    }

    proptest! {
        #[test]
        fn taken_is_what_is_held(limit in 0_u32..6, steps in proptest::collection::vec(any::<bool>(), 0..60)) {
            let breaker = breaker(&Thresholds { max_pending_requests: limit, ..Thresholds::default() });
            let mut held = Vec::new();
            for take in steps {
                if take {
                    let permit = breaker.try_pending();
                    prop_assert_eq!(permit.is_some(), (held.len() as u32) < limit);
                    held.extend(permit);
                } else {
                    held.pop();
                }
                prop_assert_eq!(breaker.shared().read(Resource::Pending).taken, held.len() as u32);
            }
        }
    }
}
