//! When and how a request is tried again (Envoy `config.route.v3.RetryPolicy`).

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::HeaderName;

use super::matcher::HeaderMatcher;
use super::subset::Criteria;

/// The words of `retry_on` and `retry_grpc_on`, as one set of bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! retry_words {
    ($($(#[$doc:meta])* $constant:ident = $bit:literal $word:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $constant: Self = Self(1 << $bit);)*

            /// The bit of one word of the list, or none if Envoy has no such word.
            pub fn word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$constant),)*
                    _ => None,
                }
            }
        }
    };
}

retry_words! {
    /// Any 5xx, or no response at all.
    SERVER_ERROR = 0 "5xx";
    /// 502, 503 or 504.
    GATEWAY_ERROR = 1 "gateway-error";
    /// Disconnect, reset or read timeout without a response.
    RESET = 2 "reset";
    /// As `reset`, but only if the request's headers were not sent.
    RESET_BEFORE_REQUEST = 3 "reset-before-request";
    /// The connection could not be made.
    CONNECT_FAILURE = 4 "connect-failure";
    /// `x-envoy-ratelimited` in the response.
    ENVOY_RATELIMITED = 5 "envoy-ratelimited";
    /// 409.
    RETRIABLE_4XX = 6 "retriable-4xx";
    /// REFUSED_STREAM.
    REFUSED_STREAM = 7 "refused-stream";
    /// A status of the policy's list.
    RETRIABLE_STATUS_CODES = 8 "retriable-status-codes";
    /// A header of the policy's list in the response.
    RETRIABLE_HEADERS = 9 "retriable-headers";
    /// Accepted for Envoy's sake; HTTP/3 upstreams do not exist here.
    HTTP3_POST_CONNECT_FAILURE = 10 "http3-post-connect-failure";
    /// grpc-status 1 in the response headers.
    GRPC_CANCELLED = 16 "cancelled";
    /// grpc-status 4 in the response headers.
    GRPC_DEADLINE_EXCEEDED = 17 "deadline-exceeded";
    /// grpc-status 13 in the response headers.
    GRPC_INTERNAL = 18 "internal";
    /// grpc-status 8 in the response headers.
    GRPC_RESOURCE_EXHAUSTED = 19 "resource-exhausted";
    /// grpc-status 14 in the response headers.
    GRPC_UNAVAILABLE = 20 "unavailable";
}

impl RetryOn {
    /// Nothing is retried.
    pub const NONE: Self = Self(0);
    /// The words of `retry_grpc_on`.
    pub const GRPC: Self = Self(!0 << 16);
    /// All other words.
    pub const HTTP: Self = Self(!Self::GRPC.0);

    /// Reads a comma-separated list; words Envoy does not know are ignored, as Envoy does at run time.
    /// Numbers (Istio writes `503` there) are returned apart, as status codes.
    pub fn parse(list: &str) -> (Self, Vec<u16>) {
        let mut set = Self::NONE;
        let mut codes = Vec::new();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match (Self::word(word), word.parse::<u16>()) {
                (Some(bit), _) => set = set.union(bit),
                (None, Ok(code)) if (100..600).contains(&code) => codes.push(code),
                (None, _) => {}
            }
        }
        (set, codes)
    }

    /// Whether any bit of `other` is set here.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Bits of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Bits set in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether no bit is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Envoy `config.route.v3.RetryPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Which failures count.
    pub on: RetryOn,
    /// Retries after the first attempt; Envoy's default is 1.
    pub num_retries: u32,
    /// Limit on one attempt; none means the route's whole timeout.
    pub per_try_timeout: Option<Duration>,
    /// Limit on silence within one attempt.
    pub per_try_idle_timeout: Option<Duration>,
    /// Statuses for `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// Response headers for `retriable-headers`.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// `retriable_request_headers`: only requests that one of these matches are retried; none means all.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// `rate_limited_retry_back_off`: answers may say when to come again.
    pub resets: Option<Resets>,
    /// `omit_host_metadata` predicates: hosts that a retry passes over.
    pub omitted_hosts: Vec<Criteria>,
    /// Whether a host that failed this request is avoided (`previous_hosts` predicate).
    pub avoid_previous_hosts: bool,
    /// `previous_priorities`: after each so many attempts, the priorities that were tried get no more of them.
    pub previous_priorities: Option<NonZeroUsize>,
    /// How often host selection is repeated to satisfy the predicate; Envoy's default is 1.
    pub host_selection_attempts: u32,
    /// First interval of the exponential back-off; Envoy's default is 25 ms.
    pub backoff_base: Duration,
    /// Longest interval; ten times the base by default.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::NONE,
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            resets: None,
            omitted_hosts: Vec::new(),
            avoid_previous_hosts: false,
            previous_priorities: None,
            host_selection_attempts: 1,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// Envoy `RetryPolicy.RateLimitedRetryBackOff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resets {
    /// `reset_headers`: the first that an answer has, with an interval that is not too long, decides.
    pub headers: Vec<ResetHeader>,
    /// `max_interval`: longer ones are passed over; 300 s by default.
    pub max: Duration,
}

