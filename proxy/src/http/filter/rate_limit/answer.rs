//! Headers that a rate limit service asks for, and those that tell clients what is left for them.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use xds::envoy::config::core::v3::HeaderValue as ProtoHeader;
use xds::envoy::service::ratelimit::v3::rate_limit_response::DescriptorStatus;
use xds::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;

/// Adds headers; those that are no headers are left out.
pub(super) fn add(added: Vec<ProtoHeader>, headers: &mut HeaderMap) {
    for ProtoHeader { key, value, raw_value } in added {
        let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_bytes(&value))
        {
            headers.append(name, value);
        }
    }
}

/// Tells the limit of which least is left, and all others (draft 03 of "RateLimit Header Fields for HTTP").
pub(super) fn tell(statuses: &[DescriptorStatus], headers: &mut HeaderMap) {
    let limited =
        || statuses.iter().filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    let Some((least, limit)) = limited().min_by_key(|(status, _)| status.limit_remaining) else {
        return;
    };
    let mut text = limit.requests_per_unit.to_string();
    for (_, limit) in limited() {
        let window = window(limit.unit());
        if window > 0 {
            let _ = write!(text, ", {};w={window}", limit.requests_per_unit);
            if !limit.name.is_empty() {
                let _ = write!(text, ";name=\"{}\"", limit.name);
            }
        }
    }
    let reset = least.duration_until_reset.as_ref().map_or(0, |reset| reset.seconds.max(0));
    let told = [
        ("x-ratelimit-limit", text),
        ("x-ratelimit-remaining", least.limit_remaining.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
    ];
    for (name, value) in told {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }
}

/// In seconds; 0 if unknown.
fn window(unit: Unit) -> u64 {
    const DAY: u64 = 24 * 60 * 60;
    match unit {
        Unit::Unknown => 0,
        Unit::Second => 1,
        Unit::Minute => 60,
        Unit::Hour => 60 * 60,
        Unit::Day => DAY,
        Unit::Week => 7 * DAY,
        Unit::Month => 30 * DAY,
        Unit::Year => 365 * DAY,
    }
}

#[cfg(test)]
mod tests {
    use xds::envoy::service::ratelimit::v3::rate_limit_response::RateLimit;

    use super::*;

    fn status(remaining: u32, limit: Option<(u32, Unit, &str)>) -> DescriptorStatus {
        DescriptorStatus {
            current_limit: limit.map(|(requests_per_unit, unit, name)| RateLimit {
                name: name.to_owned(),
                requests_per_unit,
                unit: unit.into(),
            }),
            limit_remaining: remaining,
            duration_until_reset: Some(prost_types::Duration { seconds: 30, nanos: 5 }),
            ..DescriptorStatus::default()
        }
    }

    #[test]
    fn the_limit_of_which_least_is_left_is_told_first() {
        let statuses = [
            status(0, None),
            status(3, Some((9, Unit::Second, ""))),
            status(1, Some((5, Unit::Minute, "nm"))),
        ];
        let mut headers = HeaderMap::new();
        tell(&statuses, &mut headers);
        assert_eq!(headers["x-ratelimit-limit"], "5, 9;w=1, 5;w=60;name=\"nm\"");
        assert_eq!(headers["x-ratelimit-remaining"], "1");
        assert_eq!(headers["x-ratelimit-reset"], "30");
        let mut headers = HeaderMap::new();
        tell(&[status(1, None)], &mut headers);
        assert!(headers.is_empty());
    }
}
