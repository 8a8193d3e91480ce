//! Zone-aware routing: requests stay in this proxy's own zone, as far as that leaves all endpoints with the same
//! load. Envoy's arithmetic, in ten-thousandths.
//!
//! If a zone holds a larger share of the endpoints than of the proxies, these can send everything to it. Else they
//! send what it can take, and the rest to zones that have endpoints to spare.

use fastrand::Rng;

use super::{Candidate, Event, Health, View};
use crate::config::cluster::ZoneAware;

/// A whole in ten-thousandths.
const WHOLE: u64 = 10_000;

/// The proxies among which traffic originates, this one being one of them. Localities go by the numbers of
/// [`Candidate::locality`]; what has no endpoints has no number.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The locality of this proxy.
    pub here: Option<usize>,
    /// How many proxies, healthy or not, share its locality.
    pub proxies_here: u64,
    /// How many localities have proxies.
    pub localities: usize,
    /// Healthy proxies, or their weights, by locality.
    pub healthy: Vec<u64>,
    /// The same of all localities together.
    pub total: u64,
    /// Whether so few proxies are healthy that their distribution says nothing.
    pub panic: bool,
}

/// How requests are divided among the zones of the first priority.
#[derive(Debug)]
pub(super) struct Zones {
    /// The numbers of the localities, this proxy's own first.
    pub(super) localities: Vec<usize>,
    routing: Routing,
    /// Percent of requests that zones matter for.
    enabled: u32,
    fails_in_panic: bool,
    fleet_panics: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Routing {
    /// Everything to the first locality.
    Direct,
    /// So many ten-thousandths to the first locality; the rest to where there is capacity, of which each locality's
    /// is added to those before it.
    Residual { local: u64, capacity: Vec<u64> },
}

/// Where a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// Zones do not matter.
    Any,
    /// The locality at this place of [`Zones::localities`].
    At(usize),
    /// Nowhere.
    None,
}

/// Part of the endpoints and of the proxies that one locality has.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    endpoints: u64,
    proxies: u64,
}

impl Zones {
    /// Compares the endpoints `members` with the fleet.
    ///
    /// # Errors
    /// Zones cannot be heeded; with the event to count, if that is counted.
    pub(super) fn new(
        members: &[(usize, &Candidate)],
        config: &ZoneAware,
        fleet: &Fleet,
    ) -> Result<Self, Option<Event>> {
        let localities = localities(members, fleet.here);
        if localities.len() < 2 || (config.force_local_zone.is_none() && fleet.localities < 2) {
            return Err(None);
        }
        if fleet.proxies_here == 0 {
            return Err(Some(Event::LocalClusterNotOk));
        }
        let healthy = |locality: usize| {
            let is_there =
                move |it: &&Candidate| it.locality == locality && it.health == Health::Healthy;
            members.iter().map(|(_, candidate)| *candidate).filter(is_there)
        };
        let count: Vec<u64> = localities.iter().map(|it| healthy(*it).count() as u64).collect();
        if count.iter().sum::<u64>() < config.min_cluster_size {
            return Err(Some(Event::ZoneClusterTooSmall));
        }
        let weight = |it: &usize| healthy(*it).map(|candidate| u64::from(candidate.weight)).sum();
        let sizes =
            if config.by_weight { localities.iter().map(weight).collect() } else { count.clone() };
        let is_local = localities.first().is_some_and(|first| fleet.here == Some(*first));
        let local_endpoints = count.first().copied().filter(|_| is_local);
        Ok(Self {
            routing: routing(&parts(&sizes, &localities, fleet), local_endpoints, config),
            localities,
            enabled: config.routing_enabled,
            fails_in_panic: config.fail_traffic_on_panic,
            fleet_panics: fleet.panic,
        })
    }

    /// Where the next request may go.
    pub(super) fn choose(&self, view: &impl View, random: &mut Rng) -> Zone {
        if self.enabled < 100 && random.u32(..100) >= self.enabled {
            return Zone::Any;
        }
        if self.fleet_panics {
            view.notes(Event::LocalClusterNotOk);
            return if self.fails_in_panic { Zone::None } else { Zone::Any };
        }
        let (local, capacity) = match &self.routing {
            Routing::Direct => {
                view.notes(Event::ZoneDirect);
                return Zone::At(0);
            }
            Routing::Residual { local, capacity } => (*local, capacity),
        };
        if random.u64(..WHOLE) < local {
            view.notes(Event::ZoneSampled);
            return Zone::At(0);
        }
        view.notes(Event::ZoneCross);
        match capacity.last() {
            Some(total) if *total > 0 => {
                let point = random.u64(..*total);
                Zone::At(capacity.partition_point(|sum| *sum <= point))
            }
            // Rounding has eaten it all.
            _ => {
                view.notes(Event::ZoneNoCapacity);
                Zone::At(random.usize(..self.localities.len().max(1)))
            }
        }
    }
}

/// The localities of `members` in order, `here` first if it is one of them.
fn localities(members: &[(usize, &Candidate)], here: Option<usize>) -> Vec<usize> {
    let mut all: Vec<usize> = members.iter().map(|(_, candidate)| candidate.locality).collect();
    all.sort_unstable_by_key(|locality| (Some(*locality) != here, *locality));
    all.dedup();
    all
}

/// What part each locality has, in ten-thousandths. Where there are no endpoints, proxies do not matter.
fn parts(sizes: &[u64], localities: &[usize], fleet: &Fleet) -> Vec<Part> {
    let total: u64 = sizes.iter().sum();
    let part = |size: u64, total: u64| (WHOLE * size).checked_div(total).unwrap_or(0);
    let parts = sizes.iter().zip(localities).map(|(size, locality)| {
        if *size == 0 {
            return Part::default();
        }
        let proxies = fleet.healthy.get(*locality).copied().unwrap_or(0);
        Part { endpoints: part(*size, total), proxies: part(proxies, fleet.total) }
    });
    parts.collect()
}

/// `local_endpoints` is how many healthy endpoints this proxy's locality has; none if it has none at all, healthy or
/// not. The locality is then the first one.
fn routing(parts: &[Part], local_endpoints: Option<u64>, config: &ZoneAware) -> Routing {
    let local = local_endpoints.and_then(|_| parts.first().copied());
    let forced = config.force_local_zone.zip(local_endpoints);
    let forced = forced.is_some_and(|(minimum, count)| count >= u64::from(minimum));
    if forced || local.is_some_and(|it| it.endpoints > 0 && it.endpoints >= it.proxies) {
        return Routing::Direct;
    }
    let mut sum = 0;
    let capacity = parts.iter().enumerate().map(|(place, part)| {
        if place > 0 || local.is_none() {
            sum += part.endpoints.saturating_sub(part.proxies);
        }
        sum
    });
    Routing::Residual {
        capacity: capacity.collect(),
        local: local.and_then(|it| (it.endpoints * WHOLE).checked_div(it.proxies)).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
