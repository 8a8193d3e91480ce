//! The endpoints of a cluster as one worker picks among them.

use std::rc::Rc;

use fastrand::Rng;

use super::ClusterSpec;
use super::home::Home;
use super::load_balancer::hash_table::Unready;
use super::load_balancer::{Balancer, Candidate, Event, Health, Rules, View};
use super::local::LocalHost;
use super::pick_context::PickContext;
use super::shared::SharedCluster;
use super::slow_start;
use crate::config::HashMap;
use crate::config::cluster::{LbPolicy, LocalityLb, SlowStart};
use crate::config::endpoint::Endpoint;
use crate::config::subset::SubsetLb;
use crate::telemetry::metrics::ClusterStats;

/// One endpoint, and what matters for picking it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) host: Rc<LocalHost>,
    /// Its place in the assignment.
    pub(super) place: usize,
    weight: u32,
    pub(super) priority: u32,
    /// The place of its locality among those of the cluster, in the order of their names.
    locality: usize,
    locality_weight: u32,
}

/// The members of a cluster, with what balancers are made of.
#[derive(Clone, Copy)]
pub(super) struct Roster<'a> {
    pub(super) spec: &'a ClusterSpec,
    pub(super) shared: &'a SharedCluster,
    pub(super) home: Option<&'a Home>,
    pub(super) members: &'a [Member],
    pub(super) stats: &'a ClusterStats,
}

/// The members, as one pick looks at them.
struct PickView<'a> {
    roster: Roster<'a>,
    /// The numbers of those it is about; none means all.
    among: Option<&'a [usize]>,
    context: &'a PickContext<'a>,
}

impl Roster<'_> {
    /// Arranges all members.
    pub(super) fn balancer(&self, random: &mut Rng) -> Balancer {
        let config = &self.spec.config;
        let slow_start = config.lb_policy.slow_start();
        let candidates: Vec<Candidate> =
            self.members.iter().map(|member| member.candidate(slow_start)).collect();
        self.arrange(&candidates, None, config.locality_lb, random)
    }

    /// Arranges the members with these numbers, which are a subset.
    pub(super) fn subset(&self, subsets: &SubsetLb, among: &[usize], random: &mut Rng) -> Balancer {
        let config = &self.spec.config;
        let slow_start = config.lb_policy.slow_start();
        let members: Vec<&Member> =
            among.iter().filter_map(|number| self.members.get(*number)).collect();
        let here = sizes(members.iter().copied());
        let all = sizes(self.members);
        let candidate = |member: &&Member| {
            let mut candidate = member.candidate(slow_start);
            let locality = member.priority_and_locality();
            if let (true, Some(here), Some(all)) =
                (subsets.scale_locality_weight, here.get(&locality), all.get(&locality))
            {
                let weight = f64::from(candidate.locality_weight) * f64::from(*here);
                candidate.locality_weight = (weight / f64::from(*all)).round() as u32;
            }
            candidate
        };
        let candidates: Vec<Candidate> = members.iter().map(candidate).collect();
        let locality = match config.locality_lb {
            LocalityLb::Weighted if !subsets.locality_weight_aware => LocalityLb::default(),
            locality => locality,
        };
        self.arrange(&candidates, Some(among), locality, random)
    }

    fn arrange(
        &self,
        candidates: &[Candidate],
        among: Option<&[usize]>,
        locality: LocalityLb,
        random: &mut Rng,
    ) -> Balancer {
        let Self { spec, shared, home, stats, .. } = *self;
        let rules = Rules {
            policy: spec.config.lb_policy,
            locality,
            panic_threshold: spec.config.panic_threshold,
            assignment: spec.assignment.policy,
            fleet: home.and_then(|home| home.fleet(spec, &localities(spec))),
        };
        let balancer = match rules.policy {
            LbPolicy::Hash(hashing) => {
                let key = |index: usize| {
                    let member = self.member(among, index);
                    let key = member.map(|member| member.hash_key(spec, hashing.use_hostname));
                    key.unwrap_or_default()
                };
                Balancer::hashing(candidates, &rules, hashing, key, &shared.hash_tables)
            }
            _ => Balancer::new(candidates, &rules, random),
        };
        if rules.fleet.is_some() {
            stats.lb_recalculate_zone_structures.inc();
        }
        if let Some(event) = balancer.unzoned() {
            count(stats, event);
        }
        balancer
    }

    /// Picks with `balancer`, which was made of the members with the numbers `among`; the number of the member picked.
    ///
    /// # Errors
    /// If it is not ready for that.
    pub(super) fn pick(
        self,
        balancer: &mut Balancer,
        among: Option<&[usize]>,
        context: &PickContext<'_>,
        random: &mut Rng,
    ) -> Result<Option<usize>, Unready> {
        let view = PickView { roster: self, among, context };
        let index = balancer.pick(&view, context.attempts, random)?;
        Ok(index.and_then(|index| number(among, index)))
    }

    fn member(&self, among: Option<&[usize]>, index: usize) -> Option<&Member> {
        self.members.get(number(among, index)?)
    }
}

