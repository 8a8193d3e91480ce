//! The stream to an `AccessLogService`: opened when there is something to say, and anew when it is over.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Mutex;
use xds::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
};
use xds::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};

use crate::call::{Caller, grpc};
use crate::config::Name;
use crate::config::bootstrap::Node;
use crate::config::service::GrpcService;
use crate::discovery::identity::identity;
use crate::telemetry::access_log::reporter::LogItem;
use crate::telemetry::metrics::GrpcAccessLogStats;

const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// One service, and the stream to it.
pub(super) struct LogStream {
    caller: Rc<Caller>,
    service: GrpcService,
    node: Rc<Node>,
    log_name: Name,
    stats: Arc<GrpcAccessLogStats>,
    open: Mutex<Option<Open>>,
}

struct Open {
    messages: grpc::Outgoing<StreamAccessLogsMessage>,
    answers: grpc::Incoming<StreamAccessLogsResponse>,
}

impl LogStream {
    pub(super) fn new(
        caller: Rc<Caller>,
        service: GrpcService,
        node: Rc<Node>,
        log_name: Name,
        stats: Arc<GrpcAccessLogStats>,
    ) -> Self {
        Self { caller, service, node, log_name, stats, open: Mutex::default() }
    }

    /// Tells the service of `items`. A stream that turns out to be over is opened anew, once.
    pub(super) async fn report(&self, items: Vec<LogItem>) {
        let count = items.len() as u64;
        let mut open = self.open.lock().await;
        let was_open = open.as_mut().is_some_and(|open| !open.answers.is_over());
        let mut message = message(items);
        let mut sent = false;
        if was_open && let Some(open) = &*open {
            sent = open.messages.deliver(&message).await;
        }
        if !sent {
            message.identifier = Some(self.identifier());
            let (messages, answers) =
                grpc::stream(Rc::clone(&self.caller), &self.service, METHOD, grpc::LONGEST_MESSAGE);
            sent = messages.deliver(&message).await;
            *open = sent.then_some(Open { messages, answers });
        }
        if sent {
            self.stats.grpc_entries_flushed.add(count);
        } else {
            tracing::debug!(entries = count, "access-log entries were not taken");
            self.stats.grpc_entries_flush_failed.add(count);
            self.stats.logs_dropped.add(count);
        }
    }

    /// Ends the stream, and waits until the service has seen that.
    pub(super) async fn finish(&self) {
        if let Some(Open { messages, mut answers }) = self.open.lock().await.take() {
            drop(messages);
            while let Ok(Some(_)) = answers.next().await {}
        }
    }

    fn identifier(&self) -> Identifier {
        let node = identity(&self.node);
        Identifier { node: Some(node), log_name: self.log_name.to_string() }
    }
}

/// All of a stream are of one kind.
fn message(items: Vec<LogItem>) -> StreamAccessLogsMessage {
    let (mut http, mut tcp) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            LogItem::Http(entry) => http.push(*entry),
            LogItem::Tcp(entry) => tcp.push(*entry),
            LogItem::Record(_) => {}
        }
    }
    let entries = match http.is_empty() {
        true => LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: tcp }),
        false => LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: http }),
    };
    StreamAccessLogsMessage { identifier: None, log_entries: Some(entries) }
}