/// Envoy `RetryPolicy.ResetHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// Its name.
    pub name: HeaderName,
    /// What it says.
    pub format: ResetFormat,
}

/// Envoy `RetryPolicy.ResetHeaderFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// SECONDS: how long to wait.
    Seconds,
    /// UNIX_TIMESTAMP: until when.
    UnixTimestamp,
}

impl Resets {
    /// How long the headers of an answer that came at `now` ask to wait.
    pub fn interval(&self, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
        let read = |reset: &ResetHeader| {
            let value = headers.get(&reset.name)?.to_str().ok()?.trim().parse().ok()?;
            let value = Duration::from_secs(value);
            match reset.format {
                ResetFormat::Seconds => Some(value),
                ResetFormat::UnixTimestamp => {
                    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                    value.checked_sub(Duration::from_secs(now.as_secs()))
                }
            }
        };
        self.headers.iter().filter_map(read).find(|interval| *interval <= self.max)
    }
}

/// A limit on concurrent retries relative to load (Envoy `CircuitBreakers.Thresholds.RetryBudget`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Retries allowed, in percent of active and pending requests; Envoy's default is 20.
    pub percent: f64,
    /// Always allowed; Envoy's default is 3.
    pub min_concurrency: u32,
}

/// Names of request headers a trusted caller may change the policy with.
pub mod request_header {
    use super::HeaderName;

    /// Overrides `num_retries`.
    pub const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
    /// Adds to `retry_on`.
    pub const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
    /// Adds to `retry_grpc_on`.
    pub const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
    /// Adds to the retriable header names.
    pub const RETRIABLE_HEADER_NAMES: HeaderName =
        HeaderName::from_static("x-envoy-retriable-header-names");
    /// Adds to the retriable statuses.
    pub const RETRIABLE_STATUS_CODES: HeaderName =
        HeaderName::from_static("x-envoy-retriable-status-codes");
    /// Overrides the route's timeout, in milliseconds.
    pub const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
    /// Overrides the per-try timeout, in milliseconds.
    pub const PER_TRY_TIMEOUT_MS: HeaderName =
        HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
    /// Asks for 204 instead of 504 on a timeout.
    pub const TIMEOUT_ALT_RESPONSE: HeaderName =
        HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");
}

#[cfg(test)]
mod tests {
    use super::RetryOn;

    #[test]
    fn istio_lists_mix_words_and_status_codes() {
        let (on, codes) = RetryOn::parse("connect-failure, unavailable,503,nonsense,");
        assert!(
            on.intersects(RetryOn::CONNECT_FAILURE) && on.intersects(RetryOn::GRPC_UNAVAILABLE)
        );
        assert!(!on.intersects(RetryOn::RESET));
        assert_eq!(codes, [503]);
    }
}
