//! Subsets of a cluster's endpoints (Envoy `Cluster.LbSubsetConfig`), and which of them a request wants.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::metadata::Metadata;

/// The namespace of metadata that load balancers read.
pub const LOAD_BALANCING: &str = "envoy.lb";

/// The key of a request's criteria that holds a list of others.
const FALLBACK_LIST: &str = "fallback_list";

/// Envoy `LbSubsetConfig`
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetLb {
    /// `subset_selectors`, no two with the same keys; those with more keys first if there may be redundant ones.
    pub selectors: Vec<Selector>,
    /// `allow_redundant_keys`: of what a request wants only the keys of the first selector count that has no others.
    pub redundant_keys: bool,
    /// `fallback_policy`: where requests go that no subset is found for.
    pub fallback: Fallback,
    /// `default_subset`
    pub default_subset: Criteria,
    /// `panic_mode_any`: any endpoint is used if the fallback has none.
    pub panic_mode_any: bool,
    /// `list_as_any`: an endpoint whose value is a list belongs to the subset of each of its elements.
    pub list_as_any: bool,
    /// `locality_weight_aware`: weights of localities count within subsets.
    pub locality_weight_aware: bool,
    /// `scale_locality_weight`: they do by the share of a locality's endpoints that are in the subset.
    pub scale_locality_weight: bool,
    /// `metadata_fallback_policy` FALLBACK_LIST: requests may name several criteria, in order.
    pub fallback_list: bool,
}

/// Envoy `LbSubsetFallbackPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// NO_FALLBACK
    None,
    /// ANY_ENDPOINT
    Any,
    /// DEFAULT_SUBSET
    Default,
}

/// Envoy `LbSubsetSelector`: each combination of values of its keys is a subset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// `keys`, sorted, at least one.
    pub keys: Vec<Box<str>>,
    /// `fallback_policy`; none means the cluster's.
    pub fallback: Option<SelectorFallback>,
    /// `single_host_per_subset`: a subset is its first endpoint, whatever its health.
    pub single_host: bool,
}

/// Envoy `LbSubsetSelectorFallbackPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// NO_FALLBACK, ANY_ENDPOINT or DEFAULT_SUBSET
    To(Fallback),
    /// KEYS_SUBSET: the choice is made again with these of the keys only, sorted.
    Keys(Vec<Box<str>>),
}

/// What a request wants of its endpoint (`metadata_match`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetadataMatch {
    /// All of it.
    pub criteria: Criteria,
    /// What it wants by its `fallback_list`, one after the other, if it has one.
    pub fallbacks: Option<Vec<Criteria>>,
}

/// Values by key, sorted, as text that is equal where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    entries: Vec<(Box<str>, Box<str>)>,
    name: Box<str>,
}

impl MetadataMatch {
    /// What `values` of `envoy.lb` say.
    pub fn new(values: &Map<String, Value>) -> Self {
        let fallbacks = values.get(FALLBACK_LIST).map(|list| {
            let mut rest = values.clone();
            rest.remove(FALLBACK_LIST);
            let merged = |others: &Value| {
                let mut merged = rest.clone();
                merged.extend(others.as_object().cloned().unwrap_or_default());
                Criteria::new(&merged)
            };
            match list.as_array() {
                Some(list) if !list.is_empty() => list.iter().map(merged).collect(),
                _ => vec![Criteria::new(&rest)],
            }
        });
        Self { criteria: Criteria::new(values), fallbacks }
    }

    /// Both, where these values take the place of those of `base` with the same keys.
    #[must_use]
    pub fn over(self, base: Option<&Self>) -> Self {
        let Some(base) = base else { return self };
        let fallbacks = match (&self.fallbacks, &base.fallbacks) {
            (Some(own), _) => Some(own.iter().map(|own| own.over(&base.criteria)).collect()),
            (None, Some(all)) => Some(all.iter().map(|base| self.criteria.over(base)).collect()),
            (None, None) => None,
        };
        Self { criteria: self.criteria.over(&base.criteria), fallbacks }
    }
}

impl Criteria {
    /// These values.
    pub fn new(values: &Map<String, Value>) -> Self {
        let entries = values.iter().map(|(key, value)| (&**key, text(value)));
        Self::from_entries(entries.collect())
    }

    fn from_entries(mut entries: Vec<(&str, Box<str>)>) -> Self {
        entries.sort_unstable();
        let entries: Vec<(Box<str>, _)> =
            entries.into_iter().map(|(key, value)| (key.into(), value)).collect();
        let mut criteria = Self { entries, name: Box::default() };
        let mut name = String::new();
        criteria.write_name(None, &mut name);
        criteria.name = name.into();
        criteria
    }

    fn over(&self, base: &Self) -> Self {
        let replaced = |key: &str| self.entries.iter().any(|(own, _)| **own == *key);
        let kept = base.entries.iter().filter(|(key, _)| !replaced(key));
        let all = kept.chain(&self.entries).map(|(key, value)| (&**key, value.clone()));
        Self::from_entries(all.collect())
    }

    /// The name of the subset they ask for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the name of the subset that those with `keys` ask for; none means all.
    pub fn write_name(&self, keys: Option<&[Box<str>]>, name: &mut String) {
        name.clear();
        for (key, value) in &self.entries {
            if keys.is_none_or(|keys| keys.contains(key)) {
                let written = writeln!(name, "{key:?}={value}");
                debug_assert!(written.is_ok(), "a text takes whatever is written");
            }
        }
    }

    /// Whether these are exactly the keys, which are sorted.
    pub fn has_keys(&self, keys: &[Box<str>]) -> bool {
        self.entries.iter().map(|(key, _)| key).eq(keys)
    }

    /// Whether these are among the keys.
    pub fn include_keys(&self, keys: &[Box<str>]) -> bool {
        keys.iter().all(|key| self.entries.iter().any(|(known, _)| known == key))
    }

    /// Whether an endpoint with this metadata meets them all.
    pub fn matches(&self, metadata: Option<&Metadata>, list_as_any: bool) -> bool {
        let values = metadata.and_then(|metadata| metadata.namespace(LOAD_BALANCING));
        self.entries.iter().all(|(key, wanted)| {
            let equals = |value: &Value| text(value) == *wanted;
            match values.and_then(|values| values.get(&**key)) {
                Some(Value::Array(list)) if list_as_any => list.iter().any(equals),
                Some(value) => equals(value),
                None => false,
            }
        })
    }
}

/// Text that is equal where values are.
fn text(value: &Value) -> Box<str> {
    value.to_string().into()
}

impl Selector {
    /// The names of the subsets an endpoint with this metadata belongs to: none unless it has all keys.
    pub fn subsets<'a>(&'a self, metadata: Option<&Metadata>, list_as_any: bool) -> Vec<Box<str>> {
        let values = metadata.and_then(|metadata| metadata.namespace(LOAD_BALANCING));
        let Some(values) = values else { return Vec::new() };
        let mut combinations: Vec<Vec<(&'a str, Box<str>)>> = vec![Vec::new()];
        for key in &self.keys {
            let values = match values.get(&**key) {
                Some(Value::Array(list)) if list_as_any => list.as_slice(),
                Some(value) => std::slice::from_ref(value),
                None => return Vec::new(),
            };
            let longer = |combination: &Vec<(&'a str, Box<str>)>| {
                let with = |value: &Value| {
                    let mut combination = combination.clone();
                    combination.push((key, text(value)));
                    combination
                };
                values.iter().map(with).collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(longer).collect();
        }
        combinations.into_iter().map(|entries| Criteria::from_entries(entries).name).collect()
    }
}
