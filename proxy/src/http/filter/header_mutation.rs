//! `header_mutation`: changes the headers of requests before they are forwarded, and of all that they are answered
//! with.

use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use smallvec::SmallVec;

use super::passage::Passage;
use crate::config::format::Facts;
use crate::config::header::AppendAction;
use crate::config::http_filter::{FilterRule, HeaderMutation, MessageMutations, QueryChange};
use crate::http::query::Query;
use crate::route::Said;
use crate::route::mutate::{change_request, change_response};

/// What Envoy encodes in a value. It also decodes the parameters that it leaves, which may break the request line.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Changes the request's head as the filter called `filter` and what is said to it want it.
pub(super) fn request(config: &HeaderMutation, filter: &str, request: &mut Passage<'_>) {
    let all = mutations(config, filter, request.said());
    if all.iter().all(|it| it.request.is_empty() && it.query.is_empty()) {
        return;
    }
    let stream = request.stream;
    let head = request.head_mut();
    for MessageMutations { request: changes, query, .. } in all {
        change_request(changes, &mut head.headers, &**stream);
        if !query.is_empty() {
            let target = changed_query(query, &head.path, &**stream);
            head.path = target.into();
        }
    }
}

/// `target` with changed parameters.
fn changed_query(changes: &[QueryChange], target: &str, facts: &dyn Facts) -> String {
    let mut query = Query::of(target);
    for change in changes {
        let (name, format, action) = match change {
            QueryChange::Remove(name) => {
                query.remove(name);
                continue;
            }
            QueryChange::Add { name, value, action } => (name, value, action),
        };
        let is_there = query.contains(name);
        let sets = match action {
            AppendAction::AppendIfExistsOrAdd => false,
            AppendAction::AddIfAbsent if is_there => continue,
            AppendAction::OverwriteIfExists if !is_there => continue,
            AppendAction::AddIfAbsent
            | AppendAction::OverwriteIfExists
            | AppendAction::OverwriteIfExistsOrAdd => true,
        };
        let mut value = Vec::new();
        format.render(facts, "", &mut value);
        let value = percent_encode(&value, ENCODED).to_string();
        if sets { query.set(name, value) } else { query.add(name, value) }
    }
    query.target()
}

/// Changes the headers of an answer.
pub(super) fn response(
    config: &HeaderMutation,
    filter: &str,
    said: Said<'_>,
    facts: &dyn Facts,
    headers: &mut HeaderMap,
) {
    for MessageMutations { response, .. } in mutations(config, filter, said) {
        change_response(response, headers, facts);
    }
}

/// What is to be done, in order: the filter's own changes come first, so any other overrides them.
fn mutations<'a>(
    config: &'a HeaderMutation,
    filter: &str,
    said: Said<'a>,
) -> SmallVec<[&'a MessageMutations; 4]> {
    let rules = said.to(filter).filter_map(|rule| match rule {
        FilterRule::HeaderMutation(mutations) => Some(mutations),
        _ => None,
    });
    let mut all: SmallVec<_> = [&config.mutations].into_iter().chain(rules).collect();
    if config.most_specific_wins
        && let Some(said) = all.get_mut(1..)
    {
        said.reverse();
    }
    all
}
