//! Removes what nobody may read from a dump.

use serde_json::Value;

/// Fields Envoy marks as sensitive, among those a configuration may hold here.
const SENSITIVE: [&str; 4] = ["private_key", "password", "session_ticket_keys", "generic_secret"];

/// What stands in place of a text.
const REDACTED: &str = "[redacted]";

/// The same in place of bytes, which JSON has as base64.
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";

/// Replaces the content of every private key and other secret, wherever it is.
pub(super) fn private_keys(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if SENSITIVE.contains(&name.as_str()) {
                    hide(name, value);
                } else {
                    private_keys(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(private_keys),
        _ => {}
    }
}

/// Replaces every text at or below `value`, the names of files too, as Envoy does.
fn hide(name: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| hide(name, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(name, item)),
        Value::String(text) if name == "inline_bytes" => *text = REDACTED_BYTES.to_owned(),
        Value::String(text) => *text = REDACTED.to_owned(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_gone_wherever_they_stand_and_nothing_else_is() {
        let mut dump = json!({"configs": [{"tls_certificates": [
            {"certificate_chain": {"inline_string": "chain"}, "private_key": {"inline_string": "KEY"}},
            {"private_key": {"inline_bytes": "S0VZ"}, "password": {"filename": "KEY"}},
            {"session_ticket_keys": {"keys": [{"inline_string": "KEY"}]}},
        ]}]});
        private_keys(&mut dump);
        let text = dump.to_string();
        assert!(!text.contains("KEY") && !text.contains("S0VZ"), "{text}");
        assert!(text.contains("\"inline_string\":\"chain\""));
        assert!(text.contains(REDACTED_BYTES) && text.contains(REDACTED));
    }
}
