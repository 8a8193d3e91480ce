//! A value in metadata, as `%METADATA(TYPE:NAMESPACE:KEY:…)%` names it.

use std::io;

use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value};

use super::Facts;
use crate::config::metadata::MetadataOf;

/// Where a value in metadata is.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataPath {
    /// Whose metadata.
    pub of: MetadataOf,
    /// The namespace.
    pub namespace: Box<str>,
    /// Keys from the outside in; none means the whole namespace.
    pub keys: Vec<Box<str>>,
}

impl MetadataPath {
    /// `NAMESPACE:KEY:…`
    pub(super) fn parse(of: MetadataOf, text: &str) -> Self {
        let mut parts = text.split(':').map(Into::into);
        let namespace = parts.next().unwrap_or_default();
        Self { of, namespace, keys: parts.collect() }
    }

    /// Appends the value, a text as it is and anything else as JSON; false (and nothing written) if there is
    /// none.
    pub(super) fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        let mut present = false;
        self.read(facts, &mut |value| {
            present = true;
            match value {
                Found::Value(Value::String(text)) => out.extend_from_slice(text.as_bytes()),
                Found::Value(value) => write_json(value, out),
                Found::Namespace(values) => write_json(values, out),
            }
        });
        present
    }

    /// The value.
    pub(super) fn json(&self, facts: &dyn Facts) -> Option<Value> {
        let mut found = None;
        self.read(facts, &mut |value| {
            found = Some(match value {
                Found::Value(value) => value.clone(),
                Found::Namespace(values) => Value::Object(values.clone()),
            });
        });
        found
    }

    fn read(&self, facts: &dyn Facts, read: &mut dyn FnMut(Found<'_>)) {
        facts.with_metadata(self.of, &mut |metadata| {
            let found = if self.keys.is_empty() {
                metadata.namespace(&self.namespace).map(Found::Namespace)
            } else {
                metadata.get(&self.namespace, &self.keys).map(Found::Value)
            };
            if let Some(found) = found {
                read(found);
            }
        });
    }
}

/// What is at a path.
enum Found<'a> {
    Value(&'a Value),
    Namespace(&'a Map<String, Value>),
}

/// Appends `value` as JSON; whole numbers have no fraction, as in Envoy.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Neither strings nor values read from JSON can fail to be written to memory.
    let _ = value.serialize(&mut Serializer::with_formatter(out, WholeNumbers));
}

struct WholeNumbers;

impl Formatter for WholeNumbers {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "checked by converting back")]
        let whole = value as i64;
        if whole as f64 == value { write!(writer, "{whole}") } else { write!(writer, "{value}") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::format::{Format, Operator};
    use crate::config::metadata::Metadata;

    struct OfRoute(Metadata);

    impl Facts for OfRoute {
        fn write(&self, _: &Operator, _: &mut Vec<u8>) -> bool {
            false
        }

        fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
            if of == MetadataOf::Route {
                read(&self.0);
            }
        }
    }

    #[test]
    fn values_are_found_by_path_and_written_as_envoy_does() {
        let mut metadata = Metadata::default();
        let values = json!({"s": "text", "n": 2.0, "o": {"x": [1.5, null, true]}});
        metadata.set("a.b", values.as_object().cloned().unwrap());
        let facts = OfRoute(metadata);
        for (text, written) in [
            ("%METADATA(ROUTE:a.b:s)%", "text"),
            ("%METADATA(ROUTE:a.b:s):2%", "te"),
            ("%METADATA(ROUTE:a.b:n)%", "2"),
            ("%METADATA(ROUTE:a.b:o:x)%", "[1.5,null,true]"),
            ("%METADATA(ROUTE:a.b)%", r#"{"n":2,"o":{"x":[1.5,null,true]},"s":"text"}"#),
            ("%METADATA(ROUTE:a.b:none)%", "-"),
            ("%METADATA(CLUSTER:a.b:s)%", "-"),
            ("%DYNAMIC_METADATA(a.b:s)%", "-"),
        ] {
            let mut out = Vec::new();
            Format::parse(text).unwrap().render(&facts, "-", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), written, "{text}");
        }
    }
}
