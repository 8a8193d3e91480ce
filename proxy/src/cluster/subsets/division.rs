//! How endpoints are divided into subsets, and which one a request's criteria lead to. Pure.

use crate::config::HashMap;
use crate::config::metadata::Metadata;
use crate::config::subset::{Criteria, Fallback, Selector, SelectorFallback, SubsetLb};

/// The number of the part with all endpoints.
pub(super) const ANY: usize = 0;

/// The number of the part with the default subset.
pub(super) const DEFAULT: usize = 1;

/// Endpoints by number, in parts.
#[derive(Debug)]
pub(super) struct Division {
    parts: Vec<Part>,
    /// The numbers of the subsets, by their names.
    by_name: HashMap<Box<str>, usize>,
}

/// Some of the endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Their numbers, ascending; of a `single` one only the endpoint to use.
    pub(super) members: Vec<usize>,
    /// Whether it is only ever one endpoint, whatever its health.
    pub(super) single: bool,
}

/// Where criteria lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To the part with this number, and nowhere else.
    Subset(usize),
    /// To no subset, so that its selector says what follows.
    Selector(Fallback),
    /// To no subset, so that the cluster says what follows.
    Fallback,
}

impl Division {
    /// Divides endpoints, given with their priorities, by their metadata.
    pub(super) fn new<'a>(
        config: &SubsetLb,
        endpoints: impl Iterator<Item = (u32, Option<&'a Metadata>)>,
    ) -> Self {
        let mut division =
            Self { parts: vec![Part::default(), Part::default()], by_name: HashMap::default() };
        let mut priorities = Vec::new();
        for (number, (priority, metadata)) in endpoints.enumerate() {
            priorities.push(priority);
            division.add(ANY, number, &priorities);
            if config.default_subset.matches(metadata, config.list_as_any) {
                division.add(DEFAULT, number, &priorities);
            }
            for selector in &config.selectors {
                for name in selector.subsets(metadata, config.list_as_any) {
                    let part = division.subset(name, selector.single_host);
                    division.add(part, number, &priorities);
                }
            }
        }
        division
    }

    /// The number of the subset called `name`, known or new.
    fn subset(&mut self, name: Box<str>, single: bool) -> usize {
        let next = self.parts.len();
        let part = *self.by_name.entry(name).or_insert(next);
        if part == next {
            self.parts.push(Part { single, ..Part::default() });
        }
        part
    }

    fn add(&mut self, part: usize, number: usize, priorities: &[u32]) {
        let Some(part) = self.parts.get_mut(part) else { return };
        let priority = |number: usize| priorities.get(number);
        match part.members.last_mut() {
            // A list may hold a value twice.
            Some(last) if *last == number => {}
            Some(only) if part.single => {
                if priority(number) < priority(*only) {
                    *only = number;
                }
            }
            _ => part.members.push(number),
        }
    }

    /// Where `wanted` leads. `name` is a place to write to.
    pub(super) fn find(&self, config: &SubsetLb, wanted: &Criteria, name: &mut String) -> Target {
        let mut keys: Option<&[Box<str>]> = None;
        // Each time round, there are fewer keys.
        loop {
            if config.redundant_keys {
                let includes = |selector: &&Selector| match keys {
                    None => wanted.include_keys(&selector.keys),
                    Some(keys) => selector.keys.iter().all(|key| keys.contains(key)),
                };
                let longest = config.selectors.iter().find(includes);
                keys = longest.map(|selector| &*selector.keys).or(keys);
            }
            let name = match keys {
                None => wanted.name(),
                Some(keys) => {
                    wanted.write_name(Some(keys), name);
                    &**name
                }
            };
            if let Some(part) = self.by_name.get(name) {
                return Target::Subset(*part);
            }
            let selector = config.selectors.iter().find(|selector| match keys {
                None => wanted.has_keys(&selector.keys),
                Some(keys) => *selector.keys == *keys,
            });
            match selector.and_then(|selector| selector.fallback.as_ref()) {
                None => return Target::Fallback,
                Some(SelectorFallback::To(fallback)) => return Target::Selector(*fallback),
                Some(SelectorFallback::Keys(fewer)) => keys = Some(fewer),
            }
        }
    }

    /// The part with this number.
    pub(super) fn part(&self, number: usize) -> Option<&Part> {
        self.parts.get(number)
    }

    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The name of the subset with this number.
    pub(super) fn name(&self, number: usize) -> Option<&str> {
        let mut names = self.by_name.iter();
        names.find(|(_, part)| **part == number).map(|(name, _)| &**name)
    }

    /// The names of all subsets.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// Whether there is such a subset.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}

#[cfg(test)]
pub(super) mod tests;
