//! Envoy's own route-table goldens (its `router_check_tool`), answered by the routing engine alone: no
//! sockets, and the random number is each case's own.
//!
//! The cases are not part of this repository: they are looked for in `SUITES_DIR`, else beside the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proxy::config::format::{Facts, Operator};
use proxy::config::matcher::RequestHead;
use proxy::config::route::{Action, ClusterSpecifier, RouteAction};
use proxy::discovery::decode;
use proxy::route::{Found, RouteTable, TlsPresence, redirect, rewrite, weighted};
use serde_json::Value;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::yaml::Document;

#[test]
fn every_case_of_envoys_router_check_tool_is_answered_alike() {
    let file = suites().join("envoy_router_check.jsonl");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("SKIPPED: no {}; set SUITES_DIR to where it is", file.display());
        return;
    };
    let cases: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answerable: Vec<_> = cases.iter().filter(|case| is_answerable(case)).collect();
    let wrong: Vec<String> = answerable.iter().flat_map(|case| differences(case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!answerable.is_empty(), "no case in {}", file.display());
}

fn suites() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    std::env::var_os("SUITES_DIR").map_or_else(beside, PathBuf::from)
}

/// Runtime keys and dynamic metadata are not set by anything here, and a negative case is one whose
/// expectations Envoy's tool must refuse.
fn is_answerable(case: &Value) -> bool {
    let mut needs = case["needs"].as_array().unwrap().iter();
    !case["tool_negative"].as_bool().unwrap()
        && needs.all(|need| need == "random_value" || need == "re2_runtime")
}

fn differences(case: &Value) -> Vec<String> {
    let id = case["id"].as_str().unwrap();
    let answer = answer(case);
    let expected = case["expect"].as_object().unwrap().iter();
    let differences = expected.flat_map(|(field, expected)| match field.as_str() {
        "request_headers" => unmatched(expected, |name| match name {
            ":method" => case["request"]["method"].as_str().map(str::to_owned),
            ":authority" => answer.fields.get("host_rewrite").cloned(),
            ":path" => answer.fields.get("path_rewrite").cloned(),
            name => joined(&answer.request_headers, name),
        }),
        "response_headers" => unmatched(expected, |name| joined(&answer.response_headers, name)),
        field => {
            let expected = expected.as_str().map_or_else(|| expected.to_string(), str::to_owned);
            let got = answer.fields.get(field).cloned().unwrap_or_default();
            let difference = format!("{field} is {got:?}, not {expected:?}");
            if got == expected { Vec::new() } else { vec![difference] }
        }
    });
    differences.map(|difference| format!("{id}: {difference}")).collect()
}

/// The header conditions of `expected` that `value` does not meet; as in Envoy's tool, an absent header
/// equals the empty one.
fn unmatched(expected: &Value, value: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let meets = |condition: &&Value| {
        let value = value(condition["name"].as_str().unwrap());
        let met = if let Some(exact) = condition["string_match"]["exact"].as_str() {
            value.as_deref().unwrap_or_default() == exact
        } else if let Some(range) = condition["range_match"].as_object() {
            let number = value.and_then(|value| value.parse().ok());
            let (start, end) = (range["start"].as_i64(), range["end"].as_i64());
            number.is_some_and(|number| start <= Some(number) && Some(number) < end)
        } else {
            value.is_some() == condition["present_match"].as_bool().unwrap_or(true)
        };
        met != condition["invert_match"].as_bool().unwrap_or(false)
    };
    let conditions = expected.as_array().unwrap().iter();
    conditions.filter(|condition| !meets(condition)).map(|it| format!("unmet: {it}")).collect()
}

fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// What the engine makes of a request, under the names of the suite.
#[derive(Default)]
struct Answer {
    fields: BTreeMap<&'static str, String>,
    request_headers: HeaderMap,
    response_headers: HeaderMap,
}

/// Facts of a request from this machine.
struct FromLocalhost;

impl Facts for FromLocalhost {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let known = *operator == Operator::DownstreamRemoteAddressWithoutPort;
        if known {
            out.extend_from_slice(b"127.0.0.1");
        }
        known
    }
}

