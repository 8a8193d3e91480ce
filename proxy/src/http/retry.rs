//! Whether a failed attempt is tried again, and when. Pure: randomness is an argument, time is not
//! needed.
//!
//! What counts as a failure is said by `retry_on`, word by word as in Envoy. One rule is stricter: the
//! words `5xx` and `gateway-error` also cover attempts that ended without a response, and such an
//! attempt may have been processed. A request that must not be processed twice (POST, PATCH, CONNECT and
//! unknown methods without an `idempotency-key`) is therefore repeated without a response only
//!
//! - if the failure proves that it was not processed: no connection, REFUSED_STREAM or GOAWAY, a reset
//!   before anything was sent; or
//! - if the route asks for it with the word `reset`, which means nothing else.
//!
//! Responses are another matter: who writes `5xx`, `retriable-status-codes` or a gRPC status wants a
//! POST with that answer repeated, and gets it.
//!
//! | failure | words that retry a GET | words that retry a POST |
//! |---|---|---|
//! | no connection | connect-failure, reset-before-request, reset, 5xx, gateway-error | the same |
//! | refused stream | refused-stream, reset, 5xx, gateway-error | the same |
//! | reset, nothing sent | reset-before-request, reset, 5xx, gateway-error | the same |
//! | reset, request sent | reset, 5xx, gateway-error | reset |
//! | per-try timeout | reset, 5xx, gateway-error | reset |
//! | response | by status and headers | the same |

use std::time::{Duration, SystemTime};

use fastrand::Rng;
use http::header::HeaderName;
use http::{HeaderMap, Method, StatusCode};

use super::names;
use super::overrides::Overrides;
use crate::config::matcher::RequestHead;
use crate::config::retry::{RetryOn, RetryPolicy};

/// How an attempt ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A circuit breaker refused the attempt; never retried.
    Overflow,
    /// No connection: refused, timed out, or the TLS handshake failed.
    Connect,
    /// The upstream promised not to have processed it: REFUSED_STREAM, or GOAWAY with a lower stream.
    Refused,
    /// The connection or stream ended.
    Reset {
        /// Whether any byte of the request may have reached the upstream.
        request_sent: bool,
    },
    /// The attempt took longer than the per-try timeout or was silent for too long.
    PerTryTimeout,
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this back-off, if the retry circuit breaker permits.
    Retry {
        /// How long to wait first.
        after: Duration,
        /// Whether that is so long because the answer asked for it.
        asked: bool,
    },
    /// Pass on what there is.
    No(Refusal),
}

/// Why an attempt is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No policy, or none of its words covers this outcome. Success is such an outcome.
    NotRetriable,
    /// A word covers it, but the request may have been processed and must not be twice.
    NotIdempotent,
    /// The request's body was too long to be kept.
    BodyNotKept,
    /// All retries are used up: response flag `URX`.
    LimitExceeded,
    /// The retry circuit breaker is open; for the caller of this module to say.
    Overflow,
}

impl Refusal {
    /// A word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRetriable => "not_retriable",
            Self::NotIdempotent => "not_idempotent",
            Self::BodyNotKept => "body_not_kept",
            Self::LimitExceeded => "limit_exceeded",
            Self::Overflow => "overflow",
        }
    }
}

/// The retries of one request.
#[derive(Debug)]
pub struct RetryState<'p> {
    policy: Option<&'p RetryPolicy>,
    on: RetryOn,
    remaining: u32,
    retries: u32,
    more_status_codes: Vec<u16>,
    more_headers: Vec<HeaderName>,
    repeatable: bool,
}

impl<'p> RetryState<'p> {
    /// The state before the first attempt. `policy` is the route's, else its virtual host's; `method`
    /// and `headers` are the request's.
    pub fn new(
        policy: Option<&'p RetryPolicy>,
        overrides: Overrides,
        method: &Method,
        headers: &HeaderMap,
    ) -> Self {
        // Envoy's default, for callers that ask for retries on a route without policy.
        let num_retries = policy.map_or(1, |policy| policy.num_retries);
        Self {
            on: policy.map_or(RetryOn::NONE, |policy| policy.on).union(overrides.retry_on),
            remaining: overrides.max_retries.unwrap_or(num_retries),
            policy,
            retries: 0,
            more_status_codes: overrides.retriable_status_codes,
            more_headers: overrides.retriable_headers,
            repeatable: is_repeatable(method, headers),
        }
    }

