//! What all spans of a request say, be they of the request or of one of its attempts.

use std::time::{Instant, SystemTime};

use http::HeaderName;

use super::Tracer;
use crate::http::names::{GRPC_MESSAGE, GRPC_STATUS};
use crate::http::stream::Stream;
use crate::telemetry::custom_tag::value;
pub(super) use crate::telemetry::custom_tag::{formatted, text};
use crate::telemetry::response_flags::ResponseFlags;
use crate::telemetry::trace::span::{Tags, tag};

/// Response headers that spans need.
pub(super) const OF_RESPONSES: [HeaderName; 2] = [GRPC_STATUS, GRPC_MESSAGE];

/// What became of a request or an attempt.
pub(super) struct Outcome {
    /// The status of the response, 0 if there was none.
    pub(super) status: u16,
    /// What went wrong.
    pub(super) flags: ResponseFlags,
}

/// Says what all spans say.
pub(super) fn common(stream: &Stream, outcome: &Outcome, tags: &mut Tags) {
    if let Some(name) = &stream.upstream.borrow().cluster {
        let spec = stream.served.snapshot.clusters.get(name);
        let stat_name = spec.map_or(name, |spec| &spec.config.stat_name);
        tags.set(tag::UPSTREAM_CLUSTER, name.to_string());
        tags.set(tag::UPSTREAM_CLUSTER_NAME, stat_name.to_string());
    }
    result(outcome, tags);
}

/// Says what became of it.
pub(super) fn result(outcome: &Outcome, tags: &mut Tags) {
    tags.set(tag::COMPONENT, "proxy");
    tags.set(tag::STATUS, outcome.status.to_string());
    let mut flags = Vec::new();
    let any = outcome.flags.write_short(&mut flags);
    tags.set(tag::RESPONSE_FLAGS, if any { text(&flags) } else { "-".to_owned() });
    if outcome.status == 0 || outcome.status >= 500 {
        tags.set(tag::ERROR, "true");
    }
}

/// Says what the configuration wants to be said.
pub(super) fn custom(stream: &Stream, tracer: &Tracer, tags: &mut Tags) {
    let route = stream.taken_route().and_then(|route| route.tracing.as_deref());
    for wanted in tracer.config.spans.tags(route.map(|route| &route.spans)) {
        if let Some(value) = value(stream, &wanted.value) {
            tags.set(wanted.name.to_string(), value);
        }
    }
}

/// Says of a gRPC call how it ended.
pub(super) fn grpc(status: Option<&str>, message: Option<&str>, tags: &mut Tags) {
    let Some(status) = status else { return };
    tags.set(tag::GRPC_STATUS, status.to_owned());
    if let Some(message) = message {
        tags.set(tag::GRPC_MESSAGE, message.to_owned());
    }
    // What Envoy takes for an error of the server.
    if matches!(status, "2" | "4" | "8" | "12" | "13" | "14" | "15") {
        tags.set(tag::ERROR, "true");
    }
}

/// When what happened, on the clock of logs.
pub(super) fn events(stream: &Stream, of_client: bool) -> Vec<(SystemTime, &'static str)> {
    let wall = |at: Option<Instant>| {
        Some(stream.start.wall + at?.saturating_duration_since(stream.start.instant))
    };
    let timeline = &stream.timeline;
    let now = Some(Instant::now());
    let (sent, received) = (timeline.upstream_begin.get(), timeline.response_begin.get());
    let client = |at: Option<Instant>| at.filter(|_| of_client);
    let answered = received.and(now);
    let all = [
        (client(timeline.request_end.get()), "last_downstream_rx_byte_received"),
        (sent, "first_upstream_tx_byte_sent"),
        (timeline.upstream_request_end(), "last_upstream_tx_byte_sent"),
        (received, "first_upstream_rx_byte_received"),
        (answered, "last_upstream_rx_byte_received"),
        (client(received), "first_downstream_tx_byte_sent"),
        (client(now), "last_downstream_tx_byte_sent"),
    ];
    all.into_iter().filter_map(|(at, name)| Some((wall(at)?, name))).collect()
}
