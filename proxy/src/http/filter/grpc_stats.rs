//! `grpc_stats`: counts gRPC calls and the messages of both sides, for their cluster, service and method.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use super::Memory;
use super::passage::{Answering, Passage};
use crate::config::grpc_stats::{GrpcMethods, GrpcStats as Config};
use crate::http::dynamic::Live;
use crate::http::head::is_grpc;
use crate::http::stream::Stream;
use crate::net::body::{BoxBody, BoxError};
use crate::telemetry::metrics::{GrpcStats, GrpcUpstreamStats};
use crate::worker::Worker;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What the counts are kept under in filter state.
const STATE: &str = "envoy.filters.http.grpc_stats";

/// A call that is counted.
#[derive(Debug)]
pub(super) struct Call {
    stream: Weak<Stream>,
    stats: Option<Arc<GrpcStats>>,
    upstream: Option<Arc<GrpcUpstreamStats>>,
    requests: Cell<u64>,
    responses: Cell<u64>,
}

impl Call {
    fn message(&self, direction: Direction, count: u64) {
        if count == 0 {
            return;
        }
        let messages = match direction {
            Direction::Request => &self.requests,
            Direction::Response => &self.responses,
        };
        messages.set(messages.get() + count);
        if let Some(stats) = &self.stats {
            match direction {
                Direction::Request => stats.request_message_count.add(count),
                Direction::Response => stats.response_message_count.add(count),
            }
        }
    }

    /// Counts the end of the call, if these headers or trailers are that.
    fn ends(&self, headers: &HeaderMap) {
        let Some(status) = headers.get(&GRPC_STATUS) else { return };
        if let Some(stats) = &self.stats {
            stats.ended(status.to_str().ok().and_then(|status| status.parse().ok()));
        }
        if let (Some(upstream), Some(stream)) = (&self.upstream, self.stream.upgrade()) {
            let begin = stream.timeline.upstream_begin.get();
            if let Some(begin) = begin {
                upstream.upstream_rq_time.record(begin.elapsed().as_millis() as u64);
            }
        }
    }
}

/// Envoy's message `FilterObject` in JSON, where large numbers are texts.
impl Live for Call {
    fn value(&self) -> Value {
        json!({
            "requestMessageCount": self.requests.get().to_string(),
            "responseMessageCount": self.responses.get().to_string(),
        })
    }
}

/// Begins to count a request, if it is a gRPC call to a cluster.
pub(super) fn request(config: &Config, request: &mut Passage<'_>) -> Memory {
    let head = request.head();
    if !is_grpc(&head.headers) {
        return Memory::Nothing;
    }
    let stream = request.stream;
    let clusters = &stream.served.snapshot.clusters;
    let cluster = request.cluster().and_then(|name| clusters.get(name));
    let (Some(cluster), Some((service, method))) = (cluster, method(&head.path)) else {
        return Memory::Nothing;
    };
    let worker: &Worker = &stream.connection.worker;
    let (service, method) = match &config.methods {
        GrpcMethods::All => (service, method),
        GrpcMethods::These(known) if known.get(service).is_some_and(|it| it.contains(method)) => {
            (service, method)
        }
        GrpcMethods::These(_) => ("", ""),
    };
    let service = match config.replaces_dots {
        true => service.replace('.', "_").into(),
        false => service.into(),
    };
    let key = (Arc::clone(&cluster.config.stat_name), service, method.into());
    let stats = worker.filter_stats.grpc(&key);
    let upstream = config.upstream.then(|| worker.filter_stats.grpc_upstream(&key)).flatten();
    if stats.is_none() && !config.emits_state {
        return Memory::Nothing;
    }
    let call = Rc::new(Call {
        stream: Rc::downgrade(stream),
        stats,
        upstream,
        requests: Cell::new(0),
        responses: Cell::new(0),
    });
    if config.emits_state {
        let call = Rc::clone(&call);
        stream.dynamic_mut().set_live_state(STATE, call);
    }
    if !request.body.is_end_stream() {
        let call = Rc::clone(&call);
        request.body.wrap(|body| Box::new(Counted::new(body, call, Direction::Request)));
    }
    Memory::GrpcCall(call)
}

/// Counts the answer.
pub(super) fn response(call: &Rc<Call>, answer: &mut Answering<'_>) {
    call.ends(answer.headers);
    if !answer.is_bodiless && answer.status == StatusCode::OK && is_grpc(answer.headers) {
        let call = Rc::clone(call);
        answer.wraps.push(|body| Box::new(Counted::new(body, call, Direction::Response)));
    }
}

/// The service and the method that a path names.
pub(super) fn method(path: &str) -> Option<(&str, &str)> {
    let path = path.as_bytes().split(|byte| *byte == b'?').next()?;
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(method), None) => {
            Some((std::str::from_utf8(service).ok()?, std::str::from_utf8(method).ok()?))
        }
        _ => None,
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Request,
    Response,
}

/// A body whose messages are counted as they pass.
struct Counted {
    body: BoxBody,
    call: Rc<Call>,
    direction: Direction,
    frames: Frames,
}

impl Counted {
    fn new(body: BoxBody, call: Rc<Call>, direction: Direction) -> Self {
        Self { body, call, direction, frames: Frames::default() }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                this.call.message(this.direction, this.frames.pass(data));
            } else if let (Some(trailers), Direction::Response) =
                (frame.trailers_ref(), this.direction)
            {
                this.call.ends(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds where messages begin (gRPC over HTTP/2, "Length-Prefixed-Message").
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the current message's five that say its length.
    prefix: u8,
    length: u32,
    /// Bytes of its content that have yet to come.
    left: u64,
}

impl Frames {
    /// How many messages begin in `data`: one has begun once its length is there.
    fn pass(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((&byte, rest)) = data.split_first() {
            if self.left > 0 {
                let content = usize::try_from(self.left).unwrap_or(data.len()).min(data.len());
                self.left -= content as u64;
                data = data.get(content..).unwrap_or_default();
                continue;
            }
            if self.prefix > 0 {
                self.length = (self.length << 8) | u32::from(byte);
            }
            self.prefix += 1;
            if self.prefix == 5 {
                self.left = self.length.into();
                (self.prefix, self.length) = (0, 0);
                begun += 1;
            }
            data = rest;
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_name_a_service_and_a_method() {
        assert_eq!(method("/a.B/C?q"), Some(("a.B", "C")));
        for path in ["/", "/a", "/a/b/c", ""] {
            assert_eq!(method(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            lengths in prop::collection::vec(0_usize..600, 0..20),
            cut in 1_usize..50,
        ) {
            let mut all = Vec::new();
            for length in &lengths {
                all.push(0);
                all.extend_from_slice(&u32::try_from(*length).unwrap().to_be_bytes());
                all.resize(all.len() + length, 0xff);
            }
            let mut frames = Frames::default();
            let counted: u64 = all.chunks(cut).map(|piece| frames.pass(piece)).sum();
            prop_assert_eq!(counted, lengths.len() as u64);
        }
    }
}
