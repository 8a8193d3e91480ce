//! Messages as JSON for people: proto field names, `Any` expanded, secrets redacted, nothing that can fail.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};
use prost_types::value::Kind as JsonKind;
use prost_types::{Any, Duration, ListValue, Struct, Timestamp};
use serde_json::{Map, Value as Json, json};

use crate::DESCRIPTOR_POOL;

/// Fields whose text must not leave the process; Envoy marks the same ones as sensitive.
const SENSITIVE: [&str; 1] =
    ["envoy.extensions.transport_sockets.tls.v3.TlsCertificate.private_key"];
const REDACTED: &str = "[redacted]";

/// A message as JSON. Fields that are not set are left out.
pub fn to_json<M: Message + Name>(message: &M) -> Json {
    decoded(DESCRIPTOR_POOL.get_message_by_name(&M::full_name()), &message.encode_to_vec())
}

/// A packed message as JSON, with its type as `@type`. One of an unknown type shows only its size.
pub fn any_to_json(any: &Any) -> Json {
    let name = any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name);
    let content = decoded(DESCRIPTOR_POOL.get_message_by_name(name), &any.value);
    let mut object = Map::new();
    object.insert("@type".into(), Json::String(any.type_url.clone()));
    match content {
        // Nothing inside: nothing unknown about it.
        _ if any.value.is_empty() => {}
        Json::Object(fields) if !name.starts_with("google.protobuf.") => object.extend(fields),
        content => {
            object.insert("value".into(), content);
        }
    }
    Json::Object(object)
}

fn decoded(descriptor: Option<MessageDescriptor>, bytes: &[u8]) -> Json {
    match descriptor.map(|descriptor| DynamicMessage::decode(descriptor, bytes)) {
        Some(Ok(message)) => message_json(&message, false),
        Some(Err(_)) | None => Json::String(format!("{} bytes of an unknown type", bytes.len())),
    }
}

fn message_json(message: &DynamicMessage, redact: bool) -> Json {
    let descriptor = message.descriptor();
    if let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.")
        && let Some(json) = well_known(name, message)
    {
        return json;
    }
    let fields = message.fields().map(|(field, value)| {
        let redact = redact || SENSITIVE.contains(&field.full_name());
        let json = match value {
            Value::List(items) => {
                items.iter().map(|item| single(item, &field.kind(), redact)).collect()
            }
            Value::Map(entries) => match field.kind() {
                Kind::Message(entry) => {
                    let kind = entry.map_entry_value_field().kind();
                    let entry = |(key, value)| (key_text(key), single(value, &kind, redact));
                    Json::Object(entries.iter().map(entry).collect())
                }
                _ => Json::Null,
            },
            value => single(value, &field.kind(), redact),
        };
        (field.name().to_owned(), json)
    });
    Json::Object(fields.collect())
}

fn single(value: &Value, kind: &Kind, redact: bool) -> Json {
    match value {
        Value::Message(message) => message_json(message, redact),
        Value::String(_) | Value::Bytes(_) if redact => REDACTED.into(),
        Value::String(text) => text.as_str().into(),
        Value::Bytes(bytes) => STANDARD.encode(bytes).into(),
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        // JavaScript's numbers end at 2^53: protobuf writes 64 bits as text.
        Value::I64(value) => value.to_string().into(),
        Value::U64(value) => value.to_string().into(),
        Value::F32(value) => float(f64::from(*value)),
        Value::F64(value) => float(*value),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(known) => known
                .get_value(*number)
                .map_or_else(|| (*number).into(), |value| value.name().to_owned().into()),
            _ => (*number).into(),
        },
        Value::List(_) | Value::Map(_) => Json::Null,
    }
}

fn float(value: f64) -> Json {
    match value {
        _ if value.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => json!(value),
    }
}

fn well_known(name: &str, message: &DynamicMessage) -> Option<Json> {
    Some(match name {
        "Any" => any_to_json(&message.transcode_to().ok()?),
        "Duration" => message.transcode_to::<Duration>().ok()?.to_string().into(),
        "Timestamp" => message.transcode_to::<Timestamp>().ok()?.to_string().into(),
        "Struct" => object(message.transcode_to().ok()?),
        "ListValue" => list(message.transcode_to().ok()?),
        "Value" => value(message.transcode_to().ok()?),
        _ if name.ends_with("Value") => {
            let field = message.descriptor().get_field(1)?;
            single(&message.get_field(&field), &field.kind(), false)
        }
        _ => return None,
    })
}

fn object(object: Struct) -> Json {
    Json::Object(object.fields.into_iter().map(|(key, item)| (key, value(item))).collect())
}

fn list(list: ListValue) -> Json {
    list.values.into_iter().map(value).collect()
}

fn value(value: prost_types::Value) -> Json {
    match value.kind {
        None | Some(JsonKind::NullValue(_)) => Json::Null,
        Some(JsonKind::BoolValue(value)) => value.into(),
        Some(JsonKind::NumberValue(value)) => number(value),
        Some(JsonKind::StringValue(value)) => value.into(),
        Some(JsonKind::ListValue(value)) => list(value),
        Some(JsonKind::StructValue(value)) => object(value),
    }
}

/// Struct knows only floats; whole numbers look better without a fraction.
fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        (value as i64).into()
    } else {
        float(value)
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::bootstrap::v3::Bootstrap;
    use crate::yaml::Document;

    #[test]
    fn what_was_read_is_written_back() {
        let text = r#"{"node": {"id": "x", "metadata": {"a": [1, null, {"b": 1.5}]}},
            "static_resources": {"clusters": [{"name": "c", "type": "STRICT_DNS",
            "connect_timeout": "0.250s",
            "per_connection_buffer_limit_bytes": 32768,
            "transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "example.org"}}}]}}"#;
        let bootstrap: Bootstrap = Document::new("x", text).read().unwrap();
        assert_eq!(to_json(&bootstrap), serde_json::from_str::<Json>(text).unwrap());
    }

    #[test]
    fn private_keys_do_not_leave_the_process() {
        let text = r#"{"static_resources": {"secrets": [{"name": "s", "tls_certificate": {
            "certificate_chain": {"filename": "/a.pem"},
            "private_key": {"inline_string": "KEY"}}}]}}"#;
        let bootstrap: Bootstrap = Document::new("x", text).read().unwrap();
        let json = to_json(&bootstrap);
        let certificate = &json["static_resources"]["secrets"][0]["tls_certificate"];
        assert_eq!(certificate["certificate_chain"]["filename"], "/a.pem");
        assert_eq!(certificate["private_key"]["inline_string"], "[redacted]");
    }

    #[test]
    fn unknown_types_do_not_fail_the_rest() {
        let any = Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![1, 2, 3] };
        assert_eq!(
            any_to_json(&any),
            json!({"@type": "type.googleapis.com/x.Y", "value": "3 bytes of an unknown type"})
        );
    }
}
