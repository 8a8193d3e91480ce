//! Which endpoint a request goes to. Pure: health, load and randomness are arguments, and a pick allocates
//! nothing.
//!
//! A pick goes down four steps, as Envoy's: a priority and the state of health its endpoints should have
//! ([`priority`]), a locality if the cluster distinguishes them (`tier`), an endpoint by the policy (`group`),
//! and perhaps another one, if that is to be avoided.

mod bounded_load;
mod group;
pub mod hash_table;
mod hashed;
mod least_request;
mod maglev;
mod peak_ewma;
pub mod priority;
mod ring_hash;
mod round_robin;
mod schedule;
mod tier;
pub mod zones;

use fastrand::Rng;

use crate::config::cluster::{HashLb, LbPolicy, LocalityLb, ZoneAware};
use crate::config::endpoint::AssignmentPolicy;
use group::Group;
use hash_table::{HashTables, Unready};
use hashed::Hashed;
use priority::{Availability, Census, Loads};
use tier::Tier;
use zones::{Fleet, Zone, Zones};

/// An endpoint as the balancer sees it. Its place in the list is its number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Share of traffic relative to the others, at least 1.
    pub weight: u32,
    /// The part of its weight, larger than 0 and at most 1, that it deserves at the moment: less than 1 while it
    /// starts slowly.
    pub warmth: f64,
    /// Whether it can be used.
    pub health: Health,
    /// Its priority; 0 is the highest.
    pub priority: u32,
    /// A number that stands for its locality.
    pub locality: usize,
    /// Share of traffic of its locality relative to others of its priority; 0 means none.
    pub locality_weight: u32,
}

/// Whether an endpoint can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It can, when healthy ones do not suffice.
    Degraded,
    /// It cannot: it is ejected, or stated to be unhealthy.
    Unhealthy,
    /// It cannot, nor does it count when the health of its priority is reckoned.
    Excluded,
}

/// What governs the balancing of a cluster.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How an endpoint is picked.
    pub policy: LbPolicy,
    /// How localities are treated.
    pub locality: LocalityLb,
    /// In percent, 0 to 100; below it a priority may be in panic.
    pub panic_threshold: u32,
    /// What the endpoints' assignment says about health.
    pub assignment: AssignmentPolicy,
    /// The fleet that this proxy belongs to; zones are heeded only if it is known.
    pub fleet: Option<Fleet>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: LbPolicy::default(),
            locality: LocalityLb::default(),
            panic_threshold: 50,
            assignment: AssignmentPolicy::default(),
            fleet: None,
        }
    }
}

impl Rules {
    fn fails_in_panic(&self) -> bool {
        matches!(
            self.locality,
            LocalityLb::ZoneAware(ZoneAware { fail_traffic_on_panic: true, .. })
        )
    }
}

/// What a pick asks about endpoints, by their numbers, and tells about itself.
pub trait View {
    /// The requests under way at an endpoint.
    fn active(&self, index: usize) -> u32;

    /// How long an endpoint takes to answer, in milliseconds, as far as that is known and wanted.
    fn latency(&self, _index: usize) -> Option<f64> {
        None
    }

    /// The part of its weight that an endpoint deserves now, see [`Candidate::warmth`].
    fn warmth(&self, index: usize) -> f64;

    /// Whether another endpoint is to be preferred.
    fn avoids(&self, index: usize) -> bool;

    /// Priorities that get nothing, if others have endpoints to be used.
    fn excluded(&self) -> &[u32] {
        &[]
    }

    /// The hash that hashing policies go by; without one they go by chance.
    fn hash(&self) -> Option<u64> {
        None
    }

    /// Hears how a pick was made; once for every endpoint that was considered.
    fn notes(&self, event: Event);
}

/// Something about a pick that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The priority was in panic, so that health was ignored.
    Panic,
    /// The proxies of this mesh are not distributed in a way that says anything.
    LocalClusterNotOk,
    /// There are too few endpoints to heed zones.
    ZoneClusterTooSmall,
    /// It went to this proxy's zone, where everything goes.
    ZoneDirect,
    /// It went to this proxy's zone, where a part goes.
    ZoneSampled,
    /// It went to another zone.
    ZoneCross,
    /// It went to any zone, for none has capacity left.
    ZoneNoCapacity,
}

/// The endpoints of a cluster, arranged for picking. Rebuilt when membership or health changes.
#[derive(Debug)]
pub struct Balancer {
    loads: Loads,
    levels: Vec<Level>,
    /// How requests of the first priority are divided among zones, if they are.
    zones: Option<Zones>,
    /// Why they are not, if that is counted.
    unzoned: Option<Event>,
}

/// One priority.
#[derive(Debug)]
enum Level {
    /// Any of its endpoints; none if traffic is to fail then.
    Panic(Option<Group>),
    /// Those that are in good health.
    Calm { healthy: Tier, degraded: Tier },
    /// A table of those in good health, or in panic of any.
    Hashed { panic: bool, table: Hashed },
}

impl Balancer {
    /// Arranges `candidates`.
    pub fn new(candidates: &[Candidate], rules: &Rules, random: &mut Rng) -> Self {
        let priorities = by_priority(candidates);
        let censuses: Vec<Census> = priorities.iter().map(|members| census(members)).collect();
        let loads = Loads::new(&censuses, &rules.assignment, rules.panic_threshold);
        let (zones, unzoned) = match (rules.locality, &rules.fleet, priorities.first()) {
            (LocalityLb::ZoneAware(config), Some(fleet), Some(members)) => {
                match Zones::new(members, &config, fleet) {
                    Ok(zones) => (Some(zones), None),
                    Err(event) => (None, event),
                }
            }
            _ => (None, None),
        };
        let numbers = zones.as_ref().map_or(&[][..], |zones| &zones.localities);
        let levels = priorities.iter().zip(loads.get()).enumerate();
        let levels = levels.map(|(priority, (members, load))| {
            if load.panic {
                let all = || Group::new(members.iter().copied(), rules.policy, random);
                return Level::Panic((!rules.fails_in_panic()).then(all));
            }
            let zones = if priority == 0 { numbers } else { &[] };
            Level::Calm {
                healthy: Tier::new(members, Health::Healthy, rules, zones, random),
                degraded: Tier::new(members, Health::Degraded, rules, zones, random),
            }
        });
        Self { levels: levels.collect(), loads, zones, unzoned }
    }

