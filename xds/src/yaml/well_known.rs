//! The `google.protobuf` types in their own YAML form: `Any` by `@type`, durations, wrappers, JSON values.

use std::collections::BTreeMap;

use prost::{Message, bytes::Bytes};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value as Reflected};
use prost_types::value::Kind as JsonKind;
use prost_types::{Duration, ListValue, Struct, Timestamp};

use super::message::{Reader, Step};
use super::scalar;
use super::suggest::nearest;
use super::tree::{Node, Value};
use crate::DESCRIPTOR_POOL;

/// Longest duration protobuf can hold, in seconds: about 10,000 years.
const MAX_SECONDS: i64 = 315_576_000_000;

/// Reads a well-known type; none if `descriptor` is an ordinary message.
pub(super) fn read(
    reader: &mut Reader,
    node: &Node<'_>,
    descriptor: &MessageDescriptor,
) -> Option<Option<DynamicMessage>> {
    let name = descriptor.full_name().strip_prefix("google.protobuf.")?;
    Some(match name {
        "Any" => any(reader, node, descriptor),
        // Envoy also takes {seconds: 5}.
        "Duration" if matches!(node.value, Value::Map(_)) => return None,
        "Duration" => duration(reader, node).and_then(|it| typed(reader, node, descriptor, &it)),
        "Timestamp" => timestamp(reader, node).and_then(|it| typed(reader, node, descriptor, &it)),
        "Struct" => json_object(reader, node).and_then(|it| typed(reader, node, descriptor, &it)),
        "ListValue" => json_list(reader, node).and_then(|it| typed(reader, node, descriptor, &it)),
        "Value" => json(reader, node).and_then(|it| typed(reader, node, descriptor, &it)),
        _ if name.ends_with("Value") => wrapper(reader, node, descriptor),
        _ => return None,
    })
}

fn typed(
    reader: &mut Reader,
    node: &Node<'_>,
    descriptor: &MessageDescriptor,
    value: &impl Message,
) -> Option<DynamicMessage> {
    // Protobuf limits nesting more than YAML does: 100 levels, three for each of a JSON value's.
    DynamicMessage::decode(descriptor.clone(), value.encode_to_vec().as_slice())
        .map_err(|error| reader.refuse::<()>(node.at, error.to_string()))
        .ok()
}

