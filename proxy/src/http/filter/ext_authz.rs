//! `ext_authz`: a service decides whether a request goes on, and what is changed about it and its response.

mod change;
pub(crate) mod check;
mod over_http;
mod verdict;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use xds::envoy::service::auth::v3::CheckResponse;

use self::change::Bad;
use self::check::{Asked, ToldBody};
use self::verdict::{Changes, Decision, Denial, Header, Verdict};
use super::passage::Passage;
use super::{Memory, Stopped};
use crate::call;
use crate::cluster::LocalCluster;
use crate::config::HashMap;
use crate::config::ext_authz::{AuthzService, BodyLimit, ExtAuthz, RouteAuthz};
use crate::config::header::AppendAction;
use crate::config::http_filter::FilterRule;
use crate::http::local_reply::LocalReply;
use crate::http::request_body::Kept;
use crate::http::upgrade;
use crate::telemetry::metrics::{ClusterAuthzStats, ExtAuthzStats};
use crate::telemetry::response_flags::ResponseFlags;

/// The method that is called.
pub(crate) const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// The namespace of what services say of requests.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
const FAILURE_MODE_ALLOWED: HeaderName =
    HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// Longest answer over HTTP that is read, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Headers of the response that an allowed request gets.
pub(super) type Promised = Box<[(AppendAction, Header)]>;

/// What routes say about one request.
#[derive(Default)]
struct Settings<'a> {
    extensions: HashMap<&'a str, &'a str>,
    service: Option<&'a AuthzService>,
    body: Option<BodyLimit>,
}

impl<'a> Settings<'a> {
    /// None if the request is not to be checked.
    fn of(config: &'a ExtAuthz, filter: &str, passage: &Passage<'a>) -> Option<Self> {
        let mut settings = Self { body: config.body, ..Self::default() };
        let rules = passage.said().to(filter).filter_map(|rule| match rule {
            FilterRule::ExtAuthz(rule) => Some(rule),
            _ => None,
        });
        for (nth, rule) in rules.enumerate() {
            match rule {
                RouteAuthz::Disabled if nth == 0 => return None,
                RouteAuthz::Disabled => {}
                RouteAuthz::Settings(said) => {
                    for (key, value) in &said.extensions {
                        settings.extensions.entry(key).or_insert(value);
                    }
                    // All but the extensions is said by the most specific level alone.
                    if nth == 0 {
                        settings.service = said.service.as_ref();
                        settings.body = said.body.or(config.body).filter(|_| !said.without_body);
                    }
                }
            }
        }
        Some(settings)
    }
}

/// Who counts verdicts.
struct Stats {
    own: Arc<ExtAuthzStats>,
    /// Of the cluster that the request is for.
    cluster: Option<(Rc<LocalCluster>, Arc<ClusterAuthzStats>)>,
}

impl Stats {
    fn of(config: &ExtAuthz, passage: &Passage<'_>) -> Self {
        let worker = &passage.stream.connection.worker;
        let own = worker.filter_stats.ext_authz(&config.scope);
        let spec = passage.cluster().filter(|_| config.charges_cluster);
        let spec = spec.and_then(|name| passage.stream.served.snapshot.clusters.get(name));
        let cluster = spec.map(|spec| {
            let name = &spec.config.stat_name;
            let stats = worker.filter_stats.cluster_authz(name, &config.scope.prefix);
            (worker.clusters.get(spec), stats)
        });
        Self { own, cluster }
    }

    fn of_cluster(&self, count: impl FnOnce(&ClusterAuthzStats)) {
        if let Some((_, stats)) = &self.cluster {
            count(stats);
        }
    }
}

