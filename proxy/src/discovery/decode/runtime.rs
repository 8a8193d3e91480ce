//! Runtime layers: values that only steer Envoy's own code pass, values that would change an answer are refused.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use xds::envoy::config::bootstrap::v3::runtime_layer::{AdminLayer, LayerSpecifier};
use xds::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};

use super::errors::{At, Result, each, refuse, required};
use super::value::non_empty;
use crate::config::{HashMap, Name};

/// Keys that begin with these choose between versions of Envoy's code, or limit its regex engine.
const HARMLESS: [&str; 4] =
    ["envoy.reloadable_features.", "envoy.restart_features.", "envoy.deprecated_features", "re2."];
/// Connection limits of listeners.
const LISTENER_LIMIT: &str = "envoy.resource_limits.listener.";

/// The connection limits that the layers set, by listener; a later layer wins.
pub(super) fn layered_runtime(proto: &LayeredRuntime) -> Result<HashMap<Name, u64>> {
    let LayeredRuntime { layers } = proto;
    Ok(each("layers", layers, layer)?.into_iter().flatten().collect())
}

fn layer(proto: &RuntimeLayer) -> Result<Vec<(Name, u64)>> {
    let RuntimeLayer { name, layer_specifier } = proto;
    non_empty("name", name)?;
    match required("", layer_specifier)? {
        LayerSpecifier::AdminLayer(AdminLayer {}) => Ok(Vec::new()),
        LayerSpecifier::StaticLayer(values) => {
            let mut all = Vec::new();
            flatten("", values, &mut all);
            let limits = all.iter().filter_map(|(key, value)| limit(key, value).transpose());
            limits.collect::<Result<_>>().at("static_layer")
        }
    }
}

/// The values with their full names: nested objects are joined by dots, as in Envoy.
fn flatten<'a>(prefix: &str, object: &'a Struct, all: &mut Vec<(String, &'a Value)>) {
    for (key, value) in &object.fields {
        let key = format!("{prefix}{key}");
        match &value.kind {
            Some(Kind::StructValue(object)) => flatten(&format!("{key}."), object, all),
            _ => all.push((key, value)),
        }
    }
}

/// The limit that a value sets; none for one that only steers Envoy's own code.
fn limit(key: &str, value: &Value) -> Result<Option<(Name, u64)>> {
    if HARMLESS.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(None);
    }
    let field = format!("[{key:?}]");
    let listener =
        key.strip_prefix(LISTENER_LIMIT).and_then(|rest| rest.strip_suffix(".connection_limit"));
    let Some(listener) = listener else {
        return refuse(
            &field,
            "runtime values are not supported; write the value where the key is used, as its default",
        );
    };
    match &value.kind {
        Some(Kind::NumberValue(limit)) if *limit >= 0.0 => {
            Ok(Some((listener.into(), *limit as u64)))
        }
        _ => refuse(&field, "a connection limit is a number that is not negative"),
    }
}
