//! Which `DestinationRule` is for a host: several of a namespace for the same host become one, and of the namespaces that
//! may say something the client's goes before the service's, and that before the root namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::istio::destination_rule::DestinationRule;
use super::object::Object;
use super::workloads::{Labels, selects};
use super::{Found, Mesh, host};

/// Which side of a connection asks for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connects: rules may be for some workloads alone.
    Client,
    /// The one that is connected to: rules with a selector are not for it.
    Server,
}

/// Who asks for a rule.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its side.
    pub side: Side,
}

/// One rule, or several that have become one.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The objects it comes from, the one that gives it its name first.
    pub from: Vec<Arc<Object>>,
    /// What is left out, as the objects before had it already: the object, the field, and what it would have been.
    pub left_out: Vec<LeftOut>,
    spec: DestinationRule,
    export_to: BTreeSet<String>,
}

/// Something of a rule that has no effect, as another rule for the host said it before.
#[derive(Debug, Clone, PartialEq)]
pub struct LeftOut {
    /// The rule.
    pub object: Arc<Object>,
    /// The field.
    pub path: String,
    /// The rule that goes before.
    pub before: Arc<Object>,
}

/// Rules of a namespace by their hosts.
type ByHost = BTreeMap<String, Vec<Merged>>;

/// All rules of a mesh.
#[derive(Debug, Clone, Default)]
pub struct DestinationRules {
    /// Those that clients of their own namespace have.
    local: BTreeMap<String, ByHost>,
    /// Those that clients of other namespaces may have.
    exported: BTreeMap<String, ByHost>,
    /// Those of the root namespace that are for its own clients alone.
    of_root: ByHost,
}

impl Mesh {
    /// The rules for hosts, several for one host made into one.
    pub fn destination_rules(&self) -> &DestinationRules {
        self.destination_rules.get_or_init(|| DestinationRules::new(self))
    }
}

impl DestinationRules {
    fn new(mesh: &Mesh) -> Self {
        let root = mesh.config.root_namespace.as_str();
        let private_default =
            mesh.config.default_destination_rule_export_to.iter().any(|it| it == ".");
        let mut rules = Self::default();
        for found in by_age(mesh) {
            let namespace = found.namespace();
            let export_to: BTreeSet<String> = match found.spec.workload_selector {
                Some(_) => BTreeSet::from([".".to_owned()]),
                None => found.spec.export_to.iter().cloned().collect(),
            };
            let names = |name: &str| export_to.contains(name);
            let own = names(".") || names(namespace);
            if export_to.is_empty() || names("*") || own {
                let here = rules.local.entry(namespace.to_owned()).or_default();
                add(here, found, &export_to);
            }
            let is_private =
                if export_to.is_empty() { private_default } else { export_to.len() == 1 && own };
            if !is_private {
                add(rules.exported.entry(namespace.to_owned()).or_default(), found, &export_to);
            } else if namespace == root {
                add(&mut rules.of_root, found, &export_to);
            }
        }
        rules
    }

    /// The rule for a host of `service_namespace`.
    pub fn find<'r>(
        &'r self,
        asking: &Asking<'_>,
        name: &str,
        service_namespace: &str,
        root: &str,
    ) -> Option<&'r Merged> {
        // The root namespace's rules are for everybody: they do not hide a service's own from its gateways.
        let own = if asking.namespace == root {
            Some(&self.of_root)
        } else {
            self.local.get(asking.namespace)
        };
        if let Some(rules) = own.and_then(|it| most_specific(it, name)) {
            return chosen(rules.iter(), asking);
        }
        [service_namespace, root].into_iter().find_map(|namespace| {
            let rules = most_specific(self.exported.get(namespace)?, name)?;
            let mut seen = rules.iter().filter(|it| it.is_seen_by(asking.namespace)).peekable();
            seen.peek()?;
            Some(chosen(seen, asking))
        })?
    }

    /// Everything that has no effect, as another rule said it before, once.
    pub fn left_out(&self) -> Vec<&LeftOut> {
        let indexes = self.local.values().chain(self.exported.values());
        let rules = indexes.flat_map(BTreeMap::values).flatten();
        let mut all: Vec<&LeftOut> = Vec::new();
        for left_out in rules.flat_map(|it| &it.left_out) {
            if !all.contains(&left_out) {
                all.push(left_out);
            }
        }
        all
    }
}