/// Asks the service about a request.
///
/// # Errors
/// The answer to a request that does not go on.
pub(super) async fn request(
    config: &ExtAuthz,
    filter: &str,
    passage: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    // As in Envoy, what has no route is not checked.
    if passage.route().is_none() {
        return Ok(Memory::Nothing);
    }
    let Some(settings) = Settings::of(config, filter, passage) else { return Ok(Memory::Nothing) };
    let stats = Stats::of(config, passage);
    if !is_enabled(config, passage) {
        stats.own.disabled.inc();
        return match config.deny_at_disable {
            true => Err(failed(config, Denial::default())),
            false => Ok(Memory::Nothing),
        };
    }
    let body = match settings.body.filter(|_| has_told_body(passage)) {
        Some(limit) => Some((told_body(limit, passage).await?, limit)),
        None => None,
    };
    let begin = Instant::now();
    let service = settings.service.unwrap_or(&config.service);
    let verdict = ask(config, service, &settings, body.as_ref(), passage).await;
    let Verdict { mut decision, mut metadata } = verdict;
    if !metadata.is_empty() {
        if matches!(decision, Decision::Allowed(_)) {
            let took = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            metadata.insert("ext_authz_duration".to_owned(), took.into());
        }
        match config.takes_metadata {
            true => passage.stream.dynamic_mut().merge(NAMESPACE, metadata),
            false => stats.own.ignored_dynamic_metadata.inc(),
        }
    }
    if config.validate_mutations && !is_valid(&decision) {
        decision = Decision::Invalid;
    }
    conclude(config, decision, &stats, passage)
}

fn is_enabled(config: &ExtAuthz, passage: &Passage<'_>) -> bool {
    let worker = &passage.stream.connection.worker;
    let dynamic = passage.stream.dynamic();
    config.enabled.is_none_or(|share| share.takes(worker.random()))
        && config.enabled_metadata.as_ref().is_none_or(|it| it.matches(dynamic.metadata()))
}

/// Whether there is a body that ends.
fn has_told_body(passage: &Passage<'_>) -> bool {
    !passage.body.is_end_stream() && upgrade::requested(&passage.head().headers).is_none()
}

/// Waits for as much of the body as is told.
async fn told_body(limit: BodyLimit, passage: &mut Passage<'_>) -> Result<ToldBody, Stopped> {
    match passage.body.keep(limit.bytes.into()).await {
        Ok(Kept::Beginning) if !limit.partial => {
            passage.stream.served.stats.downstream_rq_too_large.inc();
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let reply = LocalReply::new(status, "request_payload_too_large")
                .body("Payload Too Large")
                .header(CONNECTION, HeaderValue::from_static("close"));
            Err(Stopped::Reply(Box::new(reply)))
        }
        Ok(kept) => Ok(ToldBody {
            bytes: passage.body.kept(limit.bytes as usize),
            is_partial: kept == Kept::Beginning,
        }),
        // Nobody is there any more to read it.
        Err(_) => {
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, "downstream_remote_disconnect");
            Err(Stopped::Reply(Box::new(reply)))
        }
    }
}

async fn ask(
    config: &ExtAuthz,
    service: &AuthzService,
    settings: &Settings<'_>,
    body: Option<&(ToldBody, BodyLimit)>,
    passage: &Passage<'_>,
) -> Verdict {
    let stream = passage.stream;
    let caller = &stream.connection.worker.caller;
    match service {
        AuthzService::Grpc(service) => {
            let question = {
                let dynamic = stream.dynamic();
                let asked = Asked {
                    tells: &config.tells,
                    downstream: &stream.connection.downstream,
                    head: passage.head(),
                    time: stream.start.wall,
                    id: stream.random(),
                    received: stream.bytes_received(),
                    body: body.map(|(body, limit)| (body, *limit)),
                    dynamic: dynamic.metadata(),
                    route: passage.route().and_then(|route| route.metadata.as_deref()),
                };
                let extensions = settings.extensions.iter().map(|(key, value)| (*key, *value));
                check::of_request(&asked, extensions)
            };
            let answer = call::grpc::unary::<CheckResponse>(caller, service, METHOD, &question);
            match answer.await {
                Ok(response) => Verdict::read(response),
                Err(status) => {
                    tracing::debug!(cluster = &*service.cluster, %status, "ext_authz");
                    Verdict::default()
                }
            }
        }
        AuthzService::Http(service) => {
            let body = body.map(|(body, _)| body);
            let head = passage.head();
            let request = over_http::request(service, &config.tells, head, body, &**stream);
            let Some(request) = request else { return Verdict::default() };
            let server = &service.server;
            let answer = caller.fetch(&server.cluster, request, server.timeout, LONGEST_ANSWER);
            match answer.await {
                Ok(response) => over_http::verdict(service, response),
                Err(error) => {
                    tracing::debug!(cluster = &*server.cluster, %error, "ext_authz");
                    Verdict::default()
                }
            }
        }
    }
}

