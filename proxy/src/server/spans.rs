//! Spans go to their collectors: in batches, from the control runtime, over clusters like any request.
//!
//! Each collector has a bounded queue and a few reports on their way at most. One that is slow or dead costs spans, and
//! nothing else.

mod otlp;
mod zipkin;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message as _;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use xds::opentelemetry::proto::collector::trace::v1::ExportTraceServiceResponse;

use crate::call::{CallError, Caller, grpc};
use crate::config::bootstrap::{Bootstrap, Node};
use crate::config::format::{Facts, Operator};
use crate::config::service::{GrpcService, HttpService};
use crate::config::tracing::{OtlpCollector, Provider};
use crate::net::body::RequestBody;
use crate::net::own_address;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::reporter::{Outbox, Stats};
use crate::telemetry::trace::span::Span;
use crate::telemetry::trace::{Identity, Reporters};

/// Most spans of one report.
const AT_ONCE: usize = 512;
/// Most reports on their way to one collector.
const REPORTS: u32 = 4;
/// How long a collector has that is not given a time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer of a collector that is read; what it says does not matter.
const LONGEST_ANSWER: usize = 64 << 10;

/// What sends spans.
#[derive(Debug)]
pub(super) struct Sending {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

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

impl Sending {
    /// Sends what arrives in the outboxes.
    pub(super) fn start(mut outboxes: UnboundedReceiver<Outbox>, caller: Rc<Caller>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            let mut sending = JoinSet::new();
            loop {
                tokio::select! {
                    outbox = outboxes.recv() => match outbox {
                        Some(outbox) => drop(sending.spawn_local(send(outbox, Rc::clone(&caller)))),
                        None => break,
                    },
                    _ = &mut stopped => break,
                    // Those that are over need no place any more.
                    Some(_) = sending.join_next() => {}
                }
            }
            while sending.join_next().await.is_some() {}
        });
        Self { stop, task }
    }

    /// Sends what is left, when nobody makes spans any more, for up to `timeout`.
    pub(super) async fn end(self, timeout: Duration) {
        drop(self.stop);
        if tokio::time::timeout(timeout, self.task).await.is_err() {
            tracing::debug!("the last spans could not be sent in time");
        }
    }
}

/// Sends the spans of one outbox, until nobody makes any more.
async fn send(mut outbox: Outbox, caller: Rc<Caller>) {
    let collector = Rc::new(Collector {
        caller,
        provider: outbox.provider,
        identity: outbox.identity,
        stats: outbox.stats,
    });
    let places = Arc::new(Semaphore::new(REPORTS as usize));
    let interval = outbox.batching.interval;
    let mut timer = interval_at(Instant::now() + interval, interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    let mut due = false;
    loop {
        let enough = waiting.len() >= outbox.batching.min_spans || due && !waiting.is_empty();
        let room = AT_ONCE.saturating_sub(waiting.len());
        tokio::select! {
            place = Arc::clone(&places).acquire_owned(), if enough => {
                let Ok(place) = place else { return };
                collector.dispatch(std::mem::take(&mut waiting), place);
                due = false;
            }
            count = outbox.spans.recv_many(&mut waiting, room), if room > 0 => {
                if count == 0 {
                    break;
                }
            }
            _ = timer.tick() => {
                collector.timer_flushed();
                due = true;
            }
        }
    }
    if !waiting.is_empty()
        && let Ok(place) = Arc::clone(&places).acquire_owned().await
    {
        collector.dispatch(waiting, place);
    }
    // All reports have arrived when all places are free.
    drop(places.acquire_many(REPORTS).await);
}

/// One collector.
struct Collector {
    caller: Rc<Caller>,
    provider: Arc<Provider>,
    identity: Arc<Identity>,
    stats: Stats,
}

impl Collector {
    fn timer_flushed(&self) {
        match &self.stats {
            Stats::OpenTelemetry(stats) => stats.timer_flushed.inc(),
            Stats::Zipkin(stats) => stats.timer_flushed.inc(),
        }
    }

    /// Sends one report, which holds `place` until it has arrived.
    fn dispatch(self: &Rc<Self>, spans: Vec<Span>, place: OwnedSemaphorePermit) {
        let sent = spans.len() as u64;
        match &self.stats {
            Stats::OpenTelemetry(stats) => stats.spans_sent.add(sent),
            Stats::Zipkin(stats) => stats.spans_sent.add(sent),
        }
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            this.report(&spans).await;
            drop(place);
        });
    }

    async fn report(&self, spans: &[Span]) {
        match &*self.provider {
            Provider::OpenTelemetry(config) => {
                let request = otlp::request(&config.resource, spans);
                let failure = match &config.collector {
                    Some(OtlpCollector::Grpc(service)) => {
                        let service = introduced(service);
                        let answer = grpc::unary::<ExportTraceServiceResponse>(
                            &self.caller,
                            &service,
                            otlp::METHOD,
                            &request,
                        );
                        answer.await.err().map(|status| status.to_string())
                    }
                    Some(OtlpCollector::Http(service)) => {
                        let body = request.encode_to_vec();
                        let answer = self.post(service, "application/x-protobuf", body).await;
                        answer.err().map(|error| error.to_string())
                    }
                    None => None,
                };
                if let Some(reason) = failure {
                    tracing::debug!(spans = spans.len(), reason, "spans were not taken");
                }
            }
            Provider::Zipkin(config) => {
                let body = zipkin::report(&self.identity, spans, config.shared_span_context);
                let answer = self.post(&config.collector, "application/json", body.into()).await;
                self.count(&answer);
            }
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

    async fn post(
        &self,
        service: &HttpService,
        kind: &'static str,
        body: Vec<u8>,
    ) -> Result<StatusCode, CallError> {
        let uri = &service.uri;
        let mut request = Request::new(RequestBody::full(body.into()));
        *request.method_mut() = Method::POST;
        // Checked when it was read.
        *request.uri_mut() = Uri::try_from(&*uri.path).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, uri.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if matches!(self.stats, Stats::OpenTelemetry(_)) {
            headers.insert(USER_AGENT, HeaderValue::from_static(otlp::USER_AGENT));
        }
        add(service, headers);
        let answer = self.caller.fetch(&uri.cluster, request, uri.timeout, LONGEST_ANSWER).await?;
        Ok(answer.status())
    }
}

/// The service as it is called: with a time, and our name.
fn introduced(service: &GrpcService) -> GrpcService {
    let mut service = service.clone();
    service.timeout = service.timeout.or(Some(PATIENCE));
    service.metadata.push((USER_AGENT, HeaderValue::from_static(otlp::USER_AGENT)));
    service
}

/// Adds what is configured to be added; nothing is known of any request here.
fn add(service: &HttpService, headers: &mut HeaderMap) {
    for header in &service.headers {
        let mut value = Vec::new();
        header.value.render(&Nothing, "", &mut value);
        if let Ok(value) = HeaderValue::from_bytes(&value)
            && (header.keep_empty || !value.is_empty())
        {
            headers.insert(header.name.clone(), value);
        }
    }
}

/// What formats read where there is no request.
struct Nothing;

impl Facts for Nothing {
    fn write(&self, _: &Operator, _: &mut Vec<u8>) -> bool {
        false
    }
}
