//! Copies of a request for other clusters. The request never waits for one: what becomes of a copy shows in the
//! statistics of its cluster alone.
//!
//! A copy gets the body as the request's own upstream takes it. One that takes it more slowly is given up when too
//! much waits for it, and so is one too many; both count as `retry_or_shadow_abandoned` of the request's cluster.

mod tee;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;

use self::tee::{CopyBody, Cut, Progress};
use super::Plan;
use super::request::Outgoing;
use crate::cluster::{LocalCluster, LocalHost};
use crate::config::format::millis;
use crate::config::mirror::{MirrorHost, MirrorPolicy};
use crate::config::route::ClusterTarget;
use crate::http::deadline::Timer;
use crate::http::names;
use crate::http::timeout::Timeouts;
use crate::http::trace::copy::CopySpan;
use crate::net::body::RequestBody;
use crate::net::own_address::own_address;
use crate::pool::ResponseBody;
use crate::route::mutate::change_request;
use crate::route::weighted::named_by;
use crate::telemetry::metrics::ClusterStats;
use crate::telemetry::response_flags::ResponseFlags;
use crate::worker::Worker;
use crate::worker::mirror_budget::UnderWay;

pub use self::tee::Tee;

/// The copies that a request is to have, until they are sent. Mostly none.
#[derive(Debug, Default)]
pub struct Mirrors<'a>(Vec<Planned<'a>>);

#[derive(Debug)]
struct Planned<'a> {
    policy: &'a MirrorPolicy,
    /// None for a request without body.
    body: Option<CopyBody>,
}

impl<'a> Mirrors<'a> {
    /// The copies of `plan`'s request; a tunnel has none.
    pub fn new(plan: &Plan<'a>, upgrading: bool) -> Self {
        let policies = if upgrading { &[] } else { plan.mirror_policies() };
        let random = plan.stream.random();
        let taken = policies.iter().filter(|it| it.fraction.is_none_or(|it| it.takes(random)));
        Self(taken.map(|policy| Planned { policy, body: None }).collect())
    }

    /// `body`, of which each copy gets one; at most `limit` bytes wait for any of them.
    pub(super) fn tee<B>(&mut self, body: B, limit: u64, worker: &Worker) -> Tee<B> {
        let mut tee = Tee::new(body);
        for planned in &mut self.0 {
            planned.body = Some(tee.copy(limit, &worker.mirrors));
        }
        tee
    }

    /// Sends the copies of `plan`'s request, which goes out now; does nothing the next time. `stats` are those of
    /// its cluster.
    pub(super) fn send(
        &mut self,
        plan: &Plan<'_>,
        outgoing: &Outgoing<'_>,
        timeouts: &Timeouts,
        stats: &Arc<ClusterStats>,
    ) {
        for Planned { policy, body } in self.0.drain(..) {
            let view = outgoing.head.view();
            let name = match &policy.cluster {
                ClusterTarget::Name(name) => name,
                ClusterTarget::Header(header) => named_by(header, &view),
            };
            let Some(spec) = plan.stream.served.snapshot.clusters.get(name) else { continue };
            let worker = &plan.stream.connection.worker;
            let Some(place) = worker.mirrors.enter() else {
                stats.retry_or_shadow_abandoned.inc();
                continue;
            };
            let progress = body.as_ref().map(CopyBody::progress);
            let body = body.map_or(RequestBody::Empty, RequestBody::stream);
            let mut request = outgoing.request(plan, timeouts, 1, "", false, body);
            dress(policy, plan, request.headers_mut());
            let names = [&spec.config.name, &spec.config.stat_name].map(Arc::clone);
            let sampled = policy.trace_sampled;
            let copy = Copy {
                span: CopySpan::begin(plan.stream, names, sampled, request.headers_mut()),
                cluster: worker.clusters.get(spec),
                worker: Rc::clone(worker),
                progress,
                limit: timeouts.request,
                stats: Arc::clone(stats),
                _place: place,
            };
            tokio::task::spawn_local(copy.go(request));
        }
    }
}

impl<'a> Plan<'a> {
    /// Where else requests go: the most specific list that is not empty decides.
    fn mirror_policies(&self) -> &'a [MirrorPolicy] {
        let host = self.table.virtual_host(self.found).map_or(&[][..], |host| &host.mirrors);
        let table = &self.table.config().mirrors;
        let lists = [&self.action.mirrors[..], host, table];
        lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
    }
}

