//! JSON as YAML, in the block style that people read.

use serde_json::Value;

/// A document.
pub(super) fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut text),
        _ => {
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
    text
}

/// The lines of a collection that is not empty. The first one is where the text ends already indented.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = |text: &mut String, first: &mut bool| {
        if !std::mem::take(first) {
            text.push_str(&"  ".repeat(depth));
        }
    };
    let mut first = true;
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                indent(text, &mut first);
                text.push_str(&string(key));
                text.push(':');
                if is_block(value) {
                    text.push('\n');
                    text.push_str(&"  ".repeat(depth + 1));
                    block(value, depth + 1, text);
                } else {
                    text.push(' ');
                    text.push_str(&scalar(value));
                    text.push('\n');
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                indent(text, &mut first);
                text.push_str("- ");
                if is_block(item) {
                    block(item, depth + 1, text);
                } else {
                    text.push_str(&scalar(item));
                    text.push('\n');
                }
            }
        }
        _ => {}
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// What stands on one line.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        // `null`, `true`, numbers, `[]` and `{}` are the same in both.
        other => other.to_string(),
    }
}

/// Without quotes if nobody can take it for something else. JSON's quoted form is YAML's, too.
fn string(text: &str) -> String {
    let plain = text.starts_with(|it: char| it.is_ascii_alphabetic() || it == '/')
        && text.chars().all(|it| it.is_ascii_alphanumeric() || "/_.-|".contains(it));
    let lower = text.to_ascii_lowercase();
    let word =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&lower.as_str());
    if plain && !word { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use xds::yaml::tree::{self, Node, parse_all};

    use super::*;

    #[test]
    fn it_reads_as_people_write_it() {
        let value = json!({"name": "outbound|80||a.b", "ports": [80, {"a": [], "b": "no"}], "e": {"f": [[1, 2]]}});
        let expected = "e:\n  f:\n    - - 1\n      - 2\nname: outbound|80||a.b\nports:\n  - 80\n  - a: []\n    b: \"no\"\n";
        assert_eq!(to_yaml(&value), expected);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~\u{e9}\n\t]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z0-9:. -]{1,6}", inner, 0..4)
                    .prop_map(|it| Value::Object(it.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_says_the_same_as_the_json(value in any_json()) {
            let (yaml, json) = (to_yaml(&value), value.to_string());
            let (yaml, json) = (parse_all(&yaml).unwrap(), parse_all(&json).unwrap());
            prop_assert_eq!(yaml.len(), 1);
            prop_assert!(same(&yaml[0], &json[0]), "{}", to_yaml(&value));
        }
    }

    /// Equal but for where it stands.
    fn same(a: &Node, b: &Node) -> bool {
        match (&a.value, &b.value) {
            (tree::Value::List(a), tree::Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (tree::Value::Map(a), tree::Value::Map(b)) => {
                let pair =
                    |((a, x), (b, y)): (&(tree::Key<'_>, Node<'_>), &(tree::Key<'_>, Node<'_>))| {
                        a.text == b.text && same(x, y)
                    };
                a.len() == b.len() && a.iter().zip(b).all(pair)
            }
            (
                tree::Value::Scalar { text: a, plain },
                tree::Value::Scalar { text: b, plain: is_no_string },
            ) => {
                let other = a.parse::<f64>().is_ok() || ["true", "false", "null"].contains(&&**a);
                a == b && (*plain == *is_no_string || (*plain && !other))
            }
            _ => false,
        }
    }
}
