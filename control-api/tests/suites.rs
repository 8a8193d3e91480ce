//! Objects that nobody in this project wrote: all are read, and judged as Istio judges them.
//!
//! Each test prints a table of what passed and what did not, and fails unless every difference is explained here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use control_api::model::Mesh;
use control_api::model::istio::mesh_config::{MeshConfig, MeshNetworks};
use control_api::source::ObjectSet;
use control_api::source::directory::Directory;
use control_api::validate;
use control_api::validate::code::Level;
use control_api::validate::finding::{Finding, Findings};
use control_api::yaml;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The folder of test data from other projects; the test is skipped, loudly, without it.
fn suites() -> Option<PathBuf> {
    let given = std::env::var_os("SUITES_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let found = given.unwrap_or(beside);
    if found.is_dir() {
        return Some(found);
    }
    assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no SUITES_DIR");
    eprintln!("SKIPPED: no SUITES_DIR with test data of other projects");
    None
}

fn lines<T: DeserializeOwned>(file: &Path) -> Vec<T> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn settings<T: DeserializeOwned + Default>(text: Option<&str>) -> T {
    let Some(text) = text else { return T::default() };
    let documents = xds::yaml::tree::parse_all(text).unwrap();
    yaml::read(&documents[0], "", &[]).value.unwrap()
}

fn load(paths: impl IntoIterator<Item = PathBuf>, namespace: &str) -> ObjectSet {
    Directory::new(paths).with_default_namespace(namespace).load()
}

/// Writes files into a folder of their own and loads them.
fn load_texts(files: &BTreeMap<String, String>, namespace: &str) -> ObjectSet {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    load([folder.path().to_owned()], namespace)
}

#[derive(Deserialize)]
struct Analysis {
    id: String,
    analyzer: String,
    inputs: BTreeMap<String, String>,
    mesh_config: Option<String>,
    mesh_networks: Option<String>,
    expect_messages: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    message: String,
    code: String,
    level: String,
    origin: String,
}

/// Cases with another outcome than Istio's, and why that is right.
const DIFFERENT_ANALYSES: [(&str, &str); 0] = [];

#[test]
fn analyzers_find_what_istios_find() {
    let Some(suites) = suites() else { return };
    let cases: Vec<Analysis> = lines(&suites.join("istio_analyzers.jsonl"));
    let mut failed = Vec::new();
    for case in &cases {
        // Istio's own tests give objects no namespace by default.
        let set = load_texts(&case.inputs, "");
        let objects = set.objects.iter().cloned();
        let config: MeshConfig = settings(case.mesh_config.as_deref());
        let networks: MeshNetworks = settings(case.mesh_networks.as_deref());
        let mesh = Mesh::new(objects, config, networks);
        let rule = validate::rules().find(|rule| rule.name == case.analyzer);
        let mut findings = Findings::default();
        rule.unwrap_or_else(|| panic!("no {}", case.analyzer)).check(&mesh, &mut findings);

        let mut found: Vec<String> = findings.iter().map(shown).collect();
        let mut expected: Vec<String> = case
            .expect_messages
            .iter()
            .map(|it| format!("{} {} {} {}", it.code, it.message, it.level, it.origin))
            .collect();
        found.sort();
        expected.sort();
        let explained = DIFFERENT_ANALYSES.iter().find(|(id, _)| *id == case.id);
        let passed = found == expected;
        let mark = if passed { "passed" } else { "FAILED" };
        println!("{mark} {} {}", case.id, explained.map(|it| it.1).unwrap_or_default());
        if passed == explained.is_some() || !set.failures.is_empty() {
            failed.push(format!(
                "{}\n  found {found:#?}\n  wanted {expected:#?}\n  {:#?}",
                case.id, set.failures
            ));
        }
    }
    println!("{} of {} cases", cases.len() - failed.len(), cases.len());
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

fn shown(finding: &Finding) -> String {
    format!("{} {} {} {}", finding.code.id, finding.code.name, finding.level(), finding.subject)
}

#[derive(Deserialize)]
struct Validation {
    id: String,
    resource: serde_json::Value,
    expect: Verdict,
}

#[derive(Deserialize)]
struct Verdict {
    valid: bool,
    error_contains: Option<String>,
}

/// Cases with another outcome than an API server's, and why that is right.
const DIFFERENT_VALIDATIONS: [(&str, &str); 0] = [];

#[test]
fn objects_are_refused_as_an_api_server_refuses_them() {
    let Some(suites) = suites() else { return };
    let cases: Vec<Validation> = lines(&suites.join("istio_crd_validation.jsonl"));
    let mut failed = Vec::new();
    for case in &cases {
        let files = [("x.json".to_owned(), case.resource.to_string())].into();
        let set = load_texts(&files, "default");
        let mesh =
            Mesh::new(set.objects.iter().cloned(), MeshConfig::default(), MeshNetworks::default());
        let mut findings = validate::everything(&set, &mesh);
        // What other objects are missing is not asked here.
        findings.retain(|it| it.code.id == "IST0106");
        let errors: Vec<_> = findings.iter().map(|it| it.message.clone()).collect();
        let as_wanted = match &case.expect {
            Verdict { valid: true, .. } => errors.is_empty(),
            Verdict { error_contains: Some(text), .. } => errors.iter().any(|it| it.contains(text)),
            Verdict { .. } => !errors.is_empty(),
        };
        let explained = DIFFERENT_VALIDATIONS.iter().find(|(id, _)| *id == case.id);
        let mark = if as_wanted { "passed" } else { "FAILED" };
        println!("{mark} {} {}", case.id, explained.map(|it| it.1).unwrap_or_default());
        if as_wanted == explained.is_some() {
            let wanted = &case.expect.error_contains;
            failed.push(format!("{}\n  found {errors:#?}\n  wanted {wanted:?}", case.id));
        }
    }
    println!("{} of {} cases", cases.len() - failed.len(), cases.len());
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}

/// No object of these is refused, and no field of them unknown.
fn must_be_clean(set: &ObjectSet) {
    assert!(set.failures.is_empty(), "{:#?}", set.failures);
    let mut findings = Findings::default();
    for object in &set.objects {
        validate::one_object(object, &mut findings);
    }
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| {
            finding.level() == Level::Error || finding.message.contains("unknown field")
        })
        .map(|finding| {
            format!(
                "{} {} {}",
                finding.subject,
                finding.reference().unwrap_or_default(),
                finding.message
            )
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn istios_samples_load_unmodified() {
    let Some(suites) = suites() else { return };
    let set = load([suites.join("istio-samples")], "default");
    assert!(set.objects.len() > 130, "{}", set.objects.len());
    must_be_clean(&set);
}

#[test]
fn the_input_of_a_recorded_istiod_loads() {
    let Some(suites) = suites() else { return };
    let input = suites.join("istiod-1.30-ads/input");
    let is_settings = |path: &Path| path.ends_with("00-mesh-config.yaml");
    let files: Vec<PathBuf> =
        fs::read_dir(&input).unwrap().map(|entry| entry.unwrap().path()).collect();
    let text = fs::read_to_string(input.join("00-mesh-config.yaml")).unwrap();
    let config: MeshConfig = settings(Some(&text));
    assert_eq!(config.extension_providers.len(), 7);
    let yaml = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|it| it == "yaml");
    let set = load(files.into_iter().filter(yaml).filter(|path| !is_settings(path)), "default");
    must_be_clean(&set);
}

#[derive(Deserialize)]
struct Conformance {
    id: String,
    manifests: BTreeMap<String, String>,
}

#[test]
fn the_gateway_apis_conformance_manifests_load() {
    let Some(suites) = suites() else { return };
    must_be_clean(&load([suites.join("gwapi_base")], "default"));
    let cases: Vec<Conformance> = lines(&suites.join("gateway_api_conformance.jsonl"));
    for case in cases {
        println!("{}", case.id);
        must_be_clean(&load_texts(&case.manifests, "default"));
    }
}
