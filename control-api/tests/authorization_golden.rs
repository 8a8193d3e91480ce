//! `AuthorizationPolicy` of Istio's own tests: our filters must be the ones that Istio expects there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_api::model::Mesh;
use control_api::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use control_api::model::object::{SourceFile, read_file};
use control_api::translate::proxy::Proxy;
use control_api::translate::security;
use control_api::yaml;
use serde::Deserialize;
use serde_json::Value;
use xds::envoy::config::core::v3::Node;
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

#[derive(Deserialize)]
struct Case {
    id: String,
    protocol: String,
    workload: Workload,
    trust_domain: String,
    trust_domain_aliases: Vec<String>,
    mesh_config: Option<Value>,
    input_yaml: String,
    golden_filters: Vec<String>,
}

#[derive(Deserialize)]
struct Workload {
    namespace: String,
    labels: std::collections::BTreeMap<String, String>,
}

/// The authorization service that the cases name.
const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: my-custom-ext-authz, namespace: foo}, \
                       spec: {ports: [{name: http, port: 9000}]}}";

fn cases() -> Option<Vec<Case>> {
    let given = std::env::var_os("SUITES_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let Ok(text) = fs::read_to_string(given.unwrap_or(beside).join("istio_authz_golden.jsonl"))
    else {
        assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no SUITES_DIR");
        eprintln!("SKIPPED: no SUITES_DIR with Istio's cases of authorization");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn mesh(case: &Case) -> Mesh {
    let mut config = MeshConfig::default();
    if let Some(given) = &case.mesh_config {
        // A length of time that the suite's writer printed as no protobuf does.
        let text = given.to_string().replace("2e-06s", "0.002s");
        let documents = xds::yaml::tree::parse_all(&text).unwrap();
        config = yaml::read(&documents[0], "", &[]).value.unwrap();
    }
    config.trust_domain.clone_from(&case.trust_domain);
    config.trust_domain_aliases.clone_from(&case.trust_domain_aliases);
    let text = format!("{}\n---\n{SERVICE}\n", case.input_yaml);
    let file = SourceFile::new(Path::new("input.yaml"), text);
    let objects = read_file(&file, "default").unwrap();
    Mesh::new(objects.into_iter().map(|it| Arc::new(it.unwrap())), config, MeshNetworks::default())
}

fn proxy(workload: &Workload) -> Proxy {
    let id = format!("sidecar~10.0.0.1~httpbin-1.{}~cluster.local", workload.namespace);
    let mut proxy = Proxy::of(&Node { id, ..Node::default() }).unwrap();
    proxy.labels.clone_from(&workload.labels);
    proxy
}

/// The filter as JSON, with what Envoy's own defaults are left out.
fn read<M: prost::Message + prost::Name + Default>(yaml: &str) -> Value {
    let message: M = xds::yaml::Document::new("golden", yaml.to_owned()).read().unwrap();
    xds::json::to_json(&message)
}

#[test]
fn filters_are_those_that_istio_expects() {
    let Some(cases) = cases() else { return };
    assert!(cases.len() >= 16, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let (mesh, proxy) = (mesh(case), proxy(&case.workload));
        let golden = case.golden_filters.iter();
        let (ours, theirs): (Vec<Value>, Vec<Value>) = if case.protocol == "http" {
            let ours = security::http_filters(&mesh, &proxy);
            let theirs = golden.map(|it| read::<HttpFilter>(it)).collect();
            (ours.iter().map(xds::json::to_json).collect(), theirs)
        } else {
            let ours = security::network_filters(&mesh, &proxy);
            let theirs = golden.map(|it| read::<Filter>(it)).collect();
            (ours.iter().map(xds::json::to_json).collect(), theirs)
        };
        if ours != theirs {
            let shown = |all: &[Value]| serde_json::to_string_pretty(all).unwrap();
            wrong.push(format!("{}\nours {}\ntheirs {}", case.id, shown(&ours), shown(&theirs)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
