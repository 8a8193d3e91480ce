//! Which endpoints are preferred for where they are: priorities and weights of localities, as one proxy sees them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use xds::envoy::config::core::v3::Locality;
use xds::envoy::config::endpoint::v3::LocalityLbEndpoints;

use super::proxy::Proxy;
use super::service::Service;
use crate::model::Mesh;
use crate::model::istio::destination_rule::{
    Distribute, Failover, LocalityLoadBalancerSetting, TrafficPolicy,
};
use crate::model::kind::Spec;
use crate::model::workloads::Labels;

/// In place of the field of the same name, for Kubernetes that does not have it.
const ANNOTATION: &str = "networking.istio.io/traffic-distribution";
const CLOSE: &[&str] =
    &["topology.istio.io/network", "topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
const SAME_NODE: &[&str] = &[
    "topology.istio.io/network",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
];

/// Labels that endpoints of a service should share with who asks; none if it does not matter.
pub(super) fn preferred_labels(service: &Service) -> Option<&'static [&'static str]> {
    let annotation = service.object.metadata.annotations.get(ANNOTATION);
    let field = match &service.object.spec {
        Spec::Service(spec) => spec.traffic_distribution.as_str(),
        _ => "",
    };
    match annotation.map_or(field, String::as_str) {
        "PreferClose" | "PreferSameZone" => Some(CLOSE),
        "PreferSameNode" => Some(SAME_NODE),
        _ => None,
    }
}

/// What holds for a service's endpoints.
pub(super) struct Preference<'a> {
    setting: Cow<'a, LocalityLoadBalancerSetting>,
    /// Whether others are used once these fail: only where somebody notices that they do.
    fails_over: bool,
}

impl<'a> Preference<'a> {
    /// What a rule says, else the service itself, else the mesh; none if it does not matter where endpoints are.
    pub(super) fn of(
        mesh: &'a Mesh,
        service: &Service,
        policy: Option<&'a TrafficPolicy>,
    ) -> Option<Self> {
        let watched = policy.is_some_and(|it| it.outlier_detection.is_some());
        let balancer = policy.and_then(|it| it.load_balancer.as_ref());
        let on = |setting: &LocalityLoadBalancerSetting| setting.enabled != Some(false);
        if let Some(own) = balancer.and_then(|it| it.locality_lb_setting.as_ref()) {
            return on(own).then_some(Self { setting: Cow::Borrowed(own), fails_over: watched });
        }
        if let Some(labels) = preferred_labels(service) {
            let setting = LocalityLoadBalancerSetting {
                failover_priority: labels.iter().map(ToString::to_string).collect(),
                ..LocalityLoadBalancerSetting::default()
            };
            return Some(Self { setting: Cow::Owned(setting), fails_over: true });
        }
        let setting = match &mesh.config.locality_lb_setting {
            Some(setting) => Cow::Borrowed(setting),
            None => Cow::Owned(LocalityLoadBalancerSetting::default()),
        };
        on(&setting).then_some(Self { setting, fails_over: watched })
    }

    /// Whether weights of localities count.
    pub(super) fn weighs(&self) -> bool {
        let setting = &self.setting;
        let fails_over = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
        (self.fails_over && fails_over) || !setting.distribute.is_empty()
    }

    /// Sets priorities or weights. `labels` are those of every endpoint, by locality and in their order.
    pub(super) fn apply(
        &self,
        proxy: &Proxy,
        localities: &mut Vec<LocalityLbEndpoints>,
        labels: &[Vec<&Labels>],
    ) {
        let setting = &self.setting;
        if !setting.distribute.is_empty() {
            distribute(&proxy.locality, &setting.distribute, localities);
        } else if self.fails_over && !setting.failover_priority.is_empty() {
            if !proxy.labels.is_empty() {
                *localities = by_labels(proxy, &setting.failover_priority, localities, labels);
                number(localities);
            }
            if !setting.failover.is_empty() {
                fail_over(&proxy.locality, &setting.failover, localities);
            }
        } else if self.fails_over {
            fail_over(&proxy.locality, &setting.failover, localities);
        }
    }
}

/// Whether a locality fits `REGION/ZONE/SUBZONE`, each of which may be `*` or left out.
fn fits(locality: &Locality, pattern: &str) -> bool {
    let mut parts = pattern.split('/');
    let mut part = |own: &str| {
        let wanted = parts.next().unwrap_or_default();
        wanted.is_empty() || wanted == "*" || wanted == own
    };
    part(&locality.region) && part(&locality.zone) && part(&locality.sub_zone)
}

/// Weights by where who asks is. What no weight is said of gets nothing.
fn distribute(own: &Locality, all: &[Distribute], localities: &mut [LocalityLbEndpoints]) {
    let Some(wanted) = all.iter().find(|it| fits(own, &it.from)) else { return };
    let mut left: BTreeSet<usize> = (0..localities.len()).collect();
    for (pattern, weight) in &wanted.to {
        let place = |index: &usize| localities.get(*index).and_then(|it| it.locality.as_ref());
        let fitting: Vec<usize> = left
            .iter()
            .filter(|it| place(it).is_some_and(|it| fits(it, pattern)))
            .copied()
            .collect();
        let weights = |index: usize| {
            let weight = localities.get(index).and_then(|it| it.load_balancing_weight);
            u64::from(weight.unwrap_or(1))
        };
        let shares: Vec<(usize, u64)> = fitting.iter().map(|it| (*it, weights(*it))).collect();
        let total: u64 = shares.iter().map(|(_, share)| share).sum();
        for (index, share) in shares {
            left.remove(&index);
            let weight = (share * u64::from(*weight)).div_ceil(total.max(1));
            if let Some(locality) = localities.get_mut(index).filter(|_| weight > 0) {
                locality.load_balancing_weight = Some(u32::try_from(weight).unwrap_or(u32::MAX));
            }
        }
    }
    for index in left {
        if let Some(locality) = localities.get_mut(index) {
            locality.lb_endpoints.clear();
        }
    }
}

