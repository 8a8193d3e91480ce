//! The `x-envoy-*` request headers with which a trusted caller steers the router; they are read here
//! and never reach the upstream. Headers of callers without trust are gone by now
//! ([`forwarded::apply`](super::forwarded::apply)).

use std::str::FromStr;
use std::time::Duration;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::names;
use crate::config::retry::{RetryOn, request_header as retry};

/// What a caller asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `x-envoy-retry-on` and `x-envoy-retry-grpc-on`, added to the policy's.
    pub retry_on: RetryOn,
    /// `x-envoy-max-retries`, instead of `num_retries`.
    pub max_retries: Option<u32>,
    /// `x-envoy-retriable-status-codes`, added to the policy's.
    pub retriable_status_codes: Vec<u16>,
    /// `x-envoy-retriable-header-names`, added to the policy's.
    pub retriable_headers: Vec<HeaderName>,
    /// `x-envoy-upstream-rq-timeout-ms`, instead of the route's; zero means no limit.
    pub timeout: Option<Duration>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`, instead of the policy's; zero means no limit.
    pub per_try_timeout: Option<Duration>,
    /// `x-envoy-upstream-stream-duration-ms`, instead of the cluster's `max_stream_duration`.
    pub stream_duration: Option<Duration>,
    /// `x-envoy-upstream-rq-timeout-alt-response`: answer 204 on a timeout, not 504.
    pub timeout_means_no_content: bool,
}

impl Overrides {
    /// Reads and removes the headers. What cannot be parsed counts as absent, as in Envoy.
    pub fn take(headers: &mut HeaderMap) -> Self {
        if !names::any_x_envoy(headers) {
            return Self::default();
        }
        // Known to Envoy's router, which also takes them away, but without effect here.
        headers.remove(names::X_ENVOY_UPSTREAM_ALT_STAT_NAME);
        headers.remove(names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT);
        Self {
            retry_on: words(headers, retry::RETRY_ON, RetryOn::HTTP).union(words(
                headers,
                retry::RETRY_GRPC_ON,
                RetryOn::GRPC,
            )),
            max_retries: number(headers, retry::MAX_RETRIES),
            retriable_status_codes: list(headers, retry::RETRIABLE_STATUS_CODES),
            retriable_headers: list(headers, retry::RETRIABLE_HEADER_NAMES),
            timeout: number(headers, retry::TIMEOUT_MS).map(Duration::from_millis),
            per_try_timeout: number(headers, retry::PER_TRY_TIMEOUT_MS).map(Duration::from_millis),
            stream_duration: number(headers, names::X_ENVOY_UPSTREAM_STREAM_DURATION_MS)
                .map(Duration::from_millis),
            timeout_means_no_content: headers.remove(retry::TIMEOUT_ALT_RESPONSE).is_some(),
        }
    }
}

fn words(headers: &mut HeaderMap, name: HeaderName, allowed: RetryOn) -> RetryOn {
    RetryOn::parse(text(headers.remove(name).as_ref())).0.intersection(allowed)
}

fn number<T: FromStr>(headers: &mut HeaderMap, name: HeaderName) -> Option<T> {
    text(headers.remove(name).as_ref()).trim().parse().ok()
}

fn list<T: FromStr>(headers: &mut HeaderMap, name: HeaderName) -> Vec<T> {
    let value = headers.remove(name);
    text(value.as_ref()).split(',').filter_map(|item| item.trim().parse().ok()).collect()
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn every_header_is_read_and_taken_away() {
        let mut headers = headers(&[
            ("x-envoy-retry-on", "5xx, unavailable"),
            ("x-envoy-retry-grpc-on", "cancelled,reset"),
            ("x-envoy-max-retries", "3"),
            ("x-envoy-retriable-status-codes", "409, x,599"),
            ("x-envoy-retriable-header-names", "x-a, b c,X-B"),
            ("x-envoy-upstream-rq-timeout-ms", "1500"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "0"),
            ("x-envoy-upstream-rq-timeout-alt-response", "1"),
            ("x-envoy-upstream-alt-stat-name", "a"),
            ("x-envoy-upstream-stream-duration-ms", "1"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
            ("x-envoy-attempt-count", "2"),
        ]);
        let overrides = Overrides::take(&mut headers);
        let wanted = Overrides {
            retry_on: RetryOn::SERVER_ERROR.union(RetryOn::GRPC_CANCELLED),
            max_retries: Some(3),
            retriable_status_codes: vec![409, 599],
            retriable_headers: ["x-a", "x-b"].map(HeaderName::from_static).to_vec(),
            timeout: Some(Duration::from_millis(1500)),
            per_try_timeout: Some(Duration::ZERO),
            stream_duration: Some(Duration::from_millis(1)),
            timeout_means_no_content: true,
        };
        assert_eq!(overrides, wanted);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-envoy-attempt-count"]
        );
    }

    #[test]
    fn nonsense_counts_as_absent() {
        let mut headers = headers(&[
            ("x-envoy-max-retries", "-1"),
            ("x-envoy-upstream-rq-timeout-ms", "1s"),
            ("x-envoy-retry-on", "sometimes"),
        ]);
        assert_eq!(Overrides::take(&mut headers), Overrides::default());
        assert!(headers.is_empty());
        assert_eq!(Overrides::take(&mut HeaderMap::new()), Overrides::default());
    }
}
