//! Policies with a condition: CEL expressions over a request, as the trees that Envoy takes.

use harness::{Program, Route, Value, json};

use super::{any, filter, guarded, object, ok, policy, rules, start, status};

on_both!(conditions_say_what_else_has_to_be_true, conditions_see_what_filters_before_have_done);

fn name(name: &str) -> Value {
    json!({"ident_expr": {"name": name}})
}

fn of(operand: impl Into<Value>, field: &str) -> Value {
    object([("select_expr", object([("operand", operand.into()), ("field", field.into())]))])
}

fn text(text: &str) -> Value {
    json!({"const_expr": {"string_value": text}})
}

fn truth(is: bool) -> Value {
    json!({"const_expr": {"bool_value": is}})
}

fn call<const N: usize>(function: &str, arguments: [Value; N]) -> Value {
    json!({"call_expr": {"function": function, "args": Vec::from(arguments)}})
}

/// `target.function(argument)`
fn on(target: impl Into<Value>, function: &str, argument: impl Into<Value>) -> Value {
    let mut it = call(function, [argument.into()]);
    it["call_expr"]["target"] = target.into();
    it
}

fn header(named: &str) -> Value {
    call("_[_]", [of(name("request"), "headers"), text(named)])
}

/// A policy for everybody, if this is so.
fn when(condition: Value) -> Value {
    let mut policy = policy(any(), any());
    policy["condition"] = condition;
    policy
}

/// Conditions, and whether they let `/abc` with `x-a: b` and `/xyz1` without it pass.
fn conditions() -> Vec<(&'static str, Value, [bool; 2])> {
    let request = |member: &str| of(name("request"), member);
    let is_b = || call("_==_", [header("x-a"), text("b")]);
    let mut has = of(request("headers"), "x-a");
    has["select_expr"]["test_only"] = true.into();
    let number = |number: &str| json!({"const_expr": {"int64_value": number}});
    vec![
        ("true", truth(true), [true, true]),
        ("false", truth(false), [false, false]),
        ("equal", is_b(), [true, false]),
        ("any-case", call("_==_", [header("X-A"), text("b")]), [true, false]),
        ("in", call("@in", [text("x-a"), request("headers")]), [true, false]),
        ("in-as-it-was", call("_in_", [text("x-a"), request("headers")]), [true, false]),
        ("has", has, [true, false]),
        (
            "one-of",
            call(
                "@in",
                [header("x-a"), json!({"list_expr": {"elements": [text("a"), text("b")]}})],
            ),
            [true, false],
        ),
        ("starts", on(request("path"), "startsWith", text("/a")), [true, false]),
        ("matches", on(request("url_path"), "matches", text("^/[a-z]+$")), [true, false]),
        ("size", call("_>_", [call("size", [header("x-a")]), number("0")]), [true, false]),
        ("or", call("_||_", [is_b(), truth(true)]), [true, true]),
        ("if", call("_?_:_", [is_b(), truth(false), truth(true)]), [false, false]),
        // Of what is not there, nothing is true, not even that it is not something.
        ("not", call("!_", [is_b()]), [false, false]),
        ("no-truth", text("x"), [false, false]),
        (
            "no-answer-yet",
            call("_==_", [of(name("response"), "code"), number("200")]),
            [false, false],
        ),
    ]
}

async fn conditions_say_what_else_has_to_be_true(program: Program) {
    let cases = conditions();
    let filter_names: Vec<_> = cases.iter().map(|(name, ..)| *name).collect();
    // One filter asks a condition where a route says so.
    let nothing = filter_names.iter().map(|name| filter(name, json!({})));
    let routes = cases.iter().map(|(name, condition, _)| {
        let rbac = json!({"rules": rules("ALLOW", json!({"p": when(condition.clone())}))});
        ok(Route::matching(json!({"prefix": "/", "headers": [
            {"name": "x-case", "string_match": {"exact": *name}},
        ]})))
        .tell(name, "rbac.v3.RBACPerRoute", object([("rbac", rbac)]))
    });
    let proxy = start(program, guarded(nothing, routes)).await;
    for (name, _, passes) in &cases {
        let found = [
            status(&proxy, "/abc", &[("x-case", name), ("x-a", "b")]).await,
            status(&proxy, "/xyz1", &[("x-case", name)]).await,
        ];
        assert_eq!(found, passes.map(|it| if it { 200 } else { 403 }), "{name}");
    }
}

async fn conditions_see_what_filters_before_have_done(program: Program) {
    let package = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3";
    let mutation = json!({"name": "m", "typed_config": {
        "@type": format!("{package}.HeaderMutation"),
        "mutations": {"request_mutations": [{"append": {
            "header": {"key": "x-a", "value": "%REQ(x-b)%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }}]},
    }});
    let condition = call("_==_", [header("x-a"), text("b")]);
    let rbac = json!({"rules": rules("ALLOW", json!({"p": when(condition)}))});
    let http = guarded([mutation, filter("rbac", rbac)], [ok(Route::prefix("/"))]);
    let proxy = start(program, http).await;
    for (headers, expected) in
        [([("x-b", "b"), ("x-a", "c")], 200), ([("x-b", "c"), ("x-a", "b")], 403)]
    {
        assert_eq!(status(&proxy, "/", &headers).await, expected, "{headers:?}");
    }
}
