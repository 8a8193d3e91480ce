//! `rbac`: lets a request pass or not, as policies say of who makes it and what it is.

use http::StatusCode;

use super::{Passage, Stopped};
use crate::config::http_filter::FilterRule;
use crate::config::rbac::{Rbac, RbacFilter, Rules};
use crate::http::local_reply::LocalReply;
use crate::rbac::{Facts, Request, SHARED_NAMESPACE, Verdict};

/// What verdicts are noted under in dynamic metadata.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// Asks the rules: first the shadow rules, whose verdict is only counted and noted.
///
/// # Errors
/// The answer to a request that may not pass.
pub(super) fn request(
    filter: &RbacFilter,
    name: &str,
    passage: &Passage<'_>,
) -> Result<(), Stopped> {
    let rule = passage.said().to(name).find_map(|rule| match rule {
        FilterRule::Rbac(rbac) => Some(rbac),
        _ => None,
    });
    let rbac = rule.unwrap_or(&filter.rbac);
    if let Some(rules) = &rbac.shadow_rules {
        judge_shadow(filter, rbac, rules, passage);
    }
    let Some(rules) = &rbac.rules else { return Ok(()) };
    let verdict = judge(rules, passage);
    let stats = &passage.stream.connection.worker.filter_stats;
    let counters = stats.rbac(&filter.rules_scope);
    if verdict.is_allowed { &counters.allowed } else { &counters.denied }.inc();
    if let Some(policy) = verdict.policy.filter(|_| rbac.counts_policies) {
        let counters = stats.rbac_policy(&filter.rules_scope.of_policy(policy));
        if verdict.is_allowed { &counters.allowed } else { &counters.denied }.inc();
    }
    let mut dynamic = passage.stream.dynamic_mut();
    dynamic.note(NAMESPACE, verdict.note);
    if let Some(hint) = verdict.log_hint(rules) {
        dynamic.merge(SHARED_NAMESPACE, hint);
    }
    if verdict.is_allowed {
        return Ok(());
    }
    let reply = LocalReply::new(StatusCode::FORBIDDEN, verdict.details());
    Err(Stopped::Reply(Box::new(reply.body("RBAC: access denied"))))
}

fn judge_shadow(filter: &RbacFilter, rbac: &Rbac, rules: &Rules, passage: &Passage<'_>) {
    let verdict = judge(rules, passage);
    let stats = &passage.stream.connection.worker.filter_stats;
    let counters = stats.shadow_rbac(&filter.shadow_scope);
    if verdict.is_allowed { &counters.allowed } else { &counters.denied }.inc();
    if let Some(policy) = verdict.policy.filter(|_| rbac.counts_policies) {
        let counters = stats.rbac_policy(&filter.shadow_scope.of_policy(policy));
        if verdict.is_allowed { &counters.shadow_allowed } else { &counters.shadow_denied }.inc();
    }
    passage.stream.dynamic_mut().note(NAMESPACE, verdict.note);
}

fn judge<'a>(rules: &'a Rules, passage: &Passage<'_>) -> Verdict<'a> {
    let stream = passage.stream;
    let downstream = &stream.connection.downstream;
    let dynamic = stream.dynamic();
    let head = passage.head().view();
    let path = match stream.table() {
        Some(table) => table.matched_path(&head),
        None => head.path().into(),
    };
    let route_metadata = passage.route().map(|route| route.metadata.as_deref());
    let client = stream.client.get();
    rules.judge(&Facts {
        request: Some(Request { head, path: &path, route_metadata }),
        tls: downstream.tls.as_ref(),
        server_name: downstream.server_name.as_deref(),
        destination: downstream.local,
        source: downstream.remote,
        direct_remote: downstream.direct_remote,
        remote: client,
        metadata: dynamic.metadata(),
        filter_state: &|key| dynamic.text(key),
        attributes: Some(passage),
    })
}
