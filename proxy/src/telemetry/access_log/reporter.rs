//! Records on their way from the workers to whoever sends them: one bounded queue for each collector.
//!
//! A worker never waits: what does not fit is dropped, and counted.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender, WeakSender};
use xds::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
use xds::opentelemetry::proto::logs::v1::LogRecord;

use crate::config::access_log::{Collector, LogService};
use crate::telemetry::metrics::{AccessLogStats, GrpcAccessLogStats, Metrics};

/// Records that may wait for one collector.
const ROOM: usize = 4096;
/// Collectors that a worker remembers; it asks for others anew.
const REMEMBERED: usize = 16;

/// What is told of one request or connection.
#[derive(Debug)]
pub enum LogItem {
    /// A record in OTLP.
    Record(LogRecord),
    /// An entry about a request.
    Http(Box<HttpAccessLogEntry>),
    /// An entry about a connection.
    Tcp(Box<TcpAccessLogEntry>),
}

/// The statistics of one kind of collectors.
#[derive(Debug, Clone)]
pub enum Stats {
    /// `access_logs.open_telemetry_access_log.*`
    OpenTelemetry(Arc<AccessLogStats>),
    /// `access_logs.grpc_access_log.*`
    Grpc(Arc<GrpcAccessLogStats>),
}

/// The records for one collector, for whoever sends them.
#[derive(Debug)]
pub struct Outbox {
    /// Who collects them.
    pub collector: Arc<Collector>,
    /// They themselves; ends when nobody makes any more.
    pub records: Receiver<LogItem>,
    /// What is counted of them.
    pub stats: Stats,
}

/// All collectors.
#[derive(Debug)]
pub(super) struct Reporters {
    metrics: Arc<Metrics>,
    known: Mutex<Vec<(Arc<Collector>, WeakSender<LogItem>)>>,
    new: UnboundedSender<Outbox>,
}

/// Where records for one collector go.
#[derive(Debug)]
struct Reporter {
    collector: Arc<Collector>,
    queue: Sender<LogItem>,
    stats: Stats,
}

/// The collectors that one worker sends to, the newest last.
#[derive(Debug, Default)]
pub(super) struct Known(RefCell<Vec<Reporter>>);

impl Reporters {
    /// No collectors yet; the second half yields the outbox of each one that comes.
    pub(super) fn new(metrics: Arc<Metrics>) -> (Arc<Self>, UnboundedReceiver<Outbox>) {
        let (new, outboxes) = mpsc::unbounded_channel();
        (Arc::new(Self { metrics, known: Mutex::default(), new }), outboxes)
    }

    fn get(&self, collector: &Arc<Collector>) -> Reporter {
        let stats = match &collector.service {
            LogService::OpenTelemetry { stat_prefix, .. } => {
                Stats::OpenTelemetry(self.metrics.open_telemetry_access_log(stat_prefix))
            }
            LogService::AccessLog(..) => Stats::Grpc(self.metrics.grpc_access_log()),
        };
        let mut known = self.known.lock();
        known.retain(|(_, queue)| queue.strong_count() > 0);
        let open = known.iter().find(|(other, _)| other == collector);
        let queue = open.and_then(|(_, queue)| queue.upgrade()).unwrap_or_else(|| {
            let (queue, records) = mpsc::channel(ROOM);
            known.push((Arc::clone(collector), queue.downgrade()));
            let (collector, stats) = (Arc::clone(collector), stats.clone());
            // Nobody receives it when the process ends.
            let _ = self.new.send(Outbox { collector, records, stats });
            queue
        });
        Reporter { collector: Arc::clone(collector), queue, stats }
    }
}

impl Known {
    /// Hands `record` over, on its way to `collector`.
    pub(super) fn report(
        &self,
        reporters: &Reporters,
        collector: &Arc<Collector>,
        record: LogItem,
    ) {
        let mut known = self.0.borrow_mut();
        let is =
            |it: &Reporter| Arc::ptr_eq(&it.collector, collector) || it.collector == *collector;
        let place = known.iter().position(is).unwrap_or_else(|| {
            if known.len() == REMEMBERED {
                known.remove(0);
            }
            known.push(reporters.get(collector));
            known.len() - 1
        });
        let Some(reporter) = known.get(place) else { return };
        let is_request = matches!(record, LogItem::Http(_));
        let fits = reporter.queue.try_send(record).is_ok();
        match &reporter.stats {
            Stats::OpenTelemetry(stats) if !fits => stats.logs_dropped.inc(),
            Stats::Grpc(stats) if !fits => stats.logs_dropped.inc(),
            // Envoy counts what is told of requests only.
            Stats::Grpc(stats) if is_request => stats.logs_written.inc(),
            Stats::OpenTelemetry(_) | Stats::Grpc(_) => {}
        }
    }
}

impl LogItem {
    /// Its size in bytes, when it is sent.
    pub fn size(&self) -> usize {
        match self {
            Self::Record(record) => record.encoded_len(),
            Self::Http(entry) => entry.encoded_len(),
            Self::Tcp(entry) => entry.encoded_len(),
        }
    }
}