    /// Why zones are not heeded although the fleet is known, if that is counted.
    pub fn unzoned(&self) -> Option<Event> {
        self.unzoned
    }

    /// Arranges `candidates` in tables, by `key` (what an endpoint stands in a table by, given its number). Those
    /// in `tables` are shared, if they are alike.
    pub fn hashing(
        candidates: &[Candidate],
        rules: &Rules,
        hashing: HashLb,
        key: impl Fn(usize) -> Box<str>,
        tables: &HashTables,
    ) -> Self {
        let priorities = by_priority(candidates);
        let censuses: Vec<Census> = priorities.iter().map(|members| census(members)).collect();
        let loads = Loads::new(&censuses, &rules.assignment, rules.panic_threshold);
        let levels = priorities.iter().zip(loads.get()).map(|(members, load)| {
            let used = members.iter().filter(|(_, it)| load.panic || it.health == Health::Healthy);
            let used: Vec<_> = used.copied().collect();
            let table = Hashed::new(&used, members, rules.locality, hashing, &key, tables);
            Level::Hashed { panic: load.panic, table }
        });
        Self { levels: levels.collect(), loads, zones: None, unzoned: None }
    }

    /// Picks an endpoint; none if none is available.
    ///
    /// # Errors
    /// If the table for it is being built.
    ///
    /// An endpoint that the view avoids is passed over, at most `attempts` times: then the next is taken,
    /// whichever it is (Envoy's `host_selection_retry_max_attempts`).
    pub fn pick(
        &mut self,
        view: &impl View,
        attempts: u32,
        random: &mut Rng,
    ) -> Result<Option<usize>, Unready> {
        if let Some(Level::Hashed { .. }) = self.levels.first() {
            return self.pick_by_hash(view, attempts, random);
        }
        let mut picked = self.pick_once(view, random);
        for _ in 0..attempts {
            if !picked.is_some_and(|index| view.avoids(index)) {
                break;
            }
            picked = self.pick_once(view, random);
        }
        Ok(picked)
    }

    fn priority(&self, view: &impl View, hash: impl FnOnce() -> u64) -> (usize, Availability) {
        let excluded = view.excluded();
        let without = (!excluded.is_empty()).then(|| self.loads.without(excluded)).flatten();
        let loads = without.as_ref().unwrap_or(&self.loads);
        loads.only().unwrap_or_else(|| loads.choose(hash()))
    }

    fn pick_once(&mut self, view: &impl View, random: &mut Rng) -> Option<usize> {
        let (priority, availability) = self.priority(view, || random.u64(..));
        match (self.levels.get_mut(priority)?, availability) {
            (Level::Panic(group), _) => {
                view.notes(Event::Panic);
                group.as_mut()?.pick(view, random)
            }
            (Level::Calm { healthy, degraded }, availability) => {
                let tier = match availability {
                    Availability::Healthy => healthy,
                    Availability::Degraded => degraded,
                };
                let zone = match &self.zones {
                    Some(zones) if priority == 0 => zones.choose(view, random),
                    _ => Zone::Any,
                };
                tier.pick(zone, view, random)
            }
            (Level::Hashed { .. }, _) => None,
        }
    }

    /// The hash decides about the priority too. Of degraded endpoints there is no table, as in Envoy.
    fn pick_by_hash(
        &mut self,
        view: &impl View,
        attempts: u32,
        random: &mut Rng,
    ) -> Result<Option<usize>, Unready> {
        let hash = view.hash().unwrap_or_else(|| random.u64(..));
        let (priority, _) = self.priority(view, || hash);
        if let Some(Level::Hashed { table, .. }) = self.levels.get_mut(priority) {
            table.settle();
        }
        let Some(Level::Hashed { panic, table }) = self.levels.get(priority) else {
            return Ok(None);
        };
        if *panic {
            view.notes(Event::Panic);
        }
        let total = || {
            let tables = self.levels.iter().filter_map(|level| match level {
                Level::Hashed { table, .. } => Some(table),
                Level::Panic(_) | Level::Calm { .. } => None,
            });
            tables.map(|table| table.active(view)).sum()
        };
        let mut picked = None;
        for attempt in 0..=attempts {
            picked = table.pick(hash, attempt, view, total)?;
            if !picked.is_some_and(|index| view.avoids(index)) {
                break;
            }
        }
        Ok(picked)
    }
}

/// The candidates of each priority with their numbers. There is at least priority 0; a priority that was left
/// out is empty.
fn by_priority(candidates: &[Candidate]) -> Vec<Vec<(usize, &Candidate)>> {
    let last = candidates.iter().map(|candidate| candidate.priority).max().unwrap_or(0);
    let mut priorities = vec![Vec::new(); last as usize + 1];
    for (index, candidate) in candidates.iter().enumerate() {
        if let Some(members) = priorities.get_mut(candidate.priority as usize) {
            members.push((index, candidate));
        }
    }
    priorities
}

fn census(members: &[(usize, &Candidate)]) -> Census {
    let mut census = Census::default();
    for (_, Candidate { weight, health, .. }) in members {
        census.add(*weight, *health);
    }
    census
}

#[cfg(test)]
mod tests;