    /// Gives up on retries, unless `repeat`.
    #[must_use]
    pub fn only_if(mut self, repeat: bool) -> Self {
        if !repeat {
            self.on = RetryOn::NONE;
        }
        self
    }

    /// Whether there may be another attempt, so that the request's body is worth keeping.
    pub fn may_retry(&self) -> bool {
        self.remaining > 0 && !self.on.is_empty()
    }

    /// Which attempt is under way, starting at 1 (`x-envoy-attempt-count`).
    pub fn attempt(&self) -> u32 {
        self.retries + 1
    }

    /// Decides after a response's head. `body_kept` is whether the request can be sent again in full.
    pub fn after_response(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        body_kept: bool,
        rng: &mut Rng,
    ) -> Decision {
        let resets = self.policy.and_then(|policy| policy.resets.as_ref());
        let asked = resets.and_then(|resets| resets.interval(headers, SystemTime::now()));
        if self.on.is_empty() || !self.covers_response(status, headers) {
            return Decision::No(Refusal::NotRetriable);
        }
        match (self.spend(body_kept, rng), asked) {
            // Not before that, and not all at once then.
            (Decision::Retry { .. }, Some(asked)) => {
                Decision::Retry { after: asked.mul_f64(1.0 + rng.f64() / 2.0), asked: true }
            }
            (decision, _) => decision,
        }
    }

    /// Decides after an attempt without response.
    pub fn after_failure(&mut self, failure: Failure, body_kept: bool, rng: &mut Rng) -> Decision {
        const ANY: RetryOn =
            RetryOn::RESET.union(RetryOn::SERVER_ERROR).union(RetryOn::GATEWAY_ERROR);
        let (words, processed) = match failure {
            Failure::Overflow => return Decision::No(Refusal::NotRetriable),
            Failure::Connect => {
                (ANY.union(RetryOn::CONNECT_FAILURE).union(RetryOn::RESET_BEFORE_REQUEST), false)
            }
            Failure::Refused => (ANY.union(RetryOn::REFUSED_STREAM), false),
            Failure::Reset { request_sent: false } => {
                (ANY.union(RetryOn::RESET_BEFORE_REQUEST), false)
            }
            Failure::Reset { request_sent: true } | Failure::PerTryTimeout => (ANY, true),
        };
        if !self.on.intersects(words) {
            return Decision::No(Refusal::NotRetriable);
        }
        if processed && !self.repeatable && !self.on.intersects(RetryOn::RESET) {
            return Decision::No(Refusal::NotIdempotent);
        }
        self.spend(body_kept, rng)
    }

    fn covers_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        if headers.contains_key(names::X_ENVOY_RATELIMITED) {
            return self.on.intersects(RetryOn::ENVOY_RATELIMITED);
        }
        let asked = |word, matches: bool| matches && self.on.intersects(word);
        let code = status.as_u16();
        asked(RetryOn::SERVER_ERROR, status.is_server_error())
            || asked(RetryOn::GATEWAY_ERROR, matches!(code, 502..=504))
            || asked(RetryOn::RETRIABLE_4XX, status == StatusCode::CONFLICT)
            || (self.on.intersects(RetryOn::RETRIABLE_STATUS_CODES) && self.lists_status(code))
            || (self.on.intersects(RetryOn::RETRIABLE_HEADERS) && self.lists_header(headers))
            || (self.on.intersects(RetryOn::GRPC) && self.on.intersects(grpc_word(headers)))
    }

    fn lists_status(&self, code: u16) -> bool {
        let listed = self.policy.map_or(&[][..], |policy| &policy.retriable_status_codes);
        listed.contains(&code) || self.more_status_codes.contains(&code)
    }

    fn lists_header(&self, headers: &HeaderMap) -> bool {
        let response = RequestHead {
            method: &Method::GET,
            scheme: "",
            authority: "",
            path_and_query: "",
            headers,
        };
        let listed = self.policy.map_or(&[][..], |policy| &policy.retriable_headers);
        listed.iter().any(|matcher| matcher.matches(&response))
            || self.more_headers.iter().any(|name| headers.contains_key(name))
    }

    /// Takes one of the remaining retries, if there is one.
    fn spend(&mut self, body_kept: bool, rng: &mut Rng) -> Decision {
        let Some(remaining) = self.remaining.checked_sub(1) else {
            return Decision::No(Refusal::LimitExceeded);
        };
        if !body_kept {
            return Decision::No(Refusal::BodyNotKept);
        }
        self.remaining = remaining;
        self.retries += 1;
        Decision::Retry { after: self.back_off(rng), asked: false }
    }

    /// Fully jittered exponential back-off: before the Nth retry a random time below base · 2^(N-1), at
    /// most the maximum. (Envoy's documentation says base · (2^N - 1); this is what Envoy 1.40 does.)
    fn back_off(&self, rng: &mut Rng) -> Duration {
        let default = RetryPolicy::default();
        let policy = self.policy.unwrap_or(&default);
        let factor = 1_u32.checked_shl(self.retries - 1).unwrap_or(u32::MAX);
        let interval = policy.backoff_base.saturating_mul(factor).min(policy.backoff_max);
        interval.mul_f64(rng.f64())
    }
}

