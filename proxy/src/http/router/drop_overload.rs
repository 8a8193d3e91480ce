//! Requests a cluster's management server wants dropped, so that the rest can be served
//! (`ClusterLoadAssignment.policy.drop_overloads`).

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::Plan;
use crate::cluster::LocalCluster;
use crate::http::local_reply::LocalReply;
use crate::telemetry::response_flags::ResponseFlags;

const DROPPED: HeaderName = HeaderName::from_static("x-envoy-drop-overload");
const ALL_DROPPED: HeaderName = HeaderName::from_static("x-envoy-unconditional-drop-overload");

/// The answer to a request that is dropped; none for one that is not.
pub(super) fn dropped(plan: &Plan<'_>, cluster: &LocalCluster) -> Option<LocalReply> {
    let share = cluster.spec().assignment.policy.drop_overload?;
    let worker = &plan.stream.connection.worker;
    if !worker.with_random(|random| share.takes(random.u64(..))) {
        return None;
    }
    let (header, body, details, flag) = if share.numerator >= share.denominator {
        let flag = ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD;
        (ALL_DROPPED, "unconditional drop overload", "unconditional_drop_overload", flag)
    } else {
        (DROPPED, "drop overload", "drop_overload", ResponseFlags::DROP_OVERLOAD)
    };
    let status = StatusCode::SERVICE_UNAVAILABLE;
    cluster.stats.response(status.as_u16(), plan.stream.internal.get());
    let reply = LocalReply::new(status, details).body(body).flag(flag);
    Some(match plan.suppresses_envoy_headers() {
        true => reply,
        false => reply.header(header, HeaderValue::from_static("true")),
    })
}
