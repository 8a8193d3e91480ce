//! One attempt: pick an endpoint, take a connection, send the request, wait for the head of the response.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response, Version};
use http_body::Body as _;

use super::exchange::Exchange;
use super::failure::Failure;
use super::tally::Tally;
use crate::cluster::health_check::IMMEDIATE_FAIL;
use crate::cluster::{DynamicHost, LocalCluster, LocalHost, Outcome, OverrideHost, PickContext};
use crate::config::cluster::Discovery;
use crate::config::format::millis;
use crate::http::deadline::Expired;
use crate::http::trace::attempt::Attempt;
use crate::http::{forward_proxy, names, retry, trace};
use crate::net::body::RequestBody;
use crate::pool::{Cause, Lease, Need, ResponseBody, Reuse, SendError, Stage};
use crate::telemetry::response_flags::ResponseFlags;
use crate::telemetry::trace::TraceContext;
use crate::upstream::http::Protocol;

/// A response from upstream.
#[derive(Debug)]
pub struct Answer {
    /// Its head, and its body still to come.
    pub response: Response<ResponseBody>,
    /// What is counted until its end.
    pub in_flight: InFlight,
    /// How long the upstream took from the end of the request.
    pub service_time: Duration,
    /// How long the endpoint took from the beginning of the request.
    pub took: Duration,
}

/// A request under way: its end is counted on its cluster.
#[derive(Debug)]
pub struct InFlight {
    cluster: Rc<LocalCluster>,
    host: Rc<LocalHost>,
    tally: Tally,
    arrived: Option<Instant>,
    span: Attempt,
}

impl InFlight {
    /// Counts a response that came whole.
    pub fn completed(mut self) {
        self.span.completed();
        if let Some(arrived) = self.arrived {
            self.cluster.stats.upstream_rq_time.record(millis(arrived.elapsed()));
            self.tally.completed(arrived);
        }
    }

    /// Counts a response that was broken off by the upstream.
    pub fn failed(&mut self) {
        let flag = ResponseFlags::UPSTREAM_CONNECTION_TERMINATION;
        self.span.failed(Cause::Closed.reset_reason(), flag);
        self.cluster.report(&self.host, Outcome::Failed);
    }

    /// Counts a response that took longer than its cluster's `max_stream_duration`.
    pub fn lived_too_long(&self) {
        self.cluster.stats.upstream_rq_max_duration_reached.inc();
    }

    /// Counts a response that was given up by the proxy.
    pub fn expired(&self) {
        self.cluster.stats.upstream_rq_timeout.inc();
        self.tally.timed_out();
    }
}

