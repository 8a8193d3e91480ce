//! `google.protobuf.Struct` and JSON, each as the other.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as ProtoValue};
use serde_json::{Map, Value};

/// A structure as JSON. A number that is none (NaN, infinity) becomes null, as JSON has no such numbers.
pub fn json(proto: &Struct) -> Map<String, Value> {
    let Struct { fields } = proto;
    fields.iter().map(|(key, value)| (key.clone(), json_value(value))).collect()
}

fn json_value(proto: &ProtoValue) -> Value {
    match &proto.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::from(*number),
        Some(Kind::StringValue(text)) => Value::from(text.as_str()),
        Some(Kind::BoolValue(truth)) => Value::from(*truth),
        Some(Kind::StructValue(object)) => Value::Object(json(object)),
        Some(Kind::ListValue(list)) => list.values.iter().map(json_value).collect(),
    }
}

/// JSON as a structure.
pub fn structure(json: &Map<String, Value>) -> Struct {
    Struct { fields: json.iter().map(|(key, it)| (key.clone(), value(it))).collect() }
}

/// JSON as any value.
pub fn value(json: &Value) -> ProtoValue {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(list) => {
            Kind::ListValue(ListValue { values: list.iter().map(value).collect() })
        }
        Value::Object(object) => Kind::StructValue(structure(object)),
    };
    ProtoValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_value_comes_back() {
        let value = json!({"n": null, "b": true, "d": 1.5, "s": "x", "l": [1.0, {"o": "p"}]});
        let object = value.as_object().unwrap();
        assert_eq!(&super::json(&structure(object)), object);
    }
}
