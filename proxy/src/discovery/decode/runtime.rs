//! Runtime layers: the keys that are known, which are few; all others are refused, for they may change an answer.

use std::collections::HashSet;
use std::time::Duration;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use xds::envoy::config::bootstrap::v3::runtime_layer::{AdminLayer, LayerSpecifier};
use xds::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer};

use super::errors::{At, Result, each, refuse, required};
use super::value::non_empty;
use crate::config::overload::Overload;
use crate::config::tracing::Defaults;
use crate::config::{HashMap, Name};

/// Keys that begin with these allow deprecated fields, and limit Envoy's regex engine.
const WITHOUT_EFFECT: [&str; 2] = ["envoy.deprecated_features", "re2."];
/// Switches between versions of Envoy's code that mean nothing here. docs/FIELDS.md lists them.
const FEATURES: [&str; 2] = [
    "envoy.reloadable_features.google_grpc_disable_tls_13",
    "envoy.reloadable_features.no_extension_lookup_by_name",
];
/// Whether a path with a fragment is refused; otherwise the fragment is taken off.
const REJECT_FRAGMENT: &str = "envoy.reloadable_features.http_reject_path_with_fragment";
/// How many connections all listeners may have together, unless the overload manager says so.
const MOST_CONNECTIONS: &str = "overload.global_downstream_max_connections";
/// When spans are sent.
const TRACING: [&str; 4] = [
    "tracing.opentelemetry.flush_interval_ms",
    "tracing.opentelemetry.min_flush_spans",
    "tracing.zipkin.flush_interval_ms",
    "tracing.zipkin.min_flush_spans",
];
/// Connection limits of listeners.
const LISTENER_LIMIT: &str = "envoy.resource_limits.listener.";

/// What the layers set; a later layer wins.
#[derive(Debug, Default)]
pub(super) struct Runtime {
    /// Connection limits, by listener.
    pub(super) listener_limits: HashMap<Name, u64>,
    /// How many connections all listeners may have together.
    pub(super) max_connections: Option<u64>,
    /// When spans are sent.
    pub(super) tracing: Defaults,
    /// Whether fragments are taken off paths.
    pub(super) strip_fragments: bool,
}

impl Runtime {
    /// `overload` with the limits that are set here.
    pub(super) fn limit(&mut self, overload: Overload) -> Overload {
        Overload {
            listener_limits: std::mem::take(&mut self.listener_limits),
            max_connections: overload.max_connections.or(self.max_connections),
            ..overload
        }
    }
}

/// One value that means something here.
enum Setting {
    /// The connection limit of a listener.
    ListenerLimit(Name, u64),
    /// How many connections all listeners may have together.
    MaxConnections(u64),
    /// Whether a path with a fragment is refused.
    RejectFragment(bool),
    /// A number about the sending of spans.
    Tracing(&'static str, u64),
}

/// What the layers set.
pub(super) fn layered_runtime(proto: &LayeredRuntime) -> Result<Runtime> {
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
    let mut runtime = Runtime::default();
    for setting in each("layers", layers, layer)?.into_iter().flatten() {
        match setting {
            Setting::ListenerLimit(listener, limit) => {
                runtime.listener_limits.insert(listener, limit);
            }
            Setting::MaxConnections(limit) => runtime.max_connections = Some(limit),
            Setting::RejectFragment(rejects) => runtime.strip_fragments = !rejects,
            Setting::Tracing(key, number) => about_spans(&mut runtime.tracing, key, number),
        }
    }
    Ok(runtime)
}

fn about_spans(defaults: &mut Defaults, key: &str, number: u64) {
    let zipkin = key.starts_with("tracing.zipkin.");
    let batching = if zipkin { &mut defaults.zipkin } else { &mut defaults.open_telemetry };
    if key.ends_with("_ms") {
        batching.interval = Duration::from_millis(number.max(1));
    } else {
        batching.min_spans = usize::try_from(number.max(1)).unwrap_or(usize::MAX);
    }
}

fn layer(proto: &RuntimeLayer) -> Result<Vec<Setting>> {
    let RuntimeLayer { name, layer_specifier } = proto;
    non_empty("name", name)?;
    match required("", layer_specifier)? {
        LayerSpecifier::AdminLayer(AdminLayer {}) => Ok(Vec::new()),
        LayerSpecifier::StaticLayer(values) => {
            let mut all = Vec::new();
            flatten("", values, &mut all);
            let settings = all.iter().filter_map(|(key, value)| setting(key, value).transpose());
            settings.collect::<Result<_>>().at("static_layer")
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

/// What a value sets; nothing if it has no effect here.
fn setting(key: &str, value: &Value) -> Result<Option<Setting>> {
    let field = format!("[{key:?}]");
    if WITHOUT_EFFECT.iter().any(|prefix| key.starts_with(prefix)) || FEATURES.contains(&key) {
        return Ok(None);
    }
    if key == REJECT_FRAGMENT {
        return match &value.kind {
            Some(Kind::BoolValue(rejects)) => Ok(Some(Setting::RejectFragment(*rejects))),
            // As in Envoy, such a text switches nothing.
            Some(Kind::StringValue(text)) if matches!(&**text, "true" | "false") => Ok(None),
            _ => refuse(&field, "must be true or false"),
        };
    }
    if key == MOST_CONNECTIONS {
        return Ok(Some(Setting::MaxConnections(number(&field, value)?)));
    }
    if let Some(key) = TRACING.iter().find(|known| **known == key) {
        return Ok(Some(Setting::Tracing(key, number(&field, value)?)));
    }
    let listener =
        key.strip_prefix(LISTENER_LIMIT).and_then(|rest| rest.strip_suffix(".connection_limit"));
    let Some(listener) = listener else {
        return refuse(
            &field,
            "runtime values are not supported; write the value where the key is used, as its default",
        );
    };
    Ok(Some(Setting::ListenerLimit(listener.into(), number(&field, value)?)))
}

/// A number as runtime layers have it: also as a text.
fn number(field: &str, value: &Value) -> Result<u64> {
    let number = match &value.kind {
        Some(Kind::NumberValue(number)) if *number >= 0.0 => Some(*number as u64),
        Some(Kind::StringValue(text)) => text.parse().ok(),
        _ => None,
    };
    match number {
        Some(number) => Ok(number),
        None => refuse(field, "must be a number that is not negative"),
    }
}
