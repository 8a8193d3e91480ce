//! Headers that Envoy keeps as a single field: a value appended to one of them is joined with a comma, where
//! any other header gets a second field. The lists are what Envoy 1.40 was seen to do.

use http::header::HeaderName;

/// Whether a value appended to `name` of a request is joined to the one there is.
pub(super) fn of_requests(name: &HeaderName) -> bool {
    REQUEST.binary_search(&name.as_str()).is_ok() || BOTH.binary_search(&name.as_str()).is_ok()
}

/// Whether a value appended to `name` of a response is joined to the one there is.
pub(super) fn of_responses(name: &HeaderName) -> bool {
    RESPONSE.binary_search(&name.as_str()).is_ok() || BOTH.binary_search(&name.as_str()).is_ok()
}

/// In both messages; ordered, as are the other lists.
const BOTH: [&str; 8] = [
    "cache-control",
    "content-encoding",
    "content-type",
    "proxy-status",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-request-id",
];

const REQUEST: [&str; 32] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authentication",
    "authorization",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "referer",
    "te",
    "user-agent",
    "x-client-trace-id",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

const RESPONSE: [&str; 19] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "vary",
    "x-envoy-degraded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-service-time",
];

#[cfg(test)]
mod tests {
    use super::{BOTH, REQUEST, RESPONSE};

    #[test]
    fn the_lists_are_in_order() {
        assert!(BOTH.is_sorted() && REQUEST.is_sorted() && RESPONSE.is_sorted());
    }
}
