//! Names of the headers that the connection manager and the router read, write or take away.

use http::header::HeaderName;

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* pub const $constant: HeaderName = HeaderName::from_static($name);)*
    };
}

names! {
    /// Every address the request came by.
    X_FORWARDED_FOR = "x-forwarded-for";
    /// `http` or `https`, as the client spoke it.
    X_FORWARDED_PROTO = "x-forwarded-proto";
    /// The port the client connected to.
    X_FORWARDED_PORT = "x-forwarded-port";
    /// The host before it was rewritten.
    X_FORWARDED_HOST = "x-forwarded-host";
    /// What is known of the client's certificate.
    X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert";
    /// One id per request, the same on every hop.
    X_REQUEST_ID = "x-request-id";
    /// `true` on requests from inside.
    X_ENVOY_INTERNAL = "x-envoy-internal";
    /// The trusted client address of a request from outside.
    X_ENVOY_EXTERNAL_ADDRESS = "x-envoy-external-address";
    /// How long the upstream has, in milliseconds.
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS = "x-envoy-expected-rq-timeout-ms";
    /// How long the upstream took, in milliseconds.
    X_ENVOY_UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time";
    /// Asks for a trace, and for the request id in the response.
    X_ENVOY_FORCE_TRACE = "x-envoy-force-trace";
    /// A client's own id of a trace, which asks for one.
    X_CLIENT_TRACE_ID = "x-client-trace-id";
    /// The path before it was rewritten.
    X_ENVOY_ORIGINAL_PATH = "x-envoy-original-path";
    /// The host before it was rewritten, by upstream filters.
    X_ENVOY_ORIGINAL_HOST = "x-envoy-original-host";
    /// The URL before an internal redirect.
    X_ENVOY_ORIGINAL_URL = "x-envoy-original-url";
    /// Tags of the client's address.
    X_ENVOY_IP_TAGS = "x-envoy-ip-tags";
    /// The name of the trace span.
    X_ENVOY_DECORATOR_OPERATION = "x-envoy-decorator-operation";
    /// The calling service's cluster.
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER = "x-envoy-downstream-service-cluster";
    /// The calling service's node.
    X_ENVOY_DOWNSTREAM_SERVICE_NODE = "x-envoy-downstream-service-node";
    /// An additional statistics prefix.
    X_ENVOY_UPSTREAM_ALT_STAT_NAME = "x-envoy-upstream-alt-stat-name";
    /// `true` in answers of a host that is a canary.
    X_ENVOY_UPSTREAM_CANARY = "x-envoy-upstream-canary";
    /// A limit on the stream's life.
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS = "x-envoy-upstream-stream-duration-ms";
    /// Whether to race a second attempt.
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT = "x-envoy-hedge-on-per-try-timeout";
    /// The upstream is another proxy whose rate limit refused the request.
    X_ENVOY_RATELIMITED = "x-envoy-ratelimited";
    /// Whether the attempt before this one took too long.
    X_ENVOY_IS_TIMEOUT_RETRY = "x-envoy-is-timeout-retry";
    /// Which attempt this is, starting at 1.
    X_ENVOY_ATTEMPT_COUNT = "x-envoy-attempt-count";
    /// Status of a gRPC call.
    GRPC_STATUS = "grpc-status";
    /// What a gRPC server says of the status.
    GRPC_MESSAGE = "grpc-message";
    /// How long a gRPC call may take.
    GRPC_TIMEOUT = "grpc-timeout";
    /// Connection-level: how long and how often it may be used.
    KEEP_ALIVE = "keep-alive";
    /// Connection-level: a misspelling of `connection`.
    PROXY_CONNECTION = "proxy-connection";
    /// Connection-level: settings of an upgrade to HTTP/2.
    HTTP2_SETTINGS = "http2-settings";
    /// A client's promise that repeating the request does no harm.
    IDEMPOTENCY_KEY = "idempotency-key";
    /// The same, as older clients spell it.
    X_IDEMPOTENCY_KEY = "x-idempotency-key";
}

/// Whether any name of `headers` starts with `x-envoy-`: one cheap walk that spares most requests a
/// look-up for each of the many names with a meaning.
pub fn any_x_envoy(headers: &http::HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-envoy-"))
}