/// How many members each locality of each priority has.
fn sizes<'a>(members: impl IntoIterator<Item = &'a Member>) -> HashMap<(u32, usize), u32> {
    let mut sizes = HashMap::default();
    for member in members {
        *sizes.entry(member.priority_and_locality()).or_default() += 1;
    }
    sizes
}

fn number(among: Option<&[usize]>, index: usize) -> Option<usize> {
    match among {
        None => Some(index),
        Some(among) => among.get(index).copied(),
    }
}

/// The names of all localities, in order.
pub(super) fn localities(spec: &ClusterSpec) -> Vec<[&str; 3]> {
    let mut names: Vec<_> = spec.assignment.endpoints.iter().map(locality_name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) fn locality_name(endpoint: &Endpoint) -> [&str; 3] {
    let locality = &endpoint.locality;
    [&*locality.region, &*locality.zone, &*locality.sub_zone]
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

impl PickView<'_> {
    fn member(&self, index: usize) -> Option<&Member> {
        self.roster.member(self.among, index)
    }
}

impl PickView<'_> {
    /// Whether the member's metadata is such that it is passed over.
    fn omits(&self, member: &Member) -> bool {
        let omit = self.context.omit;
        if omit.is_empty() {
            return false;
        }
        let endpoint = self.roster.spec.assignment.endpoints.get(member.place);
        let metadata = endpoint.and_then(|endpoint| endpoint.metadata.as_deref());
        omit.iter().any(|criteria| criteria.matches(metadata, true))
    }
}

impl View for PickView<'_> {
    fn active(&self, index: usize) -> u32 {
        self.member(index).map_or(0, |member| member.host.shared.active())
    }

    fn latency(&self, index: usize) -> Option<f64> {
        let LbPolicy::PeakEwma(config) = &self.roster.spec.config.lb_policy else { return None };
        self.member(index)?.host.shared.latency.read(config.decay)
    }

    fn warmth(&self, index: usize) -> f64 {
        let slow_start = self.roster.spec.config.lb_policy.slow_start();
        self.member(index).map_or(1.0, |member| member.warmth(slow_start))
    }

    fn avoids(&self, index: usize) -> bool {
        let Some(member) = self.member(index) else { return false };
        self.context.avoid.contains(&member.host.id()) || self.omits(member)
    }

    fn excluded(&self) -> &[u32] {
        self.context.excluded
    }

    fn hash(&self) -> Option<u64> {
        self.context.hash
    }

    fn notes(&self, event: Event) {
        count(self.roster.stats, event);
    }
}

impl Member {
    pub(super) fn new(
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

    fn priority_and_locality(&self) -> (u32, usize) {
        (self.priority, self.locality)
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
