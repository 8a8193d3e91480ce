//! One cluster as one worker knows it: its endpoints with their pools, arranged for picking.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::ClusterSpec;
use super::dynamic::{DynamicHost, DynamicHosts};
use super::failures::Watch;
use super::health::HealthFlags;
use super::home::Home;
use super::host::{Host, HostId, Outcome, Shard};
use super::load_balancer::Balancer;
use super::load_balancer::hash_table::Unready;
use super::member::{Member, Roster, localities};
use super::pick_context::PickContext;
use super::settings::settings;
use super::shared::{HostKey, SharedCluster, keys};
use super::subsets::Subsets;
use crate::config::HashMap;
use crate::config::address::HostAddress;
use crate::config::cluster::LbPolicy;
use crate::config::route::Priority;
use crate::pool::circuit_breaker::{ConnectionPermit, LocalBreaker};
use crate::pool::{Common, Dedicated, HostPool, Lease, Need, Settings};
use crate::telemetry::metrics::ClusterStats;
use crate::upstream::client::Client;
use crate::upstream::failure::ConnectError;

/// One cluster as one worker knows it, for one configuration. A request keeps the one it began with.
#[derive(Debug)]
pub struct LocalCluster {
    spec: Arc<ClusterSpec>,
    shared: Arc<SharedCluster>,
    /// The cluster this proxy belongs to; none if that is not said, or this is it.
    home: Option<Rc<Home>>,
    breakers: [LocalBreaker; 2],
    /// The worker's shard of its statistics.
    pub stats: Arc<ClusterStats>,
    members: Vec<Member>,
    by_key: HashMap<HostKey, Rc<LocalHost>>,
    dynamic: Rc<DynamicHosts>,
    arrangement: RefCell<Arrangement>,
    /// The version of everybody's health that the arrangement knows.
    health_version: Cell<u64>,
    /// The minute of its last use.
    last_use: Cell<u32>,
}

/// The members, arranged for picking.
#[derive(Debug)]
enum Arrangement {
    /// All together.
    Whole(Balancer),
    /// In subsets.
    Divided(Box<Subsets>),
}

/// One endpoint as one worker knows it: what all workers share, and this worker's connections.
#[derive(Debug)]
pub struct LocalHost {
    pub(super) shared: Arc<Host>,
    pub(super) shard: Arc<Shard>,
    pool: HostPool,
    /// Whether it had failed when its health was last looked at.
    failed: Cell<bool>,
}

impl LocalCluster {
    /// Puts together what is known, taking over hosts (and their connections) from `before`.
    pub(super) fn new(
        spec: &Arc<ClusterSpec>,
        shared: &Arc<SharedCluster>,
        home: Option<Rc<Home>>,
        stats: Arc<ClusterStats>,
        before: Option<&Self>,
        random: &mut Rng,
    ) -> Self {
        let [default, high] = &shared.breakers;
        let breakers = match before {
            Some(before) => before.breakers.clone(),
            None => [LocalBreaker::new(Arc::clone(default)), LocalBreaker::new(Arc::clone(high))],
        };
        let mut members = Vec::with_capacity(spec.assignment.endpoints.len());
        let mut by_key = HashMap::default();
        let localities = localities(spec);
        for (index, key) in keys(spec) {
            let Some(endpoint) = spec.assignment.endpoints.get(index) else { continue };
            let Some(settings) = settings(spec, endpoint, &key.0) else { continue };
            let kept = before.and_then(|before| before.by_key.get(&key)).cloned();
            let host = match kept {
                Some(host) => {
                    host.pool.reconfigure(settings);
                    host
                }
                None => {
                    Rc::new(LocalHost::new(shared.host(key.clone()), settings, &stats, &breakers))
                }
            };
            by_key.insert(key, Rc::clone(&host));
            members.push(Member::new(host, index, endpoint, &localities));
        }
        let dynamic = before.map(|before| Rc::clone(&before.dynamic)).unwrap_or_default();
        dynamic.reconfigure(spec.config.discovery.cleanup_interval(), |wanted| {
            settings(spec, &wanted.endpoint(&spec.config.name), &wanted.address)
        });
        let health_version = version(shared, home.as_deref());
        let (home_now, stats_now) = (home.as_deref(), &*stats);
        let roster = Roster { spec, shared, home: home_now, members: &members, stats: stats_now };
        let arrangement = match &spec.config.subsets {
            None => Arrangement::Whole(roster.balancer(random)),
            Some(config) => Arrangement::Divided(Box::new(Subsets::new(config, roster))),
        };
        let new = Self {
            spec: Arc::clone(spec),
            shared: Arc::clone(shared),
            home,
            breakers,
            stats,
            members,
            by_key,
            dynamic,
            arrangement: RefCell::new(arrangement),
            health_version: Cell::new(health_version),
            last_use: Cell::new(0),
        };
        new.count_subsets(before);
        new
    }

