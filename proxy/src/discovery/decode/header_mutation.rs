//! The `header_mutation` filter, and what routes say to it.

use prost_types::value::Kind;
use xds::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use xds::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use xds::envoy::config::core::v3::key_value_append::KeyValueAppendAction;
use xds::envoy::config::core::v3::{KeyValueAppend, KeyValueMutation, KeyValuePair};
use xds::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation, HeaderMutationPerRoute, Mutations,
};

use super::errors::{At, Result, both, each, optional, refuse, required};
use super::header::{removed, to_add};
use super::matcher::string_matcher;
use super::value::enumeration;
use crate::config::format::Format;
use crate::config::header::{AppendAction, HeaderChange};
use crate::config::http_filter::{self, MessageMutations, QueryChange};

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
    let Mutations { request_mutations, query_parameter_mutations, response_mutations } = proto;
    let request = each("request_mutations", request_mutations, mutation);
    let response = each("response_mutations", response_mutations, mutation);
    let query = each("query_parameter_mutations", query_parameter_mutations, query_mutation);
    let ((request, response), query) = both(both(request, response), query)?;
    Ok(MessageMutations { request, query, response })
}

/// One change of a query.
fn query_mutation(proto: &KeyValueMutation) -> Result<QueryChange> {
    let KeyValueMutation { append, remove } = proto;
    match append {
        Some(proto) if remove.is_empty() => parameter(proto).at("append"),
        None if !remove.is_empty() => Ok(QueryChange::Remove(remove.as_str().into())),
        _ => refuse("", "either append or remove is required"),
    }
}

fn parameter(proto: &KeyValueAppend) -> Result<QueryChange> {
    let KeyValueAppend { record, action } = proto;
    let KeyValuePair { key, value } = required("record", record)?;
    if key.is_empty() {
        return refuse("record.key", "must not be empty");
    }
    let Some(Kind::StringValue(text)) = value.as_ref().and_then(|value| value.kind.as_ref()) else {
        return refuse("record.value", "must be a string");
    };
    Ok(QueryChange::Add {
        name: key.as_str().into(),
        value: Format::parse(text).at("record.value")?,
        action: match enumeration("action", *action)? {
            KeyValueAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
            KeyValueAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
            KeyValueAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
            KeyValueAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
        },
    })
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
