//! What a token's claims become: values of headers, and metadata.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The claim at `path` as a header's value; none if there is no such claim, or nothing in it.
pub fn header_value(payload: &Map<String, Value>, path: &[Box<str>]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let first = payload.get(&**first)?;
    let claim = rest.iter().try_fold(first, |value, key| value.as_object()?.get(&**key))?;
    let text = match claim {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number_text(number.as_f64()?),
        Value::Array(_) | Value::Object(_) => STANDARD.encode(claim.to_string()),
    };
    Some(text).filter(|text| !text.is_empty())
}

/// Whole numbers that are not negative are written as such, others with six digits after the point.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "it is whole, and in range"
)]
fn number_text(number: f64) -> String {
    if (0.0..u64::MAX as f64).contains(&number) && number.fract() == 0.0 {
        (number as u64).to_string()
    } else {
        format!("{number:.6}")
    }
}

/// The claims, of which those called as one of `lists` are split at spaces.
pub fn normalized(payload: &Map<String, Value>, lists: &[Box<str>]) -> Map<String, Value> {
    let mut claims = payload.clone();
    for name in lists {
        let Some(claim) = claims.get_mut(&**name) else { continue };
        let words = claim.as_str().unwrap_or_default().split(' ').filter(|word| !word.is_empty());
        let words: Vec<Value> = words.map(Value::from).collect();
        if !words.is_empty() {
            *claim = words.into();
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn claims_become_header_values() {
        let payload = object(&json!({
            "s": "text", "e": "", "n": 5, "big": 12_345_678_901_234_567_u64, "f": 1.5, "m": -3, "b": false,
            "l": [], "o": {"k": {"x": "deep"}}, "z": null,
        }));
        for (path, expected) in [
            (&["s"][..], Some("text")),
            (&["e"], None),
            (&["n"], Some("5")),
            (&["big"], Some("12345678901234568")),
            (&["f"], Some("1.500000")),
            (&["m"], Some("-3.000000")),
            (&["b"], Some("false")),
            (&["l"], Some("W10=")),
            (&["o", "k"], Some("eyJ4IjoiZGVlcCJ9")),
            (&["o", "k", "x"], Some("deep")),
            (&["s", "x"], None),
            (&["z"], None),
            (&["?"], None),
        ] {
            let path: Vec<Box<str>> = path.iter().map(|key| (*key).into()).collect();
            assert_eq!(header_value(&payload, &path).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn lists_written_as_words_are_lists() {
        let payload = object(&json!({"scope": " a b  c", "none": "", "n": 1, "other": "a b"}));
        let lists = ["scope", "none", "n", "absent"].map(Into::into);
        let expected = json!({"scope": ["a", "b", "c"], "none": "", "n": 1, "other": "a b"});
        assert_eq!(Value::Object(normalized(&payload, &lists)), expected);
    }
}
