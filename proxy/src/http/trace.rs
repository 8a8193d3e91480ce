//! Traces of requests: which are traced, which headers say so, and what their spans say. As Envoy 1.40 does it.
//!
//! A request that is not recorded costs its decision and its headers; spans are put together only at the end of those
//! that are.

pub mod attempt;
pub mod copy;
mod request;
mod tags;

use std::sync::Arc;

use fastrand::Rng;
use http::{HeaderMap, HeaderValue};

use super::names::{
    X_CLIENT_TRACE_ID, X_ENVOY_DECORATOR_OPERATION, X_ENVOY_FORCE_TRACE, X_REQUEST_ID,
};
use super::stream::{Head, Stream};
use super::way::Way;
use crate::config::format::Format;
use crate::config::http::{HttpConnectionManager, RequestIdOptions};
use crate::config::route::Route;
use crate::config::tracing::{Decorator, Provider, Sampling, Tracing};
use crate::telemetry::trace::context::{self, B3Context};
use crate::telemetry::trace::decision::{self, Asks};
use crate::telemetry::trace::span::Kind;
use crate::telemetry::trace::{Propagation, Reason, Reporter, TraceContext};
use crate::worker::Worker;

pub use self::request::finish;

/// What traces the requests of a connection.
#[derive(Debug)]
pub struct Tracer {
    config: Arc<Tracing>,
    /// Who gets spans; nobody without a collector.
    reporter: Option<Reporter>,
    /// Whether the listener is for traffic from this machine.
    egress: bool,
}

/// A request's part in a trace.
#[derive(Debug, Clone, Copy)]
pub struct Traced {
    /// Why it is traced, or that it is not.
    pub reason: Reason,
    /// Its span, and in which headers it is passed on; none if there is no span for it.
    pub span: Option<(TraceContext, Propagation)>,
}

impl Tracer {
    /// What traces requests as `config` says, if it says anything.
    pub fn new(worker: &Worker, config: &HttpConnectionManager, egress: bool) -> Option<Self> {
        let config = Arc::clone(config.tracing.as_ref()?);
        let reporter = worker.reporter(config.provider.as_ref());
        Some(Self { config, reporter, egress })
    }

    /// Which side its spans of requests are: where attempts have spans of their own, only those are of a client.
    fn kind(&self) -> Kind {
        if self.egress && !self.config.spawn_upstream_span { Kind::Client } else { Kind::Server }
    }
}

/// Decides whether the request of `stream` is traced, which would go this `way`, and begins its span. Its id
/// remembers the decision.
pub fn begin(stream: &Stream, head: &Head, way: Option<Way<'_>>) {
    let served = &stream.served;
    let Some(tracer) = &served.tracer else { return };
    if let Some(before) = stream.traced() {
        return stream.set_traced(goes_on(stream, before));
    }
    let route = way.and_then(|way| way.table.route(way.found));
    let said = route.and_then(|route| route.tracing.as_deref());
    let sampling = said.map_or(&tracer.config.sampling, |said| &said.sampling);
    let worker = &stream.connection.worker;
    let (reason, id) = decide(&head.headers, served.config().request_id, sampling, worker.random());
    match reason {
        Reason::NotTraceable => served.stats.tracing_not_traceable.inc(),
        Reason::Sampling => served.stats.tracing_random_sampling.inc(),
        Reason::ServiceForced => served.stats.tracing_service_forced.inc(),
        Reason::ClientForced => served.stats.tracing_client_enabled.inc(),
    }
    let span = worker.with_random(|random| start(tracer, &head.headers, reason, random));
    stream.set_traced(Traced { reason, span });
    if let Some(id) = id {
        let mut head = head.clone();
        head.headers.insert(X_REQUEST_ID, id);
        stream.set_head(head);
    }
}

/// The part in a trace of a request that a redirect led to: its span is part of that of the one `before`.
fn goes_on(stream: &Stream, before: Traced) -> Traced {
    let part = |(span, propagation): (TraceContext, Propagation)| {
        let span_id = stream.connection.worker.with_random(|random| random.u64(1..));
        (TraceContext { span_id, parent_id: Some(span.span_id), ..span }, propagation)
    };
    Traced { span: before.span.map(part), ..before }
}

/// Why a request with these headers is traced, and the id that says so if it has another one.
fn decide(
    headers: &HeaderMap,
    options: RequestIdOptions,
    sampling: &Sampling,
    random: u64,
) -> (Reason, Option<HeaderValue>) {
    if !options.decides_sampling {
        return (Reason::Sampling, None);
    }
    let id = headers.get(X_REQUEST_ID).map_or(&b""[..], HeaderValue::as_bytes);
    let asks = Asks {
        client: headers.contains_key(X_CLIENT_TRACE_ID),
        forced: headers.contains_key(X_ENVOY_FORCE_TRACE),
    };
    let Some(reason) = decision::decide(id, sampling, asks, random) else {
        return (Reason::NotTraceable, None);
    };
    let news = options.pack_trace_reason && reason != Reason::of(id);
    let packed = news.then(|| reason.pack(id)).flatten();
    (reason, packed.and_then(|id| HeaderValue::from_bytes(&id).ok()))
}