impl Exchange<'_> {
    /// Makes one attempt.
    ///
    /// # Errors
    /// Why no response came.
    pub(super) async fn attempt(&mut self) -> Result<Answer, Failure> {
        let begin = Instant::now();
        let named = self.name_host(begin).await?;
        let host = self.pick(named.as_ref(), begin).await?;
        self.mirror();
        let mut span = Attempt::begin(self.plan.stream, self.attempts());
        let mut result = self.try_host(&host, span.context(), begin).await;
        match &mut result {
            Ok(answer) => {
                let status = answer.response.status().as_u16();
                self.cluster.report(&host, Outcome::Response(verdict(&answer.response)));
                self.cluster.measure(&host, answer.took);
                if answer.response.headers().contains_key(IMMEDIATE_FAIL) {
                    self.cluster.leave_out(&host);
                }
                span.answered(status, answer.response.headers());
                if answer.response.body().is_end_stream() {
                    span.completed();
                }
                answer.in_flight.span = span;
            }
            Err(failure) => {
                if let Some(reason) = failure.reset_reason() {
                    span.failed(reason, failure.flag());
                }
                if let Some(outcome) = outcome(failure) {
                    if outcome == Outcome::Timeout {
                        self.cluster.measure(&host, begin.elapsed());
                    }
                    self.cluster.report(&host, outcome);
                }
            }
        }
        if self.avoids_previous_hosts() {
            self.avoid.push(host.id());
        }
        self.previous.tried(self.policy, || self.cluster.priority_of(&host));
        result
    }

    /// The endpoint that the request names itself, if the cluster's endpoints are found so.
    async fn name_host(&self, begin: Instant) -> Result<Option<DynamicHost>, Failure> {
        let (connection, spec) = (&self.plan.stream.connection, self.cluster.spec());
        if matches!(spec.config.discovery, Discovery::ForwardProxy(_)) {
            let named =
                forward_proxy::endpoint(&connection.worker, spec, &self.outgoing.head.authority);
            return self.within(begin, named).await?.transpose().map_err(|details| {
                self.cluster.stats.upstream_cx_none_healthy.inc();
                Failure::Unresolved(details)
            });
        }
        let original = connection.downstream.original_dst;
        Ok(self.cluster.original_dst(|name| self.outgoing.header(name), original))
    }

    async fn pick(
        &self,
        dynamic: Option<&DynamicHost>,
        begin: Instant,
    ) -> Result<Rc<LocalHost>, Failure> {
        let stream = self.plan.stream;
        let context = PickContext {
            avoid: &self.avoid,
            attempts: self.host_selection_attempts(),
            omit: self.omitted_hosts(),
            excluded: self.previous.excluded(),
            hash: self.hash(),
            metadata_match: self.wanted.as_deref(),
            dynamic,
            override_host: self.override_host(),
        };
        let worker = &stream.connection.worker;
        let picked = loop {
            match worker.with_random(|random| self.cluster.pick(&context, random)) {
                Ok(picked) => break picked,
                Err(unready) => self.within(begin, unready.ready()).await?,
            }
        };
        let Some(host) = picked else {
            self.cluster.stats.upstream_cx_none_healthy.inc();
            return Err(Failure::NoHost);
        };
        let mut facts = stream.upstream.borrow_mut();
        facts.host = Some(host.address().clone());
        facts.hostname = Some(host.hostname());
        facts.attempts = self.attempts();
        facts.local = None;
        facts.remote = None;
        facts.version = None;
        facts.failure = None;
        Ok(host)
    }

    /// The endpoint that the first attempt goes to if a filter asks for it; a retry may go anywhere.
    fn override_host(&self) -> Option<OverrideHost<'_>> {
        let wishes = &self.plan.stream.filtered()?.wishes;
        let (address, strict) = wishes.override_host.as_ref().filter(|_| self.attempts() <= 1)?;
        Some(OverrideHost { address, strict: *strict })
    }

    /// Sends the request to `host`. A request on a connection that was already dying is sent once more on
    /// a fresh one, if that cannot make it count twice.
    async fn try_host(
        &self,
        host: &Rc<LocalHost>,
        span: Option<TraceContext>,
        begin: Instant,
    ) -> Result<Answer, Failure> {
        let mut reuse = if self.is_repeatable() { Reuse::Any } else { Reuse::Verified };
        let mut request = None;
        let downstream = &self.plan.stream.connection.downstream;
        let client = downstream.client();
        let sni_header = self.cluster.spec().config.http.override_auto_sni_header.as_ref();
        loop {
            let need = Need {
                priority: self.plan.action.priority,
                downstream: match self.plan.head.version {
                    Version::HTTP_2 => Protocol::Http2,
                    _ => Protocol::Http1,
                },
                host: Some(self.outgoing.certified_host(sni_header)),
                client: &client,
                presence: &downstream.presence,
                alpn: self.plan.stream.filtered().and_then(|it| it.wishes.alpn.as_ref()),
                reuse,
            };
            let lease = self.within(begin, host.acquire(need)).await?.map_err(Failure::Connect)?;
            let next = match request.take() {
                Some(request) => request,
                None => self.request(host, span)?,
            };
            match self.send(lease, next, host, begin).await? {
                Ok(answer) => return Ok(answer),
                Err(mut error) => {
                    request = error.request.take().map(|request| *request);
                    if reuse == Reuse::Never || !self.may_replay(&error, request.is_some()) {
                        return Err(Failure::Send(error));
                    }
                    reuse = Reuse::Never;
                }
            }
        }
    }

    fn request(
        &self,
        host: &LocalHost,
        span: Option<TraceContext>,
    ) -> Result<Request<RequestBody>, Failure> {
        let body = self.body().ok_or_else(|| {
            // Only a body that was consumed without being kept is gone.
            Failure::Send(SendError {
                stage: Stage::SentNothingBack,
                reused: true,
                cause: Cause::Closed,
                request: None,
                source: None,
            })
        })?;
        let mut request = self.outgoing.request(
            &self.plan,
            &self.timeouts,
            self.attempts(),
            &host.hostname(),
            self.timed_out,
            body,
        );
        trace::pass_on(self.plan.stream, span, request.headers_mut());
        Ok(request)
    }

    async fn send(
        &self,
        lease: Lease,
        request: Request<RequestBody>,
        host: &Rc<LocalHost>,
        begin: Instant,
    ) -> Result<Result<Answer, SendError>, Failure> {
        let stream = self.plan.stream;
        let timeline = &stream.timeline;
        {
            let mut facts = stream.upstream.borrow_mut();
            facts.local = lease.local_address();
            facts.remote = lease.remote_address();
            facts.tls = lease.peer();
            facts.version = Some(match lease.protocol() {
                Protocol::Http1 => Version::HTTP_11,
                Protocol::Http2 => Version::HTTP_2,
            });
        }
        self.tally.sent();
        let sent_at = Instant::now();
        timeline.upstream_begin.set(Some(sent_at));
        let sent = self.within(begin, lease.send(request)).await?;
        Ok(sent.map(|response| {
            let now = Instant::now();
            timeline.response_begin.set(Some(now));
            stream.touch();
            let in_flight = InFlight {
                cluster: Rc::clone(&self.cluster),
                host: Rc::clone(host),
                tally: self.tally.clone(),
                arrived: timeline.request_end.get(),
                span: Attempt::default(),
            };
            Answer { response, in_flight, service_time: stream.waited(), took: now - sent_at }
        }))
    }

    /// Whether the request goes out again on a fresh connection, apart from any retry policy.
    fn may_replay(&self, error: &SendError, returned: bool) -> bool {
        let stage = match error.stage {
            Stage::NotProcessed => retry::Stage::Unsent,
            Stage::SentNothingBack => retry::Stage::Sent,
            Stage::Partial => retry::Stage::Responding,
        };
        let closed = matches!(error.cause, Cause::Closed | Cause::GoAway);
        closed
            && retry::may_replay_on_fresh(self.is_repeatable(), error.reused, stage)
            && (returned || self.can_send_again())
    }
}

