//! Filter chains that claim the same connections: nothing could tell which of them to take.

use std::collections::HashMap;

use crate::config::listener::{FilterChain, FilterChainMatch};

/// The positions of a chain and of an earlier one that share a combination of single values.
pub(super) fn overlap(chains: &[FilterChain]) -> Option<(usize, usize)> {
    let mut seen = HashMap::new();
    for (later, chain) in chains.iter().enumerate() {
        for rule in rules(&chain.matcher) {
            let before = *seen.entry(rule).or_insert(later);
            if before != later {
                return Some((later, before));
            }
        }
    }
    None
}

/// Every combination of one value per field.
fn rules(matcher: &FilterChainMatch) -> Vec<FilterChainMatch> {
    let FilterChainMatch {
        destination_port,
        destination,
        server_names,
        transport_protocol,
        application_protocols,
        direct_source,
        source_type,
        source,
        source_ports,
    } = matcher;
    let rules = vec![FilterChainMatch {
        destination_port: *destination_port,
        transport_protocol: transport_protocol.clone(),
        source_type: *source_type,
        ..FilterChainMatch::default()
    }];
    let rules = each_value(rules, destination, |rule, value| rule.destination = value);
    let rules = each_value(rules, server_names, |rule, value| rule.server_names = value);
    let rules =
        each_value(rules, application_protocols, |rule, value| rule.application_protocols = value);
    let rules = each_value(rules, direct_source, |rule, value| rule.direct_source = value);
    let rules = each_value(rules, source, |rule, value| rule.source = value);
    each_value(rules, source_ports, |rule, value| rule.source_ports = value)
}

fn each_value<T: Clone>(
    rules: Vec<FilterChainMatch>,
    values: &[T],
    set: impl Fn(&mut FilterChainMatch, Vec<T>),
) -> Vec<FilterChainMatch> {
    if values.is_empty() {
        return rules;
    }
    let with = |rule: &FilterChainMatch, value: &T| {
        let mut rule = rule.clone();
        set(&mut rule, vec![value.clone()]);
        rule
    };
    rules.iter().flat_map(|rule| values.iter().map(move |value| with(rule, value))).collect()
}
