//! Records of access logs go to their collectors: in batches, from the control runtime, over clusters like any
//! request.
//!
//! Each collector has a bounded queue and a few reports on their way at most. One that is slow or dead costs
//! records, and nothing else.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use xds::opentelemetry::proto::collector::logs::v1::ExportLogsServiceResponse;
use xds::opentelemetry::proto::logs::v1::LogRecord;

use crate::call::{Caller, grpc};
use crate::config::access_log::Collector;
use crate::config::bootstrap::Node;
use crate::config::service::GrpcService;
use crate::telemetry::access_log::otlp;
use crate::telemetry::access_log::reporter::Outbox;
use crate::telemetry::metrics::AccessLogStats;

const METHOD: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// Most records of one report.
const AT_ONCE: usize = 1024;
/// Most reports on their way to one collector.
const REPORTS: u32 = 4;
/// How long a collector has that is not given a time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What sends records.
#[derive(Debug)]
pub(super) struct Sending {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sending {
    /// Sends what arrives in the outboxes, in the name of `node`.
    pub(super) fn start(
        mut outboxes: UnboundedReceiver<Outbox>,
        caller: Rc<Caller>,
        node: Node,
    ) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let node = Rc::new(node);
        let task = tokio::task::spawn_local(async move {
            let mut sending = JoinSet::new();
            loop {
                tokio::select! {
                    outbox = outboxes.recv() => match outbox {
                        Some(outbox) => {
                            let sender = Sender::new(&outbox, Rc::clone(&caller), Rc::clone(&node));
                            sending.spawn_local(sender.send_all(outbox));
                        }
                        None => break,
                    },
                    _ = &mut stopped => break,
                    // Those that are over need no place any more.
                    Some(_) = sending.join_next() => {}
                }
            }
            while sending.join_next().await.is_some() {}
        });
        Self { stop, task }
    }

    /// Sends what is left, when nobody makes records any more, for up to `timeout`.
    pub(super) async fn end(self, timeout: Duration) {
        drop(self.stop);
        if tokio::time::timeout(timeout, self.task).await.is_err() {
            tracing::debug!("the last access-log records could not be sent in time");
        }
    }
}

/// What sends the records for one collector.
struct Sender {
    caller: Rc<Caller>,
    node: Rc<Node>,
    collector: Arc<Collector>,
    service: GrpcService,
    stats: Arc<AccessLogStats>,
}

impl Sender {
    fn new(outbox: &Outbox, caller: Rc<Caller>, node: Rc<Node>) -> Rc<Self> {
        let (collector, stats) = (Arc::clone(&outbox.collector), Arc::clone(&outbox.stats));
        let timeout = collector.service.timeout.or(Some(PATIENCE));
        let service = GrpcService { timeout, ..collector.service.clone() };
        Rc::new(Self { caller, node, collector, service, stats })
    }

    /// Sends the records of `outbox` until nobody makes any more.
    async fn send_all(self: Rc<Self>, mut outbox: Outbox) {
        let places = Arc::new(Semaphore::new(REPORTS as usize));
        let interval = self.collector.flush_interval;
        let mut timer = interval_at(Instant::now() + interval, interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: Vec<LogRecord> = Vec::new();
        let (mut size, mut due) = (0, false);
        loop {
            let is_full = size >= self.collector.buffer_size || waiting.len() == AT_ONCE;
            let enough = !waiting.is_empty() && (due || is_full);
            tokio::select! {
                place = Arc::clone(&places).acquire_owned(), if enough => {
                    let Ok(place) = place else { return };
                    self.dispatch(std::mem::take(&mut waiting), place);
                    (size, due) = (0, false);
                }
                record = outbox.records.recv(), if waiting.len() < AT_ONCE => match record {
                    Some(record) => {
                        size += record.encoded_len();
                        waiting.push(record);
                    }
                    None => break,
                },
                _ = timer.tick() => due = true,
            }
        }
        if !waiting.is_empty()
            && let Ok(place) = Arc::clone(&places).acquire_owned().await
        {
            self.dispatch(waiting, place);
        }
        // All reports have arrived when all places are free.
        drop(places.acquire_many(REPORTS).await);
    }

    /// Sends one report, which holds `place` until it has arrived.
    fn dispatch(self: &Rc<Self>, records: Vec<LogRecord>, place: OwnedSemaphorePermit) {
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            this.report(records).await;
            drop(place);
        });
    }

    async fn report(&self, records: Vec<LogRecord>) {
        let count = records.len() as u64;
        let request = otlp::request(&self.collector, &self.node, records);
        let answer: Result<ExportLogsServiceResponse, _> =
            grpc::unary(&self.caller, &self.service, METHOD, &request).await;
        let rejected = match answer {
            Ok(answer) => answer.partial_success.map_or(0, |partial| partial.rejected_log_records),
            Err(status) => {
                tracing::debug!(records = count, %status, "access-log records were not taken");
                i64::MAX
            }
        };
        let dropped = u64::try_from(rejected).unwrap_or(0).min(count);
        self.stats.logs_dropped.add(dropped);
        self.stats.logs_written.add(count - dropped);
    }
}