impl Merged {
    /// The rule, with the object that gives it its name.
    pub fn found(&self) -> Option<Found<'_, DestinationRule>> {
        Some(Found { object: self.from.first()?, spec: &self.spec })
    }

    fn namespace(&self) -> &str {
        self.from.first().map(|it| it.metadata.namespace.as_str()).unwrap_or_default()
    }

    fn is_seen_by(&self, namespace: &str) -> bool {
        self.export_to.is_empty()
            || self.export_to.contains("*")
            || self.export_to.contains(namespace)
    }

    fn selector(&self) -> Option<&Labels> {
        self.spec.workload_selector.as_ref().map(|it| &it.match_labels)
    }

    /// Adds another rule's subsets, and its policy if there is none yet.
    fn merge(&mut self, other: Found<'_, DestinationRule>) {
        let Some(before) = self.from.first().cloned() else { return };
        let left_out = |path: String| LeftOut {
            object: Arc::clone(other.object),
            path,
            before: Arc::clone(&before),
        };
        for (index, subset) in other.spec.subsets.iter().enumerate() {
            if self.spec.subsets.iter().any(|it| it.name == subset.name) {
                self.left_out.push(left_out(format!("spec.subsets[{index}]")));
            } else {
                self.spec.subsets.push(subset.clone());
            }
        }
        if self.spec.traffic_policy.is_none() {
            self.spec.traffic_policy.clone_from(&other.spec.traffic_policy);
        } else if other.spec.traffic_policy.is_some() {
            self.left_out.push(left_out("spec.trafficPolicy".to_owned()));
        }
        self.from.push(Arc::clone(other.object));
    }
}

/// Those for some workloads alone first, then the oldest.
fn by_age(mesh: &Mesh) -> Vec<Found<'_, DestinationRule>> {
    let mut rules: Vec<_> = mesh.all::<DestinationRule>().collect();
    rules.sort_by_cached_key(|it| {
        let age = it.object.metadata.creation_timestamp.clone().unwrap_or_default();
        let name = it.name().to_owned();
        (it.spec.workload_selector.is_none(), age, name, it.namespace().to_owned())
    });
    rules
}

/// Adds a rule to those for its host: to the ones that are for the same namespaces and workloads, and by itself where
/// it is for more of them.
fn add(rules: &mut ByHost, new: Found<'_, DestinationRule>, export_to: &BTreeSet<String>) {
    let known = rules.entry(host::qualified(&new.spec.host, new.namespace())).or_default();
    let selector = new.spec.workload_selector.as_ref().map(|it| &it.match_labels);
    // The last one that a client may have is the one it has: a wider rule stands before what it is part of.
    let mut place = known.len();
    let mut is_part = false;
    for (index, rule) in known.iter_mut().enumerate() {
        let same = rule.export_to == *export_to;
        let wider = !rule.export_to.is_empty() && export_to.is_superset(&rule.export_to);
        let other_workloads = selector.is_some() && rule.selector() != selector;
        if !(same || wider) || other_workloads {
            continue;
        }
        is_part |= same && rule.selector() == selector;
        place = place.min(index);
        rule.merge(new);
    }
    if !is_part {
        let alone = Merged {
            from: vec![Arc::clone(new.object)],
            left_out: Vec::new(),
            spec: new.spec.clone(),
            export_to: export_to.clone(),
        };
        known.insert(place, alone);
    }
}

/// A name goes before a wildcard, a long wildcard before a short one.
fn most_specific<'r>(rules: &'r ByHost, name: &str) -> Option<&'r [Merged]> {
    if let Some(rules) = rules.get(name) {
        return Some(rules);
    }
    // All that begin with `*`.
    let wildcards = rules.range("*".to_owned().."+".to_owned());
    let fitting = wildcards.filter(|(host, _)| host::covers(host, name));
    fitting.max_by_key(|(host, _)| host.len()).map(|(_, rules)| rules.as_slice())
}

/// The one that selects the workload, else the last one for all.
fn chosen<'r>(rules: impl Iterator<Item = &'r Merged>, asking: &Asking<'_>) -> Option<&'r Merged> {
    let mut for_all = None;
    for rule in rules {
        match rule.selector() {
            None => for_all = Some(rule),
            Some(selector) => {
                let is_own = asking.side == Side::Client && rule.namespace() == asking.namespace;
                if is_own && selects(selector, asking.labels) {
                    return Some(rule);
                }
            }
        }
    }
    for_all
}

#[cfg(test)]
mod tests;
