//! Field masks (`google.protobuf.FieldMask`) on JSON: keep some paths, drop the rest.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// A set of field paths as a tree; a field without children is kept whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mask {
    text: String,
    root: Fields,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Fields(BTreeMap<String, Fields>);

impl Mask {
    /// Reads `a.b,a.c,d`.
    pub(super) fn parse(text: &str) -> Self {
        let mut root = Fields::default();
        for path in text.split(',').filter(|path| !path.is_empty()) {
            let mut at = &mut root;
            for field in path.split('.') {
                at = at.0.entry(field.to_owned()).or_default();
            }
            // A whole field wins over parts of it.
            at.0.clear();
        }
        Self { text: text.to_owned(), root }
    }

    /// Whether `message` has any field of the mask.
    pub(super) fn touches(&self, message: &Value) -> bool {
        self.root.0.keys().any(|field| message.get(field).is_some())
    }

    /// Drops every field of `message` that the mask does not keep; its `@type` stays.
    pub(super) fn apply(&self, message: &mut Value) {
        self.root.apply(message);
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Fields {
    fn apply(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| name == "@type" || self.0.contains_key(name));
                for (name, below) in self.0.iter().filter(|(_, below)| !below.0.is_empty()) {
                    if let Some(field) = fields.get_mut(name) {
                        below.apply(field);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply(item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cut(mask: &str) -> Value {
        let mut message = json!({
            "@type": "t",
            "a": {"@type": "u", "b": 1, "c": {"d": 2, "e": 3}},
            "list": [{"b": 1, "x": 2}, {"x": 3}],
            "z": 4,
        });
        Mask::parse(mask).apply(&mut message);
        message
    }

    #[test]
    fn only_the_masks_paths_and_types_stay() {
        assert_eq!(cut("z"), json!({"@type": "t", "z": 4}));
        assert_eq!(
            cut("a.b,a.c.d"),
            json!({"@type": "t", "a": {"@type": "u", "b": 1, "c": {"d": 2}}})
        );
        assert_eq!(cut("list.b"), json!({"@type": "t", "list": [{"b": 1}, {}]}));
        assert_eq!(cut("a.c.d,a.c").pointer("/a/c/e"), Some(&json!(3)));
        assert_eq!(cut("none"), json!({"@type": "t"}));
    }

    #[test]
    fn a_mask_touches_a_message_with_one_of_its_fields() {
        assert!(Mask::parse("x,z.y").touches(&json!({"z": 1})));
        assert!(!Mask::parse("x").touches(&json!({"z": 1})));
    }
}
