//! What each kind of condition holds for.

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::address::CidrRange;
use crate::config::matcher::uri_template::UriTemplate;
use crate::config::matcher::{HeaderMatcher, HeaderRef, HeaderRule, StringPattern};
use crate::config::metadata::{MetadataMatcher, ValueMatcher};

fn exact(text: &str) -> StringMatcher {
    StringMatcher::new(StringPattern::Exact(text.into()), false)
}

fn range(text: &str, length: u8) -> CidrRange {
    CidrRange::new(text.parse().unwrap(), length).unwrap()
}

fn header(name: &str, rule: HeaderRule, invert: bool, missing_as_empty: bool) -> Condition {
    let header = HeaderRef::parse(name).unwrap();
    Condition::Header(HeaderMatcher { header, rule, invert, missing_as_empty })
}

/// The facts of a plain connection.
fn connection<'a>() -> Facts<'a> {
    Facts {
        request: None,
        tls: None,
        server_name: None,
        destination: "10.0.0.1:80".parse().unwrap(),
        source: "10.0.0.2:1".parse().unwrap(),
        direct_remote: "10.0.0.3:1".parse().unwrap(),
        remote: "10.0.0.4:1".parse().unwrap(),
        metadata: None,
        filter_state: &|key| (key == "k").then_some("v"),
        attributes: None,
    }
}

fn with_request<T>(path: &str, headers: &[&str], ask: impl FnOnce(&Facts<'_>) -> T) -> T {
    let values = headers.iter().map(|value| HeaderValue::from_str(value).unwrap());
    let mut map = HeaderMap::new();
    for value in values {
        map.append("x", value);
    }
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "a.test",
        path_and_query: path,
        headers: &map,
    };
    let request = Request { head, path: head.path(), route_metadata: Some(None) };
    ask(&Facts { request: Some(request), ..connection() })
}

#[test]
fn addresses_and_ports_are_those_of_their_end() {
    let facts = connection();
    for (condition, holds) in [
        (Condition::Destination(range("10.0.0.1", 32)), true),
        (Condition::Destination(range("10.0.0.2", 32)), false),
        (Condition::Source(range("10.0.0.2", 32)), true),
        (Condition::Source(range("10.0.0.3", 32)), false),
        (Condition::DirectRemote(range("10.0.0.3", 32)), true),
        (Condition::DirectRemote(range("10.0.0.4", 32)), false),
        (Condition::Remote(range("10.0.0.4", 32)), true),
        (Condition::Remote(range("10.0.0.0", 30)), false),
        (Condition::Port(80), true),
        (Condition::Port(81), false),
        (Condition::Ports(80..81), true),
        (Condition::Ports(79..80), false),
    ] {
        assert_eq!(condition.matches(&facts), holds, "{condition:?}");
    }
}

#[test]
fn what_a_connection_does_not_have_matches_nothing() {
    let facts = connection();
    let path = Condition::Path(exact("/"));
    let template = Condition::Template(UriTemplate::new("/**").unwrap());
    let present = header("x", HeaderRule::Present(false), false, false);
    for condition in [path, template, present, Condition::Authenticated(None)] {
        assert!(!condition.matches(&facts), "{condition:?}");
    }
    assert!(Condition::ServerName(exact("")).matches(&facts));
    assert!(Condition::FilterState("k".into(), exact("v")).matches(&facts));
    assert!(!Condition::FilterState("l".into(), exact("v")).matches(&facts));
}

#[test]
fn metadata_of_a_route_needs_a_route() {
    let matcher = |invert| MetadataMatcher {
        namespace: "a".into(),
        path: vec!["k".into()],
        value: ValueMatcher::Present(true),
        invert,
    };
    let mut metadata = Metadata::default();
    metadata.set("a", json!({"k": 1}).as_object().cloned().unwrap());
    let noted = Facts { metadata: Some(&metadata), ..connection() };
    assert!(Condition::Metadata(matcher(false)).matches(&noted));
    assert!(!Condition::RouteMetadata(matcher(false)).matches(&noted));
    assert!(!Condition::RouteMetadata(matcher(true)).matches(&noted));
    with_request("/", &[], |facts| {
        assert!(Condition::RouteMetadata(matcher(true)).matches(facts));
    });
}

