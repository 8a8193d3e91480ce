//! The span of one attempt to have a request answered: reported when it ends, however that comes.

use std::rc::Rc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};

use super::tags::{self, Outcome};
use super::{Tracer, is_recorded, trace_state, upstream_operation};
use crate::http::ends;
use crate::http::names::{GRPC_MESSAGE, GRPC_STATUS};
use crate::http::stream::Stream;
use crate::telemetry::response_flags::ResponseFlags;
use crate::telemetry::trace::TraceContext;
use crate::telemetry::trace::span::{Kind, Span, Tags, tag};

/// The span of an attempt. It counts as given up unless it has failed or was answered whole.
#[derive(Debug, Default)]
pub struct Attempt(Option<Box<Open>>);

/// A span that has not ended.
#[derive(Debug)]
struct Open {
    stream: Rc<Stream>,
    context: TraceContext,
    start: SystemTime,
    tags: Tags,
    status: u16,
    flags: ResponseFlags,
    over: bool,
}

impl Attempt {
    /// Begins attempt number `number`, counted from 1, of the request of `stream`; without a span of its own unless
    /// there is to be one.
    pub fn begin(stream: &Rc<Stream>, number: u32) -> Self {
        let tracer = stream.served.tracer.as_ref();
        let wanted = tracer.is_some_and(|tracer| tracer.config.spawn_upstream_span);
        let parent = stream.traced().and_then(|traced| traced.span).filter(|_| wanted);
        let Some((parent, _)) = parent else { return Self(None) };
        let context = TraceContext {
            span_id: stream.connection.worker.with_random(|random| random.u64(1..)),
            parent_id: Some(parent.span_id),
            ..parent
        };
        let mut tags = Tags::default();
        if number > 1 {
            tags.set(tag::RETRY_COUNT, (number - 1).to_string());
        }
        Self(Some(Box::new(Open {
            stream: Rc::clone(stream),
            context,
            start: SystemTime::now(),
            tags,
            status: 0,
            flags: ResponseFlags::default(),
            over: false,
        })))
    }

    /// Its place in its trace, if it has a span of its own.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|open| open.context)
    }

    /// The head of a response came.
    pub fn answered(&mut self, status: u16, headers: &HeaderMap) {
        if let Some(open) = self.recorded() {
            open.status = status;
            open.grpc(headers);
        }
    }

    /// It failed for this reason, which is Envoy's reset reason.
    pub fn failed(&mut self, reason: &'static str, flags: ResponseFlags) {
        if let Some(open) = self.recorded() {
            open.tags.set(tag::ERROR, "true");
            open.tags.set(tag::ERROR_REASON, reason);
            open.flags = flags;
            open.over = true;
        }
    }

    /// It was answered whole.
    pub fn completed(&mut self) {
        if let Some(open) = self.recorded() {
            let stream = Rc::clone(&open.stream);
            stream.with_trailers(|trailers| open.grpc(trailers));
            open.over = true;
        }
    }

    fn recorded(&mut self) -> Option<&mut Open> {
        self.0.as_deref_mut().filter(|open| is_recorded(&open.stream))
    }
}

impl Open {
    fn grpc(&mut self, headers: &HeaderMap) {
        let said = |name| headers.get(name).map(|value: &HeaderValue| tags::text(value.as_bytes()));
        tags::grpc(said(GRPC_STATUS).as_deref(), said(GRPC_MESSAGE).as_deref(), &mut self.tags);
    }

    fn end(mut self, tracer: &Tracer) -> Option<Span> {
        let stream = Rc::clone(&self.stream);
        if !self.over {
            self.tags.set(tag::CANCELED, "true");
        }
        let mut tags = self.tags;
        let cluster = {
            let upstream = stream.upstream.borrow();
            tags.set(tag::PROTOCOL, upstream.version.map_or("-", ends::version));
            if let Some(host) = &upstream.host {
                tags.set(tag::UPSTREAM_ADDRESS, host.to_string());
                tags.set(tag::PEER_ADDRESS, host.to_string());
            }
            upstream.cluster.clone()?
        };
        tags::common(&stream, &Outcome { status: self.status, flags: self.flags }, &mut tags);
        tags::custom(&stream, tracer, &mut tags);
        let name = upstream_operation(tracer, stream.taken_route())
            .and_then(|format| tags::formatted(&*stream, format));
        let stat_name = tags.get(tag::UPSTREAM_CLUSTER_NAME).unwrap_or(&cluster);
        Some(Span {
            name: name.unwrap_or_else(|| format!("router {stat_name} egress")),
            kind: Kind::Client,
            context: self.context,
            trace_state: trace_state(&stream).to_owned(),
            start: self.start,
            end: SystemTime::now(),
            events: if tracer.config.verbose { tags::events(&stream, false) } else { Vec::new() },
            tags,
        })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let stream = Rc::clone(&open.stream);
        let Some(tracer) = &stream.served.tracer else { return };
        let Some(reporter) = tracer.reporter.as_ref().filter(|_| is_recorded(&stream)) else {
            return;
        };
        if let Some(span) = open.end(tracer) {
            reporter.report(span);
        }
    }
}
