//! What is counted of spans and their reports.

use super::super::cell::{Cell, SharedCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// All collectors that speak OTLP.
    OpenTelemetryStats {
        /// Spans sent to a collector, whether or not it took them.
        spans_sent: SharedCounter = "tracing.opentelemetry.spans_sent",
        /// Spans dropped because too many were waiting.
        spans_dropped: SharedCounter = "tracing.opentelemetry.spans_dropped",
        /// How often it was time to send what was waiting.
        timer_flushed: SharedCounter = "tracing.opentelemetry.timer_flushed",
    }
}

statistics! {
    /// All collectors that speak Zipkin's protocol.
    ZipkinStats {
        /// Spans sent to a collector, whether or not it took them.
        spans_sent: SharedCounter = "tracing.zipkin.spans_sent",
        /// How often it was time to send what was waiting.
        timer_flushed: SharedCounter = "tracing.zipkin.timer_flushed",
        /// Reports that could not be sent, as there is no such cluster.
        reports_skipped_no_cluster: SharedCounter = "tracing.zipkin.reports_skipped_no_cluster",
        /// Reports taken.
        reports_sent: SharedCounter = "tracing.zipkin.reports_sent",
        /// Reports refused, or that nobody answered.
        reports_dropped: SharedCounter = "tracing.zipkin.reports_dropped",
        /// Reports whose answer broke off.
        reports_failed: SharedCounter = "tracing.zipkin.reports_failed",
    }
}