/// As Envoy 1.40 has answered.
#[test]
fn each_of_several_fields_is_looked_at_by_itself() {
    let value = |text| HeaderRule::Value(exact(text));
    let is_a = header("x", value("a"), false, false);
    let is_not_a = header("x", value("a"), true, false);
    let is_list = header("x", value("a,b"), false, false);
    let is_small = header("x", HeaderRule::Range { start: 1, end: 5 }, false, false);
    let is_empty = header("x", value(""), false, true);
    let is_absent = header("x", HeaderRule::Present(false), false, false);
    let all = [is_a, is_not_a, is_list, is_small, is_empty, is_absent];
    for (headers, expected) in [
        (&[][..], [false, false, false, false, true, true]),
        (&["a"], [true, false, false, false, false, false]),
        (&["a", "b"], [true, false, false, false, false, false]),
        (&["b", "a"], [true, false, false, false, false, false]),
        (&["a,b"], [false, true, true, false, false, false]),
        (&["9", "3"], [false, true, false, true, false, false]),
        (&[""], [false, true, false, false, true, false]),
    ] {
        let holds = with_request("/", headers, |facts| all.each_ref().map(|it| it.matches(facts)));
        assert_eq!(holds, expected, "{headers:?}");
    }
}

#[test]
fn a_path_is_matched_without_its_query() {
    with_request("/a?b", &[], |facts| {
        assert!(Condition::Path(exact("/a")).matches(facts));
        assert!(Condition::Template(UriTemplate::new("/*").unwrap()).matches(facts));
        assert!(header(":path", HeaderRule::Value(exact("/a?b")), false, false).matches(facts));
    });
}

fn rules(action: Action, policies: &[(&str, Condition)]) -> Rules {
    let policy = |(name, condition): &(&str, Condition)| Policy {
        name: (*name).into(),
        permissions: vec![condition.clone()],
        principals: vec![Condition::Any],
        expression: None,
    };
    Rules::new(action, policies.iter().map(policy).collect(), "dry_", "shadow")
}

#[test]
fn the_first_policy_that_matches_decides() {
    let no = Condition::Port(1);
    let policies = [("a", no), ("b", Condition::Any), ("c", Condition::Any)];
    for (action, with, without) in
        [(Action::Allow, true, false), (Action::Deny, false, true), (Action::Log, true, true)]
    {
        let matching = rules(action, &policies);
        let verdict = matching.judge(&connection());
        assert_eq!((verdict.is_allowed, verdict.policy), (with, Some("b")));
        let other = rules(action, &policies[..1]);
        let verdict = other.judge(&connection());
        assert_eq!((verdict.is_allowed, verdict.policy), (without, None));
    }
}

#[test]
fn a_verdict_is_noted_as_envoy_notes_it() {
    let deny = rules(Action::Deny, &[("a b\tc[0]", Condition::Any)]);
    let denied = deny.judge(&connection());
    assert_eq!(denied.details(), "rbac_access_denied_matched_policy[a_b_c[0]]");
    let noted = |verdict: &Verdict<'_>| Value::Object(verdict.note.unwrap().as_ref().clone());
    let expected = json!({
        "dry_shadow_effective_policy_id": "a b\tc[0]",
        "dry_shadow_engine_result": "denied",
    });
    assert_eq!(noted(&denied), expected);
    let allow = rules(Action::Allow, &[("", Condition::Port(1)), ("", Condition::Any)]);
    assert_eq!(noted(&allow.judge(&connection())), json!({"dry_shadow_engine_result": "allowed"}));
    let allow = rules(Action::Allow, &[("a", Condition::Port(1))]);
    let nobody = allow.judge(&connection());
    assert_eq!(nobody.details(), "rbac_access_denied_matched_policy[none]");
    assert_eq!(noted(&nobody), json!({"dry_shadow_engine_result": "denied"}));
    let log = rules(Action::Log, &[]);
    let hint = log.judge(&connection()).log_hint(&log).unwrap();
    assert_eq!(Value::Object(hint), json!({"access_log_hint": false}));
    assert_eq!(nobody.log_hint(&rules(Action::Deny, &[])), None);
}

fn conditions() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        Just(Condition::Any),
        (0_u16..90).prop_map(Condition::Port),
        (0_u32..90, 1_u32..90).prop_map(|(start, size)| Condition::Ports(start..start + size)),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::OneOf),
            inner.prop_map(|it| Condition::Not(Box::new(it))),
        ]
    })
}

proptest! {
    #[test]
    fn all_is_not_one_of_not(conditions in prop::collection::vec(conditions(), 1..5)) {
        let facts = connection();
        let negated = conditions.iter().cloned().map(|it| Condition::Not(Box::new(it))).collect();
        let all = Condition::All(conditions).matches(&facts);
        prop_assert_eq!(all, !Condition::OneOf(negated).matches(&facts));
    }

    #[test]
    fn to_deny_is_the_contrary_of_to_allow(condition in conditions()) {
        let facts = connection();
        let allowed = |action| {
            let rules = rules(action, &[("p", condition.clone())]);
            rules.judge(&facts).is_allowed
        };
        prop_assert_ne!(allowed(Action::Allow), allowed(Action::Deny));
    }
}