/// Whether every header of the answer could stand in a message.
fn is_valid(decision: &Decision) -> bool {
    match decision {
        Decision::Allowed(changes) => {
            let Changes { set, add, append, response, .. } = &**changes;
            let to_request = set.iter().chain(add).chain(append);
            change::are_valid(to_request.chain(response.iter().map(|(_, header)| header)))
        }
        Decision::Denied(denial) | Decision::Failed(denial) => {
            change::are_valid(denial.headers.iter())
        }
        Decision::Invalid => false,
    }
}

/// Does what was decided.
fn conclude(
    config: &ExtAuthz,
    decision: Decision,
    stats: &Stats,
    passage: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    match decision {
        Decision::Allowed(changes) => {
            let changed = match changes.is_empty() {
                true => Ok(()),
                false => change::request(&changes, config.rules.as_ref(), passage.head_mut()),
            };
            if changed == Err(Bad::Change) {
                return Err(invalid(stats));
            }
            stats.own.ok.inc();
            stats.of_cluster(|stats| stats.ok.inc());
            if let Err(Bad::Header(reason)) = changed {
                return Err(unsendable(reason));
            }
            if config.clear_route_cache && changes.change_the_request() {
                passage.find_route_again();
            }
            Ok(Memory::Authorized(changes.response.into_boxed_slice()))
        }
        Decision::Denied(denial) => {
            stats.own.denied.inc();
            let status = denial.status.unwrap_or(StatusCode::FORBIDDEN);
            if let Some((cluster, stats)) = &stats.cluster {
                stats.denied.inc();
                // As Envoy has it, whoever asked.
                cluster.stats.response(status.as_u16(), true);
            }
            Err(denied(config, *denial, status, "ext_authz_denied"))
        }
        Decision::Failed(denial) => {
            stats.own.error.inc();
            stats.of_cluster(|stats| stats.error.inc());
            if !config.failure_mode_allow {
                return Err(failed(config, *denial));
            }
            stats.own.failure_mode_allowed.inc();
            stats.of_cluster(|stats| stats.failure_mode_allowed.inc());
            if config.failure_mode_allow_header {
                let headers = &mut passage.head_mut().headers;
                headers.insert(FAILURE_MODE_ALLOWED, HeaderValue::from_static("true"));
            }
            Ok(Memory::Nothing)
        }
        Decision::Invalid => Err(invalid(stats)),
    }
}

fn invalid(stats: &Stats) -> Stopped {
    stats.own.invalid.inc();
    stats.of_cluster(|stats| stats.invalid.inc());
    let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "ext_authz_invalid");
    Stopped::Reply(Box::new(reply.flag(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE)))
}

/// The answer to a request with a header that is none, as Envoy's codecs give it.
fn unsendable(reason: String) -> Stopped {
    let details =
        format!("filter_removed_required_request_headers{{{}}}", reason.replace(' ', "_"));
    let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, details).body(reason);
    Stopped::Reply(Box::new(reply.flag(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)))
}

fn failed(config: &ExtAuthz, denial: Denial) -> Stopped {
    let status = denial.status.unwrap_or(config.status_on_error);
    denied(config, denial, status, "ext_authz_error")
}

fn denied(config: &ExtAuthz, denial: Denial, status: StatusCode, details: &'static str) -> Stopped {
    let mut reply = LocalReply::new(status, details);
    reply.headers = change::denial(&denial.headers);
    let mut body = denial.body;
    body.truncate(config.longest_denial.unwrap_or(usize::MAX));
    let reply = reply.body(body).flag(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE);
    Stopped::Reply(Box::new(reply))
}

/// Changes the headers of the response to an allowed request.
pub(super) fn response(promised: &Promised, headers: &mut HeaderMap) {
    change::response(promised, headers);
}
