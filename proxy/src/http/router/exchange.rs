//! All attempts of one request: what may be tried again, when, and what the client gets in the end.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Response, StatusCode, Version};
use http_body::Body as _;

use super::Plan;
use super::attempt::Answer;
use super::failure::Failure;
use super::hash::Hashed;
use super::mirror::{Mirrors, Tee};
use super::request::Outgoing;
use super::tally::Tally;
use crate::cluster::{HostId, LocalCluster};
use crate::config::cluster::UpstreamProtocol;
use crate::config::overload::Timer;
use crate::config::retry::RetryPolicy;
use crate::config::subset::{Criteria, MetadataMatch};
use crate::http::deadline::{Deadlines, Expired};
use crate::http::local_reply::LocalReply;
use crate::http::overrides::Overrides;
use crate::http::replay::Replay;
use crate::http::request_body::ClientBody;
use crate::http::retry::{self, Decision, PreviousPriorities, Refusal, RetryState};
use crate::http::timeout::Timeouts;
use crate::http::{grpc_timeout, names};
use crate::net::body::RequestBody;
use crate::pool::circuit_breaker::{LocalBreaker, Permit};
use crate::pool::{Cause, Stage};
use crate::telemetry::response_flags::ResponseFlags;
use crate::upstream::failure::ConnectError;

/// Where the request's body comes from.
#[derive(Debug)]
pub enum Source {
    /// There is none.
    Empty,
    /// The client, with what was read kept for another attempt as far as the limit allows.
    Client(Replay<Tee<ClientBody>>),
}

impl Source {
    /// The body of `plan`'s request, of which `mirrors` get copies; an upgrade has none.
    pub fn new(
        plan: &Plan<'_>,
        cluster: &LocalCluster,
        mut body: ClientBody,
        upgrading: bool,
        mirrors: &mut Mirrors<'_>,
    ) -> Self {
        if upgrading || body.is_end_stream() {
            return Self::Empty;
        }
        let config = &cluster.spec().config;
        let served = plan.stream.served.config();
        let host = plan.table.virtual_host(plan.found);
        let limit = plan
            .route
            .request_body_buffer_limit
            .or(host.and_then(|host| host.request_body_buffer_limit))
            .unwrap_or(config.buffer_limit.into());
        // HTTP/1 has trailers only where the operator says so, on either side.
        let trailers = (plan.head.version == Version::HTTP_2 || served.http1.enable_trailers)
            && (config.http.protocol != UpstreamProtocol::Http1 || config.http.enable_trailers);
        body.pass_trailers(trailers);
        let body = mirrors.tee(body, limit, &plan.stream.connection.worker);
        Self::Client(Replay::new(body, limit))
    }

    /// The body for one more attempt, kept for another one if `keep`; none if it cannot be sent again.
    fn body(&self, keep: bool) -> Option<RequestBody> {
        match self {
            Self::Empty => Some(RequestBody::Empty),
            Self::Client(replay) => {
                let body = replay.attempt()?;
                if !keep {
                    replay.forget();
                }
                Some(RequestBody::stream(body))
            }
        }
    }

    /// All of it, if it has come whole and is kept.
    fn whole(&self) -> Option<ClientBody> {
        match self {
            Self::Empty => Some(ClientBody::whole(Vec::new(), None)),
            Self::Client(replay) => {
                replay.whole().map(|(data, trailers)| ClientBody::whole(data, trailers))
            }
        }
    }

    fn is_kept(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(replay) => replay.can_replay(),
        }
    }
}

/// One request and all its attempts.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub(super) plan: Plan<'a>,
    pub(super) cluster: Rc<LocalCluster>,
    pub(super) tally: Tally,
    pub(super) outgoing: Outgoing<'a>,
    pub(super) timeouts: Timeouts,
    pub(super) avoid: Vec<HostId>,
    pub(super) previous: PreviousPriorities,
    /// What is wanted of the endpoint's metadata.
    pub(super) wanted: Option<Cow<'a, MetadataMatch>>,
    /// Whether the last attempt took too long.
    pub(super) timed_out: bool,
    mirrors: Mirrors<'a>,
    hashed: Hashed,
    source: Source,
    pub(super) policy: Option<&'a RetryPolicy>,
    retry: RetryState<'a>,
    deadlines: Deadlines,
    repeatable: bool,
    timeout_means_no_content: bool,
    retry_permit: Option<Permit>,
}

