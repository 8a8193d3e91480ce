//! Access logs: lines are formatted by the worker that served the request and written by one thread.
//!
//! A worker appends lines to its own [`LogBuffer`] and hands over whole blocks: when one is full, or at
//! the latest [`FLUSH_INTERVAL`] after its first line. The queue to the writer is bounded and never waited
//! for: when the disk is slower than the traffic, blocks are dropped and their lines counted.

mod entry;
mod filter;
mod line;
pub mod otlp;
pub mod reporter;
mod writer;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderName;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, mpsc, oneshot};

use super::metrics::Metrics;
use super::response_flags::ResponseFlags;
use crate::config::access_log::{
    AccessLog, EntryKind, LogFormat, LogKind, LogService, LogSink, Logger,
};
use crate::config::format::{Facts, Operator, TimeFormat};
use crate::config::matcher::RequestHead;
use crate::config::metadata::{Metadata, MetadataOf};
use reporter::{Known, LogItem, Outbox, Reporters};
use writer::{Block, Message, Writer};

/// A block is handed over when it has grown to this many bytes.
const BLOCK_SIZE: usize = 16 * 1024;

/// Blocks that may wait for the writer: about 4 MiB.
const QUEUE_LENGTH: usize = 256;

/// A line waits no longer than this for its block to fill.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// What a log line and the filters of a log may ask of a request.
pub trait LogFacts: Facts {
    /// Status of the response; 0 if there was none.
    fn response_code(&self) -> u16;

    /// Time from the request's first byte to the response's last.
    fn duration(&self) -> Duration;

    /// Why the response is what it is.
    fn flags(&self) -> ResponseFlags;

    /// The request's head as forwarded; none if the connection ended before there was one.
    fn request(&self) -> Option<RequestHead<'_>>;

    /// `grpc-status` of the trailers, else of the headers.
    fn grpc_status(&self) -> Option<u16>;

    /// All values of a response header, joined by `,`, if the log said that it needs them.
    fn response_header(&self, name: &HeaderName) -> Option<Vec<u8>> {
        let _ = name;
        None
    }

    /// All values of a response trailer, joined by `,`.
    fn response_trailer(&self, name: &HeaderName) -> Option<Vec<u8>> {
        let _ = name;
        None
    }

    /// Whether the request is a health check that this proxy answers.
    fn is_health_check(&self) -> bool {
        false
    }

    /// Whether the request's trace was sampled.
    fn is_traced(&self) -> bool;

    /// The request's random number.
    fn random(&self) -> u64;
}

/// What happened, and why it is logged now.
struct Event<'a> {
    kind: LogKind,
    facts: &'a dyn LogFacts,
}

impl Facts for Event<'_> {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::AccessLogType => {
                out.extend_from_slice(self.kind.name().as_bytes());
                true
            }
            operator => self.facts.write(operator, out),
        }
    }

    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        self.facts.with_metadata(of, read);
    }

    fn with_filter_state(&self, key: &str, read: &mut dyn FnMut(&Value)) {
        self.facts.with_filter_state(key, read);
    }
}

/// Where access logs go. Cloning gives another handle to the same writer.
#[derive(Debug, Clone)]
pub struct AccessLogger {
    queue: mpsc::Sender<Message>,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    reporters: Arc<Reporters>,
    outboxes: Arc<Mutex<Option<UnboundedReceiver<Outbox>>>>,
}

impl AccessLogger {
    /// Starts the writer's thread, which ends with the last handle.
    pub fn start(metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (queue, blocks) = mpsc::channel(QUEUE_LENGTH);
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(Arc::clone(&metrics), Arc::clone(&reopen));
        std::thread::Builder::new().name("access_log".into()).spawn(move || writer.run(blocks))?;
        let (reporters, outboxes) = Reporters::new(Arc::clone(&metrics));
        let outboxes = Arc::new(Mutex::new(Some(outboxes)));
        Ok(Self { queue, reopen, metrics, reporters, outboxes })
    }

    /// Whether `sink` can be written to; creates a log file that does not exist yet.
    pub fn check(sink: &LogSink) -> std::io::Result<()> {
        writer::open(sink).map(drop)
    }

    /// The outbox of each collector that comes, for the one who sends what is in them: the first who asks.
    pub fn outboxes(&self) -> Option<UnboundedReceiver<Outbox>> {
        self.outboxes.lock().take()
    }

