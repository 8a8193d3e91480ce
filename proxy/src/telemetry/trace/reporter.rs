//! Spans on their way from the workers to whoever sends them: one bounded queue for each collector.
//!
//! A worker never waits: what does not fit is dropped, and counted.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender, WeakSender};

use super::span::Span;
use crate::config::Name;
use crate::config::tracing::{Batching, Defaults, Provider};
use crate::telemetry::metrics::{Metrics, OpenTelemetryStats, ZipkinStats};

/// Spans that wait for a collector that says nothing of it; Envoy has room for as many as it sends at once.
const ZIPKIN_QUEUE: usize = 1024;

/// Who this process is to collectors.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node's id.
    pub node: Name,
    /// The node's cluster.
    pub cluster: Name,
    /// The node's zone.
    pub zone: Name,
    /// Its own address.
    pub address: IpAddr,
}

/// Where finished spans go.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// Who collects them.
    pub provider: Arc<Provider>,
    /// Who they are of.
    pub identity: Arc<Identity>,
    queue: Sender<Span>,
    stats: Stats,
}

/// The statistics of one kind of collectors.
#[derive(Debug, Clone)]
pub enum Stats {
    /// `tracing.opentelemetry.*`
    OpenTelemetry(Arc<OpenTelemetryStats>),
    /// `tracing.zipkin.*`
    Zipkin(Arc<ZipkinStats>),
}

impl Reporter {
    /// Reports `span`.
    pub fn report(&self, span: Span) {
        if self.queue.try_send(span).is_err()
            && let Stats::OpenTelemetry(stats) = &self.stats
        {
            stats.spans_dropped.inc();
        }
    }
}

/// The spans for one collector, for whoever sends them.
#[derive(Debug)]
pub struct Outbox {
    /// Who collects them.
    pub provider: Arc<Provider>,
    /// Who they are of.
    pub identity: Arc<Identity>,
    /// When they are sent.
    pub batching: Batching,
    /// They themselves; ends when nobody makes any more.
    pub spans: Receiver<Span>,
    /// What is counted of them.
    pub stats: Stats,
}

/// All collectors.
#[derive(Debug)]
pub struct Reporters {
    identity: Arc<Identity>,
    defaults: Defaults,
    metrics: Arc<Metrics>,
    known: Mutex<Vec<(Arc<Provider>, WeakSender<Span>)>>,
    new: UnboundedSender<Outbox>,
}

impl Reporters {
    /// No collectors yet; the second half yields the outbox of each one that comes.
    pub fn new(
        identity: Identity,
        defaults: Defaults,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, UnboundedReceiver<Outbox>) {
        let (new, outboxes) = mpsc::unbounded_channel();
        let (identity, known) = (Arc::new(identity), Mutex::default());
        (Arc::new(Self { identity, defaults, metrics, known, new }), outboxes)
    }

    /// Where spans for `provider` go, or for the one of the bootstrap; nowhere if there is none.
    pub fn get(&self, provider: Option<&Arc<Provider>>) -> Option<Reporter> {
        let provider = provider.or(self.defaults.provider.as_ref())?;
        let stats = self.stats(provider);
        let mut known = self.known.lock();
        known.retain(|(_, queue)| queue.strong_count() > 0);
        let open = known.iter().find(|(other, _)| other == provider);
        let queue = open.and_then(|(_, queue)| queue.upgrade()).unwrap_or_else(|| {
            let queue = self.open(provider, &stats);
            known.push((Arc::clone(provider), queue.downgrade()));
            queue
        });
        let (provider, identity) = (Arc::clone(provider), Arc::clone(&self.identity));
        Some(Reporter { provider, identity, queue, stats })
    }

    fn stats(&self, provider: &Provider) -> Stats {
        match provider {
            Provider::OpenTelemetry(_) => Stats::OpenTelemetry(self.metrics.open_telemetry()),
            Provider::Zipkin(_) => Stats::Zipkin(self.metrics.zipkin()),
        }
    }

    fn open(&self, provider: &Arc<Provider>, stats: &Stats) -> Sender<Span> {
        let (room, batching) = match &**provider {
            Provider::OpenTelemetry(config) => {
                (config.max_cache_size, self.defaults.open_telemetry)
            }
            Provider::Zipkin(_) => (ZIPKIN_QUEUE, self.defaults.zipkin),
        };
        let (queue, spans) = mpsc::channel(room);
        let (provider, identity) = (Arc::clone(provider), Arc::clone(&self.identity));
        // Nobody receives them when the process ends.
        let _ = self.new.send(Outbox { provider, identity, batching, spans, stats: stats.clone() });
        queue
    }
}
