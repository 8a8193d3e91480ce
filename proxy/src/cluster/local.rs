//! One cluster as one worker knows it: its endpoints with their pools, arranged for picking.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::ClusterSpec;
use super::dynamic::{DynamicHost, DynamicHosts};
use super::health::HealthFlags;
use super::home::Home;
use super::host::{Host, HostId, Outcome, Shard};
use super::load_balancer::{Balancer, Candidate, Event, Health, Rules, View};
use super::pick_context::PickContext;
use super::settings::settings;
use super::shared::{HostKey, SharedCluster, keys};
use super::slow_start;
use crate::config::HashMap;
use crate::config::address::HostAddress;
use crate::config::cluster::{LbPolicy, SlowStart};
use crate::config::endpoint::Endpoint;
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
    balancer: RefCell<Balancer>,
    /// The version of everybody's health that the balancer knows.
    health_version: Cell<u64>,
}

#[derive(Debug)]
struct Member {
    host: Rc<LocalHost>,
    /// Its place in the assignment.
    place: usize,
    weight: u32,
    priority: u32,
    /// The place of its locality among those of the cluster, in the order of their names.
    locality: usize,
    locality_weight: u32,
}

/// The members, as one pick looks at them.
struct PickView<'a> {
    cluster: &'a LocalCluster,
    context: &'a PickContext<'a>,
}

/// One endpoint as one worker knows it: what all workers share, and this worker's connections.
#[derive(Debug)]
pub struct LocalHost {
    pub(super) shared: Arc<Host>,
    shard: Arc<Shard>,
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
        let balancer = balancer(spec, shared, home.as_deref(), &members, &stats, random);
        Self {
            spec: Arc::clone(spec),
            shared: Arc::clone(shared),
            home,
            breakers,
            stats,
            members,
            by_key,
            dynamic,
            balancer: RefCell::new(balancer),
            health_version: Cell::new(health_version),
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
    pub fn pick(&self, context: &PickContext<'_>, random: &mut Rng) -> Option<Rc<LocalHost>> {
        if self.spec.config.discovery.cleanup_interval().is_some() {
            return self.dynamic_host(context.dynamic?);
        }
        let home = self.home.as_deref();
        let version = version(&self.shared, home);
        if self.health_version.replace(version) != version {
            let balancer =
                balancer(&self.spec, &self.shared, home, &self.members, &self.stats, random);
            *self.balancer.borrow_mut() = balancer;
            self.drain_failed();
        }
        if let Some(wanted) = context.override_host {
            let host = self.overriding(wanted.address);
            if host.is_some() || wanted.strict {
                return host;
            }
        }
        let view = PickView { cluster: self, context };
        let index = self.balancer.borrow_mut().pick(&view, context.attempts, random)?;
        self.members.get(index).map(|member| Rc::clone(&member.host))
    }

    /// The endpoint at `address`, if its health is good enough for sessions.
    fn overriding(&self, address: &str) -> Option<Rc<LocalHost>> {
        let host = self.by_key.get(&(HostAddress::parse(address), 0))?;
        let member = self.members.iter().find(|member| Rc::ptr_eq(&member.host, host))?;
        let stated = self.spec.assignment.endpoints.get(member.place)?.health;
        let status = host.shared.health().status(stated);
        self.spec.config.hosts.override_statuses.contains(status).then(|| Rc::clone(host))
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
            self.shared.leave_out(&host.shared, &self.spec.config);
        }
    }

