//! Tracing as configured: which requests are traced, what their spans say, who collects them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::format::Format;
use super::matcher::{Fraction, HeaderRef};
use super::metadata::MetadataOf;
use super::rate_limit::MetadataKey;
use super::service::{HttpService, OtlpCollector};

/// What a connection manager says of traces (Envoy `HttpConnectionManager.Tracing`).
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Which requests are traced.
    pub sampling: Sampling,
    /// `verbose`: whether spans tell when what happened.
    pub verbose: bool,
    /// `max_path_tag_length`, in bytes; 256 by default.
    pub max_path_tag_length: usize,
    /// What else spans say, and how they are called.
    pub spans: Spans,
    /// `provider`, or else the bootstrap's; without one requests are marked, and no spans are made.
    pub provider: Option<Arc<Provider>>,
    /// `spawn_upstream_span`, or the router's `start_child_span`: whether each attempt has a span of its own.
    pub spawn_upstream_span: bool,
    /// `no_context_propagation`: whether trace headers go on as they came.
    pub no_context_propagation: bool,
}

/// What spans are called and what else they say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spans {
    /// `custom_tags`
    pub custom_tags: Vec<CustomTag>,
    /// `operation`: the name of spans of requests.
    pub operation: Option<Format>,
    /// `upstream_operation`: the name of spans of attempts.
    pub upstream_operation: Option<Format>,
}

/// What a route says of traces, in place of its connection manager (Envoy `config.route.v3.Tracing`).
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTracing {
    /// Which requests are traced.
    pub sampling: Sampling,
    /// What else spans say; of two tags of one name this one counts.
    pub spans: Spans,
}

/// Shares of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// `client_sampling`, of those with `x-client-trace-id`.
    pub client: Fraction,
    /// `random_sampling`, of those that nobody else wants traced.
    pub random: Fraction,
    /// `overall_sampling`, of those that would be traced.
    pub overall: Fraction,
}

/// How a route calls its spans (Envoy `Decorator`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decorator {
    /// `operation`, not empty.
    pub operation: HeaderValue,
    /// `propagate`: whether the other side is told.
    pub propagate: bool,
}

/// Envoy `type.tracing.v3.CustomTag`.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomTag {
    /// `tag`, not empty.
    pub name: Box<str>,
    /// Its value; spans have no tag whose value is empty.
    pub value: TagValue,
}

/// Where the value of a tag comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum TagValue {
    /// `literal`, or `environment`: what the variable said when the configuration was read.
    Text(Box<str>),
    /// `request_header`
    Header {
        /// Whose first value.
        name: HeaderRef,
        /// If there is none; may be empty.
        default: Box<str>,
    },
    /// `metadata`
    Metadata {
        /// Whose: that of the request, its route, its cluster or its endpoint.
        of: MetadataOf,
        /// Where in it.
        key: MetadataKey,
        /// If nothing is there; may be empty.
        default: Box<str>,
    },
    /// `value`
    Format(Format),
}

/// Who collects spans.
#[derive(Debug, Clone, PartialEq)]
pub enum Provider {
    /// `envoy.config.trace.v3.OpenTelemetryConfig`
    OpenTelemetry(OpenTelemetry),
    /// `envoy.config.trace.v3.ZipkinConfig`
    Zipkin(Zipkin),
}

/// A collector that speaks OTLP.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenTelemetry {
    /// How it is reached; without one, spans are dropped.
    pub collector: Option<OtlpCollector>,
    /// What all spans say of the process they come from: `service_name`, and what `resource_detectors` found.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// `sampler`: which of the requests that may be traced are.
    pub sampler: Option<Sampler>,
    /// `max_cache_size`: most spans that wait to be sent; 1,024 by default.
    pub max_cache_size: usize,
}

/// A sampler of OpenTelemetry.
#[derive(Debug, Clone, PartialEq)]
pub enum Sampler {
    /// `AlwaysOnSamplerConfig`
    AlwaysOn,
    /// `ParentBasedSamplerConfig`: as the caller's span is; without one, as the wrapped sampler says.
    ParentBased(Box<Sampler>),
    /// `TraceIdRatioBasedSamplerConfig`
    TraceIdRatio(Fraction),
}

/// A collector that speaks Zipkin's JSON, version 2.
#[derive(Debug, Clone, PartialEq)]
pub struct Zipkin {
    /// `collector_service`, or what `collector_cluster`, `collector_endpoint` and `collector_hostname` say.
    pub collector: HttpService,
    /// `trace_id_128bit`: whether traces that begin here have long ids.
    pub trace_id_128bit: bool,
    /// `shared_span_context`: whether a span of a server has the id of the client's span; true by default.
    pub shared_span_context: bool,
    /// `trace_context_option`: whether W3C's header is read and written as well.
    pub w3c: bool,
}

/// When spans that wait are sent (Envoy: run-time values `tracing.opentelemetry.*` and `tracing.zipkin.*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// `min_flush_spans`: as soon as there are so many; 5 by default.
    pub min_spans: usize,
    /// `flush_interval_ms`: or else so often; 5 s by default.
    pub interval: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self { min_spans: 5, interval: Duration::from_secs(5) }
    }
}

/// What the bootstrap says of traces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults {
    /// `tracing.http`: the collector of connection managers that name none.
    pub provider: Option<Arc<Provider>>,
    /// When spans go to collectors that speak OTLP.
    pub open_telemetry: Batching,
    /// When spans go to collectors that speak Zipkin's protocol.
    pub zipkin: Batching,
}

impl Sampling {
    /// Everything.
    pub const ALL: Self = {
        let all = Fraction { numerator: 10_000, denominator: 10_000 };
        Self { client: all, random: all, overall: all }
    };
}

impl Spans {
    /// The tags of a request whose route says `over`: each name once.
    pub fn tags<'a>(&'a self, over: Option<&'a Self>) -> impl Iterator<Item = &'a CustomTag> {
        let over = over.map_or(&[][..], |over| &over.custom_tags);
        let replaced = |tag: &CustomTag| over.iter().any(|other| other.name == tag.name);
        over.iter().chain(self.custom_tags.iter().filter(move |tag| !replaced(tag)))
    }
}
