//! Scalars as the field's type wants them: numbers in range, enums by name or number, bytes in base64.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{EnumDescriptor, Kind, Value};

use super::scalar;
use super::suggest::nearest;

/// Reads `text` as a value of this kind; `plain` says that it was written without quotes.
pub(super) fn read(text: &str, plain: bool, kind: &Kind) -> Result<Value, String> {
    let bad = || format!("expected {}, found {text:?}", expected(kind));
    match kind {
        Kind::Bool => scalar::boolean(text).map(Value::Bool).ok_or_else(bad),
        Kind::String => string(text, plain),
        Kind::Bytes => bytes(text).map(|bytes| Value::Bytes(bytes.into())).ok_or_else(bad),
        Kind::Enum(descriptor) => enum_number(text, descriptor).map(Value::EnumNumber),
        Kind::Double => scalar::number(text).map(Value::F64).ok_or_else(bad),
        Kind::Float => scalar::number(text).map(|value| Value::F32(value as f32)).ok_or_else(bad),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            integer(text).map(Value::I32).ok_or_else(bad)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            integer(text).map(Value::I64).ok_or_else(bad)
        }
        Kind::Uint32 | Kind::Fixed32 => integer(text).map(Value::U32).ok_or_else(bad),
        Kind::Uint64 | Kind::Fixed64 => integer(text).map(Value::U64).ok_or_else(bad),
        Kind::Message(_) => Err(bad()),
    }
}

/// What a field of this kind takes, for error messages.
pub(super) fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::String => "a string".into(),
        Kind::Bytes => "bytes in base64".into(),
        Kind::Enum(descriptor) => format!("a value of {}", descriptor.name()),
        Kind::Double | Kind::Float => "a number".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer".into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a 64-bit integer".into(),
        Kind::Uint32 | Kind::Fixed32 => "an integer from 0 to 4294967295".into(),
        Kind::Uint64 | Kind::Fixed64 => "an integer from 0 to 18446744073709551615".into(),
        Kind::Message(descriptor) => format!("a {}", descriptor.name()),
    }
}

/// As in Envoy, a bare boolean or integer is refused: it is rarely meant, and changes under other readers.
fn string(text: &str, plain: bool) -> Result<Value, String> {
    if plain && (scalar::is_boolean(text) || scalar::integer(text).is_some()) {
        return Err(format!("expected a string, found {text}: put it in quotes"));
    }
    Ok(Value::String(text.to_owned()))
}

fn integer<T: TryFrom<i128>>(text: &str) -> Option<T> {
    T::try_from(scalar::integral(text)?).ok()
}

fn enum_number(text: &str, descriptor: &EnumDescriptor) -> Result<i32, String> {
    if let Some(value) = descriptor.get_value_by_name(text) {
        return Ok(value.number());
    }
    if let Some(number) = integer(text) {
        let known = descriptor.get_value(number).map(|value| value.number());
        return known.ok_or_else(|| format!("{} has no value {number}", descriptor.full_name()));
    }
    let names: Vec<String> = descriptor.values().map(|value| value.name().to_owned()).collect();
    Err(match nearest(text, names.iter().map(String::as_str)) {
        Some(near) => {
            format!("{} has no value {text}; did you mean {near}?", descriptor.full_name())
        }
        None => format!(
            "{} has no value {text}, or it is not supported; it has {}",
            descriptor.full_name(),
            names.join(", ")
        ),
    })
}

/// Both alphabets, padded or not, as protobuf's JSON allows.
fn bytes(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_in_range() {
        assert_eq!(read("4294967295", true, &Kind::Uint32), Ok(Value::U32(u32::MAX)));
        assert_eq!(read("18446744073709551615", false, &Kind::Uint64), Ok(Value::U64(u64::MAX)));
        assert_eq!(read("-5", true, &Kind::Int64), Ok(Value::I64(-5)));
        assert!(read("4294967296", true, &Kind::Uint32).is_err());
        assert!(read("-1", true, &Kind::Uint32).unwrap_err().contains("from 0 to"));
        assert!(read("1.5", true, &Kind::Int32).is_err());
    }

    #[test]
    fn strings_may_not_look_like_something_else() {
        assert_eq!(read("on", true, &Kind::String), Ok(Value::String("on".into())));
        assert_eq!(read("1.10", true, &Kind::String), Ok(Value::String("1.10".into())));
        assert_eq!(read("true", false, &Kind::String), Ok(Value::String("true".into())));
        assert!(read("8080", true, &Kind::String).unwrap_err().contains("in quotes"));
        assert!(read("true", true, &Kind::String).is_err());
    }

    #[test]
    fn bytes_come_in_both_alphabets() {
        assert_eq!(bytes("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(bytes("+/8="), Some(vec![0xfb, 0xff]));
        assert_eq!(bytes("a b"), None);
    }
}