/// The priorities that attempts of one request went to (Envoy `previous_priorities`).
#[derive(Debug, Default)]
pub struct PreviousPriorities {
    tried: Vec<u32>,
    excluded: Vec<u32>,
}

impl PreviousPriorities {
    /// Notes the priority of an attempt, if `policy` cares.
    pub fn tried(&mut self, policy: Option<&RetryPolicy>, priority: impl FnOnce() -> Option<u32>) {
        let Some(often) = policy.and_then(|policy| policy.previous_priorities) else { return };
        let Some(priority) = priority() else { return };
        if self.excluded.contains(&priority) {
            // No other had anything to be used: it begins anew.
            self.tried.clear();
            self.excluded.clear();
        }
        self.tried.push(priority);
        if self.tried.len() % often == 0 {
            self.excluded.clone_from(&self.tried);
        }
    }

    /// The priorities that the next attempt should not go to.
    pub fn excluded(&self) -> &[u32] {
        &self.excluded
    }
}

/// Whether processing the request twice does no more than processing it once: by its method (RFC 9110,
/// section 9.2.2), or because the client says so with an idempotency key.
pub fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent()
        || headers.contains_key(names::IDEMPOTENCY_KEY)
        || headers.contains_key(names::X_IDEMPOTENCY_KEY)
}

/// How far an exchange had come when its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No byte of the request was written.
    Unsent,
    /// Something was written, nothing came back.
    Sent,
    /// A byte of the response came.
    Responding,
}

/// Whether a request on a broken connection is sent once more on a fresh one, apart from any policy.
/// This cures the race with a server that closes an idle connection just when it is used again, and
/// never processes a request twice that must not be.
pub fn may_replay_on_fresh(repeatable: bool, reused: bool, stage: Stage) -> bool {
    reused
        && match stage {
            Stage::Unsent => true,
            Stage::Sent => repeatable,
            Stage::Responding => false,
        }
}

