//! Which routes of a virtual host a request could take: lists of route numbers, and their merge in configuration order.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::HashMap;
use crate::config::matcher::{HeaderMatcher, HeaderRef, HeaderRule, RequestHead, StringPattern};
use crate::config::route::Route;

/// Lists shorter than this are walked: a hash lookup would cost as much.
const WORTH_HASHING: usize = 8;

/// Routes filed under one path, in configuration order.
///
/// A long list is split by the exact header values that its routes demand, so that a request looks only
/// at the routes its own value could take.
#[derive(Debug, Default)]
pub(super) struct Filed {
    any: Vec<u32>,
    by_header: Vec<ByHeader>,
}

#[derive(Debug)]
struct ByHeader {
    header: HeaderRef,
    routes: HashMap<Box<[u8]>, Vec<u32>>,
}

impl Filed {
    /// Appends a route; numbers must come in ascending order.
    pub(super) fn push(&mut self, route: u32) {
        self.any.push(route);
    }

    /// Splits the list by header values where that pays.
    pub(super) fn split(&mut self, routes: &[Arc<Route>]) {
        if self.any.len() < WORTH_HASHING {
            return;
        }
        let demands = |route: &u32| routes.get(*route as usize).into_iter().flat_map(|r| exact(r));
        let mut shared: HashMap<(&HeaderRef, &[u8]), usize> = HashMap::default();
        for demand in self.any.iter().flat_map(demands) {
            *shared.entry(demand).or_default() += 1;
        }
        // Each route goes under its rarest demand; a header that few routes name is not worth a look.
        let rarest = |route: &u32| demands(route).min_by_key(|demand| shared.get(demand).copied());
        let mut per_header: HashMap<&HeaderRef, usize> = HashMap::default();
        for (header, _) in self.any.iter().filter_map(rarest) {
            *per_header.entry(header).or_default() += 1;
        }
        let mut any = Vec::new();
        for route in &self.any {
            match rarest(route) {
                Some((header, value)) if per_header.get(header) >= Some(&WORTH_HASHING) => {
                    by_value(&mut self.by_header, header)
                        .entry(value.into())
                        .or_default()
                        .push(*route);
                }
                _ => any.push(*route),
            }
        }
        self.any = any;
    }
}

fn by_value<'f>(
    filed: &'f mut Vec<ByHeader>,
    header: &HeaderRef,
) -> &'f mut HashMap<Box<[u8]>, Vec<u32>> {
    let place = filed.iter().position(|by| by.header == *header).unwrap_or_else(|| {
        filed.push(ByHeader { header: header.clone(), routes: HashMap::default() });
        filed.len() - 1
    });
    &mut filed[place].routes
}

/// The header values without which `route` cannot match.
fn exact(route: &Route) -> impl Iterator<Item = (&HeaderRef, &[u8])> {
    route.matcher.headers.iter().filter_map(|matcher| {
        let HeaderMatcher { header, rule, invert: false, missing_as_empty: false } = matcher else {
            return None;
        };
        let HeaderRule::Value(value) = rule else { return None };
        match value.pattern() {
            StringPattern::Exact(text) if !value.ignores_case() => Some((header, text.as_bytes())),
            _ => None,
        }
    })
}

/// Merges lists of route numbers into one ascending sequence without repeats.
#[derive(Debug, Default)]
pub(super) struct Candidates<'t> {
    /// What is left of each list. A path has few prefixes that are configured: usually one to three.
    lists: SmallVec<[&'t [u32]; 8]>,
}

impl<'t> Candidates<'t> {
    /// Adds the routes in `filed` that `head` could take.
    pub(super) fn add(&mut self, filed: &'t Filed, head: &RequestHead<'_>) {
        self.add_list(&filed.any);
        for by in &filed.by_header {
            let value = by.header.value(head);
            if let Some(list) = value.and_then(|value| by.routes.get(&*value)) {
                self.add_list(list);
            }
        }
    }

    /// Adds an ascending list.
    pub(super) fn add_list(&mut self, list: &'t [u32]) {
        if !list.is_empty() {
            self.lists.push(list);
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let next = self.lists.iter().filter_map(|list| list.first()).min().copied()?;
        for list in &mut self.lists {
            if let Some((first, rest)) = list.split_first()
                && *first == next
            {
                *list = rest;
            }
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::Candidates;

    #[test]
    fn merges_in_order_without_repeats() {
        let mut candidates = Candidates::default();
        for list in [&[1, 4, 9][..], &[], &[2, 4], &[0, 9, 10]] {
            candidates.add_list(list);
        }
        assert_eq!(candidates.collect::<Vec<_>>(), [0, 1, 2, 4, 9, 10]);
    }
}
