//! The cluster a request goes to, and its endpoints.

use std::sync::Arc;

use super::report::{Choice, Other, Step};
use crate::cluster::load_balancer::Health;
use crate::cluster::load_balancer::priority::{Census, Load, Loads};
use crate::cluster::{HealthFlags, Preview, Reason};
use crate::config::address::Address;
use crate::config::cluster::{Cluster, Discovery, HashLb, HashTableKind, LbPolicy};
use crate::config::endpoint::{Endpoint, HealthStatus, LoadAssignment};
use crate::config::matcher::Fraction;
use crate::config::subset::{Fallback, MetadataMatch};
use crate::discovery::{Assembler, Written};

/// Endpoints that are named one by one.
const SHOWN: usize = 50;

/// Why an endpoint is not used though its health is good.
const OUTSIDE: &str = "it is in another subset: see lb_subset_config and its metadata";

/// A request on its way to a cluster.
pub(super) struct Bound {
    pub(super) cluster: String,
    /// What is wanted of the endpoint's metadata.
    pub(super) wanted: Option<Arc<MetadataMatch>>,
    /// Why this cluster.
    pub(super) why: Vec<String>,
    /// As which request.
    pub(super) request: String,
    /// What becomes of it if there is no such cluster.
    pub(super) missing: String,
}

/// What a cluster does with a request.
pub(super) enum Fate {
    /// An endpoint gets it.
    Served,
    /// There is no such cluster.
    Missing,
    /// None of its endpoints may be used.
    NoEndpoint,
    /// `drop_overloads` takes it.
    Dropped,
}

/// The steps from the name of a cluster on, and what becomes of a request with this random number.
pub(super) fn explain(assembler: &Assembler, bound: &Bound, random: u64) -> (Vec<Step>, Fate) {
    let name = &*bound.cluster;
    let Some((_, spec)) = assembler.snapshot().clusters.get_key_value(name) else {
        let why = "no cluster of the configuration has this name".to_owned();
        let other = Other { name: name.to_owned(), place: String::new(), why };
        return (vec![Step { kind: "cluster", taken: None, others: vec![other] }], Fate::Missing);
    };
    let place = assembler.place(Written::Cluster(name), "");
    let mut cluster = Choice { name: name.to_owned(), place, details: bound.why.clone() };
    let drops = spec.assignment.policy.drop_overload;
    cluster.details.extend(drops.map(|Fraction { numerator, denominator }| {
        format!("drop_overloads: {numerator} of {denominator} requests are answered 503")
    }));
    let written = match &spec.config.discovery {
        Discovery::Dns(names) => &names.assignment,
        _ => &spec.assignment,
    };
    let wanted = bound.wanted.as_deref();
    let subsets = spec.config.subsets.as_ref();
    let preview = subsets.map(|config| Preview::new(config, written, wanted));
    cluster.details.extend(preview.as_ref().map(|preview| subset(preview, wanted)));
    let endpoints = match &spec.config.discovery {
        Discovery::OriginalDst(_) => named("the address the connection or a header names"),
        Discovery::ForwardProxy(_) => named("whatever the request's host resolves to"),
        _ => endpoints(&spec.config, &spec.assignment, preview.as_ref()),
    };
    let fate = if drops.is_some_and(|share| share.takes(random)) {
        Fate::Dropped
    } else if endpoints.taken.is_none() {
        Fate::NoEndpoint
    } else {
        Fate::Served
    };
    let cluster = Step { kind: "cluster", taken: Some(cluster), others: Vec::new() };
    (vec![cluster, endpoints], fate)
}

/// The endpoint is one that nobody has listed.
fn named(name: &str) -> Step {
    let taken = Choice { name: name.to_owned(), ..Choice::default() };
    Step { kind: "endpoints", taken: Some(taken), others: Vec::new() }
}

fn endpoints(config: &Cluster, assignment: &LoadAssignment, preview: Option<&Preview>) -> Step {
    let mut step = Step { kind: "endpoints", ..Step::default() };
    let is_outside = |place: usize| preview.is_some_and(|it| !it.endpoints.contains(&place));
    let all = || assignment.endpoints.iter().enumerate();
    let loads = loads(config, assignment, all().filter(|(place, _)| !is_outside(*place)));
    let mut usable = Vec::new();
    for (place, endpoint) in all() {
        let name = described(endpoint);
        let load = loads.get().get(endpoint.locality.priority as usize).copied();
        let outside = is_outside(place).then(|| OUTSIDE.to_owned());
        match outside.or_else(|| refusal(endpoint, load.unwrap_or_default())) {
            None => usable.push(name),
            Some(why) => step.others.push(Other { name, place: String::new(), why }),
        }
    }
    let names = match &config.discovery {
        Discovery::Dns(names) => names_of(&names.assignment.endpoints, is_outside),
        _ => Vec::new(),
    };
    let is_usable = !usable.is_empty() || !names.is_empty();
    let count = usable.len();
    usable.truncate(SHOWN);
    if count > SHOWN {
        usable.push(format!("and {} more", count - SHOWN));
    }
    usable.extend(names);
    let in_panic = loads.get().iter().any(|load| load.panic && load.healthy > 0);
    let panic = if in_panic { ", in panic: too few are healthy, so health is ignored" } else { "" };
    step.taken = is_usable.then(|| Choice {
        name: format!("one of {count}, by {}{panic}", policy(&config.lb_policy)),
        place: String::new(),
        details: usable,
    });
    step
}