    /// Lets go of the connections to hosts that have just failed; requests under way finish.
    fn drain_failed(&self) {
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

    /// Closes what is idle, lets what is under way finish, and keeps nothing for later.
    pub(super) fn retire(&self) {
        for member in &self.members {
            member.host.pool.retire();
        }
        self.dynamic.retire();
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

    /// Resolves when it is next found unhealthy, by active checks or outlier detection.
    pub async fn failure(&self) {
        self.shared.failures.notified().await;
    }

    /// The name the endpoint was configured or resolved by; may be empty.
    pub fn hostname(&self) -> crate::config::Name {
        self.pool.hostname()
    }
}

/// The names of all localities, in order.
fn localities(spec: &ClusterSpec) -> Vec<[&str; 3]> {
    let mut names: Vec<_> = spec.assignment.endpoints.iter().map(locality_name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) fn locality_name(endpoint: &Endpoint) -> [&str; 3] {
    let locality = &endpoint.locality;
    [&*locality.region, &*locality.zone, &*locality.sub_zone]
}

/// A number that changes with everything a balancer is made of.
fn version(shared: &SharedCluster, home: Option<&Home>) -> u64 {
    shared.health_version().wrapping_add(home.map_or(0, Home::version))
}

fn balancer(
    spec: &ClusterSpec,
    shared: &SharedCluster,
    home: Option<&Home>,
    members: &[Member],
    stats: &ClusterStats,
    random: &mut Rng,
) -> Balancer {
    let slow_start = spec.config.lb_policy.slow_start();
    let candidates: Vec<Candidate> =
        members.iter().map(|member| member.candidate(slow_start)).collect();
    let rules = Rules {
        policy: spec.config.lb_policy,
        locality: spec.config.locality_lb,
        panic_threshold: spec.config.panic_threshold,
        assignment: spec.assignment.policy,
        fleet: home.and_then(|home| home.fleet(spec, &localities(spec))),
    };
    let balancer = match rules.policy {
        LbPolicy::Hash(hashing) => {
            let key = |index: usize| {
                let member = members.get(index);
                member.map(|member| member.hash_key(spec, hashing.use_hostname)).unwrap_or_default()
            };
            Balancer::hashing(&candidates, &rules, hashing, key, &shared.hash_tables)
        }
        _ => Balancer::new(&candidates, &rules, random),
    };
    if rules.fleet.is_some() {
        stats.lb_recalculate_zone_structures.inc();
    }
    if let Some(event) = balancer.unzoned() {
        count(stats, event);
    }
    balancer
}

fn count(stats: &ClusterStats, event: Event) {
    match event {
        Event::Panic => stats.lb_healthy_panic.inc(),
        Event::LocalClusterNotOk => stats.lb_local_cluster_not_ok.inc(),
        Event::ZoneClusterTooSmall => stats.lb_zone_cluster_too_small.inc(),
        Event::ZoneDirect => stats.lb_zone_routing_all_directly.inc(),
        Event::ZoneSampled => stats.lb_zone_routing_sampled.inc(),
        Event::ZoneCross => stats.lb_zone_routing_cross_zone.inc(),
        Event::ZoneNoCapacity => stats.lb_zone_no_capacity_left.inc(),
    }
}

impl View for PickView<'_> {
    fn active(&self, index: usize) -> u32 {
        self.cluster.members.get(index).map_or(0, |member| member.host.shared.active())
    }

    fn latency(&self, index: usize) -> Option<f64> {
        let LbPolicy::PeakEwma(config) = &self.cluster.spec.config.lb_policy else { return None };
        self.cluster.members.get(index)?.host.shared.latency.read(config.decay)
    }

    fn warmth(&self, index: usize) -> f64 {
        let member = self.cluster.members.get(index);
        let slow_start = self.cluster.spec.config.lb_policy.slow_start();
        member.map_or(1.0, |member| member.warmth(slow_start))
    }

    fn avoids(&self, index: usize) -> bool {
        let member = self.cluster.members.get(index);
        member.is_some_and(|member| self.context.avoid.contains(&member.host.id()))
    }

    fn hash(&self) -> Option<u64> {
        self.context.hash
    }

    fn notes(&self, event: Event) {
        count(&self.cluster.stats, event);
    }
}

impl Member {
    fn new(
        host: Rc<LocalHost>,
        place: usize,
        endpoint: &Endpoint,
        localities: &[[&str; 3]],
    ) -> Self {
        let Endpoint { weight, ref locality, .. } = *endpoint;
        Self {
            host,
            place,
            weight,
            priority: locality.priority,
            locality: localities.binary_search(&locality_name(endpoint)).unwrap_or_default(),
            locality_weight: locality.weight,
        }
    }

    /// What it stands in a table by.
    fn hash_key(&self, spec: &ClusterSpec, by_name: bool) -> Box<str> {
        match spec.assignment.endpoints.get(self.place) {
            Some(Endpoint { hash_key: Some(key), .. }) => key.clone(),
            Some(Endpoint { hostname, .. }) if by_name => (&**hostname).into(),
            _ => self.host.address().to_string().into(),
        }
    }

    /// The part of its weight it deserves now; only what is healthy starts slowly.
    fn warmth(&self, slow_start: Option<&SlowStart>) -> f64 {
        let host = &self.host.shared;
        match slow_start {
            Some(config) if host.health().health() == Health::Healthy => {
                slow_start::warmth(config, host.since.age())
            }
            _ => 1.0,
        }
    }

    fn candidate(&self, slow_start: Option<&SlowStart>) -> Candidate {
        let health = self.host.shared.health().health();
        Candidate {
            weight: self.weight,
            warmth: self.warmth(slow_start),
            health,
            priority: self.priority,
            locality: self.locality,
            locality_weight: self.locality_weight,
        }
    }
}
