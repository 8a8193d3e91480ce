//! YAML 1.2's core schema: what a scalar without quotes means.

/// `true` or `false`, and the further words that Envoy's YAML reader takes for a boolean field.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Whether the core schema reads `text` as a boolean.
pub(super) fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// A decimal, `0x` or `0o` integer.
pub(super) fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return unsigned(hexadecimal, 16);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return unsigned(octal, 8);
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// An integer for an integer field: also `1e3` and `5.0`, as protobuf's JSON allows.
pub(super) fn integral(text: &str) -> Option<i128> {
    integer(text).or_else(|| {
        let value = number(text)?;
        // Beyond 2^53 a float no longer says which integer is meant.
        (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i128)
    })
}

/// Any number, with the spellings of infinity and not-a-number of both YAML and protobuf's JSON.
pub(super) fn number(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "Infinity" => Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" | "-Infinity" => Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" | "NaN" => Some(f64::NAN),
        _ if text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) =>
        {
            text.parse().ok()
        }
        _ => integer(text).map(|value| value as f64),
    }
}

fn unsigned(digits: &str, radix: u32) -> Option<i128> {
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_core_schema() {
        for (text, value) in
            [("0", 0), ("-12", -12), ("+7", 7), ("0x1F", 31), ("0o17", 15), ("017", 17)]
        {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for text in ["", "-", "1_000", "0x", "0x-1", "1.0", "12a", "ten"] {
            assert_eq!(integer(text), None, "{text}");
        }
        assert_eq!(integral("1e3"), Some(1000));
        assert_eq!(integral("5.0"), Some(5));
        assert_eq!(integral("5.5"), None);
        assert_eq!(number("-.5"), Some(-0.5));
        assert_eq!(number(".inf"), Some(f64::INFINITY));
        assert!(number("NaN").is_some_and(f64::is_nan));
        assert_eq!(number("inf"), None);
        assert_eq!(number("nan"), None);
        assert_eq!(number("0x10"), Some(16.0));
    }
}
