//! Extensions: messages packed in `Any`, told apart by their type.

use std::collections::HashMap;

use prost::{Message, Name};
use prost_types::Any;
use xds::envoy::config::route::v3::FilterConfig;

use super::errors::{At, Result, refuse};

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

/// Checks the configuration a virtual host or a route has for filters: the filters of this version take none, so
/// only what is disabled or optional may stand there.
pub(super) fn per_filter_config(configs: &HashMap<String, Any>) -> Result<()> {
    let mut configs: Vec<_> = configs.iter().collect();
    configs.sort_by_key(|(name, _)| *name);
    for (name, any) in configs {
        filter_config(name, any).at(&format!("typed_per_filter_config[{name:?}]"))?;
    }
    Ok(())
}

fn filter_config(name: &str, any: &Any) -> Result<()> {
    let Some(filter) = unpack::<FilterConfig>(any)? else { return unsupported(any) };
    let FilterConfig { config, is_optional, disabled } = filter;
    match config {
        // Disabling a filter that the chain does not have changes nothing, as in Envoy.
        _ if disabled => Ok(()),
        Some(config) if is_optional => {
            tracing::warn!(filter = name, r#type = %message_name(&config), "optional filter skipped");
            Ok(())
        }
        Some(config) => unsupported(&config).at("config"),
        None => refuse("", "neither a configuration nor disabled"),
    }
}