/// The status that counts for outlier detection: a gRPC status, if there is one, as its HTTP equivalent.
fn verdict<B>(response: &Response<B>) -> u16 {
    let grpc = response.headers().get(names::GRPC_STATUS).and_then(|value| value.to_str().ok());
    match grpc.and_then(|status| status.parse::<u8>().ok()) {
        None => response.status().as_u16(),
        Some(0) => 200,
        Some(1) => 499,
        Some(3 | 9 | 11) => 400,
        Some(4) => 504,
        Some(5) => 404,
        Some(6 | 10) => 409,
        Some(7) => 403,
        Some(8) => 429,
        Some(12) => 501,
        Some(14) => 503,
        Some(16) => 401,
        Some(_) => 500,
    }
}

/// What a failure tells about the endpoint; none if it is not the endpoint's fault.
fn outcome(failure: &Failure) -> Option<Outcome> {
    use crate::upstream::failure::ConnectError;
    match failure {
        Failure::NoHost | Failure::Unresolved(_) | Failure::Connect(ConnectError::Overflow(_)) => {
            None
        }
        Failure::Send(error) if error.cause == Cause::RequestBody => None,
        Failure::Connect(_) | Failure::Send(_) => Some(Outcome::Failed),
        Failure::Expired(Expired::Route | Expired::PerTry | Expired::PerTryIdle, _) => {
            Some(Outcome::Timeout)
        }
        Failure::Expired(..) => None,
    }
}
