//! Headers that a route changes.

use std::collections::BTreeMap;

use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::config::core::v3::{HeaderValue, HeaderValueOption};

use crate::model::istio::virtual_service::{HeaderOperations, Headers};

/// Changes of headers.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
    /// What the request's host becomes: no header for Envoy, but a part of the route.
    pub(super) authority: Option<String>,
}

/// The changes that are asked for. Those of pseudo headers are left out, save the host.
pub(super) fn changes(wanted: Option<&Headers>) -> Changes {
    let Some(wanted) = wanted else { return Changes::default() };
    let (request_add, request_remove, authority) = operations(wanted.request.as_ref());
    let (response_add, response_remove, _) = operations(wanted.response.as_ref());
    Changes { request_add, request_remove, response_add, response_remove, authority }
}

fn operations(
    wanted: Option<&HeaderOperations>,
) -> (Vec<HeaderValueOption>, Vec<String>, Option<String>) {
    let Some(wanted) = wanted else { return Default::default() };
    let mut add = values(&wanted.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    add.extend(values(&wanted.add, HeaderAppendAction::AppendIfExistsOrAdd));
    let remove = wanted.remove.iter().filter(|name| !is_internal(name)).cloned().collect();
    let authority = authority(&wanted.set).or_else(|| authority(&wanted.add));
    (add, remove, authority)
}

fn values(wanted: &BTreeMap<String, String>, action: HeaderAppendAction) -> Vec<HeaderValueOption> {
    let wanted = wanted.iter().filter(|(name, _)| !is_internal(name));
    let option = |(key, value): (&String, &String)| HeaderValueOption {
        header: Some(HeaderValue { key: key.clone(), value: value.clone(), ..Default::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    };
    wanted.map(option).collect()
}

fn authority(wanted: &BTreeMap<String, String>) -> Option<String> {
    let is_host =
        |name: &str| name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host");
    let found = wanted.iter().find(|(name, _)| is_host(name))?;
    Some(found.1.clone()).filter(|it| !it.is_empty())
}

fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}
