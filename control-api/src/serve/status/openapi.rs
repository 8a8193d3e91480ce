//! What can be asked for, as an OpenAPI document and as a page.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// A path, and what it answers.
struct Operation {
    path: &'static str,
    about: &'static str,
    kind: Kind,
    /// Parameters, and what they are.
    parameters: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Json,
}

const fn text(path: &'static str, about: &'static str) -> Operation {
    Operation { path, about, kind: Kind::Text, parameters: &[] }
}

const fn json(path: &'static str, about: &'static str) -> Operation {
    Operation { path, about, kind: Kind::Json, parameters: &[] }
}

const fn json_of(
    path: &'static str,
    about: &'static str,
    parameters: &'static [(&'static str, &'static str)],
) -> Operation {
    Operation { path, about, kind: Kind::Json, parameters }
}

const PROXY: &str = "The proxy's node id, or NAME.NAMESPACE";

/// Everything that is served.
const OPERATIONS: [Operation; 24] = [
    text("/", "This list"),
    text("/healthz", "Whether the program runs"),
    text("/ready", "Whether a mesh was read: 200, or 503"),
    text("/metrics", "Statistics for Prometheus, by istiod's names"),
    text("/version", "The program's version"),
    json("/openapi.json", "This list as an OpenAPI document"),
    json("/api/v1/mesh", "The mesh that is served, and how many proxies have accepted it"),
    json("/api/v1/findings", "What is wrong with the mesh, as analyze says it"),
    json("/api/v1/objects", "Every object of the mesh, with file and line"),
    json("/api/v1/pushes", "The last pushes: who has it, after which time, in how many bytes"),
    json("/api/v1/proxies", "Proxies that are connected, with what they accepted and refused"),
    json_of(
        "/api/v1/explain",
        "How a request of a workload fares, and which lines say so",
        &[
            ("from", "The workload, NAME.NAMESPACE"),
            ("method", "The request's method; GET if left out"),
            ("url", "Where it goes"),
            ("header", "A header, NAME: VALUE; as often as there are headers"),
        ],
    ),
    json_of("/api/v1/proxies/{proxy}", "One proxy", &[("proxy", PROXY)]),
    json_of(
        "/api/v1/proxies/{proxy}/config",
        "What a proxy is told, as Envoy's /config_dump",
        &[("proxy", PROXY)],
    ),
    json("/debug/syncz", "istiod's: versions sent and accepted"),
    json("/debug/adsz", "istiod's: who is connected, and what it asks for"),
    json("/debug/connections", "istiod's: who is connected"),
    json("/debug/configz", "istiod's: every object of the mesh"),
    json("/debug/registryz", "istiod's: every service of the mesh"),
    json("/debug/endpointz", "istiod's: what stands behind every service"),
    json("/debug/endpointShardz", "The same"),
    json_of("/debug/config_dump", "istiod's: what a proxy is told", &[("proxyID", PROXY)]),
    json_of("/debug/edsz", "istiod's: the endpoints that a proxy is told", &[("proxyID", PROXY)]),
    json("/debug/list", "istiod's: the paths below /debug"),
];

/// The OpenAPI document.
pub(super) fn document() -> Value {
    let paths: Map<String, Value> =
        OPERATIONS.iter().map(|it| (it.path.to_owned(), path(it))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrigger's control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How things stand with the mesh and its proxies. Nothing can be changed here.",
        },
        "paths": paths,
    })
}

fn path(operation: &Operation) -> Value {
    let content = match operation.kind {
        Kind::Text => json!({"text/plain": {"schema": {"type": "string"}}}),
        Kind::Json => json!({"application/json": {"schema": {}}}),
    };
    let mut responses = json!({"200": {"description": operation.about, "content": content}});
    let parameters: Vec<Value> = operation
        .parameters
        .iter()
        .map(|(name, about)| {
            let place = if operation.path.contains('{') { "path" } else { "query" };
            let required = !matches!(*name, "method" | "header");
            json!({"name": name, "in": place, "required": required, "description": about, "schema": {"type": "string"}})
        })
        .collect();
    if !parameters.is_empty() {
        responses["404"] = json!({"description": "No such proxy is connected"});
    }
    json!({"get": {"summary": operation.about, "parameters": parameters, "responses": responses}})
}

/// The same as a page.
pub(super) fn index() -> String {
    let mut page = String::from("Outrigger's control plane\n\n");
    for Operation { path, about, .. } in &OPERATIONS {
        let _ = writeln!(page, "{path:<32} {about}");
    }
    page
}

/// What stands below `/debug`, as istiod lists it.
pub(super) fn debug_paths() -> Value {
    let below = OPERATIONS.iter().filter(|it| it.path.starts_with("/debug/"));
    below.map(|it| (it.path.to_owned(), json!(it.about))).collect::<Map<_, _>>().into()
}