impl<'a> Exchange<'a> {
    /// An exchange before its first attempt.
    pub fn new(
        plan: Plan<'a>,
        (cluster, tally): (Rc<LocalCluster>, Tally),
        outgoing: Outgoing<'a>,
        source: Source,
        overrides: Overrides,
        mirrors: Mirrors<'a>,
    ) -> Self {
        let host = plan.table.virtual_host(plan.found);
        let policy = plan.action.retry_policy.as_deref();
        let policy = policy.or(host.and_then(|host| host.retry_policy.as_deref()));
        let route = grpc_timeout::of_request(plan.action, plan.head);
        let timeouts = Timeouts {
            grpc: grpc_timeout::is_told(plan.action, plan.head),
            ..Timeouts::new(route, policy, &overrides)
        };
        let (method, headers) = (&plan.head.method, &plan.head.headers);
        let deadlines = deadlines(&plan, &cluster, &timeouts, &overrides);
        let wanted = policy.map_or(&[][..], |policy| &policy.retriable_request_headers);
        let view = outgoing.head.view();
        let retriable = wanted.is_empty() || wanted.iter().any(|it| it.matches(&view));
        Self {
            timeout_means_no_content: overrides.timeout_means_no_content,
            repeatable: retry::is_repeatable(method, headers),
            retry: RetryState::new(policy, overrides, method, headers).only_if(retriable),
            avoid: Vec::new(),
            previous: PreviousPriorities::default(),
            wanted: plan.metadata_match(),
            timed_out: false,
            mirrors,
            hashed: Hashed::new(&plan, &cluster, &outgoing),
            retry_permit: None,
            plan,
            cluster,
            tally,
            outgoing,
            timeouts,
            source,
            policy,
            deadlines,
        }
    }

    /// Sends the request's copies, as it goes out itself.
    pub(super) fn mirror(&mut self) {
        self.mirrors.send(&self.plan, &self.outgoing, &self.timeouts, &self.cluster.stats);
    }

    /// Attempts so far.
    pub fn attempts(&self) -> u32 {
        self.retry.attempt()
    }

    /// The hash that its endpoint is picked by, if any.
    pub(super) fn hash(&self) -> Option<u64> {
        self.hashed.hash
    }

    /// `set-cookie` values that go with the response.
    pub(super) fn cookies(&self) -> &[HeaderValue] {
        &self.hashed.cookies
    }

    /// The timeouts of the whole stream.
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// How long the response may stand still.
    pub fn idle(&self) -> Option<Duration> {
        self.deadlines.idle
    }

    /// Whether requests like this may be processed twice.
    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    pub(super) fn avoids_previous_hosts(&self) -> bool {
        self.policy.is_some_and(|policy| policy.avoid_previous_hosts)
    }

    pub(super) fn host_selection_attempts(&self) -> u32 {
        self.policy.map_or(1, |policy| policy.host_selection_attempts)
    }

