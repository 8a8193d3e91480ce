//! The end of a stream, reached exactly once however it comes: counted, logged, its connection told.

use std::rc::Rc;

use http::{StatusCode, Version};

use super::stream::Stream;
use super::trace;
use crate::config::access_log::LogKind;
use crate::config::format::millis;
use crate::telemetry::response_flags::ResponseFlags;

/// Ends its stream when dropped. A stream that was not [completed](Finish::completed) by then ended
/// because the client went away.
#[derive(Debug)]
pub struct Finish {
    stream: Rc<Stream>,
    redirected: bool,
}

impl Finish {
    /// Begins to count `stream` as active.
    pub fn begin(stream: Rc<Stream>, version: Version) -> Self {
        let stats = &stream.served.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_active.inc();
        if version == Version::HTTP_2 {
            stats.downstream_rq_http2_total.inc();
        } else {
            stats.downstream_rq_http1_total.inc();
        }
        Self { stream, redirected: false }
    }

    /// The stream.
    pub fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// Notes that the response was handed to the codec whole.
    pub fn completed(&mut self) {
        self.stream.set_ended();
    }

    /// Ends the stream with an answer of `status` that leads to another stream and not to the client.
    pub fn redirect(mut self, status: StatusCode) {
        self.redirected = true;
        self.stream.set_status(status);
        self.stream.set_details("internal_redirect");
        self.stream.set_ended();
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        let stream = &*self.stream;
        let stats = &stream.served.stats;
        if !stream.has_ended() {
            stream.flag(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
            stream.set_details("downstream_remote_disconnect");
            stats.downstream_rq_rx_reset.inc();
        }
        stats.downstream_rq_active.dec();
        if let Some(status) = stream.status()
            && !self.redirected
        {
            stats.response(status.as_u16());
            stats.downstream_rq_time.record(millis(stream.age()));
        }
        tracing::debug!(
            connection = stream.connection.downstream.id,
            stream = stream.id,
            path = stream.head().map(|head| &*head.path),
            status = stream.status().map(|status| status.as_u16()),
            "stream ended"
        );
        trace::finish(stream);
        let worker = &stream.connection.worker;
        for log in &stream.served.config().access_logs {
            worker.log.log(log, LogKind::DownstreamEnd, stream);
        }
        stream.connection.request_ends(stream.timeline.request_end.get().is_some());
    }
}
