//! `fault`: delays and aborts requests, and slows responses down, on purpose.

mod slowed;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::passage::{Answering, Passage};
use super::{Memory, Stopped};
use crate::config::Name;
use crate::config::fault::{Abort, Delay, Fault, Rate};
use crate::config::http_filter::FilterRule;
use crate::config::matcher::Fraction;
use crate::http::local_reply::LocalReply;
use crate::http::stream::Head;
use crate::telemetry::metrics::{ClusterFaultStats, FaultStats};
use crate::telemetry::response_flags::ResponseFlags;
use crate::worker::Worker;
use slowed::Slowed;

const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_PERCENTAGE: &str = "x-envoy-fault-abort-request-percentage";
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_PERCENTAGE: &str = "x-envoy-fault-delay-request-percentage";
const THROUGHPUT: &str = "x-envoy-fault-throughput-response";
const THROUGHPUT_PERCENTAGE: &str = "x-envoy-fault-throughput-response-percentage";
const DOWNSTREAM_CLUSTER: &str = "x-envoy-downstream-service-cluster";
const DOWNSTREAM_NODE: &str = "x-envoy-downstream-service-node";

/// What became of a request that met a fault.
#[derive(Debug)]
pub(super) struct Injected {
    _active: Active,
    /// How fast its response goes, in KiB per second.
    rate: Option<u64>,
}

/// One stream with a fault, until it is over.
#[derive(Debug)]
struct Active(Arc<FaultStats>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active_faults.add(-1);
    }
}

/// The faults of one request.
struct Faults<'a> {
    config: &'a Fault,
    worker: &'a Worker,
    stats: Arc<FaultStats>,
    cluster: Option<Arc<ClusterFaultStats>>,
    active: Option<Active>,
}

impl Faults<'_> {
    /// Whether one more fault may be made; the faults of one stream are one.
    fn may(&mut self) -> bool {
        if self.active.is_some() {
            return true;
        }
        let active = self.stats.active_faults.get();
        if self.config.max_active.is_some_and(|most| active >= i64::from(most)) {
            self.stats.faults_overflow.inc();
            return false;
        }
        self.stats.active_faults.add(1);
        self.active = Some(Active(Arc::clone(&self.stats)));
        true
    }

    fn takes(&self, share: Fraction) -> bool {
        share.takes(self.worker.random())
    }

    /// How fast the response goes, if it is slowed down.
    fn rate(&mut self, headers: &HeaderMap) -> Option<u64> {
        let (rate, share) = self.config.rate?;
        let (rate, share) = match rate {
            Rate::Fixed(rate) => (rate, share),
            Rate::Header => (
                number(headers, THROUGHPUT).filter(|rate| *rate > 0)?,
                lower(share, headers, THROUGHPUT_PERCENTAGE),
            ),
        };
        if !self.takes(share) || !self.may() {
            return None;
        }
        self.stats.response_rl_injected.inc();
        Some(rate)
    }

    /// How long the request waits, if it does.
    fn delay(&mut self, headers: &HeaderMap) -> Option<Duration> {
        let (delay, share) = self.config.delay?;
        let share = match delay {
            Delay::Fixed(_) => share,
            Delay::Header => lower(share, headers, DELAY_PERCENTAGE),
        };
        if !self.takes(share) {
            return None;
        }
        let delay = match delay {
            // Envoy counts in milliseconds.
            Delay::Fixed(delay) => Duration::from_millis(delay.as_millis() as u64),
            Delay::Header => Duration::from_millis(number(headers, DELAY)?),
        };
        if delay.is_zero() || !self.may() {
            return None;
        }
        self.stats.delays_injected.inc();
        if let Some(cluster) = &self.cluster {
            cluster.delays_injected.inc();
        }
        Some(delay)
    }

    /// What the request is answered with, if it is aborted.
    fn abort(&mut self, headers: &HeaderMap) -> Option<LocalReply> {
        let (abort, share) = self.config.abort?;
        let share = match abort {
            Abort::Http(_) | Abort::Grpc(_) => share,
            Abort::Header => lower(share, headers, ABORT_PERCENTAGE),
        };
        if !self.takes(share) {
            return None;
        }
        let (status, grpc) = match abort {
            Abort::Http(status) => (status, None),
            Abort::Grpc(status) => (StatusCode::OK, Some(status)),
            Abort::Header => asked_abort(headers)?,
        };
        if !self.may() {
            return None;
        }
        self.stats.aborts_injected.inc();
        if let Some(cluster) = &self.cluster {
            cluster.aborts_injected.inc();
        }
        let reply = LocalReply::new(status, "fault_filter_abort").body("fault filter abort");
        let reply = reply.flag(ResponseFlags::FAULT_INJECTED);
        Some(match grpc {
            Some(status) => reply.grpc_status(status),
            None => reply,
        })
    }
}