fn answer(case: &Value) -> Answer {
    let document = Document::new("route_config", case["config_yaml"].as_str().unwrap());
    let proto: RouteConfiguration = document.read().unwrap();
    let table = RouteTable::compile(Arc::new(decode::route_config(&proto).unwrap())).unwrap();

    let request = &case["request"];
    let text = |field: &str| request[field].as_str().unwrap();
    let method = Method::from_bytes(text("method").as_bytes()).unwrap();
    let headers = headers(&request["headers"]);
    let head = RequestHead {
        method: &method,
        scheme: text("scheme"),
        authority: text("authority"),
        path_and_query: text("path"),
        headers: &headers,
    };
    let random = request["random_value"].as_u64().unwrap_or(0);
    let Some(found) = table.find(&head, random, TlsPresence::default()) else {
        return Answer::default();
    };
    if table.wants_https(found, head.scheme, request["internal"].as_bool().unwrap()) {
        let fields = BTreeMap::from([("redirect", redirect::to_https(&head))]);
        return Answer { fields, ..Answer::default() };
    }
    take(&table, found, &head, random)
}

fn take(table: &RouteTable, found: Found, head: &RequestHead<'_>, random: u64) -> Answer {
    let mut answer = Answer::default();
    let Some(route) = table.route(found) else { return answer };
    match &route.action {
        Action::Redirect(to) => {
            let location = redirect::location(to, &route.matcher, head, head.scheme);
            answer.fields.insert("redirect", location);
            answer.fields.insert("status", to.status.as_u16().to_string());
        }
        Action::DirectResponse(response) => {
            answer.fields.insert("status", response.status.as_u16().to_string());
            let headers = &mut answer.response_headers;
            if !response.body.is_empty() {
                headers.insert("content-type", HeaderValue::from_static("text/plain"));
                headers.insert("content-length", response.body.len().into());
            }
            table.mutate_response(found, None, headers, &FromLocalhost);
        }
        Action::Forward(action) => forward(&mut answer, table, found, action, head, random),
    }
    answer
}

fn forward(
    answer: &mut Answer,
    table: &RouteTable,
    found: Found,
    action: &RouteAction,
    head: &RequestHead<'_>,
    random: u64,
) {
    let host = table.virtual_host(found).unwrap();
    let virtual_cluster = match table.virtual_cluster(found, head) {
        Some(name) => name,
        None if host.virtual_clusters.is_empty() => "",
        None => "other",
    };
    let target = weighted::target(action, head, None, random);
    let cluster = match &action.cluster {
        ClusterSpecifier::Weighted(clusters) => {
            target.weighted.and_then(|number| clusters.clusters.get(number))
        }
        _ => None,
    };
    let mut headers = head.headers.clone();
    table.mutate_request(found, target.weighted, &mut headers, &FromLocalhost);
    let head = RequestHead { headers: &headers, ..*head };
    let authority = rewrite::host(action, cluster, &head)
        .map_or_else(|| head.authority.to_owned(), |host| host.name.into_owned());
    let matched = &table.route(found).unwrap().matcher;
    let path = rewrite::path(matched, &action.path_rewrite, &head, &FromLocalhost)
        .unwrap_or_else(|| head.path_and_query.to_owned());
    answer.fields.extend([
        ("cluster", target.cluster.to_owned()),
        ("virtual_cluster", virtual_cluster.to_owned()),
        ("virtual_host", host.name.to_string()),
        ("host_rewrite", authority),
        ("path_rewrite", path),
        ("timeout", action.timeout.map_or_else(String::new, |limit| format!("{limit:?}"))),
    ]);
    answer.request_headers = headers;
}

fn headers(fields: &Value) -> HeaderMap {
    let field = |field: &Value| {
        let name = HeaderName::try_from(field[0].as_str().unwrap()).unwrap();
        (name, HeaderValue::from_str(field[1].as_str().unwrap()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.as_array().unwrap().iter().map(field) {
        headers.append(name, value);
    }
    headers
}
