//! Rules and matches of a `VirtualService` that no request can reach, because an earlier one takes it.

use super::check::Check;
use crate::model::istio::virtual_service::{HttpMatchRequest, StringMatch, VirtualService};
use crate::validate::code;

pub(super) fn check(spec: &VirtualService, check: &mut Check<'_>) {
    let http: Vec<_> =
        spec.http.iter().map(|it| (it.name.as_str(), it.r#match.as_slice())).collect();
    rules("http", &http, check);
    let tls: Vec<_> = spec.tls.iter().map(|it| ("", it.r#match.as_slice())).collect();
    rules("tls", &tls, check);
    let tcp: Vec<_> = spec.tcp.iter().map(|it| ("", it.r#match.as_slice())).collect();
    rules("tcp", &tcp, check);
    prefixes(spec, check);
}

fn shown(name: &str, index: usize) -> String {
    if name.is_empty() { format!("#{index}") } else { format!("{name:?}") }
}

fn rules<M: PartialEq>(list: &str, rules: &[(&str, &[M])], check: &mut Check<'_>) {
    let mut everything: Option<usize> = None;
    for (index, (name, matches)) in rules.iter().enumerate() {
        let path = format!("spec.{list}[{index}]");
        if let Some(first) = everything {
            let message = format!(
                "VirtualService rule {} not used (rule {} before it has no match, and takes everything)",
                shown(name, index),
                shown(rules.get(first).map_or("", |it| it.0), first)
            );
            let finding = check.report(code::UNREACHABLE_RULE, &path, message);
            finding.fix("put the rule without a match last");
            continue;
        }
        if matches.is_empty() {
            everything = Some(index);
            continue;
        }
        let earlier = rules.get(..index).unwrap_or_default();
        let mut used = 0;
        for (at, matched) in matches.iter().enumerate() {
            let Some(by) = earlier.iter().position(|(_, matches)| matches.contains(matched)) else {
                continue;
            };
            used += 1;
            let message = format!(
                "VirtualService rule {} match #{at} is not used (rule {} has the same match)",
                shown(name, index),
                shown(rules.get(by).map_or("", |it| it.0), by)
            );
            check.report(code::INEFFECTIVE_MATCH, &format!("{path}.match[{at}]"), message);
        }
        if used == matches.len() {
            let name = shown(name, index);
            let message =
                format!("VirtualService rule {name} not used (all matches used by prior rules)");
            check.report(code::UNREACHABLE_RULE, &path, message);
        }
    }
}

/// A match whose prefix begins with that of an earlier match that asks for nothing more.
fn prefixes(spec: &VirtualService, check: &mut Check<'_>) {
    let matches: Vec<_> = spec
        .http
        .iter()
        .enumerate()
        .flat_map(|(rule, route)| {
            route.r#match.iter().enumerate().filter_map(move |(at, matched)| {
                let StringMatch::Prefix(prefix) = matched.uri.as_ref()? else { return None };
                Some((rule, at, prefix.as_str(), matched))
            })
        })
        .collect();
    for (later, (rule, at, prefix, matched)) in matches.iter().enumerate() {
        let covering = matches.iter().take(later).find(|(_, _, wider, earlier)| {
            prefix != wider && prefix.starts_with(wider) && asks_for_no_more(earlier, matched)
        });
        if let Some((by, _, wider, _)) = covering {
            let message = format!(
                "VirtualService rule #{rule} match #{at} of prefix {prefix} is not used \
                 (prefix {wider} of rule #{by} covers it)"
            );
            let path = format!("spec.http[{rule}].match[{at}]");
            let finding = check.report(code::INEFFECTIVE_MATCH, &path, message);
            finding.fix(format!("put it before rule #{by}"));
        }
    }
}

/// Whether `earlier` is met by whatever meets `later`, apart from the path.
fn asks_for_no_more(earlier: &HttpMatchRequest, later: &HttpMatchRequest) -> bool {
    let same = HttpMatchRequest { uri: None, name: String::new(), ..later.clone() };
    let earlier = HttpMatchRequest { uri: None, name: String::new(), ..earlier.clone() };
    earlier == same
        || earlier
            == HttpMatchRequest { ignore_uri_case: earlier.ignore_uri_case, ..Default::default() }
}
