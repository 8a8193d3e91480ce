//! How long a stream may live, and what gRPC clients may say about that.

use std::time::Duration;

/// Envoy `RouteAction.MaxStreamDuration`. A route that has it has no other timeout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamDuration {
    /// `max_stream_duration`, in place of the connection manager's; `Some(None)` turns it off.
    pub limit: Option<Option<Duration>>,
    /// `grpc_timeout_header_max`: a request's `grpc-timeout` decides instead, up to this; `Some(None)` is no cap.
    pub grpc_max: Option<Option<Duration>>,
    /// `grpc_timeout_header_offset`: how much less than its `grpc-timeout` a request has.
    pub grpc_offset: Duration,
}

/// The deprecated `max_grpc_timeout` and `grpc_timeout_offset`: the timeout of gRPC requests is what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// The longest that they may say; none is no cap.
    pub max: Option<Duration>,
    /// How much less they have, if that leaves anything.
    pub offset: Duration,
}