/// Priorities by how near a locality is, other regions last.
fn fail_over(own: &Locality, all: &[Failover], localities: &mut [LocalityLbEndpoints]) {
    for locality in localities.iter_mut() {
        let there = locality.locality.clone().unwrap_or_default();
        let distance = if own.region != there.region {
            let wanted = all.iter().find(|it| it.from == own.region);
            if wanted.is_some_and(|it| it.to != there.region) { 4 } else { 3 }
        } else if own.zone != there.zone {
            2
        } else {
            u32::from(own.sub_zone != there.sub_zone)
        };
        locality.priority = locality.priority * 5 + distance;
    }
    number(localities);
}

/// Each locality split by how many of these labels its endpoints share with who asks. A label may have its value with
/// it: `LABEL=VALUE`.
fn by_labels(
    proxy: &Proxy,
    wanted: &[String],
    localities: &[LocalityLbEndpoints],
    labels: &[Vec<&Labels>],
) -> Vec<LocalityLbEndpoints> {
    let lowest = wanted.len();
    let priority = |labels: &Labels| {
        let differs = wanted.iter().position(|wanted| {
            let (label, value) = match wanted.split_once('=') {
                Some((label, value)) => (label, Some(value)),
                None => (wanted.as_str(), proxy.labels.get(wanted).map(String::as_str)),
            };
            labels.get(label).map_or("", String::as_str) != value.unwrap_or("")
        });
        differs.map_or(0, |at| lowest - at)
    };
    let mut split = Vec::new();
    for (locality, labels) in localities.iter().zip(labels) {
        let mut by_priority: BTreeMap<usize, LocalityLbEndpoints> = BTreeMap::new();
        for (endpoint, labels) in locality.lb_endpoints.iter().zip(labels) {
            let priority = priority(labels);
            let part = by_priority.entry(priority).or_insert_with(|| LocalityLbEndpoints {
                lb_endpoints: Vec::new(),
                load_balancing_weight: Some(0),
                priority: u32::try_from(priority).unwrap_or(u32::MAX),
                ..locality.clone()
            });
            let weight = endpoint.load_balancing_weight.unwrap_or(0);
            part.load_balancing_weight =
                part.load_balancing_weight.map(|sum| sum.saturating_add(weight));
            part.lb_endpoints.push(endpoint.clone());
        }
        split.extend(by_priority.into_values());
    }
    split
}

/// Envoy wants priorities from 0 without gaps.
fn number(localities: &mut [LocalityLbEndpoints]) {
    let used: BTreeSet<u32> = localities.iter().map(|it| it.priority).collect();
    for locality in localities {
        let before = used.range(..locality.priority).count();
        locality.priority = u32::try_from(before).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, zone: &str) -> Locality {
        Locality { region: region.into(), zone: zone.into(), ..Locality::default() }
    }

    fn localities() -> Vec<LocalityLbEndpoints> {
        let all = [("r1", "z1"), ("r1", "z2"), ("r2", "z1"), ("r3", "z1")];
        let locality = |(region, zone): (&str, &str)| LocalityLbEndpoints {
            locality: Some(place(region, zone)),
            load_balancing_weight: Some(2),
            lb_endpoints: vec![xds::envoy::config::endpoint::v3::LbEndpoint::default()],
            ..LocalityLbEndpoints::default()
        };
        all.into_iter().map(locality).collect()
    }

    fn priorities(all: &[LocalityLbEndpoints]) -> Vec<u32> {
        all.iter().map(|it| it.priority).collect()
    }

    #[test]
    fn nearer_localities_come_first_and_a_region_of_choice_before_others() {
        let mut all = localities();
        fail_over(&place("r1", "z1"), &[], &mut all);
        assert_eq!(priorities(&all), [0, 1, 2, 2]);
        let to_r3 = [Failover { from: "r1".into(), to: "r3".into() }];
        let mut all = localities();
        fail_over(&place("r1", "z1"), &to_r3, &mut all);
        assert_eq!(priorities(&all), [0, 1, 3, 2]);
    }

    #[test]
    fn weights_are_shared_among_what_fits_and_the_rest_gets_nothing() {
        let to = [("r1/*".to_owned(), 70), ("r2/*".to_owned(), 30)].into();
        let mut all = localities();
        distribute(&place("r1", "z9"), &[Distribute { from: "r1/*".into(), to }], &mut all);
        let weights: Vec<_> = all.iter().map(|it| it.load_balancing_weight).collect();
        assert_eq!(weights, [Some(35), Some(35), Some(30), Some(2)]);
        let left: Vec<_> = all.iter().map(|it| it.lb_endpoints.len()).collect();
        assert_eq!(left, [1, 1, 1, 0]);
    }
}
