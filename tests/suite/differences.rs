//! Where Outrigger means to differ from Envoy: each with the reason, none by accident.

/// One intended difference.
#[derive(Debug, Clone, Copy)]
pub struct Difference(#[expect(dead_code, reason = "written for readers")] &'static str);

/// A pooled connection may die while a request is on its way to it.
pub const STALE_CONNECTIONS: Difference = Difference(
    "Envoy answers 503 when a reused upstream connection dies before the response; Outrigger sends \
     the request again on a fresh connection where that cannot deliver it twice",
);

/// What SIGTERM does to requests in flight.
pub const GRACEFUL_SIGTERM: Difference = Difference(
    "Envoy cuts requests in flight on SIGTERM; Outrigger stops accepting, finishes them within the \
     drain time and exits with 0",
);

/// What an error in a bootstrap names.
pub const PLACE_OF_ERRORS: Difference = Difference(
    "Envoy names the message of a wrong field, seldom its place; Outrigger names file, line, column \
     and field path",
);

/// Retrying requests that are not idempotent.
pub const POST_IS_NOT_REPEATED: Difference = Difference(
    "Envoy repeats a POST under `retry_on: reset` although the upstream may have acted on it; \
     Outrigger repeats it only if the upstream provably has not",
);

/// A bootstrap edited while the proxy runs.
pub const BOOTSTRAP_IS_WATCHED: Difference = Difference(
    "Envoy reads its bootstrap once; Outrigger takes a changed one while serving, or keeps the last \
     good one and says why",
);

/// Which changes of a file are noticed.
pub const IN_PLACE_WRITES: Difference = Difference(
    "Envoy notices only files moved into place; Outrigger also notices files written in place",
);
