//! `outrigger route-check` on route tables and test files: Envoy's own goldens, and what a person sees.
//!
//! The goldens are not part of this repository: they are looked for in `SUITES_DIR`, else beside the workspace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use harness::{Program, Value, json};

const ROUTES: &str = r#"virtual_hosts:
- name: shop
  domains: [shop.example]
  routes:
  - match: {prefix: /cart, runtime_fraction: {runtime_key: new-cart, default_value: {numerator: 10}}}
    route: {cluster: cart-v2}
  - match: {prefix: /cart}
    route: {cluster: cart}
  - match: {path: /old}
    redirect: {path_redirect: /new, response_code: FOUND}
"#;

/// Runs `outrigger route-check` on a route table and tests.
fn route_check(routes: &str, tests: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let program = Program::Outrigger.path().unwrap();
    std::process::Command::new(program)
        .arg("route-check")
        .args([Path::new("-c"), &file("routes.yaml", routes)])
        .args([Path::new("-t"), &file("tests.yaml", tests)])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_case_of_envoys_router_check_tool_is_answered_alike() {
    let Some(file) = crate::suites::find("envoy_router_check.jsonl") else { return };
    let lines = std::fs::read_to_string(&file).unwrap();
    let cases: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A negative case is one whose expectations the tool must refuse.
    let mut files: BTreeMap<(&str, bool), Vec<&Value>> = BTreeMap::new();
    for case in &cases {
        let negative = case["tool_negative"].as_bool().unwrap();
        files.entry((case["config_yaml"].as_str().unwrap(), negative)).or_default().push(case);
    }
    for ((routes, negative), cases) in files {
        let tests = json!({"tests": cases.iter().map(|case| test(case)).collect::<Vec<_>>()});
        let output = route_check(routes, &tests.to_string(), &[]);
        assert_eq!(output.status.code(), Some(i32::from(negative)), "{}", text(&output));
    }
    assert!(!cases.is_empty(), "no case in {}", file.display());
}

/// A case in the words of Envoy's test files.
fn test(case: &Value) -> Value {
    let request = &case["request"];
    let header = |header: &Value| json!({"key": header[0], "value": header[1]});
    let headers: Vec<Value> = request["headers"].as_array().unwrap().iter().map(header).collect();
    let mut input = json!({
        "authority": request["authority"],
        "path": request["path"],
        "method": request["method"],
        "ssl": request["scheme"] == "https",
        "internal": request["internal"],
        "additional_request_headers": headers,
    });
    for (theirs, ours) in [
        ("random_value", "random_value"),
        ("runtime", "runtime_key_enabled"),
        ("dynamic_metadata", "dynamic_metadata"),
    ] {
        if let Some(value) = request.get(ours) {
            input[theirs] = value.clone();
        }
    }
    let expected = case["expect"].as_object().unwrap().iter();
    let validate = expected.map(|(name, value)| (name_in_tool(name).to_owned(), value.clone()));
    json!({"test_name": case["id"], "input": input, "validate": validate.collect::<Value>()})
}

fn name_in_tool(name: &str) -> &str {
    match name {
        "cluster" => "cluster_name",
        "virtual_cluster" => "virtual_cluster_name",
        "virtual_host" => "virtual_host_name",
        "redirect" => "path_redirect",
        "status" => "code_redirect",
        "request_headers" => "request_header_matches",
        "response_headers" => "response_header_matches",
        other => other,
    }
}

#[test]
fn a_failure_says_what_was_expected_and_what_came() {
    let tests = "tests:
- test_name: carts
  input: {authority: shop.example, path: /cart, method: GET, runtime: new-cart, random_value: 9}
  validate: {cluster_name: cart}
- test_name: strangers
  input: {authority: elsewhere.example, path: /cart, method: GET}
  validate: {cluster_name: ''}
";
    let output = route_check(ROUTES, tests, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    let line = "expected: [cart], actual: [cart-v2], test type: cluster_name";
    assert!(text.contains(&format!("carts\n{line}")), "{text}");
    assert!(!text.contains("strangers"), "{text}");
    assert!(text.contains("2 tests, 1 failed"), "{text}");
}

#[test]
fn coverage_counts_the_routes_that_were_taken() {
    let tests = "tests:
- test_name: carts
  input: {authority: shop.example, path: /cart, method: GET}
  validate: {cluster_name: cart, virtual_host_name: shop}
- test_name: moved
  input: {authority: shop.example, path: /old, method: GET}
  validate: {path_redirect: 'http://shop.example/new', code_redirect: 302}
";
    let good = route_check(ROUTES, tests, &["--fail-under", "60", "--output", "json"]);
    assert!(good.status.success(), "{}", text(&good));
    let results: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert!((results["coverage"].as_f64().unwrap() - 200.0 / 3.0).abs() < 0.001);
    assert_eq!(results["test_results"][1]["test_passed"], true);
    assert_eq!(results["routes_without_test"].as_array().unwrap().len(), 1);

    // Two of five properties of one route, both of another, none of the third.
    let all = route_check(ROUTES, tests, &["--covall", "-f", "60"]);
    assert_eq!(all.status.code(), Some(1));
    assert!(text(&all).contains("Current route coverage: 46.6667%"), "{}", text(&all));
}

#[test]
fn a_file_that_is_refused_names_the_place() {
    for (routes, tests, place) in [
        ("virtual_hosts: [{name: a}]", "tests: []", "tests.yaml:1:1: tests: needs at least one"),
        (
            "virtual_hosts:\n- name: a\n  domains: []",
            "tests: [{test_name: a, input: {authority: a, path: /, method: GET}}]",
            "routes.yaml:3:3: virtual_hosts[0].domains",
        ),
        (ROUTES, "tests: [{test_name: a, input: {authority: a, path: /}}]", "input.method"),
        (
            ROUTES,
            "tests:\n- test_name: a\n  input: {authority: a, path: /, method: GET}\n  validate:\n    \
             request_header_matches: [{name: x, string_match: {prefix: ''}}]",
            "tests.yaml:5:63: tests[0].validate.request_header_matches[0].string_match.prefix",
        ),
    ] {
        let output = route_check(routes, tests, &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(place), "{}", text(&output));
    }
}
