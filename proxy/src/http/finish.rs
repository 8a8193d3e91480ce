//! The end of a stream, reached exactly once however it comes: counted, logged, its connection told.

use std::rc::Rc;
use std::time::Duration;

use http::{StatusCode, Version};
use tokio::task::AbortHandle;

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
    /// Logs it every so often while it is served.
    _periodic: Option<Periodic>,
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
        let interval = stream.served.config().log_options.interval;
        let periodic = interval.map(|interval| Periodic::start(&stream, interval));
        Self { stream, redirected: false, _periodic: periodic }
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
        stream.log(LogKind::DownstreamEnd);
        stream.connection.request_ends(stream.timeline.request_end.get().is_some());
    }
}

impl Stream {
    /// Logs it now.
    pub fn log(&self, kind: LogKind) {
        for log in &self.served.config().access_logs {
            self.connection.worker.log.log(log, kind, self);
        }
    }
}

/// What logs a stream every so often, until it is dropped.
#[derive(Debug)]
struct Periodic(AbortHandle);

impl Periodic {
    fn start(stream: &Rc<Stream>, interval: Duration) -> Self {
        let stream = Rc::downgrade(stream);
        let logging = async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(stream) = stream.upgrade() else { return };
                stream.log(LogKind::DownstreamPeriodic);
            }
        };
        Self(tokio::task::spawn_local(logging).abort_handle())
    }
}

impl Drop for Periodic {
    fn drop(&mut self) {
        self.0.abort();
    }
}
