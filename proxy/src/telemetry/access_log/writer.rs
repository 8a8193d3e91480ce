//! The thread that writes log blocks to files, standard output and standard error.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::BLOCK_SIZE;
use crate::config::access_log::LogSink;
use crate::telemetry::metrics::Metrics;

/// What the workers and the control thread ask of the writer.
#[derive(Debug)]
pub(super) enum Message {
    /// Write this.
    Block(Block),
    /// Say when everything before this is written.
    Flush(oneshot::Sender<()>),
    /// Look whether files are to be opened again.
    Wake,
}

/// Whole lines for one sink.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) sink: LogSink,
    pub(super) text: Vec<u8>,
    pub(super) lines: u64,
}

impl Block {
    pub(super) fn new(sink: LogSink) -> Self {
        Self { sink, text: Vec::new(), lines: 0 }
    }

    /// The lines so far; this block begins anew.
    pub(super) fn take(&mut self) -> Self {
        // The next block will probably grow as large as this one.
        let next = Vec::with_capacity(self.text.len().min(BLOCK_SIZE));
        let text = std::mem::replace(&mut self.text, next);
        Self { sink: self.sink.clone(), text, lines: std::mem::take(&mut self.lines) }
    }
}

/// The writer's own state.
pub(super) struct Writer {
    outputs: HashMap<LogSink, Output>,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

/// A sink and whether the last write to it failed: an error is reported once, not once per block.
struct Output {
    target: Option<Box<dyn Write + Send>>,
    failing: bool,
}

impl Writer {
    pub(super) fn new(metrics: Arc<Metrics>, reopen: Arc<AtomicBool>) -> Self {
        Self { outputs: HashMap::new(), reopen, metrics }
    }

    /// Writes until every sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        while let Some(message) = queue.blocking_recv() {
            if self.reopen.swap(false, Ordering::Acquire) {
                self.reopen();
            }
            match message {
                Message::Block(block) => self.write(&block),
                // Nobody may be waiting any more.
                Message::Flush(done) => drop(done.send(())),
                Message::Wake => {}
            }
        }
    }

    fn write(&mut self, block: &Block) {
        let stats = self.metrics.server();
        stats.log_write_total_buffered.add(-i64::try_from(block.text.len()).unwrap_or(i64::MAX));
        let output = self
            .outputs
            .entry(block.sink.clone())
            .or_insert_with(|| Output { target: None, failing: false });
        match output.write(&block.sink, &block.text) {
            Ok(()) => {
                output.failing = false;
                stats.log_write_completed.inc();
            }
            Err(error) => {
                stats.log_write_failed.inc();
                stats.log_write_dropped.add(block.lines);
                if !std::mem::replace(&mut output.failing, true) {
                    tracing::warn!(
                        "access log {}: {error}; lines are dropped until writing works again \
                         (check space and permissions)",
                        name(&block.sink)
                    );
                }
            }
        }
    }

    /// Opens files anew; one that cannot be opened goes on being written to as it was.
    fn reopen(&mut self) {
        for (sink, output) in &mut self.outputs {
            match open(sink) {
                Ok(target) => output.target = Some(target),
                Err(error) => {
                    self.metrics.server().log_reopen_failed.inc();
                    tracing::warn!("access log {} cannot be opened again: {error}", name(sink));
                }
            }
        }
    }
}

impl Output {
    fn write(&mut self, sink: &LogSink, text: &[u8]) -> io::Result<()> {
        let target = match &mut self.target {
            Some(target) => target,
            none => none.insert(open(sink)?),
        };
        target.write_all(text)?;
        target.flush()
    }
}

/// Opens `sink` for appending.
pub(super) fn open(sink: &LogSink) -> io::Result<Box<dyn Write + Send>> {
    Ok(match sink {
        LogSink::Stdout => Box::new(io::stdout()),
        LogSink::Stderr => Box::new(io::stderr()),
        // A container's user may write to its standard output without being allowed to open it.
        LogSink::File(path) if path == Path::new("/dev/stdout") => Box::new(io::stdout()),
        LogSink::File(path) if path == Path::new("/dev/stderr") => Box::new(io::stderr()),
        LogSink::File(path) => Box::new(append(path)?),
    })
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn name(sink: &LogSink) -> String {
    match sink {
        LogSink::File(path) => path.display().to_string(),
        LogSink::Stdout => "standard output".to_owned(),
        LogSink::Stderr => "standard error".to_owned(),
    }
}
