//! What a gRPC client's `grpc-timeout` means for a request, and what the upstream is told in its place.

use std::time::Duration;

use http::HeaderMap;

use super::stream::Head;
use crate::config::route::RouteAction;

/// The header.
pub const GRPC_TIMEOUT: http::HeaderName = http::HeaderName::from_static("grpc-timeout");

/// What the header says; none if there is none that can be read.
fn told(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        // As in Envoy, whole milliseconds are enough, and too long is better than too short.
        "u" => Duration::from_millis(number.div_ceil(1000)),
        "n" => Duration::from_millis(number.div_ceil(1_000_000)),
        _ => return None,
    })
}

/// The timeout of a request with this `head` on a route that says `action`; none is no limit.
pub fn of_request(action: &RouteAction, head: &Head) -> Option<Duration> {
    let Some(policy) = action.grpc_timeout.filter(|_| is_told(action, head)) else {
        return action.timeout;
    };
    let told = told(&head.headers).filter(|told| !told.is_zero());
    let told = told.map(|told| match told.checked_sub(policy.offset) {
        Some(rest) if !rest.is_zero() => rest,
        _ => told,
    });
    [told, policy.max].into_iter().flatten().min()
}

/// Whether the upstream of such a request is told its timeout in `grpc-timeout`.
pub fn is_told(action: &RouteAction, head: &Head) -> bool {
    action.grpc_timeout.is_some() && action.stream_duration.is_none() && head.is_grpc()
}

/// How long the stream of such a request may live; none is no limit. `manager` is the connection manager's limit.
pub fn of_stream(action: &RouteAction, manager: Option<Duration>, head: &Head) -> Option<Duration> {
    let Some(policy) = &action.stream_duration else { return manager };
    let own = policy.limit.unwrap_or(manager);
    let Some(max) = policy.grpc_max else { return own };
    let Some(told) = told(&head.headers) else { return own };
    let told = max.map_or(told, |max| told.min(max));
    Some(told.saturating_sub(policy.grpc_offset))
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method, Version};

    use super::*;
    use crate::config::route::{ClusterSpecifier, GrpcTimeout, StreamDuration};
    use crate::route::tests::forward;

    fn head(timeout: &'static str) -> Head {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        if !timeout.is_empty() {
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
        }
        Head {
            method: Method::POST,
            scheme: "http",
            authority: "a".into(),
            path: "/".into(),
            headers,
            version: Version::HTTP_2,
        }
    }

    const fn ms(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn every_unit_is_read() {
        for (text, expected) in [
            ("1H", ms(3_600_000)),
            ("2M", ms(120_000)),
            ("3S", ms(3000)),
            ("40m", ms(40)),
            ("1001u", ms(2)),
            ("1n", ms(1)),
            ("m", None),
            ("1", None),
            ("x1m", None),
            ("", None),
        ] {
            assert_eq!(told(&head(text).headers), expected, "{text}");
        }
    }

    #[test]
    fn a_stream_lives_as_its_client_says_within_limits() {
        let policy = |grpc_max, offset| RouteAction {
            stream_duration: Some(StreamDuration {
                limit: Some(ms(900)),
                grpc_max,
                grpc_offset: Duration::from_millis(offset),
            }),
            ..forward(ClusterSpecifier::Name("c".into()))
        };
        for (grpc_max, offset, text, expected) in [
            (None, 0, "100m", ms(900)),
            (Some(ms(500)), 0, "", ms(900)),
            (Some(ms(500)), 0, "100m", ms(100)),
            (Some(ms(500)), 0, "2S", ms(500)),
            (Some(None), 0, "2S", ms(2000)),
            (Some(ms(500)), 30, "100m", ms(70)),
            (Some(ms(500)), 200, "100m", ms(0)),
        ] {
            let got = of_stream(&policy(grpc_max, offset), ms(7), &head(text));
            assert_eq!(got, expected, "{grpc_max:?} {offset} {text}");
        }
        let none = forward(ClusterSpecifier::Name("c".into()));
        assert_eq!(of_stream(&none, ms(7), &head("100m")), ms(7));
    }

    #[test]
    fn the_old_timeout_of_a_request_may_be_its_own() {
        let policy = |max, offset| RouteAction {
            grpc_timeout: Some(GrpcTimeout { max, offset: Duration::from_millis(offset) }),
            ..forward(ClusterSpecifier::Name("c".into()))
        };
        for (max, offset, text, expected) in [
            (ms(500), 0, "100m", ms(100)),
            (ms(500), 0, "1S", ms(500)),
            (ms(500), 0, "", ms(500)),
            (None, 0, "1S", ms(1000)),
            (None, 0, "", None),
            (None, 30, "100m", ms(70)),
            (None, 100, "100m", ms(100)),
        ] {
            assert_eq!(of_request(&policy(max, offset), &head(text)), expected, "{text}");
        }
    }
}