    /// What is passed over by a retry.
    pub(super) fn omitted_hosts(&self) -> &'a [Criteria] {
        let policy = self.policy.filter(|_| self.attempts() > 1);
        policy.map_or(&[][..], |policy| &policy.omitted_hosts)
    }

    pub(super) fn breaker(&self) -> &LocalBreaker {
        self.cluster.breaker(self.plan.action.priority)
    }

    /// The request's whole body once more, if it is there.
    pub(super) fn whole_body(&self) -> Option<ClientBody> {
        let arrived = self.plan.stream.timeline.request_end.get().is_some();
        self.source.whole().filter(|_| arrived)
    }

    pub(super) fn can_send_again(&self) -> bool {
        self.source.is_kept()
    }

    /// The body for the attempt that begins now.
    pub(super) fn body(&self) -> Option<RequestBody> {
        // What can neither be retried nor replayed on a fresh connection is not worth its memory.
        let redirects = self.plan.action.internal_redirect.is_some();
        self.source.body(self.retry.may_retry() || self.repeatable || redirects)
    }

    /// Tries until there is an answer to give.
    ///
    /// # Errors
    /// The last failure.
    pub async fn run(&mut self) -> Result<Answer, Failure> {
        loop {
            let result = self.attempt().await;
            let decision = self.consider(&result);
            let Decision::Retry { after, asked } = decision else {
                self.note_refusal(&result, decision);
                return result;
            };
            let stats = &self.cluster.stats;
            let Some(permit) = self.breaker().try_retry() else {
                stats.upstream_rq_retry_overflow.inc();
                self.tally.retry_overflowed();
                self.plan.stream.flag(ResponseFlags::UPSTREAM_OVERFLOW);
                return result;
            };
            if let Ok(answer) = &result {
                stats.retried.record(answer.response.status().as_u16());
            }
            stats.upstream_rq_retry.inc();
            self.tally.retried();
            match asked {
                true => stats.upstream_rq_retry_backoff_ratelimited.inc(),
                false => stats.upstream_rq_retry_backoff_exponential.inc(),
            }
            let per_try = |it: &Failure| {
                matches!(it, Failure::Expired(Expired::PerTry | Expired::PerTryIdle, _))
            };
            self.timed_out = result.as_ref().is_err_and(per_try);
            drop(result);
            let pause = tokio::time::sleep(after);
            let stream = self.plan.stream;
            if let Err(expired) = self.deadlines.within(stream, None, pause).await {
                return Err(self.expired(expired));
            }
            self.retry_permit = Some(permit);
        }
    }

    /// Waits for `work` of the attempt that began at `begin`.
    pub(super) async fn within<T>(
        &self,
        begin: Instant,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let stream = self.plan.stream;
        self.deadlines
            .within(stream, Some(begin), work)
            .await
            .map_err(|expired| self.expired(expired))
    }

    fn expired(&self, expired: Expired) -> Failure {
        let (cluster, http) = (&self.cluster.stats, &self.plan.stream.served.stats);
        match expired {
            Expired::Route => {
                cluster.upstream_rq_timeout.inc();
                self.tally.timed_out();
            }
            Expired::PerTry => cluster.upstream_rq_per_try_timeout.inc(),
            Expired::PerTryIdle => cluster.upstream_rq_per_try_idle_timeout.inc(),
            Expired::Idle => http.downstream_rq_idle_timeout.inc(),
            Expired::Request => http.downstream_rq_timeout.inc(),
            Expired::Duration => http.downstream_rq_max_duration_reached.inc(),
            Expired::UpstreamDuration => cluster.upstream_rq_max_duration_reached.inc(),
        }
        Failure::Expired(expired, self.plan.stream.timeline.request_end.get().is_some())
    }

    fn consider(&mut self, result: &Result<Answer, Failure>) -> Decision {
        let kept = self.source.is_kept();
        let Self { retry, plan, .. } = self;
        plan.stream.connection.worker.with_random(|random| match result {
            Ok(answer) => {
                let response = &answer.response;
                retry.after_response(response.status(), response.headers(), kept, random)
            }
            Err(failure) => match kind(failure) {
                Some(kind) => retry.after_failure(kind, kept, random),
                None => Decision::No(Refusal::NotRetriable),
            },
        })
    }

    fn note_refusal(&self, result: &Result<Answer, Failure>, decision: Decision) {
        let stats = &self.cluster.stats;
        match decision {
            Decision::No(Refusal::LimitExceeded) => {
                stats.upstream_rq_retry_limit_exceeded.inc();
                self.tally.retries_exceeded();
                self.plan.stream.flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            }
            Decision::No(Refusal::BodyNotKept) => stats.retry_or_shadow_abandoned.inc(),
            _ if result.is_ok() && self.attempts() > 1 => {
                stats.upstream_rq_retry_success.inc();
                self.tally.retry_succeeded();
            }
            _ => {}
        }
    }

    /// Counts the response that the client gets.
    pub(super) fn charge<B>(&self, response: &Response<B>) {
        self.charge_reply(response.status());
        if response.headers().get(names::X_ENVOY_UPSTREAM_CANARY).is_some_and(|it| it == "true") {
            self.cluster.stats.canary.record(response.status().as_u16());
        }
    }

    /// Counts what the client gets in place of a response.
    pub(super) fn charge_reply(&self, status: StatusCode) {
        self.cluster.stats.response(status.as_u16(), self.plan.stream.internal.get());
        self.tally.answered(status.as_u16());
    }

    /// A timeout may be answered with 204 if a trusted caller asked for that.
    pub fn with_alternative_status(&self, reply: LocalReply) -> LocalReply {
        if self.timeout_means_no_content
            && reply.flags.contains(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT)
        {
            return LocalReply {
                status: StatusCode::NO_CONTENT,
                body: bytes::Bytes::new(),
                ..reply
            };
        }
        reply
    }
}

/// The failure in the words of the retry rules; none for what no rule covers.
fn kind(failure: &Failure) -> Option<retry::Failure> {
    Some(match failure {
        Failure::NoHost | Failure::Unresolved(_) => return None,
        Failure::Connect(ConnectError::Overflow(_)) => retry::Failure::Overflow,
        Failure::Connect(_) => retry::Failure::Connect,
        Failure::Send(error) => match (error.cause, error.stage) {
            (Cause::RequestBody, _) => return None,
            (Cause::RefusedStream, _) => retry::Failure::Refused,
            (_, Stage::NotProcessed) => retry::Failure::Reset { request_sent: false },
            _ => retry::Failure::Reset { request_sent: true },
        },
        Failure::Expired(Expired::PerTry | Expired::PerTryIdle | Expired::UpstreamDuration, _) => {
            retry::Failure::PerTryTimeout
        }
        Failure::Expired(..) => return None,
    })
}

fn deadlines(
    plan: &Plan<'_>,
    cluster: &LocalCluster,
    timeouts: &Timeouts,
    overrides: &Overrides,
) -> Deadlines {
    let limits = &plan.stream.served.config().limits;
    let upstream = cluster.spec().config.http.max_stream_duration;
    let overload = &plan.stream.connection.worker.shared.overload;
    let idle = plan.action.idle_timeout.unwrap_or(limits.stream_idle_timeout);
    let duration = plan.stream_limit();
    Deadlines {
        route: timeouts.request,
        per_try: timeouts.per_try,
        per_try_idle: timeouts.per_try_idle,
        idle: idle.map(|limit| overload.timeout(Timer::StreamIdle, limit)),
        request: limits.request_timeout,
        duration,
        upstream_duration: overrides.stream_duration.or(upstream),
    }
}
