//! Writes a JSON value as block-style YAML, so that a failing scenario leaves a readable bootstrap.

use std::fmt::Write;

use serde_json::Value;

/// `value` as a YAML document.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    text
}

fn block(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, child)) in map.iter().enumerate() {
                let first_in_list_item = index == 0 && text.ends_with("- ");
                let indent = if first_in_list_item { 0 } else { depth };
                let _ = write!(text, "{:indent$}{}:", "", scalar(&Value::String(key.clone())));
                nested(text, child, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(text, "{:depth$}- ", "");
                match item {
                    Value::Object(map) if !map.is_empty() => block(text, item, depth + 2),
                    _ => {
                        let _ = writeln!(text, "{}", flow(item));
                    }
                }
            }
        }
        _ => {
            let _ = writeln!(text, "{}", flow(value));
        }
    }
}

fn nested(text: &mut String, child: &Value, depth: usize) {
    match child {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            block(text, child, depth + 2);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            text.push('\n');
            block(text, child, depth);
        }
        _ => {
            let _ = writeln!(text, " {}", flow(child));
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::Object(_) => value.to_string(),
        other => scalar(other),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(word) if is_plain(word) => word.clone(),
        other => other.to_string(),
    }
}

/// Whether YAML reads `word` back as the same string without quotes.
fn is_plain(word: &str) -> bool {
    let starts_as_word = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    starts_as_word
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !reserved.contains(&word.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::to_yaml;

    #[test]
    fn objects_and_lists_become_blocks() {
        let value = json!({
            "node": {"id": "a"},
            "names": ["x", "*", "10"],
            "list": [{"a": 1, "b": {"c": true}}, {"@type": "t"}],
            "empty": {},
        });
        let expected = concat!(
            "empty: {}\n",
            "list:\n- a: 1\n  b:\n    c: true\n- \"@type\": t\n",
            "names: [x, \"*\", \"10\"]\n",
            "node:\n  id: a\n",
        );
        assert_eq!(to_yaml(&value), expected);
    }
}