    /// A buffer for the lines of one worker.
    pub fn buffer(&self) -> LogBuffer {
        LogBuffer {
            // Cannot fail: both are specifiers of Envoy's.
            nanoseconds: Operator::StartTime(TimeFormat::parse("%s%9f").unwrap_or_default()),
            known: Known::default(),
            logger: self.clone(),
            blocks: RefCell::default(),
            scratch: RefCell::default(),
            begun: Notify::new(),
        }
    }

    /// Opens every log file again before the next block is written, so that a rotated file is let go of.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // Only wakes an idle writer: one that is behind sees the mark anyway.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Waits until all blocks handed over so far are written; false if that takes longer than `within`.
    pub async fn flush(&self, within: Duration) -> bool {
        let (done, written) = oneshot::channel();
        let flushed =
            async { self.queue.send(Message::Flush(done)).await.is_ok() && written.await.is_ok() };
        tokio::time::timeout(within, flushed).await.unwrap_or(false)
    }

    /// Hands over `lines` lines that are no requests', for rare events.
    pub fn write(&self, sink: LogSink, text: Vec<u8>, lines: u64) {
        self.hand_over(Block { sink, text, lines });
    }

    fn hand_over(&self, block: Block) {
        let (lines, bytes) = (block.lines, i64::try_from(block.text.len()).unwrap_or(i64::MAX));
        let stats = self.metrics.server();
        stats.log_write_total_buffered.add(bytes);
        if self.queue.try_send(Message::Block(block)).is_ok() {
            stats.log_write_buffered.inc();
        } else {
            stats.log_write_total_buffered.add(-bytes);
            stats.log_write_dropped.add(lines);
        }
    }
}

/// The log lines of one worker that were not handed over yet, one block per sink.
#[derive(Debug)]
pub struct LogBuffer {
    logger: AccessLogger,
    blocks: RefCell<Vec<Block>>,
    /// Reused for values that must be escaped before they are appended.
    scratch: RefCell<Vec<u8>>,
    /// A block got its first line.
    begun: Notify,
    known: Known,
    /// How records tell when something began.
    nanoseconds: Operator,
}

impl LogBuffer {
    /// Logs what happened, if the log's filter lets it pass.
    pub fn log(&self, config: &AccessLog, kind: LogKind, facts: &dyn LogFacts) {
        let event = Event { kind, facts };
        if !config.filter.as_ref().is_none_or(|wanted| filter::passes(wanted, &event)) {
            return;
        }
        match &config.logger {
            Logger::Lines { sink, format } => self.line(sink, format, &event),
            Logger::OpenTelemetry { collector, record } => {
                let record = otlp::record(record, &event, &self.nanoseconds);
                self.known.report(&self.logger.reporters, collector, LogItem::Record(record));
            }
            Logger::Grpc { collector, entry } => {
                let item = match collector.service {
                    LogService::AccessLog(_, EntryKind::Tcp) => {
                        LogItem::Tcp(Box::new(entry::tcp(entry, &event, &self.nanoseconds)))
                    }
                    _ => LogItem::Http(Box::new(entry::http(entry, &event, &self.nanoseconds))),
                };
                self.known.report(&self.logger.reporters, collector, item);
            }
        }
    }

    fn line(&self, sink: &LogSink, format: &LogFormat, event: &Event<'_>) {
        let mut blocks = self.blocks.borrow_mut();
        let index = match blocks.iter().position(|block| block.sink == *sink) {
            Some(index) => index,
            None => {
                blocks.push(Block::new(sink.clone()));
                blocks.len() - 1
            }
        };
        let Some(block) = blocks.get_mut(index) else { return };
        line::write(format, event, &mut self.scratch.borrow_mut(), &mut block.text);
        block.lines += 1;
        if block.text.len() >= BLOCK_SIZE {
            self.logger.hand_over(block.take());
        } else if block.lines == 1 {
            self.begun.notify_one();
        }
    }

    /// Hands over every line now.
    pub fn flush(&self) {
        for block in self.blocks.borrow_mut().iter_mut().filter(|block| block.lines > 0) {
            self.logger.hand_over(block.take());
        }
    }

    /// Hands lines over in time; the worker runs this beside its connections.
    pub async fn keep_flushing(&self) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(FLUSH_INTERVAL).await;
            self.flush();
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
