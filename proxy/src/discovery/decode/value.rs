//! Scalars and their limits: durations, numbers in a range, percentages, enumerations, names.

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderName;
use xds::envoy::config::core::v3::{RuntimeFeatureFlag, RuntimeFractionalPercent};
use xds::envoy::r#type::v3::fractional_percent::DenominatorType;
use xds::envoy::r#type::v3::{FractionalPercent, HttpStatus, Percent};

use super::errors::{At, Result, refuse, required};
use crate::config::Name;
use crate::config::matcher::Fraction;

/// What Envoy counts in nanoseconds, some 292 years.
const LONGEST: Duration = Duration::from_secs(9_223_372_036);

/// A duration that is not negative.
pub(super) fn duration(proto: &prost_types::Duration) -> Result<Duration> {
    let duration =
        Duration::try_from(*proto).map_err(|_| String::from("must not be negative")).at("")?;
    if duration > LONGEST {
        return refuse("", format!("must be at most {}s", LONGEST.as_secs()));
    }
    Ok(duration)
}

/// The duration in `field`, if it is there.
pub(super) fn optional_duration(
    field: &str,
    proto: Option<&prost_types::Duration>,
) -> Result<Option<Duration>> {
    proto.map(duration).transpose().at(field)
}

/// The duration in `field`, longer than zero if it is there.
pub(super) fn positive_duration(
    field: &str,
    proto: Option<&prost_types::Duration>,
) -> Result<Option<Duration>> {
    match optional_duration(field, proto)? {
        Some(Duration::ZERO) => refuse(field, "must be longer than 0s"),
        duration => Ok(duration),
    }
}

/// The duration in `field`, at least a millisecond if it is there.
pub(super) fn duration_in_ms(
    field: &str,
    proto: Option<&prost_types::Duration>,
) -> Result<Option<Duration>> {
    match optional_duration(field, proto)? {
        Some(duration) if duration < Duration::from_millis(1) => {
            refuse(field, "must be at least 0.001s")
        }
        duration => Ok(duration),
    }
}

/// The limit in `field`: `default` when it is absent, no limit when it is `0s`.
pub(super) fn limit(
    field: &str,
    proto: Option<&prost_types::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>> {
    Ok(optional_duration(field, proto)?.map_or(default, unless_zero))
}

/// None for zero, by which Envoy says "no limit".
pub(super) fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// The number in `field`, or `default`; it must lie within `minimum` and `maximum`.
pub(super) fn bounded(
    field: &str,
    proto: Option<u32>,
    default: u32,
    (minimum, maximum): (u32, u32),
) -> Result<u32> {
    let value = proto.unwrap_or(default);
    if (minimum..=maximum).contains(&value) {
        Ok(value)
    } else if maximum == u32::MAX {
        refuse(field, format!("must be at least {minimum}"))
    } else {
        refuse(field, format!("must be {minimum} to {maximum}"))
    }
}

/// The whole percentage in `field`, or `default`.
pub(super) fn whole_percent(field: &str, proto: Option<u32>, default: u32) -> Result<u32> {
    bounded(field, proto, default, (0, 100))
}

/// The percentage in `field`, or `default`.
pub(super) fn percent(field: &str, proto: Option<&Percent>, default: f64) -> Result<f64> {
    let Some(Percent { value }) = proto else { return Ok(default) };
    if (0.0..=100.0).contains(value) {
        Ok(*value)
    } else {
        refuse(field, "must be 0 to 100 percent")
    }
}

/// A share of requests.
pub(super) fn fraction(proto: &FractionalPercent) -> Result<Fraction> {
    let FractionalPercent { numerator, denominator } = proto;
    let denominator = match enumeration("denominator", *denominator)? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok(Fraction { numerator: *numerator, denominator })
}

/// A share of requests with a runtime key, whose default is used.
pub(super) fn runtime_fraction(proto: &RuntimeFractionalPercent) -> Result<Fraction> {
    let RuntimeFractionalPercent { default_value, runtime_key: _ } = proto;
    fraction(required("default_value", default_value)?).at("default_value")
}

/// The enumeration value in `field`.
pub(super) fn enumeration<E: TryFrom<i32>>(field: &str, proto: i32) -> Result<E> {
    E::try_from(proto).map_err(|_| format!("{proto} is no known value")).at(field)
}

/// Whether a feature is on: what is written as its default, as runtime values are refused.
pub(super) fn feature(proto: &RuntimeFeatureFlag) -> Result<bool> {
    let RuntimeFeatureFlag { default_value, runtime_key: _ } = proto;
    required("default_value", default_value).copied()
}

/// The status of HTTP in `field`, or `default`.
pub(super) fn http_status(
    field: &str,
    proto: Option<&HttpStatus>,
    default: StatusCode,
) -> Result<StatusCode> {
    let Some(HttpStatus { code }) = proto else { return Ok(default) };
    let status = u16::try_from(*code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match status {
        Some(status) => Ok(status),
        None => refuse(&format!("{field}.code"), "must be a status of HTTP"),
    }
}

/// The text in `field`, which must not be empty.
pub(super) fn non_empty<'a>(field: &str, text: &'a str) -> Result<&'a str> {
    if text.is_empty() { refuse(field, "must not be empty") } else { Ok(text) }
}

/// The name in `field`, which must not be empty.
pub(super) fn name(field: &str, text: &str) -> Result<Name> {
    non_empty(field, text).map(Name::from)
}

/// The text, if there is any.
pub(super) fn unless_empty(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// A header's name.
pub(super) fn header_name(text: &str) -> Result<HeaderName> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => Ok(name),
        Err(_) if text.is_empty() => refuse("", "must not be empty"),
        Err(_) => refuse("", format!("{text:?} is no header name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    #[test]
    fn a_zero_limit_means_none_and_an_absent_one_the_default() {
        let default = Some(Duration::from_secs(5));
        assert_eq!(limit("t", None, default).unwrap(), default);
        assert_eq!(limit("t", Some(&seconds(0)), default).unwrap(), None);
        assert_eq!(limit("t", Some(&seconds(9)), None).unwrap(), Some(Duration::from_secs(9)));
        let error = limit("t", Some(&seconds(-1)), None).unwrap_err().into_vec();
        assert_eq!(error[0].to_string(), "t: must not be negative");
        assert!(positive_duration("t", Some(&seconds(0))).is_err());
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        assert_eq!(bounded("n", None, 3, (1, 5)).unwrap(), 3);
        assert_eq!(bounded("n", Some(5), 3, (1, 5)).unwrap(), 5);
        assert!(bounded("n", Some(6), 3, (1, 5)).is_err());
        assert!(bounded("n", Some(0), 3, (1, u32::MAX)).is_err());
        assert!(percent("p", Some(&Percent { value: f64::NAN }), 1.0).is_err());
        assert!(enumeration::<DenominatorType>("d", 9).is_err());
    }
}
