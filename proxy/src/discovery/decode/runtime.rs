//! Runtime layers: the keys that are known, which are few; all others are refused, for they may change an answer.

use std::collections::HashSet;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use xds::envoy::config::bootstrap::v3::runtime_layer::{AdminLayer, LayerSpecifier};
use xds::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};

use super::errors::{At, Result, each, refuse, required};
use super::value::non_empty;
use crate::config::{HashMap, Name};

/// Keys that begin with these allow deprecated fields, and limit Envoy's regex engine.
const WITHOUT_EFFECT: [&str; 2] = ["envoy.deprecated_features", "re2."];
/// Switches between versions of Envoy's code that mean nothing here, or mean what is done here if they have this
/// value. docs/FIELDS.md lists them.
const FEATURES: [(&str, Option<bool>); 3] = [
    ("envoy.reloadable_features.google_grpc_disable_tls_13", None),
    ("envoy.reloadable_features.http_reject_path_with_fragment", Some(true)),
    ("envoy.reloadable_features.no_extension_lookup_by_name", None),
];
/// Connection limits of listeners.
const LISTENER_LIMIT: &str = "envoy.resource_limits.listener.";

/// The connection limits that the layers set, by listener; a later layer wins.
pub(super) fn layered_runtime(proto: &LayeredRuntime) -> Result<HashMap<Name, u64>> {
    let LayeredRuntime { layers } = proto;
    let mut names = HashSet::new();
    for (index, layer) in layers.iter().enumerate() {
        if !names.insert(&layer.name) {
            return refuse(
                &format!("layers[{index}].name"),
                format!("duplicate layer name {:?}", layer.name),
            );
        }
    }
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

/// A boolean as runtime layers have it: also as a text.
fn truth(value: &Value) -> Option<bool> {
    match &value.kind {
        Some(Kind::BoolValue(truth)) => Some(*truth),
        Some(Kind::StringValue(text)) => text.parse().ok(),
        _ => None,
    }
}

/// The limit that a value sets; none for one that has no effect here.
fn limit(key: &str, value: &Value) -> Result<Option<(Name, u64)>> {
    let field = format!("[{key:?}]");
    if WITHOUT_EFFECT.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(None);
    }
    if let Some((_, followed)) = FEATURES.iter().find(|(feature, _)| *feature == key) {
        return match followed {
            Some(followed) if truth(value) != Some(*followed) => {
                refuse(&field, format!("only {followed} is supported by this version"))
            }
            _ => Ok(None),
        };
    }
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
