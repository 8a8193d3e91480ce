//! Runtime layers: values that only steer Envoy's own code pass, values that would change an answer are refused.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use xds::envoy::config::bootstrap::v3::runtime_layer::{AdminLayer, LayerSpecifier};
use xds::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};

use super::errors::{At, Result, each, refuse, required};
use super::value::non_empty;

/// Keys that begin with these choose between versions of Envoy's code, or limit its regex engine.
const HARMLESS: [&str; 4] =
    ["envoy.reloadable_features.", "envoy.restart_features.", "envoy.deprecated_features", "re2."];
/// Connection limits of listeners: without effect for a listener that does not exist.
const LISTENER_LIMIT: &str = "envoy.resource_limits.listener.";

/// Checks all layers; `listeners` are the names of those the bootstrap holds.
pub(super) fn layered_runtime(proto: &LayeredRuntime, listeners: &[&str]) -> Result<()> {
    let LayeredRuntime { layers } = proto;
    each("layers", layers, |proto| layer(proto, listeners)).map(|_| ())
}

fn layer(proto: &RuntimeLayer, listeners: &[&str]) -> Result<()> {
    let RuntimeLayer { name, layer_specifier } = proto;
    non_empty("name", name)?;
    match required("", layer_specifier)? {
        LayerSpecifier::AdminLayer(AdminLayer {}) => Ok(()),
        LayerSpecifier::StaticLayer(values) => {
            let mut keys = Vec::new();
            flatten("", values, &mut keys);
            keys.iter().try_for_each(|key| check(key, listeners)).at("static_layer")
        }
    }
}

/// The values' full names: nested objects are joined by dots, as in Envoy.
fn flatten(prefix: &str, object: &Struct, keys: &mut Vec<String>) {
    for (key, Value { kind }) in &object.fields {
        let key = format!("{prefix}{key}");
        match kind {
            Some(Kind::StructValue(object)) => flatten(&format!("{key}."), object, keys),
            _ => keys.push(key),
        }
    }
}

fn check(key: &str, listeners: &[&str]) -> Result<()> {
    let limited =
        key.strip_prefix(LISTENER_LIMIT).and_then(|rest| rest.strip_suffix(".connection_limit"));
    let harmless = HARMLESS.iter().any(|prefix| key.starts_with(prefix));
    if harmless || limited.is_some_and(|listener| !listeners.contains(&listener)) {
        return Ok(());
    }
    let reason = match limited {
        Some(_) => "connection limits are not supported by this version",
        None => {
            "runtime values are not supported; write the value where the key is used, as its default"
        }
    };
    refuse(&format!("[{key:?}]"), reason)
}
