//! The program as it is run: exit codes, text and JSON.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const GOOD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
";

const WRONG: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: rewievs}
    timout: 1s
";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger-control")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn analyze(folder: &Path, more: &[&str]) -> Output {
    run(&[&["analyze", folder.to_str().unwrap()], more].concat())
}

#[test]
fn without_a_command_it_says_what_there_is() {
    let output = run(&[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("Serve a mesh"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_good_folder_has_no_issues() {
    let folder = folder(&[("a.yaml", GOOD)]);
    let output = analyze(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).starts_with("✔ No issues found in 1 objects"), "{output:?}");
}

#[test]
fn findings_name_file_line_and_fix() {
    let folder = folder(&[("a.yaml", GOOD), ("b.yaml", WRONG)]);
    let output = analyze(folder.path(), &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let place = folder.path().join("b.yaml");
    let line = |number: u32| format!("(VirtualService shop/reviews {}:{number})", place.display());
    assert!(said.contains(&format!("Error [IST0101] {}", line(8))), "{said}");
    assert!(said.contains(&format!("Warning [IST0133] {}", line(9))), "{said}");
    assert!(said.contains("did you mean \"timeout\"?"), "{said}");
    assert!(said.contains("    fix: a short name means the namespace shop"), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours into a pipe");
}

#[test]
fn thresholds_and_suppression_choose_what_counts() {
    let folder = folder(&[("a.yaml", GOOD), ("b.yaml", WRONG)]);
    let code = |more: &[&str]| analyze(folder.path(), more).status.code();
    assert_eq!(code(&["-S", "IST0101=VirtualService shop/*"]), Some(0));
    assert_eq!(code(&["-S", "IST0101", "--failure-threshold", "warning"]), Some(1));
    let errors = analyze(folder.path(), &["--output-threshold", "Error"]);
    assert!(!said(&errors).contains("IST0133"), "{errors:?}");
    let annotated = WRONG.replace(
        "namespace: shop}",
        "namespace: shop, annotations: {galley.istio.io/analyze-suppress: \"IST0101, IST0133\"}}",
    );
    fs::write(folder.path().join("b.yaml"), annotated).unwrap();
    assert_eq!(code(&["--failure-threshold", "Warning"]), Some(0));
}

#[test]
fn json_has_istioctls_fields() {
    let folder = folder(&[("a.yaml", GOOD), ("b.yaml", WRONG)]);
    let output = analyze(folder.path(), &["--output", "json"]);
    let list: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found = list.iter().find(|it| it["code"] == "IST0101").unwrap();
    assert_eq!(found["level"], "Error");
    assert_eq!(found["origin"], "VirtualService shop/reviews");
    assert_eq!(found["path"], "spec.http[0].route[0].destination.host");
    assert!(found["reference"].as_str().unwrap().ends_with("b.yaml:8"));
    assert!(found["documentationUrl"].as_str().unwrap().ends_with("/ist0101/"));
}

#[test]
fn broken_files_are_loud_and_do_not_hide_the_others() {
    let folder = folder(&[("a.yaml", GOOD), ("b.yaml", "kind: [\n"), ("c.yaml", WRONG)]);
    let output = analyze(folder.path(), &[]);
    let said = said(&output);
    assert!(said.contains("Error [OUT0001] (File ") && said.contains("[IST0101]"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(run(&["analyze", "/does/not/exist"]).status.code(), Some(1));
    assert_eq!(run(&["analyze"]).status.code(), Some(2));
}

#[test]
fn help_teaches() {
    let help = said(&run(&["analyze", "--help"]));
    for word in ["Examples:", "Exit code:", "analyze-suppress", "--failure-threshold"] {
        assert!(help.contains(word), "{help}");
    }
    let help = said(&run(&["run", "--help"]));
    for word in ["Examples:", "xds-grpc", "SIGTERM", "proxy-status"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(said(&run(&["analyze", "--list"])).contains("virtualservice.GatewayAnalyzer: "));
}
