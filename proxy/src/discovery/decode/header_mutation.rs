//! The `header_mutation` filter, and what routes say to it.

use xds::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use xds::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use xds::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation, HeaderMutationPerRoute, Mutations,
};

use super::errors::{At, Result, both, each, optional, required};
use super::header::{removed, to_add};
use super::matcher::string_matcher;
use crate::config::header::HeaderChange;
use crate::config::http_filter::{self, MessageMutations};

/// The filter.
pub(super) fn filter(proto: &HeaderMutation) -> Result<http_filter::HeaderMutation> {
    let HeaderMutation { mutations: proto, most_specific_header_mutations_wins } = proto;
    Ok(http_filter::HeaderMutation {
        mutations: optional("mutations", proto, mutations)?.unwrap_or_default(),
        most_specific_wins: *most_specific_header_mutations_wins,
    })
}

/// What a route says to the filter.
pub(super) fn route(proto: &HeaderMutationPerRoute) -> Result<MessageMutations> {
    let HeaderMutationPerRoute { mutations: proto } = proto;
    Ok(optional("mutations", proto, mutations)?.unwrap_or_default())
}

fn mutations(proto: &Mutations) -> Result<MessageMutations> {
    let Mutations { request_mutations, response_mutations } = proto;
    let request = each("request_mutations", request_mutations, mutation);
    let response = each("response_mutations", response_mutations, mutation);
    let (request, response) = both(request, response)?;
    Ok(MessageMutations { request, response })
}

/// One change.
pub(super) fn mutation(proto: &Mutation) -> Result<HeaderChange> {
    let Mutation { action } = proto;
    Ok(match required("remove, append or remove_on_match", action)? {
        Action::Remove(name) => HeaderChange::Remove(removed(name).at("remove")?),
        Action::Append(proto) => HeaderChange::Add(to_add(proto).at("append")?),
        Action::RemoveOnMatch(RemoveOnMatch { key_matcher }) => {
            let matcher = required("remove_on_match.key_matcher", key_matcher)?;
            let matcher = string_matcher(matcher).at("remove_on_match.key_matcher")?;
            HeaderChange::RemoveMatching(matcher)
        }
    })
}
