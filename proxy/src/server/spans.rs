//! Spans go to their collectors: in OTLP, or in Zipkin's JSON.

mod otlp;
mod zipkin;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::mpsc::UnboundedReceiver;
use xds::opentelemetry::proto::collector::trace::v1::ExportTraceServiceResponse;

use super::sending::{self, Sending};
use crate::call::{CallError, Caller};
use crate::config::bootstrap::{Bootstrap, Node};
use crate::config::tracing::{Batching, OpenTelemetry, Provider};
use crate::net::own_address;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::reporter::{Outbox, Stats};
use crate::telemetry::trace::span::Span;
use crate::telemetry::trace::{Identity, Reporters};

/// Most reports on their way to one collector.
const REPORTS: u32 = 4;
/// How long a collector has that is not given a time.
const PATIENCE: Duration = Duration::from_secs(5);

/// All collectors of a process that is `node`, and the outbox of each that comes.
pub(super) fn reporters(
    node: &Node,
    bootstrap: &Bootstrap,
    metrics: &Arc<Metrics>,
) -> (Arc<Reporters>, UnboundedReceiver<Outbox>) {
    let (_, zone, _) = &node.locality;
    let identity = Identity {
        node: node.id.as_str().into(),
        cluster: node.cluster.as_str().into(),
        zone: zone.as_str().into(),
        address: own_address(),
    };
    Reporters::new(identity, bootstrap.tracing.clone(), Arc::clone(metrics))
}

/// Sends what arrives in the outboxes.
pub(super) fn send(outboxes: UnboundedReceiver<Outbox>, caller: Rc<Caller>) -> Sending {
    Sending::start(outboxes, move |outbox: Outbox| {
        let Outbox { provider, identity, batching, spans, stats } = outbox;
        let caller = Rc::clone(&caller);
        sending::send_all(Collector { caller, provider, identity, batching, stats }, spans)
    })
}

/// One collector.
struct Collector {
    caller: Rc<Caller>,
    provider: Arc<Provider>,
    identity: Arc<Identity>,
    batching: Batching,
    stats: Stats,
}

impl sending::Collector for Collector {
    type Item = Span;
    const AT_ONCE: usize = 512;

    fn reports(&self) -> u32 {
        REPORTS
    }

    fn interval(&self) -> Duration {
        self.batching.interval
    }

    fn size(_: &Span) -> usize {
        1
    }

    fn enough(&self) -> usize {
        self.batching.min_spans
    }

    fn timer_flushed(&self) {
        match &self.stats {
            Stats::OpenTelemetry(stats) => stats.timer_flushed.inc(),
            Stats::Zipkin(stats) => stats.timer_flushed.inc(),
        }
    }

    async fn report(&self, spans: Vec<Span>) {
        let sent = spans.len() as u64;
        match &self.stats {
            Stats::OpenTelemetry(stats) => stats.spans_sent.add(sent),
            Stats::Zipkin(stats) => stats.spans_sent.add(sent),
        }
        match &*self.provider {
            Provider::OpenTelemetry(config) => self.export(config, &spans).await,
            Provider::Zipkin(config) => {
                let body = zipkin::report(&self.identity, &spans, config.shared_span_context);
                let body = body.into_bytes();
                let (caller, service) = (&self.caller, &config.collector);
                let answer = sending::otlp::post(caller, service, "application/json", body, None);
                self.count(&answer.await.map(|(status, _)| status));
            }
        }
    }
}

impl Collector {
    async fn export(&self, config: &OpenTelemetry, spans: &[Span]) {
        let Some(collector) = &config.collector else { return };
        let request = otlp::request(&config.resource, spans);
        let answer: Result<ExportTraceServiceResponse, _> =
            sending::otlp::export(&self.caller, collector, otlp::METHOD, &request, PATIENCE).await;
        if let Err(reason) = answer {
            tracing::debug!(spans = spans.len(), reason, "spans were not taken");
        }
    }

    /// Counts what became of a report in Zipkin's protocol.
    fn count(&self, answer: &Result<StatusCode, CallError>) {
        let Stats::Zipkin(stats) = &self.stats else { return };
        match answer {
            Ok(StatusCode::ACCEPTED) => stats.reports_sent.inc(),
            Err(CallError::NoCluster(_)) => stats.reports_skipped_no_cluster.inc(),
            Err(CallError::Broken(_) | CallError::TooLong(_)) => stats.reports_failed.inc(),
            // In Envoy a router answers, with 503 or 504, where no collector does.
            Ok(_)
            | Err(
                CallError::NoHost(_)
                | CallError::Connect(_)
                | CallError::Send(_)
                | CallError::Timeout(_),
            ) => stats.reports_dropped.inc(),
        }
    }
}
