//! What `rbac` filters leave in metadata, and what they find there.

use harness::{Program, Route, Value, json};

use super::{filter, guarded, may, object, ok, rules, start, status};

on_both!(
    shadow_rules_are_counted_and_noted,
    a_log_action_only_leaves_a_hint,
    metadata_of_the_route_may_be_asked_for,
);

/// A rule that asks what an `rbac` filter has noted.
fn noted(namespace: &str, key: &str, value: Value) -> Value {
    let path = json!([{"key": key}]);
    let matcher = object([("filter", namespace.into()), ("path", path), ("value", value)]);
    object([("metadata", matcher)])
}

async fn shadow_rules_are_counted_and_noted(program: Program) {
    let on = |header: &str| may(json!([{"header": {"name": header, "present_match": true}}]));
    let first = filter(
        "first",
        json!({
            "shadow_rules": rules("DENY", json!({"ns[a]-policy[b]": on("x-bad")})),
            "shadow_rules_stat_prefix": "istio_dry_run_deny_",
            "rules": rules("DENY", json!({"never": on("x-worse")})),
            "rules_stat_prefix": "real.",
            "track_per_rule_stats": true,
        }),
    );
    let said = |key: &str, value: &str| {
        noted("envoy.filters.http.rbac", key, json!({"string_match": {"exact": value}}))
    };
    let second = filter(
        "second",
        json!({"rules": rules("ALLOW", json!({
            "denied": may(json!([{"and_rules": {"rules": [
                said("istio_dry_run_deny_shadow_engine_result", "denied"),
                said("istio_dry_run_deny_shadow_effective_policy_id", "ns[a]-policy[b]"),
                said("real.enforced_engine_result", "allowed"),
            ]}}])),
            "allowed": may(json!([{"and_rules": {"rules": [
                {"url_path": {"path": {"exact": "/good"}}},
                said("istio_dry_run_deny_shadow_engine_result", "allowed"),
            ]}}])),
        }))}),
    );
    let proxy = start(program, guarded([first, second], [ok(Route::prefix("/"))])).await;
    assert_eq!(status(&proxy, "/", &[("x-bad", "1")]).await, 200);
    assert_eq!(status(&proxy, "/", &[]).await, 403);
    assert_eq!(status(&proxy, "/good", &[]).await, 200);
    assert_eq!(status(&proxy, "/good", &[("x-worse", "1")]).await, 403);
    proxy
        .until_stats([
            ("http.ing.rbac.istio_dry_run_deny_.shadow_denied", 1),
            ("http.ing.rbac.istio_dry_run_deny_.shadow_allowed", 3),
            ("http.ing.rbac.istio_dry_run_deny_.policy.ns[a]-policy[b].shadow_denied", 1),
            ("http.ing.rbac.real.allowed", 3),
            ("http.ing.rbac.real.denied", 1),
            ("http.ing.rbac.real.policy.never.denied", 1),
            ("http.ing.rbac.allowed", 2),
            ("http.ing.rbac.denied", 1),
        ])
        .await;
}

async fn a_log_action_only_leaves_a_hint(program: Program) {
    let wanted = may(json!([{"header": {"name": "x-log", "present_match": true}}]));
    let log = filter("log", json!({"rules": rules("LOG", json!({"p": wanted}))}));
    let hint = |truth: bool| {
        let asked = noted("envoy.common", "access_log_hint", json!({"bool_match": truth}));
        let path = if truth { "/log" } else { "/quiet" };
        json!({"and_rules": {"rules": [asked, {"url_path": {"path": {"exact": path}}}]}})
    };
    let policies = json!({"p": may(json!([hint(true), hint(false)]))});
    let second = filter("second", json!({"rules": rules("ALLOW", policies)}));
    let proxy = start(program, guarded([log, second], [ok(Route::prefix("/"))])).await;
    for (path, headers, expected) in [
        ("/log", &[("x-log", "1")][..], 200),
        ("/quiet", &[("x-log", "1")], 403),
        ("/log", &[], 403),
        ("/quiet", &[], 200),
    ] {
        assert_eq!(status(&proxy, path, headers).await, expected, "{path} {headers:?}");
    }
    proxy.until_stats([("http.ing.rbac.allowed", 6), ("http.ing.rbac.denied", 2)]).await;
}

async fn metadata_of_the_route_may_be_asked_for(program: Program) {
    let asked = |invert: bool| {
        json!([{"sourced_metadata": {"metadata_source": "ROUTE", "metadata_matcher": {
            "filter": "team", "path": [{"key": "name"}],
            "value": {"string_match": {"exact": "ops"}}, "invert": invert,
        }}}])
    };
    let team = |path: &str, name: &str| {
        ok(Route::prefix(path))
            .with("metadata", json!({"filter_metadata": {"team": {"name": name}}}))
    };
    for (invert, expected) in [(false, [200, 403, 403, 403]), (true, [403, 200, 200, 403])] {
        let policies = json!({"p": may(asked(invert))});
        let filters = [filter("rbac", json!({"rules": rules("ALLOW", policies)}))];
        let routes = [team("/ops", "ops"), team("/dev", "dev"), ok(Route::prefix("/none"))];
        let proxy = start(program, guarded(filters, routes)).await;
        for (path, expected) in ["/ops", "/dev", "/none", "/unknown"].into_iter().zip(expected) {
            assert_eq!(status(&proxy, path, &[]).await, expected, "{path} {invert}");
        }
    }
}
