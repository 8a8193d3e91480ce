//! Messages of any type that are written out field by field (`xds.type.v3.TypedStruct`, and `udpa.type.v1` of old):
//! read as the type that they name.

use prost::Message;
use prost_types::value::Kind;
use prost_types::{Any, Struct, Value};
use serde_json::{Map, Number, Value as Json};

use crate::yaml::{self, Document};

const NAMES: [&str; 2] = ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"];

/// Whether the message is written out so.
pub fn is_typed_struct(any: &Any) -> bool {
    NAMES.contains(&name(&any.type_url))
}

/// The message that is written out in `any`, which is one of these.
///
/// # Errors
/// What it holds is no such message, or none of a type that the subset has; never empty.
pub fn unpack(any: &Any) -> Result<Any, Vec<yaml::Error>> {
    // Both types are the same but for their name.
    let carrier = crate::xds::r#type::v3::TypedStruct::decode(any.value.as_slice());
    let carrier = carrier.unwrap_or_default();
    let fields = struct_json(carrier.value.unwrap_or_default());
    let document = Document::new("value", fields.to_string());
    let value = document.read_as(name(&carrier.type_url))?;
    Ok(Any { type_url: carrier.type_url, value })
}

fn name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

fn struct_json(fields: Struct) -> Json {
    let fields = fields.fields.into_iter().map(|(name, value)| (name, json(value)));
    Json::Object(fields.collect::<Map<_, _>>())
}

fn json(value: Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::StringValue(value)) => Json::String(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(Kind::StructValue(fields)) => struct_json(fields),
    }
}

/// Whole numbers are written as such: most fields take no others.
fn number(value: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
        let whole = value as i64;
        return Json::Number(whole.into());
    }
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;

    fn carrier(type_url: &str, fields: &str) -> Any {
        let text = format!("{{type_url: {type_url}, value: {fields}}}");
        let carrier: crate::udpa::r#type::v1::TypedStruct =
            Document::new("x", text).read().unwrap();
        Any::from_msg(&carrier).unwrap()
    }

    const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

    #[test]
    fn the_message_that_is_carried_comes_out() {
        let any = carrier(
            CLUSTER,
            "{name: a, connect_timeout: 1.5s, per_connection_buffer_limit_bytes: 5, load_assignment: {endpoints: []}}",
        );
        assert!(is_typed_struct(&any));
        let cluster: Cluster = unpack(&any).unwrap().to_msg().unwrap();
        assert_eq!(cluster.name, "a");
        assert_eq!(cluster.connect_timeout.unwrap().nanos, 500_000_000);
        assert_eq!(cluster.per_connection_buffer_limit_bytes, Some(5));
    }

    #[test]
    fn what_is_wrong_with_it_is_told() {
        let errors = |type_url, fields| {
            let errors = unpack(&carrier(type_url, fields)).unwrap_err();
            errors.into_iter().map(|it| format!("{}: {}", it.path, it.reason)).collect::<Vec<_>>()
        };
        assert!(errors(CLUSTER, "{nam: a}")[0].starts_with("nam: envoy.config.cluster.v3.Cluster"));
        assert!(errors("x.y/z.Lua", "{}")[0].contains("z.Lua is not supported"));
    }
}
