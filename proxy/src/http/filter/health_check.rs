//! `health_check`: answers health checks of this proxy, by itself or as the upstream last did.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::{HeaderValue, StatusCode};

use super::Stopped;
use super::passage::{Answering, Passage};
use crate::config::http_filter::HealthCheck;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::http::stream::Stream;
use crate::telemetry::response_flags::ResponseFlags;
use crate::worker::Worker;

const CHECKED_CLUSTER: &str = "x-envoy-upstream-healthchecked-cluster";
const IMMEDIATE_FAIL: &str = "x-envoy-immediate-health-check-fail";
const DEGRADED: &str = "x-envoy-degraded";

/// Answers the request, if it is a check and its answer is known.
///
/// # Errors
/// The answer.
pub(super) fn request(config: &Arc<HealthCheck>, request: &Passage<'_>) -> Result<(), Stopped> {
    let stream = request.stream;
    if !is_check(config, request.head()) {
        return Ok(());
    }
    stream.set_health_check();
    let worker = &stream.connection.worker;
    let fails = worker.shared.fails_health_checks.load(Relaxed);
    let cached = worker.health_answer(config, Instant::now());
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let (status, degraded, details) = match cached {
        _ if fails => (unavailable, false, "health_check_failed"),
        Some((status, degraded)) => (status, degraded, "health_check_cached"),
        None if config.pass_through => return Ok(()),
        None => match of_clusters(config, worker) {
            Ok(details) => (StatusCode::OK, false, details),
            Err(details) => (unavailable, false, details),
        },
    };
    let mut reply = LocalReply::new(status, details);
    if !status.is_success() {
        reply = reply.flag(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK);
    }
    if degraded {
        reply.headers.insert(DEGRADED, HeaderValue::from_static(""));
    }
    Err(Stopped::Reply(Box::new(reply)))
}

/// Tells who checks which cluster answered; and everybody else, if checks are to fail.
pub(super) fn response(config: &Arc<HealthCheck>, stream: &Stream, answer: &mut Answering<'_>) {
    let worker = &stream.connection.worker;
    if stream.head().is_some_and(|head| is_check(config, head)) {
        let degraded = answer.headers.contains_key(DEGRADED);
        worker.note_health_answer(config, (answer.status, degraded), Instant::now());
        if let Ok(cluster) = HeaderValue::from_str(&worker.shared.service_cluster) {
            answer.headers.insert(CHECKED_CLUSTER, cluster);
        }
    }
    if worker.shared.fails_health_checks.load(Relaxed) {
        answer.headers.insert(IMMEDIATE_FAIL, HeaderValue::from_static("true"));
    }
}

fn is_check(config: &HealthCheck, head: &Head) -> bool {
    let view = head.view();
    config.headers.iter().all(|header| header.matches(&view))
}

/// Whether every cluster has as many healthy hosts as it needs, and what the logs say of that.
fn of_clusters(config: &HealthCheck, worker: &Worker) -> Result<&'static str, &'static str> {
    for (cluster, percentage) in &config.clusters {
        let Some((healthy, total)) = worker.shared.clusters.membership(cluster) else {
            return Err("health_check_failed_no_cluster_found");
        };
        if total == 0 && *percentage > 0.0 {
            return Err("health_check_failed_cluster_empty");
        }
        if (healthy as f64) < total as f64 * percentage / 100.0 {
            return Err("health_check_failed_cluster_unhealthy");
        }
    }
    let has_clusters = !config.clusters.is_empty();
    Ok(if has_clusters { "health_check_ok_cluster_healthy" } else { "health_check_ok" })
}
