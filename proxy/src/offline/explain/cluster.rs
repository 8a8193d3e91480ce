//! The cluster a request goes to, and its endpoints.

use super::report::{Choice, Other, Step};
use crate::cluster::{Preview, Reason};
use crate::config::address::Address;
use crate::config::cluster::{Discovery, HashLb, HashTableKind, LbPolicy};
use crate::config::endpoint::{Endpoint, HealthStatus};
use crate::config::subset::{Fallback, MetadataMatch};
use crate::discovery::{Assembler, Written};

/// Endpoints that are named one by one.
const SHOWN: usize = 50;

/// Why an endpoint is not used though its health is good.
const OUTSIDE: &str = "it is in another subset: see lb_subset_config and its metadata";

/// The steps from the name of a cluster on; whether some endpoint can take the request.
pub(super) fn explain(
    assembler: &Assembler,
    name: &str,
    wanted: Option<&MetadataMatch>,
    mut why: Vec<String>,
) -> (Vec<Step>, bool) {
    let Some((_, spec)) = assembler.snapshot().clusters.get_key_value(name) else {
        let why = "no cluster of the configuration has this name".to_owned();
        let other = Other { name: name.to_owned(), place: String::new(), why };
        return (vec![Step { kind: "cluster", taken: None, others: vec![other] }], false);
    };
    let subsets = spec.config.subsets.as_ref();
    let written = match &spec.config.discovery {
        Discovery::Dns(names) => &names.assignment,
        _ => &spec.assignment,
    };
    let preview = subsets.map(|config| Preview::new(config, written, wanted));
    let is_outside =
        |place: usize| preview.as_ref().is_some_and(|it| !it.endpoints.contains(&place));
    why.extend(preview.as_ref().map(|preview| subset(preview, wanted)));
    let cluster = Choice {
        name: name.to_owned(),
        place: assembler.place(Written::Cluster(name), ""),
        details: why,
    };
    let mut endpoints = Step { kind: "endpoints", ..Step::default() };
    let mut usable = Vec::new();
    for (place, endpoint) in spec.assignment.endpoints.iter().enumerate() {
        match is_outside(place).then_some(OUTSIDE).or_else(|| refusal(endpoint)) {
            None => usable.push(described(endpoint)),
            Some(why) => endpoints.others.push(Other {
                name: described(endpoint),
                place: String::new(),
                why: why.to_owned(),
            }),
        }
    }
    let names = match &spec.config.discovery {
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
    endpoints.taken = is_usable.then(|| Choice {
        name: format!("one of {count}, by {}", policy(&spec.config.lb_policy)),
        place: String::new(),
        details: usable,
    });
    let cluster = Step { kind: "cluster", taken: Some(cluster), others: Vec::new() };
    (vec![cluster, endpoints], is_usable)
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
        text.push_str(&format!(
            ", priority {} (when those before it are short of healthy endpoints)",
            locality.priority
        ));
    }
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let parts: Vec<&str> =
        parts.into_iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
    if !parts.is_empty() {
        text.push_str(&format!(", in {}", parts.join("/")));
    }
    text
}

fn refusal(endpoint: &Endpoint) -> Option<&'static str> {
    match endpoint.health {
        HealthStatus::Unknown | HealthStatus::Healthy => None,
        HealthStatus::Degraded => {
            Some("its health_status is DEGRADED: only when healthy ones do not suffice")
        }
        HealthStatus::Draining => Some("its health_status is DRAINING"),
        _ => Some("its health_status is UNHEALTHY: only in panic"),
    }
}
