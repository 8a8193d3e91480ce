//! Custom tags of spans and access logs: what they say of a request or a connection.

use serde_json::Value;

use super::access_log::LogFacts;
use crate::config::format::Format;
use crate::config::matcher::RequestHead;
use crate::config::tracing::TagValue;

/// What `wanted` says of what `facts` are of; none if nothing.
pub fn value(facts: &dyn LogFacts, wanted: &TagValue) -> Option<String> {
    let value = match wanted {
        TagValue::Text(text) => text.to_string(),
        TagValue::Header { name, default } => {
            let head = facts.request();
            let value = head.as_ref().and_then(|head: &RequestHead<'_>| name.value(head));
            value.map_or_else(|| default.to_string(), |value| text(&value))
        }
        TagValue::Metadata { of, key, default } => {
            let mut found = None;
            facts.with_metadata(*of, &mut |metadata| {
                found = metadata.get(&key.namespace, &key.path).and_then(plain);
            });
            found.unwrap_or_else(|| default.to_string())
        }
        TagValue::Format(format) => formatted(facts, format)?,
    };
    Some(value).filter(|value| !value.is_empty())
}

/// What a format says, if it says anything.
pub fn formatted(facts: &dyn LogFacts, format: &Format) -> Option<String> {
    let mut out = Vec::new();
    format.render(facts, "", &mut out);
    Some(text(&out)).filter(|text| !text.is_empty())
}

/// What is said where bytes are no text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A value of metadata as a tag has it: structures as JSON.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => match number.as_f64() {
            // As it would read in JSON without the `.0` of a whole number.
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e6 => Some(format!("{whole:.0}")),
            _ => Some(number.to_string()),
        },
        other => Some(other.to_string()),
    }
}
