//! Scalars: YAML's core schema says which plain ones are booleans and numbers, the field which are wanted.

use serde::de::Visitor;
use xds::yaml::tree::Value;

use super::{Error, Reader};

impl<'de> Reader<'_, '_> {
    /// A scalar's text if it is written without quotes.
    fn plain(&self) -> Option<&str> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => Some(text),
            _ => None,
        }
    }

    pub(super) fn boolean<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain().and_then(as_bool) {
            Some(value) => visitor.visit_bool(value),
            None => Err(self.must_be("boolean")),
        }
    }

    pub(super) fn integer<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain().and_then(as_integer) {
            Some(value) => visitor.visit_i64(value),
            None => Err(self.must_be("integer")),
        }
    }

    pub(super) fn unsigned<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(value) = self.plain().and_then(as_integer) else {
            return Err(self.must_be("integer"));
        };
        let reason = "should be greater than or equal to 0";
        let negative = |_| Error::new(format!("Invalid value: {value}: {{path}} in body {reason}"));
        visitor.visit_u64(u64::try_from(value).map_err(negative)?)
    }

    pub(super) fn float<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.plain().and_then(as_float) {
            Some(value) => visitor.visit_f64(value),
            None => Err(self.must_be("number")),
        }
    }

    pub(super) fn string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Scalar { text, plain } => {
                let other = *plain
                    && (text.is_empty()
                        || as_bool(text).is_some()
                        || as_float(text).is_some()
                        || self.node.is_null());
                if other {
                    let reason = "{path} in body must be of type string: put it in quotes";
                    return Err(Error::new(format!("Invalid value: {text}: {reason}")));
                }
                visitor.visit_str(text)
            }
            _ => Err(self.must_be("string")),
        }
    }
}

/// A plain scalar that is not null, for a field that takes anything.
pub(super) fn visit<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Error> {
    if let Some(value) = as_bool(text) {
        visitor.visit_bool(value)
    } else if let Some(value) = as_integer(text) {
        visitor.visit_i64(value)
    } else if let Some(value) = as_float(text) {
        visitor.visit_f64(value)
    } else {
        visitor.visit_str(text)
    }
}

fn as_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn as_integer(text: &str) -> Option<i64> {
    let radix = |prefix, radix| i64::from_str_radix(text.strip_prefix(prefix)?, radix).ok();
    text.parse().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8))
}

fn as_float(text: &str) -> Option<f64> {
    let numeric = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'e' | b'E');
    // Rust would also take `inf` and `nan`, which YAML spells otherwise and no field wants.
    if !text.bytes().all(numeric) {
        return None;
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}