/// The word that covers the gRPC status in a response's headers; trailers are too late for a retry.
fn grpc_word(headers: &HeaderMap) -> RetryOn {
    match headers.get(names::GRPC_STATUS).map(|status| status.as_bytes()) {
        Some(b"1") => RetryOn::GRPC_CANCELLED,
        Some(b"4") => RetryOn::GRPC_DEADLINE_EXCEEDED,
        Some(b"8") => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        Some(b"13") => RetryOn::GRPC_INTERNAL,
        Some(b"14") => RetryOn::GRPC_UNAVAILABLE,
        _ => RetryOn::NONE,
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::matcher::{
        HeaderMatcher, HeaderRef, HeaderRule, StringMatcher, StringPattern,
    };

    const RESET: Failure = Failure::Reset { request_sent: true };
    const EARLY_RESET: Failure = Failure::Reset { request_sent: false };

    fn policy(words: &str) -> RetryPolicy {
        let (on, retriable_status_codes) = RetryOn::parse(words);
        RetryPolicy { on, retriable_status_codes, num_retries: 2, ..RetryPolicy::default() }
    }

    fn state<'p>(policy: &'p RetryPolicy, method: &Method) -> RetryState<'p> {
        RetryState::new(Some(policy), Overrides::default(), method, &HeaderMap::new())
    }

    fn outcome(decision: Decision) -> &'static str {
        match decision {
            Decision::Retry { .. } => "retry",
            Decision::No(refusal) => refusal.as_str(),
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    /// The table of this file's head, whole: for each failure the words that retry a GET and a POST.
    #[test]
    fn method_failure_and_policy_decide_together() {
        let words = [
            "connect-failure",
            "refused-stream",
            "reset-before-request",
            "reset",
            "5xx",
            "gateway-error",
            "retriable-4xx",
            "envoy-ratelimited",
            "unavailable",
        ];
        for (failure, get, post) in [
            (Failure::Overflow, &[][..], &[][..]),
            (Failure::Connect, &[0, 2, 3, 4, 5], &[0, 2, 3, 4, 5]),
            (Failure::Refused, &[1, 3, 4, 5], &[1, 3, 4, 5]),
            (EARLY_RESET, &[2, 3, 4, 5], &[2, 3, 4, 5]),
            (RESET, &[3, 4, 5], &[3]),
            (Failure::PerTryTimeout, &[3, 4, 5], &[3]),
        ] {
            for (at, word) in words.iter().enumerate() {
                let policy = policy(word);
                for (method, retried) in [
                    (Method::GET, get),
                    (Method::PUT, get),
                    (Method::DELETE, get),
                    (Method::POST, post),
                    (Method::PATCH, post),
                    (Method::CONNECT, post),
                ] {
                    let decision =
                        state(&policy, &method).after_failure(failure, true, &mut Rng::new());
                    let wanted = match (retried.contains(&at), get.contains(&at)) {
                        (true, _) => "retry",
                        (false, true) => "not_idempotent",
                        (false, false) => "not_retriable",
                    };
                    assert_eq!(outcome(decision), wanted, "{method} {failure:?} {word}");
                }
            }
        }
    }

    #[test]
    fn an_idempotency_key_makes_a_post_repeatable() {
        let policy = policy("5xx");
        for name in ["idempotency-key", "x-idempotency-key"] {
            let headers = headers(&[(name, "1")]);
            let mut state =
                RetryState::new(Some(&policy), Overrides::default(), &Method::POST, &headers);
            assert_eq!(outcome(state.after_failure(RESET, true, &mut Rng::new())), "retry");
        }
    }

    #[test]
    fn responses_are_retried_by_status_and_headers_whatever_the_method() {
        for (words, status, lines, wanted) in [
            ("5xx", 500, &[][..], true),
            ("5xx", 499, &[], false),
            ("gateway-error", 502, &[], true),
            ("gateway-error", 500, &[], false),
            ("retriable-4xx", 409, &[], true),
            ("retriable-4xx", 404, &[], false),
            ("retriable-status-codes,418", 418, &[], true),
            ("retriable-status-codes,418", 417, &[], false),
            ("418", 418, &[], false),
            ("reset", 503, &[], false),
            ("unavailable", 200, &[("grpc-status", "14")], true),
            ("cancelled", 200, &[("grpc-status", "14")], false),
            ("cancelled", 200, &[("grpc-status", "1")], true),
            ("deadline-exceeded", 200, &[("grpc-status", "4")], true),
            ("internal", 200, &[("grpc-status", "13")], true),
            ("resource-exhausted", 200, &[("grpc-status", "8")], true),
            ("unavailable", 200, &[("grpc-status", "0")], false),
            ("5xx", 503, &[("x-envoy-ratelimited", "true")], false),
            ("envoy-ratelimited", 429, &[("x-envoy-ratelimited", "true")], true),
            ("envoy-ratelimited", 429, &[], false),
        ] {
            let policy = policy(words);
            for method in [Method::GET, Method::POST] {
                let status = StatusCode::from_u16(status).unwrap();
                let decision = state(&policy, &method).after_response(
                    status,
                    &headers(lines),
                    true,
                    &mut Rng::new(),
                );
                let wanted = if wanted { "retry" } else { "not_retriable" };
                assert_eq!(outcome(decision), wanted, "{words} {status} {lines:?}");
            }
        }
    }

    #[test]
    fn response_headers_are_matched() {
        let mut policy = policy("retriable-headers");
        policy.retriable_headers = vec![HeaderMatcher {
            header: HeaderRef::Named(HeaderName::from_static("x-again")),
            rule: HeaderRule::Value(StringMatcher::new(StringPattern::Exact("yes".into()), false)),
            invert: false,
            missing_as_empty: false,
        }];
        for (value, wanted) in [("yes", "retry"), ("no", "not_retriable")] {
            let headers = headers(&[("x-again", value)]);
            let decision = state(&policy, &Method::GET).after_response(
                StatusCode::OK,
                &headers,
                true,
                &mut Rng::new(),
            );
            assert_eq!(outcome(decision), wanted);
        }
    }

    #[test]
    fn retries_end_with_the_limit_or_the_body() {
        let policy = policy("5xx");
        let mut state = state(&policy, &Method::GET);
        let rng = &mut Rng::new();
        let mut after = |state: &mut RetryState<'_>, kept| {
            outcome(state.after_response(StatusCode::BAD_GATEWAY, &HeaderMap::new(), kept, rng))
        };
        assert_eq!((state.attempt(), state.may_retry()), (1, true));
        assert_eq!(after(&mut state, false), "body_not_kept");
        assert_eq!(after(&mut state, true), "retry");
        assert_eq!(after(&mut state, true), "retry");
        assert_eq!((state.attempt(), state.may_retry()), (3, false));
        assert_eq!(after(&mut state, true), "limit_exceeded");
    }

    #[test]
    fn callers_add_words_codes_and_headers_and_set_the_number() {
        let overrides = || Overrides {
            retry_on: RetryOn::parse("retriable-status-codes,retriable-headers").0,
            max_retries: Some(3),
            retriable_status_codes: vec![404],
            retriable_headers: vec![HeaderName::from_static("x-again")],
            ..Overrides::default()
        };
        let mut state = RetryState::new(None, overrides(), &Method::GET, &HeaderMap::new());
        let rng = &mut Rng::new();
        let again = headers(&[("x-again", "")]);
        assert_eq!(outcome(state.after_response(StatusCode::OK, &again, true, rng)), "retry");
        let none = HeaderMap::new();
        for wanted in ["retry", "retry", "limit_exceeded"] {
            assert_eq!(
                outcome(state.after_response(StatusCode::NOT_FOUND, &none, true, rng)),
                wanted
            );
        }
        let mut none_asked = RetryState::new(None, Overrides::default(), &Method::GET, &none);
        assert!(!none_asked.may_retry());
        assert_eq!(outcome(none_asked.after_failure(Failure::Connect, true, rng)), "not_retriable");
    }

    #[test]
    fn stale_connections_are_forgiven_but_nothing_is_processed_twice() {
        for (repeatable, reused, stage, wanted) in [
            (true, true, Stage::Unsent, true),
            (true, true, Stage::Sent, true),
            (true, true, Stage::Responding, false),
            (false, true, Stage::Unsent, true),
            (false, true, Stage::Sent, false),
            (false, true, Stage::Responding, false),
            (true, false, Stage::Unsent, false),
            (true, false, Stage::Sent, false),
        ] {
            assert_eq!(may_replay_on_fresh(repeatable, reused, stage), wanted);
        }
    }

    proptest! {
        #[test]
        fn back_off_stays_below_the_doubling_interval(seed: u64, base in 1_u64..500, max in 1_u64..5_000) {
            let policy = RetryPolicy {
                backoff_base: Duration::from_millis(base),
                backoff_max: Duration::from_millis(max),
                num_retries: 70,
                ..policy("5xx")
            };
            let mut state = state(&policy, &Method::GET);
            let mut rng = Rng::with_seed(seed);
            for retry in 0..70 {
                let Decision::Retry { after, .. } = state.after_failure(RESET, true, &mut rng) else {
                    panic!("there are retries left");
                };
                let limit = base.saturating_mul(1_u64.checked_shl(retry).unwrap_or(u64::MAX)).min(max);
                prop_assert!(after <= Duration::from_millis(limit));
            }
        }
    }
}
