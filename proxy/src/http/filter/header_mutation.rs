//! `header_mutation`: changes the headers of requests before they are forwarded, and of all that they are answered
//! with.

use http::HeaderMap;
use smallvec::SmallVec;

use super::passage::Passage;
use crate::config::format::Facts;
use crate::config::http_filter::{FilterRule, HeaderMutation, MessageMutations};
use crate::route::Said;
use crate::route::mutate::{change_request, change_response};

/// Changes the request's head as the filter called `filter` and what is said to it want it.
pub(super) fn request(config: &HeaderMutation, filter: &str, request: &mut Passage<'_>) {
    let all = mutations(config, filter, request.said());
    if all.iter().all(|it| it.request.is_empty()) {
        return;
    }
    let stream = request.stream;
    let head = request.head_mut();
    for MessageMutations { request: changes, .. } in all {
        change_request(changes, &mut head.headers, &**stream);
    }
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
