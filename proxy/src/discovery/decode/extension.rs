//! Extensions: messages packed in `Any`, told apart by their type.

use std::collections::HashMap;

use prost::{Message, Name};
use prost_types::Any;
use xds::envoy::config::route::v3::FilterConfig;
use xds::envoy::extensions::filters::http::dynamic_forward_proxy::v3::PerRouteConfig;

use super::errors::{At, Result, refuse};
use super::forward_proxy;
use crate::config::route::{FilterOverride, FilterRule};

/// The packed message, if it is an `M`.
pub(super) fn unpack<M: Message + Name + Default>(any: &Any) -> Result<Option<M>> {
    if message_name(any) != M::full_name() {
        return Ok(None);
    }
    M::decode(any.value.as_slice())
        .map(Some)
        .map_err(|error| format!("these bytes are no {}: {error}", M::full_name()))
        .at("")
}

/// Refuses an extension of a type that this version does not have.
pub(super) fn unsupported<T>(any: &Any) -> Result<T> {
    refuse("", format!("{} is not supported here by this version", message_name(any)))
}

/// Which message is packed.
pub(super) fn message_name(any: &Any) -> &str {
    any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name)
}

/// What a table, virtual host, route or weighted cluster says to filters. What is optional may be unknown.
pub(super) fn per_filter_config(configs: &HashMap<String, Any>) -> Result<Vec<FilterOverride>> {
    let mut configs: Vec<_> = configs.iter().collect();
    configs.sort_by_key(|(name, _)| *name);
    let mut overrides = Vec::with_capacity(configs.len());
    for (name, any) in configs {
        let rule = filter_config(name, any).at(&format!("typed_per_filter_config[{name:?}]"))?;
        overrides.extend(rule.map(|rule| FilterOverride { filter: name.as_str().into(), rule }));
    }
    Ok(overrides)
}

fn filter_config(name: &str, any: &Any) -> Result<Option<FilterRule>> {
    if let Some(proto) = unpack(any)? {
        return forward_proxy::route(&proto).map(|it| Some(FilterRule::ForwardProxy(it)));
    }
    let Some(filter) = unpack::<FilterConfig>(any)? else { return unsupported(any) };
    let FilterConfig { config, is_optional, disabled } = filter;
    match config {
        // Disabling a filter that the chain does not have changes nothing, as in Envoy.
        _ if disabled => Ok(Some(FilterRule::Disabled)),
        Some(config) if is_supported(&config) => filter_config(name, &config).at("config"),
        Some(config) if is_optional => {
            tracing::warn!(filter = name, r#type = %message_name(&config), "optional filter skipped");
            Ok(None)
        }
        Some(config) => unsupported(&config).at("config"),
        None => refuse("", "neither a configuration nor disabled"),
    }
}

/// Whether a filter of this version can be spoken to so.
fn is_supported(config: &Any) -> bool {
    message_name(config) == PerRouteConfig::full_name()
}