    fn roster(&self) -> Roster<'_> {
        let Self { spec, shared, home, members, stats, .. } = self;
        Roster { spec, shared, home: home.as_deref(), members, stats }
    }

    /// Counts the subsets that it has, and those of `before` that it has no more.
    fn count_subsets(&self, before: Option<&Self>) {
        let before = before.map(|before| (before.arrangement.borrow(), &*before.stats));
        let old = match before.as_ref().map(|(arrangement, stats)| (&**arrangement, *stats)) {
            Some((Arrangement::Divided(subsets), stats)) => Some((&**subsets, stats)),
            _ => None,
        };
        match (&*self.arrangement.borrow(), old) {
            (Arrangement::Divided(new), Some((old, stats)))
                if std::ptr::eq(stats, &*self.stats) =>
            {
                new.count_changes(old, stats);
            }
            (new, old) => {
                if let Some((old, stats)) = old {
                    old.count_removed(stats);
                }
                if let Arrangement::Divided(new) = new {
                    new.count_created(&self.stats);
                }
            }
        }
    }

    /// The configuration it was made of.
    pub fn spec(&self) -> &Arc<ClusterSpec> {
        &self.spec
    }

    /// The circuit breaker for requests of `priority`.
    pub fn breaker(&self, priority: Priority) -> &LocalBreaker {
        let [default, high] = &self.breakers;
        match priority {
            Priority::Default => default,
            Priority::High => high,
        }
    }

    /// Picks an endpoint for what `context` says; none if none is available.
    ///
    /// # Errors
    /// If its hashing policy has a table to build first.
    pub fn pick(
        &self,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Result<Option<Rc<LocalHost>>, Unready> {
        if self.spec.config.discovery.cleanup_interval().is_some() {
            return Ok(context.dynamic.and_then(|wanted| self.dynamic_host(wanted)));
        }
        let home = self.home.as_deref();
        let version = version(&self.shared, home);
        if self.health_version.replace(version) != version {
            match &mut *self.arrangement.borrow_mut() {
                Arrangement::Whole(balancer) => *balancer = self.roster().balancer(random),
                Arrangement::Divided(subsets) => subsets.rearrange(),
            }
            self.drain_failed();
        }
        if let Some(wanted) = context.override_host {
            let host = self.overriding(wanted.address);
            if host.is_some() || wanted.strict {
                return Ok(host);
            }
        }
        let number = match &mut *self.arrangement.borrow_mut() {
            Arrangement::Whole(balancer) => self.roster().pick(balancer, None, context, random),
            Arrangement::Divided(subsets) => subsets.pick(self.roster(), context, random),
        }?;
        let member = number.and_then(|number| self.members.get(number));
        Ok(member.map(|member| Rc::clone(&member.host)))
    }

    /// The endpoint at `address`, if its health is good enough for sessions.
    fn overriding(&self, address: &str) -> Option<Rc<LocalHost>> {
        let host = self.by_key.get(&(HostAddress::parse(address), 0))?;
        let member = self.members.iter().find(|member| Rc::ptr_eq(&member.host, host))?;
        let stated = self.spec.assignment.endpoints.get(member.place)?.health;
        let status = host.shared.health().status(stated);
        self.spec.config.hosts.override_statuses.contains(status).then(|| Rc::clone(host))
    }

    /// The priority of `host`, if it is one of its configured ones.
    pub fn priority_of(&self, host: &Rc<LocalHost>) -> Option<u32> {
        let member = self.members.iter().find(|member| Rc::ptr_eq(&member.host, host));
        member.map(|member| member.priority)
    }

    fn dynamic_host(&self, wanted: &DynamicHost) -> Option<Rc<LocalHost>> {
        self.dynamic.get(wanted, || {
            let settings =
                settings(&self.spec, &wanted.endpoint(&self.spec.config.name), &wanted.address)?;
            let host = self.shared.dynamic_host(wanted);
            Some(LocalHost::new(host, settings, &self.stats, &self.breakers))
        })
    }

    /// Tells how a request to `host` went: counts it, and feeds outlier detection.
    pub fn report(&self, host: &LocalHost, outcome: Outcome) {
        let counts = &host.shard.counts;
        match outcome {
            Outcome::Response(status) if status < 500 => counts.rq_success.inc(),
            Outcome::Response(_) | Outcome::Failed => counts.rq_error.inc(),
            Outcome::Timeout => {
                counts.rq_error.inc();
                counts.rq_timeout.inc();
            }
        }
        self.observe(host, outcome);
    }

    /// Tells how long `host` took to answer, or for how long it has not.
    pub fn measure(&self, host: &LocalHost, taken: Duration) {
        if let LbPolicy::PeakEwma(config) = &self.spec.config.lb_policy {
            host.shared.latency.record(taken, config.decay);
        }
    }

    /// Tells outlier detection whether a connection to `host` could be made.
    pub fn observe(&self, host: &LocalHost, outcome: Outcome) {
        if let Some(config) = &self.spec.config.outlier_detection {
            self.shared.observe(&host.shared, &host.shard, outcome, config);
        }
    }

    /// A response of `host` asks for no more requests (`x-envoy-immediate-health-check-fail`). Matters only
    /// if its health is actively checked, for nothing else would ever bring it back.
    pub fn leave_out(&self, host: &LocalHost) {
        if self.spec.config.hosts.health_check.is_some() {
            self.shared.leave_out(&host.shared);
        }
    }

    /// Lets go of the connections to hosts that have just failed; requests under way finish.
    pub(super) fn drain_failed(&self) {
        const FAILED: HealthFlags =
            HealthFlags::FAILED_ACTIVE_HC.union(HealthFlags::FAILED_OUTLIER_CHECK);
        for Member { host, .. } in &self.members {
            let failed = host.shared.health().has(FAILED);
            if failed && !host.failed.replace(failed) {
                host.pool.drain();
            }
            host.failed.set(failed);
        }
    }

    /// Whether it belongs to `shared`, and not to a namesake that was removed since.
    pub(super) fn shares(&self, shared: &Arc<SharedCluster>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// It is used, in this minute.
    pub(super) fn used(&self, minute: u32) {
        self.last_use.set(minute);
    }

    /// The minute of its last use.
    pub(super) fn last_use(&self) -> u32 {
        self.last_use.get()
    }

    /// Whether there is a connection to any of its hosts, or a host that requests have named.
    pub(super) fn has_connections(&self) -> bool {
        let connected = |member: &Member| member.host.has_connections();
        self.members.iter().any(connected) || !self.dynamic.is_empty()
    }

    /// Closes what is idle, lets what is under way finish, and keeps nothing for later.
    pub(super) fn retire(&self) {
        for member in &self.members {
            member.host.pool.retire();
        }
        self.dynamic.retire();
        if let Arrangement::Divided(subsets) = &*self.arrangement.borrow() {
            subsets.count_removed(&self.stats);
        }
    }

    /// Lets go of all connections if it has other hosts than `before`, where that is wanted (Envoy
    /// `close_connections_on_host_set_change`). Requests under way finish.
    pub(super) fn drain_if_hosts_changed(&self, before: &Self) {
        let same = self.by_key.len() == before.by_key.len()
            && self.by_key.keys().all(|key| before.by_key.contains_key(key));
        if self.spec.config.hosts.close_connections_on_change && !same {
            for member in &self.members {
                member.host.pool.drain();
            }
        }
    }

    /// Lets go of the endpoints that `after` does not have.
    pub(super) fn retire_missing(&self, after: &Self) {
        for (key, host) in &self.by_key {
            if !after.by_key.contains_key(key) {
                host.pool.retire();
            }
        }
    }
}

impl LocalHost {
    fn new(
        shared: Arc<Host>,
        settings: Settings,
        stats: &Arc<ClusterStats>,
        breakers: &[LocalBreaker; 2],
    ) -> Self {
        let shard = shared.shard();
        let common = Common {
            stats: Arc::clone(stats),
            counts: Arc::clone(&shard.counts),
            load: Arc::clone(&shared.load),
            breakers: breakers.clone(),
        };
        Self { shared, shard, pool: HostPool::new(settings, common), failed: Cell::new(false) }
    }

    /// Makes connections with `settings` from now on.
    pub(super) fn reconfigure(&self, settings: Settings) {
        self.pool.reconfigure(settings);
    }

    /// Lets go of all connections: idle ones close, busy ones finish what is under way.
    pub(super) fn retire(&self) {
        self.pool.retire();
    }

    /// Whether any connection to it is open on this worker, or being made.
    pub(super) fn has_connections(&self) -> bool {
        self.shard.counts.cx_active.get() > 0
    }

    /// Its identity, for [`LocalCluster::pick`]'s `avoid`.
    pub fn id(&self) -> HostId {
        self.shared.id()
    }

    /// Its address (`%UPSTREAM_HOST%`).
    pub fn address(&self) -> &HostAddress {
        self.shared.address()
    }

    /// A connection for one request, ready or new.
    ///
    /// # Errors
    /// When a circuit breaker is open or no connection can be made.
    pub async fn acquire(&self, need: Need<'_>) -> Result<Lease, ConnectError> {
        self.pool.acquire(need).await
    }

    /// A connection of its own for one client. `permit` counts it in the circuit breaker.
    ///
    /// # Errors
    /// When a circuit breaker is open or no connection can be made.
    pub async fn dedicate(
        &self,
        permit: ConnectionPermit,
        client: &Client,
    ) -> Result<Dedicated, ConnectError> {
        self.pool.dedicate(permit, client).await
    }

    /// Watches for its failures from now on.
    pub fn watch(&self) -> Watch {
        Watch::begin(&self.shared)
    }

    /// The name the endpoint was configured or resolved by; may be empty.
    pub fn hostname(&self) -> crate::config::Name {
        self.pool.hostname()
    }
}

/// A number that changes with everything an arrangement is made of.
fn version(shared: &SharedCluster, home: Option<&Home>) -> u64 {
    shared.health_version().wrapping_add(home.map_or(0, Home::version))
}
