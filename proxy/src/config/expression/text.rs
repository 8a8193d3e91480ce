//! Values of expressions as Envoy prints them.

use std::io::Write as _;
use std::time::Duration;

use cel::Value;

/// Appends `value`; false (and nothing written) for null.
pub(super) fn write(value: &Value, out: &mut Vec<u8>) -> bool {
    // Memory takes every write.
    let _ = match value {
        Value::Null => return false,
        Value::String(text) => out.write_all(text.as_bytes()),
        Value::Bytes(bytes) => out.write_all(bytes),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::UInt(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::Timestamp(time) => write!(out, "{}", time.to_rfc3339()),
        Value::Duration(time) => {
            let sign = if time.abs() == *time { "" } else { "-" };
            let length = time.abs().to_std().unwrap_or_default();
            write!(out, "{sign}").and_then(|()| out.write_all(span(length).as_bytes()))
        }
        Value::List(_) => write!(out, "CelList value"),
        _ => write!(out, "CelMap value"),
    };
    true
}

/// A duration in its largest units: `1h2m3.5s`, `1.25ms`, `0`.
fn span(length: Duration) -> String {
    let nanoseconds = length.subsec_nanos();
    match (length.as_secs(), nanoseconds) {
        (0, 0) => "0".to_owned(),
        (0, ..1_000) => format!("{nanoseconds}ns"),
        (0, ..1_000_000) => format!("{}us", f64::from(nanoseconds) / 1e3),
        (0, _) => format!("{}ms", f64::from(nanoseconds) / 1e6),
        (seconds, _) => {
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = length - Duration::from_secs(seconds - seconds % 60);
            let mut text = String::new();
            if hours > 0 {
                text += &format!("{hours}h");
            }
            if minutes > 0 {
                text += &format!("{minutes}m");
            }
            if !rest.is_zero() {
                text += &format!("{}s", rest.as_secs_f64());
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_their_largest_units() {
        for (nanoseconds, text) in [
            (0, "0"),
            (5, "5ns"),
            (19_780, "19.78us"),
            (1_214_465, "1.214465ms"),
            (1_500_000_000, "1.5s"),
            (3_723_000_000_000, "1h2m3s"),
            (7_200_000_000_000, "2h"),
        ] {
            assert_eq!(span(Duration::from_nanos(nanoseconds)), text);
        }
    }
}