fn wrapper(
    reader: &mut Reader,
    node: &Node<'_>,
    descriptor: &MessageDescriptor,
) -> Option<DynamicMessage> {
    let field = descriptor.get_field(1)?;
    let value = match &node.value {
        // Envoy also takes {value: 5}, which is how protobuf's text looks.
        Value::Map(entries) => return reader.fields(entries.iter(), descriptor),
        _ => reader.scalar(node, &field.kind())?,
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field(&field, value);
    Some(message)
}

/// The message named by `@type`, encoded; its fields stand beside `@type`. `{}` is no message at all.
fn any(
    reader: &mut Reader,
    node: &Node<'_>,
    descriptor: &MessageDescriptor,
) -> Option<DynamicMessage> {
    let Value::Map(entries) = &node.value else {
        return reader.refuse(node.at, format!("expected a map with @type, found {}", node.kind()));
    };
    if entries.is_empty() {
        return Some(DynamicMessage::new(descriptor.clone()));
    }
    let Some((_, type_node)) = entries.iter().find(|(key, _)| key.text == "@type") else {
        return reader.refuse(
            node.at,
            "@type is missing: it names the message, as in \
            \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        );
    };
    let Some(Reflected::String(url)) = reader.scalar(type_node, &Kind::String) else { return None };
    let name = url.rsplit_once('/').map_or(url.as_str(), |(_, name)| name);
    let Some(inner) = DESCRIPTOR_POOL.get_message_by_name(name) else {
        return reader.refuse(type_node.at, unknown_type(&url, name));
    };
    let message = if inner.full_name().starts_with("google.protobuf.") {
        match entries.iter().find(|(key, _)| key.text == "value") {
            Some((_, value)) => {
                reader.within(Step::Field("value"), |reader| reader.message(value, &inner))?
            }
            None => DynamicMessage::new(inner.clone()),
        }
    } else {
        reader.fields(entries.iter().filter(|(key, _)| key.text != "@type"), &inner)?
    };
    let mut any = DynamicMessage::new(descriptor.clone());
    any.set_field_by_name("type_url", Reflected::String(type_url(&inner)));
    any.set_field_by_name("value", Reflected::Bytes(Bytes::from(message.encode_to_vec())));
    Some(any)
}

fn type_url(descriptor: &MessageDescriptor) -> String {
    format!("type.googleapis.com/{}", descriptor.full_name())
}

fn unknown_type(url: &str, name: &str) -> String {
    let known: Vec<String> =
        DESCRIPTOR_POOL.all_messages().map(|message| message.full_name().to_owned()).collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("unknown @type {url}; did you mean type.googleapis.com/{near}?"),
        None => format!("unknown @type {url}: this extension is not supported, or misspelled"),
    }
}

fn duration(reader: &mut Reader, node: &Node<'_>) -> Option<Duration> {
    let Value::Scalar { text, .. } = &node.value else {
        return reader.refuse(node.at, format!("expected a duration, found {}", node.kind()));
    };
    match text.parse::<Duration>() {
        Ok(duration) if duration.seconds.abs() <= MAX_SECONDS && is_in_nanoseconds(text) => {
            Some(duration)
        }
        _ => reader.refuse(
            node.at,
            format!("expected a duration in seconds such as 0.25s or 300s, found {text:?}"),
        ),
    }
}

/// Whether nothing is written behind the ninth decimal place.
fn is_in_nanoseconds(text: &str) -> bool {
    let (_, fraction) = text.split_once('.').unwrap_or_default();
    fraction.trim_end_matches('s').len() <= 9
}

fn timestamp(reader: &mut Reader, node: &Node<'_>) -> Option<Timestamp> {
    if let Value::Scalar { text, .. } = &node.value
        && let Ok(timestamp) = text.parse()
    {
        return Some(timestamp);
    }
    reader.refuse(node.at, "expected a time such as 2026-01-31T23:59:59Z")
}

fn json(reader: &mut Reader, node: &Node<'_>) -> Option<prost_types::Value> {
    let kind = match &node.value {
        Value::Scalar { .. } if node.is_null() => JsonKind::NullValue(0),
        Value::Scalar { text, plain: true } if scalar::is_boolean(text) => {
            JsonKind::BoolValue(scalar::boolean(text).unwrap_or_default())
        }
        Value::Scalar { text, plain: true } => match scalar::number(text) {
            Some(number) => JsonKind::NumberValue(number),
            None => JsonKind::StringValue(text.clone().into_owned()),
        },
        Value::Scalar { text, plain: false } => JsonKind::StringValue(text.clone().into_owned()),
        Value::List(_) => JsonKind::ListValue(json_list(reader, node)?),
        Value::Map(_) => JsonKind::StructValue(json_object(reader, node)?),
    };
    Some(prost_types::Value { kind: Some(kind) })
}

fn json_list(reader: &mut Reader, node: &Node<'_>) -> Option<ListValue> {
    let Value::List(items) = &node.value else {
        return reader.refuse(node.at, format!("expected a list, found {}", node.kind()));
    };
    let values = items
        .iter()
        .enumerate()
        .map(|(index, item)| reader.within(Step::Item(index), |reader| json(reader, item)))
        .collect::<Option<_>>()?;
    Some(ListValue { values })
}

fn json_object(reader: &mut Reader, node: &Node<'_>) -> Option<Struct> {
    let Value::Map(entries) = &node.value else {
        return reader.refuse(node.at, format!("expected a map, found {}", node.kind()));
    };
    let fields = entries
        .iter()
        .map(|(key, item)| {
            let value = reader.within(Step::Key(&key.text), |reader| json(reader, item))?;
            Some((key.text.clone().into_owned(), value))
        })
        .collect::<Option<BTreeMap<_, _>>>()?;
    Some(Struct { fields })
}
