//! How long a request and each of its attempts may take: what the route says and what a trusted caller
//! asked for, put together.

use std::time::Duration;

use http::HeaderMap;

use super::grpc_timeout::GRPC_TIMEOUT;
use super::names;
use super::overrides::Overrides;
use crate::config::retry::RetryPolicy;
use crate::net::grpc;

/// The limits of one request. None means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response, over all attempts.
    pub request: Option<Duration>,
    /// The same for one attempt.
    pub per_try: Option<Duration>,
    /// Silence within one attempt.
    pub per_try_idle: Option<Duration>,
    /// Whether the upstream is told in `grpc-timeout` as well.
    pub grpc: bool,
}

impl Timeouts {
    /// The limits of a request on a route with this timeout (none means no limit) and retry policy.
    /// A per-try limit that is not below the whole request's is left out, as in Envoy.
    pub fn new(
        route: Option<Duration>,
        policy: Option<&RetryPolicy>,
        overrides: &Overrides,
    ) -> Self {
        let limited = |limit: &Duration| !limit.is_zero();
        let request = overrides.timeout.or(route).filter(limited);
        let per_try = overrides
            .per_try_timeout
            .or(policy.and_then(|policy| policy.per_try_timeout))
            .filter(limited)
            .filter(|per_try| request.is_none_or(|request| *per_try < request));
        let per_try_idle = policy.and_then(|policy| policy.per_try_idle_timeout).filter(limited);
        Self { request, per_try, per_try_idle, grpc: false }
    }

    /// How long the upstream of an attempt that starts `elapsed` after the request has: at least 1 ms,
    /// because zero would mean no limit.
    pub fn expected(&self, elapsed: Duration) -> Option<Duration> {
        let left = self.request.map(|request| request.saturating_sub(elapsed));
        let expected = match (self.per_try, left) {
            (Some(per_try), Some(left)) => per_try.min(left),
            (one, other) => one.or(other)?,
        };
        Some(expected.max(Duration::from_millis(1)))
    }

    /// Tells the upstream, in `x-envoy-expected-rq-timeout-ms` if that is `wanted`.
    pub fn announce(&self, headers: &mut HeaderMap, elapsed: Duration, wanted: bool) {
        let Some(expected) = self.expected(elapsed) else { return };
        if wanted {
            let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
            headers.insert(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, millis.into());
        }
        if self.grpc {
            headers.insert(GRPC_TIMEOUT, grpc::timeout(expected));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn timeouts(
        route: u64,
        policy: Option<u64>,
        overrides: (Option<u64>, Option<u64>),
    ) -> Timeouts {
        let policy = RetryPolicy { per_try_timeout: policy.map(ms), ..RetryPolicy::default() };
        let overrides = Overrides {
            timeout: overrides.0.map(ms),
            per_try_timeout: overrides.1.map(ms),
            ..Overrides::default()
        };
        Timeouts::new(Some(ms(route)), Some(&policy), &overrides)
    }

    #[test]
    fn callers_override_routes_and_policies() {
        for (route, policy, overrides, request, per_try) in [
            (15_000, None, (None, None), Some(15_000), None),
            (15_000, Some(200), (None, None), Some(15_000), Some(200)),
            (15_000, Some(200), (Some(100), None), Some(100), None),
            (15_000, Some(200), (None, Some(300)), Some(15_000), Some(300)),
            (15_000, Some(200), (Some(0), Some(0)), None, None),
            (0, Some(200), (None, None), None, Some(200)),
            (100, Some(100), (None, None), Some(100), None),
        ] {
            let got = timeouts(route, policy, overrides);
            assert_eq!((got.request, got.per_try), (request.map(ms), per_try.map(ms)));
        }
        let none = Timeouts::new(None, None, &Overrides::default());
        let unlimited = Timeouts { request: None, per_try: None, per_try_idle: None, grpc: false };
        assert_eq!(none, unlimited);
    }

    #[test]
    fn the_upstream_is_told_the_shorter_limit_that_is_left() {
        let both = timeouts(1_000, Some(300), (None, None));
        assert_eq!(both.expected(ms(0)), Some(ms(300)));
        assert_eq!(both.expected(ms(900)), Some(ms(100)));
        assert_eq!(both.expected(ms(2_000)), Some(ms(1)));
        let mut headers = HeaderMap::new();
        timeouts(15_000, None, (None, None)).announce(&mut headers, ms(0), true);
        assert_eq!(headers[names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS], "15000");
        let mut headers = HeaderMap::new();
        timeouts(0, None, (None, None)).announce(&mut headers, ms(0), true);
        assert!(headers.is_empty());
    }
}