/// Makes the faults that the request is to meet.
///
/// # Errors
/// The answer to a request that is aborted.
pub(super) async fn request(
    own: &Fault,
    filter: &str,
    request: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    let rule = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::Fault(rule) => Some(&**rule),
        _ => None,
    });
    let config = rule.unwrap_or(own);
    if !concerns(config, request) {
        return Ok(Memory::Nothing);
    }
    let stream = request.stream;
    let worker = &*stream.connection.worker;
    let prefix = &stream.served.config().stat_prefix;
    let stats = worker.filter_stats.faults(prefix);
    let headers = &request.head().headers;
    let cluster = if config.counts_clusters { cluster(worker, prefix, headers) } else { None };
    let mut faults = Faults { config, worker, stats, cluster, active: None };
    let rate = faults.rate(headers);
    let delay = faults.delay(headers);
    if let Some(delay) = delay {
        stream.flag(ResponseFlags::DELAY_INJECTED);
        tokio::time::sleep(delay).await;
    }
    let abort = faults.abort(&request.head().headers);
    if let (Some(metadata), Some(_)) = (&config.metadata, &faults.active) {
        stream.dynamic_mut().merge(filter.to_owned(), metadata.clone());
    }
    match (abort, faults.active) {
        (Some(reply), _) => Err(Stopped::Reply(Box::new(reply))),
        (None, Some(active)) => Ok(Memory::Fault(Injected { _active: active, rate })),
        (None, None) => Ok(Memory::Nothing),
    }
}

/// Lets the response to a request go as slowly as it was decided.
pub(super) fn response(injected: &Injected, answer: &mut Answering<'_>) {
    if let Some(rate) = injected.rate.filter(|_| !answer.is_bodiless) {
        answer.wraps.push(move |body| Box::new(Slowed::new(body, rate)));
    }
}

/// Whether the request is one of those that may meet a fault.
fn concerns(config: &Fault, request: &Passage<'_>) -> bool {
    let Fault { upstream_cluster, headers, downstream_nodes, .. } = config;
    let head: &Head = request.head();
    let node = || head.headers.get(DOWNSTREAM_NODE).map(|node| node.as_bytes());
    (upstream_cluster.is_empty() || request.cluster() == Some(&**upstream_cluster))
        && (downstream_nodes.is_empty()
            || node().is_some_and(|it| downstream_nodes.iter().any(|own| own.as_bytes() == it)))
        && headers.iter().all(|header| header.matches(&head.view()))
}

/// What is counted for the cluster that the request says it comes from.
fn cluster(worker: &Worker, prefix: &Name, headers: &HeaderMap) -> Option<Arc<ClusterFaultStats>> {
    let cluster = headers.get(DOWNSTREAM_CLUSTER)?.to_str().ok()?;
    if cluster.is_empty() {
        return None;
    }
    worker.filter_stats.cluster_faults(prefix, cluster)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `share`, or less of it if a header says so.
fn lower(share: Fraction, headers: &HeaderMap, name: &str) -> Fraction {
    let asked = number(headers, name).map(|asked| u32::try_from(asked).unwrap_or(u32::MAX));
    Fraction { numerator: asked.map_or(share.numerator, |it| it.min(share.numerator)), ..share }
}

fn asked_abort(headers: &HeaderMap) -> Option<(StatusCode, Option<u32>)> {
    let status = number(headers, ABORT).filter(|status| (200..600).contains(status));
    match status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok()) {
        Some(status) => Some((status, None)),
        None => {
            let status = number(headers, ABORT_GRPC)?;
            Some((StatusCode::OK, Some(u32::try_from(status).ok()?)))
        }
    }
}