/// What each priority gets, going by what is stated of their endpoints.
fn loads<'a>(
    config: &Cluster,
    assignment: &LoadAssignment,
    endpoints: impl Iterator<Item = (usize, &'a Endpoint)>,
) -> Loads {
    let mut priorities: Vec<Census> = Vec::new();
    for (_, endpoint) in endpoints {
        let priority = endpoint.locality.priority as usize;
        if priorities.len() <= priority {
            priorities.resize(priority + 1, Census::default());
        }
        if let Some(census) = priorities.get_mut(priority) {
            census.add(endpoint.weight, HealthFlags::stated(endpoint.health).health());
        }
    }
    Loads::new(&priorities, &assignment.policy, config.panic_threshold)
}

/// Which part of the endpoints a request may go to.
fn subset(preview: &Preview, wanted: Option<&MetadataMatch>) -> String {
    let lines = |name: &str| name.lines().collect::<Vec<_>>().join(", ");
    let fallback = match &preview.by {
        Reason::Subset(name) => return format!("the subset with {}", lines(name)),
        Reason::Fallback(Fallback::None) => "there is no fallback",
        Reason::Fallback(Fallback::Any) => "the fallback is ANY_ENDPOINT",
        Reason::Fallback(Fallback::Default) => "the fallback is DEFAULT_SUBSET",
        Reason::Panic => "the fallback has no endpoint, so panic_mode_any allows all",
    };
    match wanted.map(|wanted| lines(wanted.criteria.name())) {
        Some(wanted) if !wanted.is_empty() => format!("no subset is for {wanted}; {fallback}"),
        _ => format!("no metadata_match asks for a subset; {fallback}"),
    }
}

fn policy(policy: &LbPolicy) -> &'static str {
    match policy {
        LbPolicy::RoundRobin { .. } => "ROUND_ROBIN",
        LbPolicy::LeastRequest(_) => "LEAST_REQUEST",
        LbPolicy::Random => "RANDOM",
        LbPolicy::PeakEwma(_) => "PEAK_EWMA",
        LbPolicy::Hash(HashLb { table: HashTableKind::Ring { .. }, .. }) => "RING_HASH",
        LbPolicy::Hash(HashLb { table: HashTableKind::Maglev { .. }, .. }) => "MAGLEV",
    }
}

fn names_of(endpoints: &[Endpoint], is_outside: impl Fn(usize) -> bool) -> Vec<String> {
    let inside = endpoints.iter().enumerate().filter(|(place, _)| !is_outside(*place));
    let names = inside.filter_map(|(_, endpoint)| match &endpoint.address {
        Address::Dns { host, port } => Some(format!("whatever {host} resolves to, port {port}")),
        Address::Literal(_) => None,
    });
    names.collect()
}

fn described(endpoint: &Endpoint) -> String {
    let mut text = endpoint.address.to_string();
    let locality = &endpoint.locality;
    if endpoint.weight != 1 {
        text.push_str(&format!(", weight {}", endpoint.weight));
    }
    if locality.priority != 0 {
        text.push_str(&format!(", priority {}", locality.priority));
    }
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let parts: Vec<&str> =
        parts.into_iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
    if !parts.is_empty() {
        text.push_str(&format!(", in {}", parts.join("/")));
    }
    text
}

/// Why an endpoint of a priority with this load is not used.
fn refusal(endpoint: &Endpoint, load: Load) -> Option<String> {
    let health = HealthFlags::stated(endpoint.health).health();
    let is_used = match health {
        _ if load.panic => load.healthy > 0,
        Health::Healthy => load.healthy > 0,
        Health::Degraded => load.degraded > 0,
        Health::Unhealthy | Health::Excluded => false,
    };
    if is_used {
        return None;
    }
    let why = match endpoint.health {
        HealthStatus::Unknown | HealthStatus::Healthy => {
            return Some(format!(
                "its priority {} gets nothing while those before it are healthy enough",
                endpoint.locality.priority
            ));
        }
        HealthStatus::Degraded => "DEGRADED: only when healthy ones do not suffice",
        HealthStatus::Draining => "DRAINING: only in panic",
        HealthStatus::Unhealthy => "UNHEALTHY: only in panic",
        HealthStatus::Timeout => "TIMEOUT: only in panic",
    };
    Some(format!("its health_status is {why}"))
}
