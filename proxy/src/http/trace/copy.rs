//! The span of a copy of a request that goes to another cluster: part of the request's own, and called `mirror`.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use http::HeaderMap;

use super::{tags, trace_state};
use crate::config::Name;
use crate::config::address::HostAddress;
use crate::http::stream::Stream;
use crate::telemetry::response_flags::ResponseFlags;
use crate::telemetry::trace::span::{Kind, Span, Tags, tag};
use crate::telemetry::trace::{Reporter, TraceContext};

/// The span of one copy; none where its request has none. It ends when this is dropped.
#[derive(Debug)]
pub struct CopySpan(Option<Box<Open>>);

/// A span that has not ended.
#[derive(Debug)]
struct Open {
    context: TraceContext,
    trace_state: String,
    start: SystemTime,
    reporter: Reporter,
    /// Its cluster, and what that is called in statistics.
    cluster: [Name; 2],
    host: RefCell<Option<HostAddress>>,
    status: Cell<u16>,
    flags: Cell<ResponseFlags>,
}

impl CopySpan {
    /// Begins the span of a copy of the request of `stream` for `cluster`, which is the name of one and what it is called
    /// in statistics. `sampled` decides in place of the request whether it is reported (Envoy's `trace_sampled`).
    /// Tells the copy's `headers` of it.
    pub fn begin(
        stream: &Stream,
        cluster: [Name; 2],
        sampled: Option<bool>,
        headers: &mut HeaderMap,
    ) -> Self {
        let reporter = stream.served.tracer.as_ref().and_then(|tracer| tracer.reporter.as_ref());
        let parent = stream.traced().and_then(|traced| traced.span);
        let (Some(reporter), Some((parent, _))) = (reporter, parent) else { return Self(None) };
        let context = TraceContext {
            span_id: stream.connection.worker.with_random(|random| random.u64(1..)),
            parent_id: Some(parent.span_id),
            sampled: sampled.unwrap_or(parent.sampled),
            ..parent
        };
        super::pass_on(stream, Some(context), headers);
        // One that is not reported costs its headers.
        Self(context.sampled.then(|| {
            Box::new(Open {
                context,
                trace_state: trace_state(stream).to_owned(),
                start: SystemTime::now(),
                reporter: reporter.clone(),
                cluster,
                host: RefCell::default(),
                status: Cell::default(),
                flags: Cell::default(),
            })
        }))
    }

    /// The copy goes to this endpoint.
    pub fn sent_to(&self, host: &HostAddress) {
        if let Some(open) = &self.0 {
            *open.host.borrow_mut() = Some(host.clone());
        }
    }

    /// The head of an answer came.
    pub fn answered(&self, status: u16) {
        if let Some(open) = &self.0 {
            open.status.set(status);
        }
    }

    /// No answer came, which stands for this `status`.
    pub fn failed(&self, status: u16, flags: ResponseFlags) {
        if let Some(open) = &self.0 {
            open.status.set(status);
            open.flags.set(flags);
        }
    }
}

impl Open {
    fn end(self) {
        let mut tags = Tags::default();
        // As Envoy has it, whatever is spoken.
        tags.set(tag::PROTOCOL, "HTTP/1.1");
        if let Some(host) = self.host.into_inner() {
            tags.set(tag::UPSTREAM_ADDRESS, host.to_string());
            tags.set(tag::PEER_ADDRESS, host.to_string());
        }
        let [cluster, stat_name] = self.cluster;
        tags.set(tag::UPSTREAM_CLUSTER, cluster.to_string());
        tags.set(tag::UPSTREAM_CLUSTER_NAME, stat_name.to_string());
        let outcome = tags::Outcome { status: self.status.get(), flags: self.flags.get() };
        tags::result(&outcome, &mut tags);
        self.reporter.report(Span {
            name: "mirror".to_owned(),
            kind: Kind::Client,
            context: self.context,
            trace_state: self.trace_state,
            start: self.start,
            end: SystemTime::now(),
            events: Vec::new(),
            tags,
        });
    }
}

impl Drop for CopySpan {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.end();
        }
    }
}
