//! Records of access logs go to their collectors: in OTLP, or in the streams of an `AccessLogService`.

mod stream;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use xds::opentelemetry::proto::collector::logs::v1::ExportLogsServiceResponse;
use xds::opentelemetry::proto::logs::v1::LogRecord;

use self::stream::LogStream;
use super::sending::{self, Sending, otlp};
use crate::call::Caller;
use crate::config::access_log::{Collector, LogService};
use crate::config::bootstrap::Node;
use crate::config::service::OtlpCollector;
use crate::telemetry::access_log::otlp as records;
use crate::telemetry::access_log::reporter::{LogItem, Outbox, Stats};
use crate::telemetry::metrics::AccessLogStats;

const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// Most reports on their way to a collector that speaks OTLP.
const REPORTS: u32 = 4;
/// How long a collector has that is not given a time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends what arrives in the outboxes, in the name of `node`.
pub(super) fn send(outboxes: UnboundedReceiver<Outbox>, caller: Rc<Caller>, node: Node) -> Sending {
    let node = Rc::new(node);
    Sending::start(outboxes, move |outbox: Outbox| {
        let Outbox { collector, records, stats } = outbox;
        let destination = Destination::new(&collector, &caller, &node, stats);
        let sender =
            Sender { caller: Rc::clone(&caller), node: Rc::clone(&node), collector, destination };
        sending::send_all(sender, records)
    })
}

/// What sends the records for one collector.
struct Sender {
    caller: Rc<Caller>,
    node: Rc<Node>,
    collector: Arc<Collector>,
    destination: Destination,
}

enum Destination {
    OpenTelemetry(OtlpCollector, Arc<AccessLogStats>),
    AccessLog(LogStream),
    /// The statistics are another collector's, which does not happen.
    Nowhere,
}

impl Destination {
    fn new(collector: &Collector, caller: &Rc<Caller>, node: &Rc<Node>, stats: Stats) -> Self {
        match (&collector.service, stats) {
            (LogService::OpenTelemetry { collector, .. }, Stats::OpenTelemetry(stats)) => {
                Self::OpenTelemetry(collector.clone(), stats)
            }
            (LogService::AccessLog(service, _), Stats::Grpc(stats)) => {
                let (caller, node) = (Rc::clone(caller), Rc::clone(node));
                let name = Arc::clone(&collector.log_name);
                Self::AccessLog(LogStream::new(caller, service.clone(), node, name, stats))
            }
            _ => Self::Nowhere,
        }
    }
}

impl sending::Collector for Sender {
    type Item = LogItem;
    const AT_ONCE: usize = 1024;

    /// The messages of a stream go one after the other.
    fn reports(&self) -> u32 {
        match self.destination {
            Destination::OpenTelemetry(..) => REPORTS,
            Destination::AccessLog(_) | Destination::Nowhere => 1,
        }
    }

    fn interval(&self) -> Duration {
        self.collector.flush_interval
    }

    fn size(item: &LogItem) -> usize {
        item.size()
    }

    fn enough(&self) -> usize {
        self.collector.buffer_size
    }

    async fn report(&self, items: Vec<LogItem>) {
        match &self.destination {
            Destination::OpenTelemetry(service, stats) => self.export(items, service, stats).await,
            Destination::AccessLog(stream) => stream.report(items).await,
            Destination::Nowhere => {}
        }
    }

    async fn finish(&self) {
        if let Destination::AccessLog(stream) = &self.destination {
            stream.finish().await;
        }
    }
}

impl Sender {
    async fn export(&self, items: Vec<LogItem>, service: &OtlpCollector, stats: &AccessLogStats) {
        let records: Vec<LogRecord> = items.into_iter().filter_map(record).collect();
        let count = records.len() as u64;
        let request = records::request(&self.collector, &self.node, records);
        let answer: Result<ExportLogsServiceResponse, _> =
            otlp::export(&self.caller, service, METHOD, &request, PATIENCE).await;
        let rejected = match answer {
            Ok(answer) => answer.partial_success.map_or(0, |partial| partial.rejected_log_records),
            Err(reason) => {
                tracing::debug!(records = count, reason, "access-log records were not taken");
                i64::MAX
            }
        };
        let dropped = u64::try_from(rejected).unwrap_or(0).min(count);
        stats.logs_dropped.add(dropped);
        stats.logs_written.add(count - dropped);
    }
}

fn record(item: LogItem) -> Option<LogRecord> {
    match item {
        LogItem::Record(record) => Some(record),
        LogItem::Http(_) | LogItem::Tcp(_) => None,
    }
}