/// Makes the headers of a request those of its copy.
fn dress(policy: &MirrorPolicy, plan: &Plan<'_>, headers: &mut HeaderMap) {
    change_request(&policy.changes, headers, &**plan.stream);
    let host = match &policy.host {
        MirrorHost::Kept => None,
        MirrorHost::Literal(host) => HeaderValue::from_str(host).ok(),
        MirrorHost::Suffixed => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(suffixed);
            host.and_then(|host| HeaderValue::try_from(host).ok())
        }
    };
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    headers.insert(names::X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    let known = headers.get(names::X_FORWARDED_FOR).and_then(|known| known.to_str().ok());
    let forwarded = known
        .map_or_else(|| own_address().to_string(), |known| format!("{known},{}", own_address()));
    if let Ok(forwarded) = HeaderValue::try_from(forwarded) {
        headers.insert(names::X_FORWARDED_FOR, forwarded);
    }
}

/// The host with `-shadow` after its name, before its port.
fn suffixed(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            format!("{name}-shadow:{port}")
        }
        _ => format!("{host}-shadow"),
    }
}

/// A copy on its way.
struct Copy {
    span: CopySpan,
    cluster: Rc<LocalCluster>,
    worker: Rc<Worker>,
    progress: Option<Progress>,
    /// From the end of the request to the end of the response.
    limit: Option<Duration>,
    /// Of the cluster of the request that it is a copy of.
    stats: Arc<ClusterStats>,
    _place: UnderWay,
}

/// Why a copy is given up.
enum GivenUp {
    Expired,
    Cut(Cut),
}

impl Copy {
    /// Sends the copy, and lets its answer pass.
    async fn go(self, request: Request<RequestBody>) {
        let answered = Cell::new(false);
        let result = self.supervised(self.exchange(request, &answered)).await;
        let stats = &self.cluster.stats;
        match result {
            Ok(()) => {}
            Err(GivenUp::Expired) => {
                stats.upstream_rq_timeout.inc();
                if !answered.get() {
                    stats.response(504, true);
                    self.span.failed(504, ResponseFlags::UPSTREAM_REQUEST_TIMEOUT);
                }
            }
            Err(GivenUp::Cut(cut)) => {
                if cut == Cut::FellBehind {
                    self.stats.retry_or_shadow_abandoned.inc();
                }
            }
        }
    }

    /// Waits for `exchange` for as long as the copy may take, and has all of its body.
    async fn supervised(&self, exchange: impl Future<Output = ()>) -> Result<(), GivenUp> {
        let mut exchange = pin!(exchange);
        let mut timer = Timer::default();
        let begin = Instant::now();
        poll_fn(|cx| {
            if exchange.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let arrived = match self.progress.as_ref().map(|it| it.poll_end(cx)) {
                None => begin,
                Some(None) => return Poll::Pending,
                Some(Some(Ok(arrived))) => arrived,
                Some(Some(Err(cut))) => return Poll::Ready(Err(GivenUp::Cut(cut))),
            };
            let expired = timer.poll(cx, || Some((arrived.checked_add(self.limit?)?, ())));
            expired.map(|()| Err(GivenUp::Expired))
        })
        .await
    }

    async fn exchange(&self, request: Request<RequestBody>, answered: &Cell<bool>) {
        let spec = self.cluster.spec();
        let sent_to = |host: &LocalHost| self.span.sent_to(host.address());
        match self.worker.caller.call_one(&spec.config.name, request, sent_to).await {
            Ok(response) => {
                answered.set(true);
                self.span.answered(response.status().as_u16());
                self.pass(response).await;
            }
            Err(error) => self.span.failed(503, error.flag()),
        }
    }

    /// Reads the answer to its end, for the connection's sake.
    async fn pass(&self, response: Response<ResponseBody>) {
        let begin = Instant::now();
        let mut body = response.into_body();
        let whole = loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        if whole {
            self.cluster.stats.upstream_rq_time.record(millis(begin.elapsed()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::suffixed;

    #[test]
    fn the_suffix_goes_before_the_port() {
        for (host, expected) in [
            ("a.com", "a.com-shadow"),
            ("a.com:81", "a.com-shadow:81"),
            ("[::1]", "[::1]-shadow"),
            ("[::1]:81", "[::1]-shadow:81"),
        ] {
            assert_eq!(suffixed(host), expected);
        }
    }
}