/// The span of a request with these headers. There is none without a collector, or with a context that cannot be
/// read: that goes on as it came.
fn start(
    tracer: &Tracer,
    headers: &HeaderMap,
    reason: Reason,
    random: &mut Rng,
) -> Option<(TraceContext, Propagation)> {
    match &*tracer.reporter.as_ref()?.provider {
        Provider::OpenTelemetry(config) => {
            let parent = context::w3c(headers).ok()?;
            let trace_id = parent.map_or_else(|| random.u128(1..), |parent| parent.trace_id);
            let sampler = config.sampler.as_ref();
            let recorded = || decision::is_recorded(sampler, parent.as_ref(), trace_id);
            let span = TraceContext {
                trace_id,
                span_id: random.u64(1..),
                parent_id: parent.map(|parent| parent.span_id),
                sampled: reason.is_traced() && recorded(),
            };
            Some((span, Propagation::W3c { fresh: parent.is_none() }))
        }
        Provider::Zipkin(config) => {
            let B3Context { context, sampled, single } = context::b3(headers, config.w3c).ok()?;
            let sampled = sampled.unwrap_or(reason.is_traced());
            let span = match context {
                None => {
                    let span_id = random.u64(1..);
                    let high = if config.trace_id_128bit { random.u64(1..) } else { 0 };
                    let trace_id = u128::from(high) << 64 | u128::from(span_id);
                    TraceContext { trace_id, span_id, parent_id: None, sampled }
                }
                Some(theirs) if config.shared_span_context && tracer.kind() == Kind::Server => {
                    TraceContext { sampled, ..theirs }
                }
                Some(theirs) => TraceContext {
                    trace_id: theirs.trace_id,
                    span_id: random.u64(1..),
                    parent_id: Some(theirs.span_id),
                    sampled,
                },
            };
            Some((span, Propagation::B3 { single, w3c: config.w3c }))
        }
    }
}

/// Tells the upstream which trace the request belongs to, and which span of it: that of the `attempt`, if it has one.
pub fn pass_on(stream: &Stream, attempt: Option<TraceContext>, headers: &mut HeaderMap) {
    let Some(tracer) = &stream.served.tracer else { return };
    if tracer.config.no_context_propagation {
        return;
    }
    if let Some((span, propagation)) = stream.traced().and_then(|traced| traced.span) {
        attempt.unwrap_or(span).write(propagation, headers);
    }
}

/// Tells the upstream what its span is to be called; takes away what this proxy's was to be called.
pub fn decorate_request(stream: &Stream, route: &Route, headers: &mut HeaderMap) {
    let Some(tracer) = &stream.served.tracer else { return };
    if operation(tracer, Some(route)).is_some() {
        return;
    }
    if !tracer.egress {
        headers.remove(X_ENVOY_DECORATOR_OPERATION);
    } else if let Some(Decorator { operation, propagate: true }) = route.decorator.as_deref() {
        headers.insert(X_ENVOY_DECORATOR_OPERATION, operation.clone());
    }
}

/// Tells the client what its span is to be called; takes away what this proxy's was to be called. Keeps what its own
/// span will say of the response.
pub fn decorate_response(stream: &Stream, headers: &mut HeaderMap) {
    let Some(tracer) = &stream.served.tracer else { return };
    if is_recorded(stream) {
        stream.keep_headers(&tags::OF_RESPONSES, headers);
    }
    let route = stream.taken_route();
    if operation(tracer, route).is_some() {
        return;
    }
    if tracer.egress {
        if let Some(operation) = headers.remove(X_ENVOY_DECORATOR_OPERATION)
            && is_recorded(stream)
        {
            stream.set_operation(operation);
        }
    } else if let Some(Decorator { operation, propagate: true }) =
        route.and_then(|route| route.decorator.as_deref())
        && asked_operation(stream).is_none()
    {
        headers.insert(X_ENVOY_DECORATOR_OPERATION, operation.clone());
    }
}

/// Whether spans of the request of `stream` are reported.
fn is_recorded(stream: &Stream) -> bool {
    let span = stream.traced().and_then(|traced| traced.span);
    span.is_some_and(|(span, _)| span.sampled)
}

/// What the client wants the span to be called.
fn asked_operation(stream: &Stream) -> Option<&HeaderValue> {
    let asked = stream.head()?.headers.get(X_ENVOY_DECORATOR_OPERATION);
    asked.filter(|operation| !operation.is_empty())
}

/// What `tracestate` said of the trace, if it goes on here.
fn trace_state(stream: &Stream) -> &str {
    let span = stream.traced().and_then(|traced| traced.span);
    let goes_on = matches!(span, Some((_, Propagation::W3c { fresh: false })));
    let head = stream.head().filter(|_| goes_on);
    head.and_then(|head| context::tracestate(&head.headers)).unwrap_or_default()
}

/// How spans of requests on `route` are called by configuration.
fn operation<'a>(tracer: &'a Tracer, route: Option<&'a Route>) -> Option<&'a Format> {
    let said = route.and_then(|route| route.tracing.as_deref());
    let said = said.and_then(|said| said.spans.operation.as_ref());
    said.or(tracer.config.spans.operation.as_ref())
}

/// How spans of attempts on `route` are called by configuration.
fn upstream_operation<'a>(tracer: &'a Tracer, route: Option<&'a Route>) -> Option<&'a Format> {
    let said = route.and_then(|route| route.tracing.as_deref());
    let said = said.and_then(|said| said.spans.upstream_operation.as_ref());
    said.or(tracer.config.spans.upstream_operation.as_ref())
}
